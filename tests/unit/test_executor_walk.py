"""Plans walked in memory: fail-over, ledger, budget, deadline, parking, probes, take-over. Time moves by hand."""

import asyncio
import logging
from typing import Any

import httpx2
import pytest

from schemas.envelope import Envelope, Fact
from schemas.fleet import Circuit, Observation
from schemas.ledger import AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Failure, Reason
from schemas.topology import ATTEMPTS, COMPLETIONS, OBSERVATIONS
from services.executor.failures import FAILURES
from shared import ids
from shared.broker import Headers, Record
from shared.codec import decode
from shared.errors import FrozenError
from shared.outcome import Drop, Emit, Out
from tests.support.builders_executor import (
    INSTANCE,
    PROMPT,
    SECRET,
    T0_MS,
    Bench,
    RecordingLedger,
    Script,
    a_backend,
    a_bench,
    a_candidate,
    a_catalogue,
    a_plan,
    an_entry,
    an_envelope,
    an_error,
    closing_lines,
    completed,
    completion_of,
    ok,
    until,
)

DOWN = an_error(500, "server_error")
ONE = a_plan(a_candidate(backends=("a",)))


async def test_an_answer_completes_the_plan() -> None:
    bench = await a_bench(Script(ok("42")))
    envelope = an_envelope(spent_microusd=50, budget_microusd=9000)
    outcome = await bench.handle(envelope)
    completion = completion_of(outcome)
    assert completion.answer is not None
    assert (completion.answer.text, completion.answer.model, completion.answer.backend) == ("42", "small", "a")
    assert (completion.plan_id, completion.plan_number, completion.task) == (envelope.id, 0, envelope.payload.task)
    assert (completion.attempts, completion.cost_microusd, completion.failure) == (1, 210, None)
    assert completion.quality_min == 0.3
    assert isinstance(outcome, Emit)
    forwarded = outcome.outputs[-1].value
    assert isinstance(forwarded, Envelope)
    assert forwarded.id == ids.completion_id(envelope.id)
    assert forwarded.spent_microusd == 260
    assert (forwarded.key, forwarded.deadline_ms, forwarded.budget_microusd) == ("r1", envelope.deadline_ms, 9000)


async def test_an_attempt_is_on_the_books_before_and_after_the_call() -> None:
    bench = await a_bench(Script(ok()))
    outcome = await bench.handle(an_envelope())
    (started,), (finished,) = bench.ledger.lines, closing_lines(outcome)
    assert (started.phase, finished.phase) == (AttemptPhase.STARTED, AttemptPhase.FINISHED)
    assert started.attempt_id == finished.attempt_id == ids.attempt_id("r1/plan/0", 0, INSTANCE)
    assert (started.cost_microusd, started.cost_max_microusd, started.price_version) == (0, 1000, "7")
    assert (finished.cost_microusd, finished.cost_known) == (210, True)
    assert (finished.model_served, finished.provider_request_id) == ("small-2026", "req_1")
    assert (started.tenant, started.app, started.executor) == ("acme", "shop", INSTANCE)


async def test_the_process_proves_that_it_is_alive_before_the_ledger_and_between_ledger_and_call() -> None:
    script = Script(ok())
    bench = await a_bench(script)
    await bench.handle(an_envelope())
    assert bench.alive_checks == [0, 1]

    def stood_still() -> None:
        raise FrozenError("stood still")

    context = bench.context()
    frozen = type(context)(context.record, (), bench.ledger, stood_still)
    with pytest.raises(FrozenError):
        await bench.executor.handle(an_envelope(request="r2"), frozen)
    assert len(script.requests) == 1
    assert bench.executor.backends.local("a").in_flight == 0


async def test_a_line_written_by_a_process_that_stood_still_is_closed_as_never_sent() -> None:
    script = Script()
    bench = await a_bench(script)

    def stood_still_while_writing() -> None:
        if bench.ledger.lines:
            raise FrozenError("stood still")

    context = bench.context()
    frozen = type(context)(context.record, (), bench.ledger, stood_still_while_writing)
    with pytest.raises(FrozenError):
        await bench.executor.handle(an_envelope(), frozen)
    started, closed = bench.ledger.lines
    assert closed.attempt_id == started.attempt_id
    assert (closed.phase, closed.failure, closed.cost_microusd, closed.cost_known) == (
        AttemptPhase.FINISHED, FailureClass.CANCELLED, 0, True,
    )
    assert not script.requests


