"""`baton send`: requests to the intake topic, and their results back. The same correspondence serves `baton up --demo`.

It never adds to a request: results are told apart by the request id that follows from a record's place in the topic.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import click
import orjson

from schemas.messages import Lane, Result
from schemas.topology import INTAKE, RESULTS
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.results_table import explained, models, usd
from shared.broker import Broker, Output, Producer, Reader, Record
from shared.codec import decode
from shared.ids import request_id_of_record

POLL_MS = 200
WAIT_S = 120.0
GRACE_S = 10.0          # `expired` comes a little after the deadline


@dataclass
class Correspondence:
    """An open line: what is sent, and every result from now on."""

    producer: Producer
    intake: Reader
    results: Reader

    async def send(self, outputs: Sequence[Output]) -> list[str]:
        """Write records to `intake`, in order; return the request ids that they get. Raises BrokerUnavailableError."""
        await asyncio.gather(*[await self.producer.send(output) for output in outputs])
        ids: dict[int, str] = {}
        while len(ids) < len(outputs):
            for record in await self.intake.poll(POLL_MS):
                mine = next((at for at, output in enumerate(outputs) if at not in ids and _is(record, output)), None)
                if mine is not None:
                    ids[mine] = request_id_of_record(record.partition, record.offset, record.timestamp_ms)
        return [ids[at] for at in range(len(outputs))]

    async def answers(self, timeout_s: float) -> AsyncIterator[tuple[Result, int]]:
        """Results of anybody, each with the broker's time of it in epoch ms; ends after `timeout_s`."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline_s:
            for record in await self.results.poll(POLL_MS):
                yield decode(RESULTS, record.value), record.timestamp_ms


def _is(record: Record, output: Output) -> bool:
    return record.value == output.value and record.key == output.key


@asynccontextmanager
async def correspondence(broker: Broker) -> AsyncIterator[Correspondence]:
    """Open before anything is sent, so that nothing is missed. Raises BrokerUnavailableError."""
    line = Correspondence(
        await broker.producer(), await broker.reader(INTAKE.name, at_end=True), await broker.reader(RESULTS.name, at_end=True)
    )
    try:
        yield line
    finally:
        await asyncio.gather(line.producer.close(), line.intake.close(), line.results.close())


def record_of(body: bytes, ordering_key: str | None = None) -> Output:
    """A record for `intake`. Requests that share an ordering key must share a partition to be accepted in order."""
    return Output(INTAKE.name, ordering_key.encode() if ordering_key else None, body)


# On the command line --------------------------------------------------------------------------------------------------


@click.command("send")
@click.argument("prompt", required=False)
@click.option("--file", type=click.File("rb"), help="JSON lines to send instead of a prompt; - is standard input.")
@click.option("--model", help="Pin a model; default: Baton chooses.")
@click.option("--priority", type=click.Choice([lane.value for lane in Lane]))
@click.option("--deadline-ms", type=click.IntRange(1), help="Within which an answer is of use.")
@click.option("--max-cost-usd", type=click.FloatRange(0))
@click.option("--tenant", help="Default: the one that needs no key.")
@click.option("--ordering-key", help="Requests that share it are answered in the order sent.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the results.")
@bootstrap_option
def send(prompt: str | None, file: BinaryIO | None, wait: bool, bootstrap: str | None, **options: Any) -> None:
    """Ask something through the intake topic, and print the answer."""
    if (prompt is None) == (file is None):
        raise click.UsageError("give a prompt, or --file with JSON lines")
    if file is not None:
        bodies = [line for line in file.read().splitlines() if line.strip()]
    else:
        bodies = [orjson.dumps({"prompt": prompt} | {name: value for name, value in options.items() if value is not None})]
    wait_s = max(WAIT_S, (options["deadline_ms"] or 0) / 1000 + GRACE_S) if wait else 0
    unanswered = run(_send([_record(body) for body in bodies], wait_s, bootstrap))
    if unanswered:
        raise click.ClickException(f"no result yet of {', '.join(unanswered)}; see: baton trace {unanswered[0]}")


def _record(body: bytes) -> Output:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return record_of(body)      # Baton's to refuse, not ours
    key = parsed.get("ordering_key") if isinstance(parsed, Mapping) else None
    return record_of(body, key if isinstance(key, str) else None)


def _is_keyed(output: Output) -> bool:
    return b'"idempotency_key"' in (output.value or b"")


async def _send(outputs: Sequence[Output], wait_s: float, bootstrap: str | None) -> list[str]:
    """Ids of the requests that have no result after `wait_s`; with 0 the ids are printed instead."""
    async with connected(known_settings(bootstrap)) as broker, correspondence(broker) as line:
        ids = await line.send(outputs)
        ids = [id for id, output in zip(ids, outputs, strict=True) if not _is_keyed(output)]
        if len(ids) < len(outputs):
            click.echo("Results of lines with an idempotency key have the id of its first use: baton tail results", err=True)
        if not wait_s:
            click.echo("\n".join(ids))
            return []
        missing = set(ids)
        async for result, at_ms in line.answers(wait_s if missing else 0):
            if result.request_id in missing:
                missing.discard(result.request_id)
                click.echo(text_of(result, at_ms))
            if not missing:
                break
        return [id for id in ids if id in missing]


def text_of(result: Result, at_ms: int) -> str:
    """The answer first; then, dim, what it took."""
    answer = result.answer
    shown = answer.text if answer and answer.text else ""
    if answer and answer.tool_calls:
        shown += "\n".join(orjson.dumps(call.get("function", call)).decode() for call in answer.tool_calls)
    took = [explained(result), models(result), f"{at_ms - result.accepted_ms} ms", f"{usd(result.cost_microusd)} USD"]
    facts = click.style(" · ".join(fact for fact in [*took, result.request_id] if fact), dim=True)
    return f"{shown}\n{facts}" if shown else facts
