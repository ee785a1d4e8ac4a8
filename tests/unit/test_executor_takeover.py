"""What a successor learns from the log, and what it must not forget or do twice."""

from typing import Any

import pytest

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from schemas.messages import Completion, Task
from schemas.topology import ATTEMPTS, COMPLETIONS
from services.executor.takeover import PLANS_MAX, Takeover, orphaned
from shared import ids
from shared.broker import Output
from shared.local import LocalBroker
from shared.outcome import Drop, Out
from tests.support.builders_executor import T0_MS, Bench, Script, a_bench, an_attempt, an_envelope, ok

PLAN = ids.plan_id("r1", 0)


async def a_log() -> Bench:
    return await a_bench(Script(ok()))


def started(number: int = 0, **fields: Any) -> Attempt:
    return an_attempt(failure=None, number=number, phase=AttemptPhase.STARTED, finished_ms=None, **fields)


def line(attempt: Attempt) -> Out:
    return Out(ATTEMPTS, attempt, "r1")


def completion(request: str = "r1") -> Out:
    envelope = an_envelope(request=request)
    payload = Completion(plan_id=envelope.id, plan_number=0, task=Task())
    return Out(COMPLETIONS, envelope.forward(Envelope[Completion], ids.completion_id(envelope.id), payload))


async def test_a_completion_in_the_log_completes_the_plan() -> None:
    log = await a_log()
    await log.ledger.log(line(started()), line(an_attempt()), completion())
    takeover = Takeover(log.broker)
    assert await takeover.is_completed(0, PLAN, T0_MS)
    assert takeover.attempts(0, PLAN) == []


async def test_a_completed_plan_whose_attempt_lacks_its_closing_line_has_it_closed_and_makes_no_call() -> None:
    """The executor died when the completion was in the log and the ledger's line was not."""
    log = await a_log()
    await log.ledger.log(line(started()), completion())
    assert await log.handle(an_envelope()) == Drop("already completed")
    (closed,) = log.ledger.lines
    assert (closed.attempt_id, closed.phase) == (started().attempt_id, AttemptPhase.FINISHED)
    assert (closed.failure, closed.cost_known) == (FailureClass.ORPHANED, False)
    assert await log.handle(an_envelope()) == Drop("already completed")
    assert len(log.ledger.lines) == 1


@pytest.mark.parametrize("left", [started(), an_attempt(failure=None)], ids=["open", "closed by its own executor"])
async def test_a_plan_whose_completion_came_after_the_log_was_read_is_not_called_again(left: Attempt) -> None:
    """Its executor slept, and handed in what it had while a successor was reading."""
    log = await a_log()
    await log.ledger.log(line(started()), line(left))
    await log.handle(an_envelope(request="r2"))   # the partition's log is read
    await log.ledger.log(completion())
    assert await log.handle(an_envelope()) == Drop("completed by its former owner")
    assert {attempt.attempt_id for attempt in log.ledger.lines if attempt.request_id == "r1"} <= {started().attempt_id}


async def test_open_and_finished_attempts_of_an_open_plan_are_known() -> None:
    log = await a_log()
    failed = an_attempt("a", number=0)
    await log.ledger.log(line(started(0)), line(failed), line(started(1, backend="b")))
    takeover = Takeover(log.broker)
    assert not await takeover.is_completed(0, PLAN, T0_MS)
    assert takeover.attempts(0, PLAN) == [failed, started(1, backend="b")]


async def test_a_late_started_line_does_not_reopen_an_attempt() -> None:
    takeover = Takeover((await a_log()).broker)
    takeover.note(0, an_attempt())
    takeover.note(0, started())
    assert takeover.attempts(0, PLAN) == [an_attempt()]


async def test_what_was_remembered_of_a_lost_partition_is_read_again() -> None:
    log = await a_log()
    takeover = Takeover(log.broker)
    assert not await takeover.is_completed(0, PLAN, T0_MS)
    await log.ledger.log(completion())   # by another owner
    assert not await takeover.is_completed(0, PLAN, T0_MS)
    takeover.forget({0})
    assert await takeover.is_completed(0, PLAN, T0_MS)


async def test_a_plan_completed_here_is_known_without_reading() -> None:
    takeover = Takeover((await a_log()).broker)
    assert not await takeover.is_completed(0, PLAN, T0_MS)
    takeover.note(0, started())
    takeover.complete(0, PLAN, T0_MS)
    assert await takeover.is_completed(0, PLAN, T0_MS)
    assert takeover.attempts(0, PLAN) == []


async def test_a_ledger_line_that_cannot_be_read_is_skipped() -> None:
    log = await a_log()
    producer = await log.broker.producer()
    await (await producer.send(Output(ATTEMPTS.name, b"r1", b"{", (), 0)))
    await log.ledger.log(line(started()))
    takeover = Takeover(log.broker)
    assert not await takeover.is_completed(0, PLAN, T0_MS)
    assert takeover.attempts(0, PLAN) == [started()]


def test_an_orphan_is_closed_with_an_unknown_cost() -> None:
    closed = orphaned(started(cost_max_microusd=900), T0_MS + 5)
    assert closed.phase is AttemptPhase.FINISHED
    assert closed.failure is FailureClass.ORPHANED
    assert (closed.cost_known, closed.cost_microusd, closed.cost_max_microusd) == (False, 0, 900)
    assert closed.finished_ms == T0_MS + 5


def test_open_plans_of_all_partitions_together_are_bounded_and_the_newest_of_each_are_known() -> None:
    takeover = Takeover(LocalBroker())
    takeover.forget(range(6))
    plans = [(n % 6, ids.plan_id(f"r{n}", 0)) for n in range(PLANS_MAX + 3_000)]
    line_of_any = started()
    for partition, plan in plans:
        takeover.note(partition, line_of_any.model_copy(update={"plan_id": plan}))
    known = [place for place in plans if takeover.attempts(*place)]
    assert known == plans[-PLANS_MAX:]


async def test_calls_of_a_long_backlog_do_not_count_as_open_though_their_completions_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.executor.takeover.COMPLETIONS_MAX", 10)
    log = await a_log()

    async def logged(request: str, *outs: Attempt | Out) -> None:
        of_request = {"request_id": request, "plan_id": ids.plan_id(request, 0), "attempt_id": f"{request}/0"}
        lines = (line(out.model_copy(update=of_request)) if isinstance(out, Attempt) else out for out in outs)
        await log.ledger.log(*lines)
        log.clock.ms += 10_000

    await logged("died", started())
    await logged("tried", started(), an_attempt())
    for n in range(50):
        await logged(f"r{n}", started(), an_attempt(failure=None), completion(f"r{n}"))
    takeover = Takeover(log.broker)
    for request in ("died", "tried"):
        assert not await takeover.is_completed(0, ids.plan_id(request, 0), T0_MS)
        assert len(takeover.attempts(0, ids.plan_id(request, 0))) == 1
    assert not any(takeover.attempts(0, ids.plan_id(f"r{n}", 0)) for n in range(50))
    assert await takeover.is_completed(0, ids.plan_id("r0", 0), T0_MS)
