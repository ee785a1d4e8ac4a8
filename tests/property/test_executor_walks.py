"""Whatever providers do, a walk keeps within its money, its time and its attempts, and the books add up."""

import asyncio
from dataclasses import dataclass

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptKind, AttemptPhase
from schemas.messages import Completion, Lane, Plan
from services.executor.books import cost_upper_microusd
from services.executor.hedging import CALLS_MIN
from tests.support.builders_executor import (
    T0_MS,
    Bench,
    a_bench,
    a_candidate,
    a_plan,
    an_envelope,
    an_error,
    closing_lines,
    completion_of,
    ok,
    until,
)

HEDGE_AFTER_MS = 2.0


@dataclass(frozen=True)
class Turn:
    """One reaction of the provider: what it says, after how long on the manual clock and on the real one."""

    says: str
    passes_ms: int
    real_s: float


ERRORS = {
    "500": lambda: an_error(500, "server_error"),
    "503": lambda: an_error(503, "server_is_overloaded"),
    "429": lambda: an_error(429, "rate_limit_exceeded"),
    "429 with a wait": lambda: httpx2.Response(429, json={"error": {"code": "slow_down"}}, headers={"retry-after": "2"}),
    "quota": lambda: an_error(429, "insufficient_quota"),
    "context": lambda: an_error(400, "context_length_exceeded"),
    "refused": lambda: an_error(400, "content_policy_violation"),
    "key": lambda: an_error(401, "invalid_api_key"),
    "html": lambda: httpx2.Response(200, text="<html>"),
    "answer": lambda: ok(),
}
TURNS = st.lists(
    st.builds(
        Turn,
        says=st.sampled_from([*ERRORS, "reset", "silence"]),
        passes_ms=st.integers(0, 4_000),
        real_s=st.sampled_from([0.0, 0.012]),
    ),
    min_size=1,
    max_size=12,
)


@given(
    turns=TURNS,
    attempts_max=st.integers(1, 4),
    budget_microusd=st.sampled_from([None, 999, 1000, 1500, 2000, 2500, 5000, 6500, 12_000]),
    deadline_in_ms=st.integers(100, 15_000),
    lane=st.sampled_from([Lane.INTERACTIVE, Lane.INTERACTIVE, Lane.BATCH]),
    number=st.integers(0, 1),
)
@settings(max_examples=150)
def test_money_time_and_attempts_are_never_exceeded(
    turns: list[Turn], attempts_max: int, budget_microusd: int | None, deadline_in_ms: int, lane: Lane, number: int
) -> None:
    plan = a_plan(
        a_candidate(backends=("a", "b")), a_candidate("large", ("c",), 5000), attempts_max=attempts_max, number=number
    )
    envelope = an_envelope(
        plan, lane=lane, budget_microusd=budget_microusd, deadline_ms=T0_MS + deadline_in_ms, spent_microusd=100 * number
    )
    bench, completion, lines = asyncio.run(walked(turns, envelope))
    started = [line for line in lines if line.phase is AttemptPhase.STARTED]
    finished = {line.attempt_id: line for line in lines if line.phase is AttemptPhase.FINISHED}
    assert {line.attempt_id for line in started} == finished.keys()
    assert len(started) == completion.attempts <= attempts_max
    assert all(line.started_ms < envelope.deadline_ms for line in started)
    assert sum(line.kind is AttemptKind.HEDGE for line in started) <= (1 if lane is Lane.INTERACTIVE else 0)
    assert completion.cost_microusd == sum(line.cost_microusd for line in finished.values() if line.cost_known)
    if budget_microusd is not None:
        upper = envelope.spent_microusd + sum(cost_upper_microusd(line) for line in finished.values())
        assert upper <= budget_microusd or not started
    assert_each_call_was_affordable(lines, envelope)
    assert (completion.answer is None) == (completion.failure is not None)
    assert not any(bench.executor.backends.local(name).in_flight for name in "abc")


def assert_each_call_was_affordable(lines: list[Attempt], envelope: Envelope[Plan]) -> None:
    """At the moment each call started: what was spent, what runs and what it may cost itself fit the budget."""
    known: dict[str, Attempt] = {}
    for line in lines:
        known[line.attempt_id] = line
        if line.phase is AttemptPhase.STARTED and envelope.budget_microusd is not None:
            bound = sum(
                each.cost_max_microusd if each.phase is AttemptPhase.STARTED else cost_upper_microusd(each)
                for each in known.values()
            )
            assert envelope.spent_microusd + bound <= envelope.budget_microusd


async def walked(turns: list[Turn], envelope: Envelope[Plan]) -> tuple[Bench, Completion, list[Attempt]]:
    """Walk the plan with a clock that moves when the provider says so, and whenever nothing else happens."""
    script = iter(turns)

    async def provider(request: httpx2.Request) -> httpx2.Response:
        turn = next(script, turns[-1])
        await asyncio.sleep(turn.real_s)
        bench.clock.ms += turn.passes_ms
        if turn.says == "reset":
            raise httpx2.ReadError("reset")
        if turn.says == "silence":
            raise httpx2.ReadTimeout("silent")
        return ERRORS[turn.says]()

    bench = await a_bench(provider)
    hedging = bench.executor.backends.hedging
    for model in ("small", "large"):
        for _ in range(CALLS_MIN):
            hedging.observe(model, envelope.payload.task.features, False, HEDGE_AFTER_MS)
            hedging.primary()
    walking = asyncio.create_task(bench.handle(envelope))

    def over() -> bool:
        if not walking.done() and len(bench.executor.backends.room):
            bench.clock.ms += 50      # it waits: time passes
        return walking.done()

    await until(over, within_s=20)
    outcome = walking.result()
    return bench, completion_of(outcome), [*bench.ledger.lines, *closing_lines(outcome)]
