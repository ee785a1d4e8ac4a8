"""Hedges walked in memory: when a second call is made, which answer wins, and what the books say of the loser."""

import asyncio
from typing import Any

import httpx2
import pytest

from schemas.config import Policy
from schemas.fleet import Circuit, Gate, GateReason
from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Lane, Reason
from services.executor.hedging import CALLS_MIN
from shared.catalogue import Catalogue
from tests.support.builders_executor import (
    T0_MS,
    Bench,
    Script,
    a_bench,
    a_candidate,
    a_catalogue,
    a_plan,
    an_entry,
    an_envelope,
    an_error,
    ok,
    until,
)

PLAN = a_plan(a_candidate(backends=("a", "b")))


def slow(release: asyncio.Event, answer: httpx2.Response) -> Any:
    async def react(request: httpx2.Request) -> httpx2.Response:
        await release.wait()
        return answer

    return react


async def a_hedging_bench(script: Script, catalogue: Catalogue | None = None) -> Bench:
    """A replica that knows what is usual: a call takes 10 ms."""
    bench = await a_bench(script, catalogue)
    hedging = bench.executor.backends.hedging
    for _ in range(CALLS_MIN):
        hedging.observe("small", PLAN.task.features, False, 10.0)
        hedging.primary()
    return bench


def interactive(**fields: Any) -> Any:
    return an_envelope(PLAN, lane=Lane.INTERACTIVE, **fields)


async def test_a_call_that_takes_unusually_long_is_made_again_elsewhere_and_the_first_answer_wins() -> None:
    never = asyncio.Event()
    script = Script(slow(never, ok("late")), ok("quick"))
    bench = await a_hedging_bench(script)
    completion, closed = await bench.complete(interactive())
    assert script.hosts == ["a", "b"]
    assert completion.answer is not None
    assert (completion.answer.text, completion.answer.backend) == ("quick", "b")
    assert {line.kind: line.failure for line in closed} == {
        AttemptKind.PRIMARY: FailureClass.CANCELLED, AttemptKind.HEDGE: None,
    }


async def test_both_calls_are_on_the_books_and_the_losers_cost_is_bounded() -> None:
    never = asyncio.Event()
    bench = await a_hedging_bench(Script(slow(never, ok()), ok()))
    completion, closed = await bench.complete(interactive())
    started = [line for line in bench.ledger.lines if line.phase is AttemptPhase.STARTED]
    assert len({line.attempt_id for line in started}) == len(closed) == completion.attempts == 2
    (loser,) = (line for line in closed if line.failure is FailureClass.CANCELLED)
    assert (loser.cost_known, loser.cost_max_microusd) == (False, 1000)
    assert bench.executor.backends.local("a").in_flight == bench.executor.backends.local("b").in_flight == 0


async def test_the_first_call_may_still_win() -> None:
    release, never = asyncio.Event(), asyncio.Event()
    script = Script(slow(release, ok("first")), slow(never, ok("hedge")))
    bench = await a_hedging_bench(script)
    walking = asyncio.create_task(bench.complete(interactive()))
    await until(lambda: len(script.requests) == 2)
    release.set()
    completion, closed = await walking
    assert completion.answer is not None
    assert completion.answer.text == "first"
    assert {line.kind: line.failure for line in closed}[AttemptKind.HEDGE] is FailureClass.CANCELLED


async def test_when_the_hedge_fails_the_first_call_is_waited_for() -> None:
    release = asyncio.Event()
    script = Script(slow(release, ok("first")), an_error(500, "server_error"))
    bench = await a_hedging_bench(script)
    walking = asyncio.create_task(bench.complete(interactive()))
    await until(lambda: len(bench.ledger.lines) >= 2 and len(script.requests) == 2)
    await asyncio.sleep(0)
    release.set()
    completion, closed = await walking
    assert completion.answer is not None
    assert sorted(str(line.failure) for line in closed) == ["None", "server_error"]


async def test_a_quick_call_is_not_hedged() -> None:
    script = Script(ok())
    _, closed = await (await a_hedging_bench(script)).complete(interactive())
    assert [line.kind for line in closed] == [AttemptKind.PRIMARY]


def fleet_gated(bench: Bench) -> None:
    gate = Gate(until_ms=T0_MS + 60_000, reason=GateReason.RATE_LIMITED)
    bench.fleet["b"] = an_entry("b", gate=gate)


def fleet_open(bench: Bench) -> None:
    bench.fleet["b"] = an_entry("b", Circuit.OPEN)


def no_budget(bench: Bench) -> None:
    while bench.executor.backends.hedging.may_hedge():
        bench.executor.backends.hedging.hedged()


@pytest.mark.parametrize("prepare", [fleet_gated, fleet_open, no_budget])
async def test_nothing_is_hedged_where_it_must_not_be(prepare: Any) -> None:
    await not_hedged(prepare, interactive())


async def test_only_interactive_requests_are_hedged_and_only_within_their_money() -> None:
    await not_hedged(lambda bench: None, an_envelope(PLAN, lane=Lane.BATCH))
    await not_hedged(lambda bench: None, interactive(budget_microusd=1999))


async def test_a_policy_may_forbid_hedges() -> None:
    known = a_catalogue()
    catalogue = Catalogue(1, known.models, known.backends, {}, {"default": Policy(hedge=False)})
    await not_hedged(lambda bench: None, interactive(), catalogue)


async def not_hedged(prepare: Any, envelope: Any, catalogue: Catalogue | None = None) -> None:
    release = asyncio.Event()
    script = Script(slow(release, ok()))
    bench = await a_hedging_bench(script, catalogue)
    prepare(bench)
    walking = asyncio.create_task(bench.complete(envelope))
    await until(lambda: script.requests)
    await asyncio.sleep(0.1)      # ten times what is usual
    assert len(script.requests) == 1
    release.set()
    completion, _ = await walking
    assert completion.answer is not None


async def test_a_walk_that_is_taken_away_cuts_both_calls_and_leaves_them_open_for_its_successor() -> None:
    never = asyncio.Event()
    script = Script(slow(never, ok()))
    bench = await a_hedging_bench(script)
    walking = asyncio.create_task(bench.complete(interactive()))
    await until(lambda: len(script.requests) == 2)
    walking.cancel()
    await asyncio.gather(walking, return_exceptions=True)
    await until(lambda: not any(bench.executor.backends.local(name).in_flight for name in "ab"))
    assert closings(bench.ledger.lines) == []


def closings(lines: list[Attempt]) -> list[Attempt]:
    return [line for line in lines if line.phase is AttemptPhase.FINISHED]


async def test_the_deadline_holds_for_both() -> None:
    never = asyncio.Event()
    bench = await a_hedging_bench(Script(slow(never, ok())))
    plan = PLAN.model_copy(update={"attempt_timeout_ms": 60})
    completion, closed = await bench.complete(an_envelope(plan, lane=Lane.INTERACTIVE))
    assert {line.failure for line in closed} == {FailureClass.TIMEOUT}
    assert completion.failure is not None
    assert completion.failure.reason is Reason.PROVIDERS_FAILED
