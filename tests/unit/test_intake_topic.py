"""The handler of the `intake` topic."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.envelope import Envelope, Fact
from schemas.messages import Failure, Reason, Request
from schemas.topology import DEAD_LETTERS, IDEMPOTENCY, INTAKE, REQUESTS, stage_named
from services.intake.main import Intake
from shared.broker import Output, Record
from shared.catalogue import EMPTY, Catalogue
from shared.outcome import Emit, Outcome, Reject
from shared.stage import Runner
from tests.support.builders_edge import (
    NOW_MS,
    FixedClock,
    a_broker,
    a_catalogue,
    a_context,
    a_verdict,
    an_intake_record,
    records_of,
    requests_in,
    until,
)


class Bench:
    """An intake without HTTP, whose catalogue can be swapped."""

    def __init__(self, intake: Intake, catalogue: list[Catalogue]) -> None:
        self.intake = intake
        self.catalogue = catalogue

    async def handle(self, record: Record) -> Outcome:
        outcome = self.intake.handle(record, a_context(record=record))
        return outcome if isinstance(outcome, Emit | Reject) else await outcome  # type: ignore[misc]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = FixedClock()
    catalogue = [a_catalogue()]
    intake = Intake(await a_broker(clock), clock, lambda: catalogue[0])
    await intake.open()
    yield Bench(intake, catalogue)
    await intake.stop()


def request_of(outcome: Outcome) -> Envelope[Request]:
    assert isinstance(outcome, Emit | Reject)
    (out,) = outcome.outputs
    assert out.topic is REQUESTS
    assert isinstance(out.value, Envelope)
    return out.value


async def test_a_record_becomes_a_request(bench: Bench) -> None:
    outcome = bench.intake.handle(an_intake_record({"prompt": "hi"}), a_context())
    envelope = request_of(outcome)  # type: ignore[arg-type]
    assert isinstance(outcome, Emit)
    assert (envelope.tenant, envelope.accepted_ms, envelope.reply) == ("demo", NOW_MS, None)
    assert envelope.payload == Request(
        source="topic", body={"prompt": "hi"}, fingerprint=envelope.payload.fingerprint
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"prompt": "hi", "deadline_ms": "soon"}, Reason.INVALID_REQUEST),
        ({"prompt": "hi", "tenant": "nobody"}, Reason.UNKNOWN_TENANT),
        ({"prompt": "hi", "tenant": "nobody", "idempotency_key": "k"}, Reason.UNKNOWN_TENANT),
        ({"prompt": "hi", "app": 1, "idempotency_key": "k"}, Reason.INVALID_REQUEST),
        ([1], Reason.INVALID_REQUEST),
        (b'{"prompt": "' + b"x" * 1_100_000 + b'"}', Reason.TOO_LARGE),
    ],
)
async def test_a_refused_record_is_a_request_with_its_failure(bench: Bench, value: Any, reason: Reason) -> None:
    outcome = await bench.handle(an_intake_record(value))
    assert isinstance(outcome, Emit)
    failure = request_of(outcome).payload.failure
    assert failure is not None
    assert failure.reason is reason


@pytest.mark.parametrize("raw", [None, b"", b"{", b"\xff", b'{"a": NaN}'])
async def test_what_is_not_json_is_a_dead_letter_and_a_refused_request(bench: Bench, raw: bytes | None) -> None:
    outcome = await bench.handle(an_intake_record(raw))
    assert isinstance(outcome, Reject)
    assert outcome.reason is Reason.MALFORMED_JSON
    envelope = request_of(outcome)
    assert envelope.payload.failure is not None
    assert (envelope.tenant, envelope.payload.failure.reason) == ("demo", Reason.MALFORMED_JSON)


async def test_before_the_first_config_a_record_waits(bench: Bench) -> None:
    bench.catalogue[0] = EMPTY
    task = asyncio.create_task(bench.handle(an_intake_record({"prompt": "hi"})))
    await asyncio.sleep(0)
    assert not task.done()
    bench.catalogue[0] = a_catalogue()
    assert request_of(await task).payload.failure is None


async def test_the_same_key_is_the_same_request_and_another_body_is_refused(bench: Bench) -> None:
    body = {"prompt": "hi", "idempotency_key": "k"}
    first = request_of(await bench.handle(an_intake_record(body, offset=0)))
    again = request_of(await bench.handle(an_intake_record(body, offset=1, timestamp_ms=NOW_MS - 5)))
    other = request_of(await bench.handle(an_intake_record(body | {"prompt": "ho"}, offset=2)))
    assert again == first
    assert other.request_id != first.request_id
    assert other.payload.failure is not None
    assert other.payload.failure.message.startswith("idempotency_key: ")
    assert len(records_of(bench.intake._broker, IDEMPOTENCY)) == 1  # type: ignore[arg-type]


async def test_a_replayed_conflict_stays_a_conflict(bench: Bench) -> None:
    await bench.handle(an_intake_record({"prompt": "hi", "idempotency_key": "k"}, offset=0))
    conflict = an_intake_record({"prompt": "ho", "idempotency_key": "k"}, offset=1)
    assert request_of(await bench.handle(conflict)) == request_of(await bench.handle(conflict))


async def test_a_record_that_waits_for_its_claim_is_not_overtaken_by_one_of_its_ordering_key(bench: Bench) -> None:
    ended: list[int] = []

    async def run(offset: int, value: dict[str, Any]) -> None:
        await bench.handle(an_intake_record(value, offset))
        ended.append(offset)

    keyed = {"prompt": "a", "ordering_key": "o", "idempotency_key": "k"}
    free = {"prompt": "b", "ordering_key": "o"}
    tasks = [asyncio.create_task(run(n, value)) for n, value in enumerate((keyed, free, keyed | {"idempotency_key": "l"}, free))]
    tasks.append(asyncio.create_task(run(4, free | {"ordering_key": "p"})))
    await asyncio.gather(*tasks)
    assert [n for n in ended if n != 4] == [0, 1, 2, 3]
    assert ended.index(4) == 0
    assert not bench.intake._turns


async def test_on_the_runner_each_record_of_the_topic_becomes_one_request() -> None:
    broker = await a_broker()
    values = [b'{"prompt": "a"}', b"{", b'{"prompt": "b", "idempotency_key": "k"}', b'{"prompt": "b", "idempotency_key": "k"}']
    for number, value in enumerate(values):
        broker.append(Output(INTAKE.name, None, value, (), number % 2))
    intake = Intake(broker, broker.clock, a_catalogue)
    await intake.open()
    stop = asyncio.Event()
    running = asyncio.create_task(Runner(stage_named("intake"), intake, broker).run(stop))
    await until(lambda: len(requests_in(broker)) == 4)
    stop.set()
    await running
    await intake.stop()
    assert len({envelope.request_id for envelope in requests_in(broker)}) == 3
    assert [record.value for record in records_of(broker, DEAD_LETTERS)] == [b"{"]


def test_a_failure_of_the_stage_itself_is_a_request_with_that_failure() -> None:
    envelope = a_verdict("r9").forward(Envelope[Fact], "r9", Fact())
    failure = Failure(reason=Reason.HANDLER_CRASHED, stage="intake")
    (out,) = Intake.failed(None, envelope, failure)  # type: ignore[arg-type]
    assert isinstance(out.value, Envelope)
    assert (out.value.request_id, out.value.payload.failure) == ("r9", failure)
