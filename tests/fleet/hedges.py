"""A provider with a heavy tail, interactive requests, without hedging and with it: what it costs, what it takes off the p99.

Two runs of the same load: the simulator's chances are drawn from a seed, so both meet the same tail. Judged on the results,
the ledger and the provider's invoice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Lane
from services.executor.books import cost_upper_microusd
from tests.support.findings import Finding
from tests.support.fleets import PLAIN, TENANT, fleet
from tests.support.system import Setup, evidence, running
from tests.support.traffic import Asked, Stream, latencies_ms, of_stream, quantile

MODEL = "sim-small"
LATENCY_SCALE = 2.0
RATE_S, WARM_S, LOAD_S = 80, 5.0, 25.0
EXTRA_MAX = 0.02
P99_MAX = 0.7
BODY = {"model": MODEL, "max_tokens": 12, "priority": Lane.INTERACTIVE, "tenant": TENANT}


@dataclass(frozen=True)
class Run:
    """One load, and its books."""

    asked: Sequence[Asked]
    attempts: Sequence[Attempt]
    invoice: Sequence[Mapping[str, Any]]

    def latencies_ms(self) -> list[int]:
        return latencies_ms(of_stream(self.asked, "load"))


def run(say: Callable[[str], None]) -> list[Finding]:
    return evidence(_run(say))


async def _run(say: Callable[[str], None]) -> list[Finding]:
    return judge(await _load(say, hedge=False), await _load(say, hedge=True))


async def _load(say: Callable[[str], None], hedge: bool) -> Run:
    policy = PLAIN.model_copy(update={"hedge": hedge})
    setup = Setup(lambda url: fleet(url, ("alpha", MODEL), ("beta", MODEL), tenants={TENANT: policy}), {"executor": 2},
                  profile="heavy_tail", latency_scale=LATENCY_SCALE)
    name = "with hedging" if hedge else "without hedging"
    async with running(setup, say) as system:
        say(f"{name}: {RATE_S} requests/s for {WARM_S + LOAD_S:.0f} s")
        streams = Stream("warm", RATE_S, WARM_S, BODY), Stream("load", RATE_S, LOAD_S, BODY, after_s=WARM_S)
        asked = await system.answered(await system.send(*streams))
        found = Run(asked, await system.attempts(), await system.simulator.invoice())
    late = found.latencies_ms()
    say(f"{name}: " + ", ".join(f"p{part * 100:g} {quantile(late, part):.0f}" for part in (0.5, 0.9, 0.95, 0.98, 0.99)) + " ms")
    return found


# --- The judgement, pure -----------------------------------------------------------------------------------------


def judge(bare: Run, hedged: Run) -> list[Finding]:
    p99, p99_bare = quantile(hedged.latencies_ms(), 0.99), quantile(bare.latencies_ms(), 0.99)
    asked = [*bare.asked, *hedged.asked]
    answered = sum(one.is_delivered for one in asked)
    return [
        Finding("p99 of a request with hedging, ms, against without", f"{p99:.0f} : {p99_bare:.0f} ({p99 / p99_bare - 1:+.0%})",
                f"≤ {P99_MAX - 1:+.0%}", p99 <= P99_MAX * p99_bare),
        Finding("requests answered", f"{answered} of {len(asked)}", "all", answered == len(asked)),
        *_hedges(bare.attempts, hedged.attempts),
        *books(hedged.attempts, hedged.invoice),
    ]


def _hedges(bare: Sequence[Attempt], attempts: Sequence[Attempt]) -> Iterator[Finding]:
    started = [a for a in attempts if a.phase is AttemptPhase.STARTED]
    hedges = [a for a in started if a.kind is AttemptKind.HEDGE]
    primaries = len(started) - len(hedges)
    yield Finding("second calls, of the others", f"{len(hedges) / max(primaries, 1):.2%} ({len(hedges)} of {primaries})",
                  f"≤ {EXTRA_MAX:.0%}", 0 < len(hedges) <= EXTRA_MAX * primaries)
    stray = sum(a.kind is AttemptKind.HEDGE for a in bare)
    yield Finding("second calls where the policy wants none", str(stray), "0", not stray)
    plans: dict[str, list[Attempt]] = {}
    for line in attempts:
        if line.phase is AttemptPhase.FINISHED:
            plans.setdefault(line.plan_id, []).append(line)
    pairs = [plans.get(hedge.plan_id, []) for hedge in hedges]
    settled = sum(is_settled(pair) for pair in pairs)
    won = sum(line.kind is AttemptKind.HEDGE and line.failure is None for pair in pairs for line in pair)
    yield Finding("hedged plans with an answer, its other call closed as cancelled",
                  f"{settled} of {len(pairs)} (the hedge won {won})", "all", settled == len(pairs))


def is_settled(pair: Sequence[Attempt]) -> bool:
    """Whether one call of the two answered and the other is on the books as cancelled; both may have answered at once."""
    failures = {line.failure for line in pair}
    return len(pair) == 2 and None in failures and failures <= {None, FailureClass.CANCELLED}


def books(attempts: Sequence[Attempt], invoice: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Ledger and invoice, call by call: what is known is the same, what is not lies within its bounds."""
    closed = {a.attempt_id: a for a in attempts if a.phase is AttemptPhase.FINISHED}
    billed = {str(line["attempt_id"]): int(line["cost_microusd"]) for line in invoice}
    known = {name: line for name, line in closed.items() if line.cost_known}
    wrong = sum(line.cost_microusd != billed.get(name, 0) for name, line in known.items())
    yield Finding("calls whose known cost is not what the provider billed", f"{wrong} of {len(known)}", "0", not wrong)
    unknown = {name: line for name, line in closed.items() if not line.cost_known}
    over = sum(billed.get(name, 0) > cost_upper_microusd(line) for name, line in unknown.items())
    yield Finding("calls of unknown cost that were billed above their bound", f"{over} of {len(unknown)}", "0", not over)
    missing = sum(name not in closed for name in billed)
    yield Finding("billed calls that the ledger does not have", f"{missing} of {len(billed)}", "0", not missing)
