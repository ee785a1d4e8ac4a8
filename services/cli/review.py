"""`baton review`: what waits for a person, and the person's decision. The log is read anew each time; nothing is kept."""

import getpass
import time
from collections.abc import Sequence
from typing import TextIO

import click

from schemas.envelope import Envelope, Header
from schemas.messages import ReviewAction
from schemas.review import Review, ReviewDecision
from schemas.topology import REVIEW_DECISIONS, REVIEWS, VERDICTS, Topic
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.request_ids import RequestId, whole_id
from shared.broker import Broker, Output, Record
from shared.codec import decode, encode

POLL_MS = 500
LINE_CHARS = 60


@click.group("review")
def review() -> None:
    """What waits for a person: list, accept, reject or edit answers."""


@review.command("list")
@click.argument("request_id", type=RequestId(), required=False)
@bootstrap_option
def list_(request_id: str | None, bootstrap: str | None) -> None:
    """The answers that wait, soonest deadline first; with an id, all of that one: what was asked, and the answer."""

    async def found() -> list[Envelope[Review]]:
        async with connected(known_settings(bootstrap)) as broker:
            return await open_reviews(broker)

    waiting = run(found())
    if request_id is not None:
        click.echo(whole(_chosen(waiting, request_id)))
    elif waiting:
        click.echo("\n".join(line(each, time.time_ns() // 1_000_000) for each in waiting))
    else:
        click.echo("nothing waits for a person")


def _decides(action: ReviewAction, what: str) -> click.Command:
    @click.argument("request_id", type=RequestId())
    @click.option("--by", default=getpass.getuser, help="Who decides, as the verdict will say. Default: you.")
    @bootstrap_option
    def command(request_id: str, by: str, bootstrap: str | None) -> None:
        run(_decided(request_id, action, None, by, bootstrap))

    return review.command(action.value, help=what)(command)


_decides(ReviewAction.ACCEPT, "Deliver the answer as it is.")
_decides(ReviewAction.REJECT, "Deliver no answer: the request ends failed.")


@review.command("edit")
@click.argument("request_id", type=RequestId())
@click.argument("text", required=False)
@click.option("--file", type=click.File("r"), help="Where the text stands instead; - is standard input.")
@click.option("--by", default=getpass.getuser, help="Who decides, as the verdict will say. Default: you.")
@bootstrap_option
def edit(request_id: str, text: str | None, file: TextIO | None, by: str, bootstrap: str | None) -> None:
    """Deliver TEXT instead of the answer."""
    if (text is None) == (file is None):
        raise click.UsageError("give the text, or --file with it")
    run(_decided(request_id, ReviewAction.EDIT, file.read() if file else text, by, bootstrap))


async def _decided(request_id: str, action: ReviewAction, text: str | None, by: str, bootstrap: str | None) -> None:
    async with connected(known_settings(bootstrap)) as broker:
        chosen = _chosen(await open_reviews(broker), request_id)
        await decide(broker, chosen, action, text, by, time.time_ns() // 1_000_000)
    click.echo(f"{action.value}: {chosen.request_id}; what came of it: baton trace {chosen.request_id}")


async def decide(
    broker: Broker, chosen: Envelope[Review], action: ReviewAction, text: str | None, by: str, now_ms: int
) -> None:
    """Write a decision under the review's own key, which takes it to where the answer is held."""
    said = ReviewDecision(request_id=chosen.request_id, action=action, text=text, by=by, at_ms=now_ms)
    producer = await broker.producer()
    try:
        output = Output(REVIEW_DECISIONS.name, chosen.key.encode(), encode(REVIEW_DECISIONS, said),
                        ((Header.SUBJECT, chosen.request_id.encode()),))
        await (await producer.send(output))
    finally:
        await producer.close()


async def open_reviews(broker: Broker) -> list[Envelope[Review]]:
    """The reviews whose request has no verdict yet, soonest deadline first."""
    parked: dict[str, Envelope[Review]] = {}
    for record in await _records(broker, REVIEWS, 0):
        envelope: Envelope[Review] = decode(REVIEWS, record.value)
        if envelope.payload.verdict is not None:
            parked.setdefault(envelope.request_id, envelope)
    since_ms = min((each.accepted_ms for each in parked.values()), default=None)
    if since_ms is not None:
        judged = {record.header(Header.SUBJECT) for record in await _records(broker, VERDICTS, since_ms)}
        parked = {id: each for id, each in parked.items() if id not in judged}
    return sorted(parked.values(), key=lambda each: each.payload.until_ms)


async def _records(broker: Broker, topic: Topic, since_ms: int) -> list[Record]:
    reader = await broker.reader(topic.name, since_ms=since_ms)
    found: list[Record] = []
    try:
        for partition, end in (await reader.ends()).items():
            while await reader.position(partition) < end:
                found += await reader.poll(POLL_MS)
    finally:
        await reader.close()
    return found


def _chosen(waiting: Sequence[Envelope[Review]], beginning: str) -> Envelope[Review]:
    """The one whose id begins so. Raises ClickException where there is none, or more than one."""
    by_id = {each.request_id: each for each in waiting}
    whole = whole_id(beginning, by_id)
    if whole is None:
        raise click.ClickException("nothing under review has this id; see: baton review list")
    return by_id[whole]


def line(envelope: Envelope[Review], now_ms: int) -> str:
    review = envelope.payload
    left_s = max(review.until_ms - now_ms, 0) // 1000
    text = " ".join(_answer(review).split())
    shown = text[:LINE_CHARS] + ("…" if len(text) > LINE_CHARS else "")
    return f"{envelope.request_id}  {envelope.tenant}  {review.default.value} in {left_s} s  {review.reason}  “{shown}”"


def whole(envelope: Envelope[Review]) -> str:
    """Everything a person needs to decide."""
    review = envelope.payload
    asked = review.chat.messages if review.chat else ()
    turns = [f"{message.get('role', '')}: {message.get('content', '')}" for message in asked]
    ran = review.verdict.checks if review.verdict else ()
    checks = [f"{'✓' if check.passed else '✗'} {check.name} {check.detail}".rstrip() for check in ran]
    first = f"{envelope.request_id}, tenant {envelope.tenant}: {review.reason}"
    return "\n".join([first, *checks, "", *turns, "", _answer(review)])


def _answer(review: Review) -> str:
    answer = review.verdict.answer if review.verdict else None
    if answer is None:
        return ""
    return "\n".join([answer.text, *(str(call.get("function", call)) for call in answer.tool_calls)]).strip()