async def test_a_line_that_still_waits_for_its_broker_as_the_session_ends_is_closed_behind_it() -> None:
    """The broker may take the line after the successor has read the ledger."""
    script = Script()
    bench = await a_bench(script)

    class Away(RecordingLedger):
        async def write(self, out: Out, trace: Headers, record: Record) -> None:
            self.lines.append(out.value)
            if out.value.phase is AttemptPhase.STARTED:
                await asyncio.Event().wait()

    context = bench.context()
    ledger = Away(bench.broker)
    walking = asyncio.ensure_future(bench.executor.handle(an_envelope(), type(context)(context.record, (), ledger, lambda: None)))
    await until(lambda: ledger.lines)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    assert walking.cancelled()
    started, closed = ledger.lines
    assert (closed.attempt_id, closed.phase) == (started.attempt_id, AttemptPhase.FINISHED)
    assert (closed.failure, closed.cost_microusd, closed.cost_known) == (FailureClass.CANCELLED, 0, True)
    assert not script.requests


async def test_a_walk_that_is_cancelled_as_it_waits_for_a_line_leaves_the_others_of_its_batch_alone() -> None:
    batch: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    class Gathering(RecordingLedger):
        async def send(self, out: Out, trace: Headers, record: Record) -> "asyncio.Future[object]":
            self.lines.append(out.value)
            return batch

    script = Script(DOWN, ok())
    bench = await a_bench(script)
    context = bench.context()
    waiting = type(context)(context.record, (), Gathering(bench.broker), context.check_alive)
    walking = asyncio.ensure_future(bench.executor.handle(an_envelope(), waiting))
    await until(lambda: len(script.requests) == 2 and not any(calls for *_, calls in bench.executor.backends.places()))
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    assert walking.cancelled()
    assert not batch.done()


async def test_the_provider_is_asked_for_no_more_tokens_than_were_budgeted() -> None:
    script = Script(ok())
    await (await a_bench(script)).handle(an_envelope())
    assert script.bodies[0]["max_tokens"] == 200
    assert script.bodies[0]["model"] == "small"
    assert script.requests[0].headers["x-client-request-id"] == ids.attempt_id("r1/plan/0", 0, INSTANCE)
    assert str(script.requests[0].url) == "http://a.test/v1/chat/completions"


async def test_a_failing_backend_is_replaced_by_the_next() -> None:
    script = Script(DOWN, DOWN, ok())
    completion, lines = await (await a_bench(script)).complete(an_envelope())
    assert script.hosts == ["a", "b", "c"]
    assert completion.answer is not None
    assert completion.answer.model == "large"
    assert [line.failure for line in lines] == [FailureClass.SERVER_ERROR] * 2 + [None]
    assert [line.kind for line in lines] == [AttemptKind.PRIMARY, AttemptKind.FAILOVER, AttemptKind.FAILOVER]
    assert [line.cost_known for line in lines] == [True, True, True]
    assert len({line.attempt_id for line in lines}) == completion.attempts == 3


REACTIONS: list[tuple[Any, FailureClass]] = [
    (an_error(429, "rate_limit_exceeded"), FailureClass.RATE_LIMITED),
    (an_error(429, "insufficient_quota"), FailureClass.QUOTA_EXHAUSTED),
    (an_error(400, "context_length_exceeded"), FailureClass.CONTEXT_LENGTH),
    (an_error(401, "invalid_api_key"), FailureClass.AUTH),
    (an_error(404, "model_not_found"), FailureClass.NOT_FOUND),
    (an_error(400), FailureClass.INVALID),
    (an_error(413), FailureClass.TOO_LARGE),
    (an_error(400, "content_policy_violation"), FailureClass.CONTENT_FILTERED),
    (DOWN, FailureClass.SERVER_ERROR),
    (an_error(503), FailureClass.OVERLOADED),
    (an_error(504), FailureClass.OVERLOADED),
    (httpx2.ConnectError("refused"), FailureClass.CONNECT_ERROR),
    (httpx2.ReadTimeout("slow"), FailureClass.TIMEOUT),
    (httpx2.Response(200, json={"choices": [{"message": {"content": "4"}}]}), FailureClass.TRUNCATED),
    (httpx2.Response(200, content=b"<html>"), FailureClass.MALFORMED),
    (an_error(418), FailureClass.UNKNOWN),
]


