"""`baton trace`: one request through every topic that carries it. It only reads."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import click

from schemas.envelope import Header
from schemas.topology import (
    ATTEMPTS,
    COMPLETIONS,
    DEAD_LETTERS,
    ESCALATIONS,
    FEEDBACK,
    INTAKE,
    PLANS,
    REQUESTS,
    RESULTS,
    REVIEW_DECISIONS,
    REVIEWS,
    TASKS,
    VERDICTS,
    Topic,
)
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.describe import describe, request_of
from services.cli.request_ids import RequestId, whole_id
from shared.broker import Broker, Record

PATH = (
    INTAKE, REQUESTS, TASKS, *PLANS.values(), ATTEMPTS, COMPLETIONS, ESCALATIONS, REVIEW_DECISIONS, REVIEWS, VERDICTS, RESULTS,
    FEEDBACK, DEAD_LETTERS,
)
"""In the order of the flow: it decides between records of the same millisecond."""

POLL_MS = 500


@dataclass(frozen=True)
class Step:
    """One record of the request."""

    topic: Topic
    record: Record
    request_id: str = ""


async def steps_of(broker: Broker, beginning: str, topics: Sequence[Topic] = PATH) -> list[Step]:
    """Every record of the request whose id begins so, oldest first. Reads each topic once, all at the same time.

    Raises ClickException where more than one request begins so.
    """
    found = await asyncio.gather(*(_steps_on(broker, topic, beginning) for topic in topics))
    steps = [step for steps in found for step in steps]
    whole = whole_id(beginning, (step.request_id for step in steps))
    mine = [step for step in steps if step.request_id == whole]
    return sorted(mine, key=lambda step: (step.record.timestamp_ms, topics.index(step.topic)))


async def _steps_on(broker: Broker, topic: Topic, beginning: str) -> list[Step]:
    reader = await broker.reader(topic.name)
    steps = []
    try:
        for partition, end in (await reader.ends()).items():
            while await reader.position(partition) < end:
                for record in await reader.poll(POLL_MS):
                    id = request_of(topic, record) or ""
                    if id.startswith(beginning):
                        steps.append(Step(topic, record, id))
    finally:
        await reader.close()
    return steps


def accepted_ms(steps: list[Step]) -> int:
    """When the request was accepted: every record of a stage says so; else when its first record was written."""
    said = (step.record.header(Header.ACCEPTED_MS) for step in steps)
    return next((int(ms) for ms in said if ms), steps[0].record.timestamp_ms)


@click.command("trace")
@click.argument("request_id", type=RequestId())
@bootstrap_option
def trace(request_id: str, bootstrap: str | None) -> None:
    """Everything the log holds of one request, in the order of time."""

    async def found() -> list[Step]:
        async with connected(known_settings(bootstrap)) as broker:
            return await steps_of(broker, request_id)

    steps = run(found())
    if not steps:
        raise click.ClickException(f"no record of a request {request_id}; see: baton tail results --from-beginning")
    began_ms = accepted_ms(steps)
    for step in steps:
        record = step.record
        place = f"{record.partition}@{record.offset}"
        click.echo(f"{record.timestamp_ms - began_ms:+7} ms  {step.topic.name:17} {place:8} {describe(step.topic, record)}")
