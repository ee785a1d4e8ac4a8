"""Output: one result per request, however often its verdict comes."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from schemas.envelope import Envelope, Fact
from schemas.messages import Failure, Reason, Result, Status, Verdict
from schemas.topology import REPLIES, RESULTS, VERDICTS, stage_named
from services.output.decide import reply_partition, result_of
from services.output.main import Output
from shared.broker import Output as Record
from shared.codec import decode, encode
from shared.local import LocalBroker
from shared.outcome import Drop, Emit, Outcome
from shared.stage import Runner
from tests.support.builders_edge import (
    NOW_MS,
    FixedClock,
    a_broker,
    a_context,
    a_verdict,
    put_result,
    records_of,
    until,
)


@pytest.fixture
async def broker() -> LocalBroker:
    return await a_broker(FixedClock(NOW_MS + 1_000))


async def handled(output: Output, envelope: Envelope[Verdict], partition: int = 0, timestamp_ms: int = NOW_MS) -> Outcome:
    outcome: Any = output.handle(envelope, a_context(partition, timestamp_ms))
    return await outcome if isinstance(outcome, Awaitable) else outcome


def results_of(outcome: Outcome) -> list[Result]:
    assert isinstance(outcome, Emit)
    return [out.value for out in outcome.outputs if isinstance(out.value, Result)]


def test_a_result_says_what_the_verdict_said_and_whose_it_is() -> None:
    envelope = a_verdict(
        "r1", key="demo/user/7", ordered=True, app="shop", metadata={"row": 1}, status=Status.FAILED,
        reason=Reason.QUALITY_NOT_MET, message="m", stage="quality-gate",
    )  # fmt: skip
    result = result_of(envelope)
    verdict = envelope.payload
    for name in Verdict.model_fields:
        assert getattr(result, name) == getattr(verdict, name)
    assert (result.request_id, result.tenant, result.app, result.metadata) == ("r1", "demo", "shop", {"row": 1})
    assert (result.accepted_ms, result.ordering_key) == (NOW_MS, "user/7")
    assert decode(RESULTS, encode(RESULTS, result)) == result


async def test_a_result_is_keyed_as_its_verdict_and_without_a_waiting_caller_nothing_else_goes_out(
    broker: LocalBroker,
) -> None:
    outcome = await handled(Output(broker, 100), a_verdict("r1", key="demo/k", ordered=True))
    assert isinstance(outcome, Emit)
    (out,) = outcome.outputs
    assert (out.topic, out.key, out.partition) == (RESULTS, "demo/k", None)


async def test_a_waiting_caller_gets_the_same_answer_on_its_replicas_partition(broker: LocalBroker) -> None:
    outcome = await handled(Output(broker, 100), a_verdict("r1", key="demo/k", ordered=True, reply="11"))
    assert isinstance(outcome, Emit)
    result, reply = outcome.outputs
    assert (reply.topic, reply.key, reply.partition, reply.value) == (REPLIES, "r1", 11, result.value)


@pytest.mark.parametrize(("reply", "partition"), [(None, None), ("0", 0), ("15", 15), ("16", None), ("-1", None), ("", None),
                                                  ("x", None), ("²", None)])  # fmt: skip
def test_a_reply_goes_to_partitions_that_exist_only(reply: str | None, partition: int | None) -> None:
    assert reply_partition(reply) == partition


async def test_a_second_verdict_of_a_request_is_dropped_even_before_the_first_is_in_the_log(broker: LocalBroker) -> None:
    output = Output(broker, 100)
    assert results_of(await handled(output, a_verdict("r1")))
    assert await handled(output, a_verdict("r1", reply="1")) == Drop("already delivered")


async def test_once_covered_nothing_is_awaited(broker: LocalBroker) -> None:
    output = Output(broker, 100)
    await handled(output, a_verdict("r1"))
    assert isinstance(output.handle(a_verdict("r2"), a_context()), Emit)


async def test_what_an_earlier_owner_delivered_is_found_in_the_log(broker: LocalBroker) -> None:
    put_result(broker, result_of(a_verdict("r1")), partition=2)
    output = Output(broker, 100)
    await output.assigned(frozenset({2}))
    assert isinstance(await handled(output, a_verdict("r1"), partition=2), Drop)
    assert results_of(await handled(output, a_verdict("r2"), partition=2))


async def test_after_an_assignment_only_the_log_counts(broker: LocalBroker) -> None:
    output = Output(broker, 100)
    await output.assigned(frozenset({0}))
    assert results_of(await handled(output, a_verdict("r1")))   # its transaction is lost
    await output.assigned(frozenset({0}))
    assert results_of(await handled(output, a_verdict("r1")))


async def test_a_repeat_older_than_what_is_remembered_is_looked_up(broker: LocalBroker) -> None:
    """Memory for three ids; twenty requests delivered a second apart; each verdict comes again, hours late."""
    output = Output(broker, 3)
    verdicts = [a_verdict(f"r{n}", accepted_ms=NOW_MS + n * 60_000) for n in range(20)]
    for verdict in verdicts:
        broker.clock.ms = verdict.accepted_ms + 1_000  # type: ignore[attr-defined]
        (result,) = results_of(await handled(output, verdict, timestamp_ms=verdict.accepted_ms + 900))
        put_result(broker, result, partition=0)
    for verdict in verdicts:
        assert isinstance(await handled(output, verdict), Drop)
    assert results_of(await handled(output, a_verdict("fresh", accepted_ms=NOW_MS)))


async def test_a_verdict_that_cannot_be_read_is_the_requests_one_result(broker: LocalBroker) -> None:
    output = Output(broker, 100)
    await output.assigned(frozenset({0}))
    envelope = a_verdict("r1", reply="3").forward(Envelope[Fact], "r1", Fact())
    failure = Failure(reason=Reason.UNDECODABLE, stage="output", message="internal error")
    result, reply = output.failed(envelope, failure)
    assert isinstance(result.value, Result)
    assert (result.value.status, result.value.reason) == (Status.FAILED, Reason.UNDECODABLE)
    assert (reply.topic, reply.value) == (REPLIES, result.value)
    assert output.failed(envelope, failure) == ()
    assert isinstance(await handled(output, a_verdict("r1")), Drop)


async def test_on_the_runner_repeats_and_restarts_leave_one_result_and_one_reply_each(broker: LocalBroker) -> None:
    verdicts = [a_verdict(f"r{n % 4}", reply="2") for n in range(12)]

    async def run(some: list[Envelope[Verdict]]) -> None:
        for verdict in some:
            broker.append(Record(VERDICTS.name, verdict.key.encode(), encode(VERDICTS, verdict)))
        stop = asyncio.Event()
        running = asyncio.create_task(Runner(stage_named("output"), Output(broker, 100), broker).run(stop))
        await until(lambda: len(records_of(broker, RESULTS)) >= 4)
        stop.set()
        await running

    await run(verdicts[:8])
    await run(verdicts[8:])
    for topic in (RESULTS, REPLIES):
        assert sorted(decode(topic, record.value).request_id for record in records_of(broker, topic)) == ["r0", "r1", "r2", "r3"]
    assert {record.partition for record in records_of(broker, REPLIES)} == {2}


async def test_a_result_that_did_not_fit_is_replaced_although_its_id_is_remembered(broker: LocalBroker) -> None:
    output = Output(broker, 100)
    await output.assigned(frozenset({0}))
    envelope = a_verdict("r1")
    await handled(output, envelope)
    failure = Failure(reason=Reason.TOO_LARGE, stage="output")
    assert output.failed(envelope.forward(Envelope[Fact], "r1", Fact()), failure)
    failure = Failure(reason=Reason.UNDECODABLE, stage="output")
    assert not output.failed(envelope.forward(Envelope[Fact], "r1", Fact()), failure)