@pytest.mark.parametrize(("reaction", "failure"), REACTIONS, ids=[f"{at}-{failure}" for at, (_, failure) in enumerate(REACTIONS)])
async def test_every_class_of_failure_is_handled_as_its_rules_say(reaction: Any, failure: FailureClass) -> None:
    rules = FAILURES[failure]
    completion, lines = await (await a_bench(Script(reaction, ok()))).complete(an_envelope())
    assert lines[0].failure is failure
    if rules.fail_over:
        assert completion.answer is not None
        assert completion.answer.backend == ("c" if rules.wants_bigger_window or rules.wants_other_model else "b")
        assert completion.failure_class is None
    else:
        assert completion.failure is not None
        assert completion.failure.reason is rules.reason
        assert completion.failure_class is failure
        assert completion.attempts == 1


@pytest.mark.parametrize(
    ("reaction", "is_known"),
    [
        (httpx2.ConnectError("refused"), True),
        (httpx2.ConnectTimeout("no route"), True),
        (httpx2.ReadTimeout("slow"), False),
        (httpx2.ReadError("reset"), False),
        (httpx2.RemoteProtocolError("gone"), False),
        (DOWN, True),
        (an_error(504), True),
        (an_error(408), True),
        (httpx2.Response(200, content=b"<html>"), False),
    ],
)
async def test_what_may_have_been_billed_is_booked_with_an_upper_bound(reaction: Any, is_known: bool) -> None:
    bench = await a_bench(Script(reaction))
    plan = a_plan(a_candidate(backends=("a",), cost_max_microusd=900), attempts_max=1)
    outcome = await bench.handle(an_envelope(plan))
    (line,) = closing_lines(outcome)
    assert (line.cost_known, line.cost_microusd, line.cost_max_microusd) == (is_known, 0, 900)
    assert isinstance(outcome, Emit)
    forwarded = outcome.outputs[-1].value
    assert isinstance(forwarded, Envelope)
    assert forwarded.spent_microusd == (0 if is_known else 900)
    assert completion_of(outcome).cost_microusd == 0


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    async def hang(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(30)
        return ok()

    script = Script(hang, ok())
    completion, lines = await (await a_bench(script)).complete(an_envelope(a_plan(attempt_timeout_ms=20)))
    assert lines[0].failure is FailureClass.TIMEOUT
    assert not lines[0].cost_known
    assert completion.answer is not None


async def test_a_lone_backend_gets_a_second_chance_after_a_pause() -> None:
    script = Script(DOWN, ok())
    bench = await a_bench(script)
    walking = asyncio.create_task(bench.complete(an_envelope(ONE)))
    await until(lambda: len(bench.ledger.lines) == 2)
    bench.clock.ms += 500
    completion, lines = await walking
    assert completion.answer is not None
    assert [line.kind for line in lines] == [AttemptKind.PRIMARY, AttemptKind.RETRY]


# Money and time ----------------------------------------------------------------------------------------------------


async def test_a_call_that_might_exceed_the_budget_is_not_made() -> None:
    script = Script(httpx2.ReadTimeout("slow"), ok())
    completion, _ = await (await a_bench(script)).complete(an_envelope(budget_microusd=1999))
    assert script.hosts == ["a"]   # its unknown cost is at most 1000, another 1000 would be too much
    assert completion.failure is not None
    assert completion.failure.reason is Reason.OVER_BUDGET


async def test_what_earlier_plans_spent_counts() -> None:
    plan = a_plan(number=1, attempts_before=2, cost_before_microusd=300)
    script = Script(ok())
    completion, lines = await (await a_bench(script)).complete(
        an_envelope(plan, spent_microusd=400, budget_microusd=1400)
    )
    assert (completion.attempts, completion.cost_microusd) == (3, 510)
    assert lines[0].kind is AttemptKind.ESCALATION
    over, _ = await (await a_bench(script)).complete(an_envelope(plan, spent_microusd=401, budget_microusd=1400))
    assert over.failure is not None
    assert over.failure.reason is Reason.OVER_BUDGET


async def test_no_call_starts_when_there_is_no_time_left_for_it() -> None:
    script = Script(ok())
    bench = await a_bench(script)
    bench.fleet |= {name: an_entry(name, p50_ms=2000) for name in ("a", "b", "c")}
    completion, _ = await bench.complete(an_envelope(deadline_ms=T0_MS + 1999))
    assert script.requests == []
    assert completion.failure is not None
    assert completion.failure.reason is Reason.NO_TIME_LEFT


async def test_a_call_is_not_made_when_its_ledger_line_came_too_late() -> None:
    script = Script(ok())
    bench = await a_bench(script)

    def slow_broker(attempt: object) -> None:
        bench.clock.ms += 31_000

    bench.ledger.acknowledged = slow_broker
    completion, lines = await bench.complete(an_envelope())
    assert script.requests == []
    assert (lines[0].failure, lines[0].cost_known) == (FailureClass.CANCELLED, True)
    assert completion.failure is not None
    assert completion.failure.reason is Reason.DEADLINE_PASSED


# Parking and probes ------------------------------------------------------------------------------------------------


def out(bench: Bench, circuit: Circuit = Circuit.OPEN, **fields: Any) -> None:
    bench.fleet |= {name: an_entry(name, circuit, **fields) for name in ("a", "b", "c")}


async def test_a_plan_waits_while_every_backend_is_out_and_goes_on_when_one_is_back() -> None:
    script = Script(ok())
    bench = await a_bench(script, start=True)
    out(bench)
    walking = asyncio.create_task(bench.complete(an_envelope()))
    await asyncio.sleep(0.05)
    assert not walking.done()
    assert script.requests == []
    bench.fleet["b"] = an_entry("b")
    completion, _ = await walking
    assert script.hosts == ["b"]
    assert completion.answer is not None
    await bench.executor.stop()


async def test_a_plan_that_waits_in_vain_expires() -> None:
    bench = await a_bench(Script(ok()), start=True)
    out(bench)
    walking = asyncio.create_task(bench.complete(an_envelope()))
    await asyncio.sleep(0.02)
    bench.clock.ms += 30_000
    bench.fleet["a"] = an_entry("a", Circuit.HALF_OPEN)
    completion, lines = await walking
    assert lines == []
    assert completion.failure is not None
    assert completion.failure.reason is Reason.DEADLINE_PASSED
    await bench.executor.stop()


async def test_many_waiting_plans_make_no_more_probes_than_were_leased() -> None:
    release = asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        await release.wait()
        return ok()

    script = Script(slow)
    bench = await a_bench(script)
    out(bench)
    plans = [an_envelope(ONE, request=f"r{number}") for number in range(20)]
    walking = [asyncio.create_task(bench.complete(plan)) for plan in plans]
    await asyncio.sleep(0.02)
    bench.fleet["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=1, probe_leases={INSTANCE: 2})
    bench.executor.backends.tick()
    await until(lambda: len(script.requests) == 2)
    release.set()
    bench.executor.backends.tick()
    await until(lambda: sum(task.done() for task in walking) == 2)
    await asyncio.sleep(0.02)
    assert len(script.requests) == 2
    bench.fleet["a"] = an_entry("a")
    bench.executor.backends.tick()
    kinds = [line.kind for _, lines in await asyncio.gather(*walking) for line in lines]
    assert kinds.count(AttemptKind.PROBE) == 2
    assert kinds.count(AttemptKind.PRIMARY) == 18


async def test_a_trip_is_reported_at_once_and_the_rest_when_it_stops() -> None:
    bench = await a_bench(Script(DOWN), start=True)
    for number in range(8):
        plan = a_plan(a_candidate(backends=("a",)), attempts_max=1)
        await bench.handle(an_envelope(plan, request=f"r{number}"))
    await until(lambda: observed(bench))
    (seen,) = observed(bench)
    assert (seen.backend, seen.calls, seen.consecutive_failures) == ("a", 8, 8)
    assert not bench.executor.backends.options(ONE, "x", bench.clock.now_ms())["a"].usable
    await bench.handle(an_envelope(a_plan(attempts_max=2), request="r9"))
    await bench.executor.stop()
    assert {seen.backend for seen in observed(bench)} == {"a", "b", "c"}


def observed(bench: Bench) -> list[Observation]:
    records = [record for partition in bench.broker.logs[OBSERVATIONS.name] for record in partition]
    return [decode(OBSERVATIONS, record.value) for record in records]


# Take-over ---------------------------------------------------------------------------------------------------------


async def test_a_completed_plan_is_not_called_again() -> None:
    script = Script(ok())
    first = await a_bench(script)
    outcome = await first.handle(an_envelope())
    assert await first.handle(an_envelope()) == Drop("already completed")
    assert isinstance(outcome, Emit)
    await first.ledger.log(*outcome.outputs)
    successor = await a_bench(script, broker=first.broker, instance="0badcafe")
    assert await successor.handle(an_envelope()) == Drop("already completed")
    assert len(script.requests) == 1


async def dies_while_calling(bench: Bench, script: Script) -> None:
    walking = asyncio.create_task(bench.handle(an_envelope()))
    await until(lambda: script.requests)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)


async def forever(request: httpx2.Request) -> httpx2.Response:
    await asyncio.Event().wait()
    return ok()


async def test_an_orphaned_attempt_is_closed_before_another_starts() -> None:
    script = Script(forever, ok())
    first = await a_bench(script)
    await dies_while_calling(first, script)
    successor = await a_bench(script, broker=first.broker, instance="0badcafe")
    completion, _ = await successor.complete(an_envelope())
    orphan, started = successor.ledger.lines
    assert orphan.attempt_id == first.ledger.lines[0].attempt_id
    assert (orphan.phase, orphan.failure) == (AttemptPhase.FINISHED, FailureClass.ORPHANED)
    assert (orphan.cost_known, orphan.cost_max_microusd) == (False, 1000)
    assert started.phase is AttemptPhase.STARTED
    assert started.attempt_id == ids.attempt_id("r1/plan/0", 1, "0badcafe")
    assert completion.answer is not None
    assert completion.attempts == 2


@pytest.mark.parametrize(("budget_microusd", "reason"), [(2000, None), (1999, Reason.OVER_BUDGET)])
async def test_an_orphan_counts_against_the_budget_but_not_against_the_attempts(
    budget_microusd: int, reason: Reason | None
) -> None:
    script = Script(forever, ok())
    first = await a_bench(script)
    await dies_while_calling(first, script)
    successor = await a_bench(script, broker=first.broker, instance="0badcafe")
    completion, _ = await successor.complete(an_envelope(a_plan(attempts_max=1), budget_microusd=budget_microusd))
    assert (completion.failure.reason if completion.failure else None) is reason


async def test_a_crash_of_the_handler_leaves_no_attempt_open() -> None:
    def bug(request: httpx2.Request) -> Any:
        raise ZeroDivisionError

    script = Script(bug, ok())
    bench = await a_bench(script)
    with pytest.raises(ZeroDivisionError):
        await bench.handle(an_envelope())
    completion, _ = await bench.complete(an_envelope())
    assert bench.ledger.lines[1].failure is FailureClass.ORPHANED
    assert completion.answer is not None


async def test_a_partition_that_comes_back_is_read_again() -> None:
    script = Script(ok())
    bench = await a_bench(script)
    await bench.handle(an_envelope())   # the outcome never reached the log
    await bench.executor.assigned(frozenset({0}))
    outcome = await bench.handle(an_envelope())
    assert isinstance(outcome, Emit)
    assert len(script.requests) == 2


# Failures that come along --------------------------------------------------------------------------------------------


async def test_a_plan_that_carries_a_failure_is_completed_with_it_at_once() -> None:
    failure = Failure(reason=Reason.NO_ABLE_MODEL, stage="router", message="none")
    script = Script(ok())
    completion, lines = await (await a_bench(script)).complete(an_envelope(a_plan(failure=failure)))
    assert completion.failure == failure
    assert (script.requests, lines) == ([], [])


async def test_a_plan_that_failed_elsewhere_is_completed() -> None:
    bench = await a_bench(Script(ok()))
    failure = Failure(reason=Reason.DEADLINE_PASSED, stage="executor")
    (only,) = bench.executor.failed(an_envelope(a_plan(number=2)), failure)
    assert only.topic is COMPLETIONS
    assert isinstance(only.value, Envelope)
    assert (only.value.payload.failure, only.value.payload.plan_number) == (failure, 2)


async def test_a_record_without_a_payload_is_completed_by_its_identity() -> None:
    bench = await a_bench(Script(ok()))
    failure = Failure(reason=Reason.UNDECODABLE, stage="executor")
    bare: Any = Envelope[Fact](
        id="r1/plan/3", request_id="r1", key="r1", tenant="t", accepted_ms=1, deadline_ms=2, payload=Fact()
    )
    (only,) = bench.executor.failed(bare, failure)
    assert isinstance(only.value, Envelope)
    assert only.value.id == "r1/plan/3/completion"
    assert only.value.payload.plan_number == 3
    assert only.value.payload.task.failure == failure


async def test_a_plan_that_failed_elsewhere_closes_what_it_left_open() -> None:
    script = Script(forever)
    bench = await a_bench(script)
    await dies_while_calling(bench, script)
    failure = Failure(reason=Reason.HANDLER_CRASHED, stage="executor")
    completion, line = bench.executor.failed(an_envelope(), failure)
    assert completion.topic is COMPLETIONS
    assert line.topic is ATTEMPTS
    assert isinstance(completion.value, Envelope)
    assert completion.value.payload.attempts == 1
    assert completion.value.spent_microusd == 1000


# Secrets -------------------------------------------------------------------------------------------------------------


async def test_no_secret_and_no_prompt_reaches_a_log_or_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = an_error(401, "invalid_api_key", message=f"Incorrect API key provided: {SECRET}")
    script = Script(body, httpx2.ConnectError(f"{SECRET}"), an_error(500, message=PROMPT), ok())
    bench = await a_bench(script, start=True)
    completion, lines = await bench.complete(an_envelope())
    await bench.executor.stop()
    assert script.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in script.requests[1].headers
    written = "".join(repr(line) for line in lines) + repr(completion.failure) + repr(observed(bench))
    for text in (SECRET, PROMPT):
        assert text not in written
        assert text not in caplog.text
    assert SECRET not in repr(completion)


async def test_a_rotated_key_is_used_by_the_next_call() -> None:
    keys = ["first", "second"]
    script = Script(ok())
    bench = await a_bench(script, resolve=lambda reference: keys[0])
    await bench.handle(an_envelope())
    keys.pop(0)
    await bench.handle(an_envelope(request="r2"))
    assert [request.headers["authorization"] for request in script.requests] == ["Bearer first", "Bearer second"]


async def test_a_backend_whose_key_is_missing_here_is_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    from shared.config import resolve_secret

    script = Script(ok())
    bench = await a_bench(script, resolve=lambda reference: resolve_secret(reference, {}))
    await bench.handle(an_envelope())
    assert script.hosts == ["b"]
    assert "env:KEY_A: not set" in caplog.text


async def test_a_base_url_may_be_a_reference() -> None:
    backends = {"a": a_backend(base_url="env:BASE", model_name="gpt-x")}
    script = Script(ok())
    bench = await a_bench(script, a_catalogue(backends), resolve=lambda reference: "https://there.test/v1/")
    await bench.handle(an_envelope(ONE))
    assert str(script.requests[0].url) == "https://there.test/v1/chat/completions"
    assert script.bodies[0]["model"] == "gpt-x"


async def test_a_redirect_is_not_followed() -> None:
    script = Script(httpx2.Response(307, headers={"location": "http://evil.test/"}), ok())
    bench = await a_bench(script)
    completion, lines = await bench.complete(an_envelope())
    assert script.hosts == ["a", "b"]
    assert lines[0].failure is FailureClass.NOT_FOUND
    assert completion.answer is not None


async def test_an_answer_larger_than_any_answer_is_malformed() -> None:
    script = Script(httpx2.Response(200, json=completed("x" * (9 << 20))), ok())
    completion, lines = await (await a_bench(script)).complete(an_envelope())
    assert lines[0].failure is FailureClass.MALFORMED
    assert completion.answer is not None
