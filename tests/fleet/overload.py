"""A provider that can do so much, asked for as much, for twice and for five times as much: what is delivered in time.

Judged on the results and the provider's log of calls. Open loop, every request with a deadline; the provider's own ceiling
is measured first, with half the load.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from schemas.messages import Lane
from services.simulator.calls import CallLine
from tests.support.findings import Finding
from tests.support.fleets import PLAIN, TENANT, fleet
from tests.support.system import Setup, System, evidence, running
from tests.support.traffic import Asked, Stream, latencies_ms, quantile

PROVIDER, MODEL = "alpha", "sim-small"
CAPACITY = 48               # calls that it works on at once
LATENCY_SCALE = 2.0         # some 0.6 s per call, so 80 calls a second
DEADLINE_MS = 8_000
HALF_S, PHASE_S = 6.0, 16.0
STEADY_MS = 4_000           # of a phase, until it is what it will be
FACTORS = (1, 2, 5)
GOODPUT_MIN = 0.9
WASTED_MAX = 0.05
TURNED_AWAY_MAX = 0.05
ONE_LANE: Mapping[Lane, float] = {Lane.STANDARD: 1.0}
MIXED: Mapping[Lane, float] = {Lane.INTERACTIVE: 0.2, Lane.STANDARD: 0.3, Lane.BATCH: 0.5}


@dataclass(frozen=True)
class Phase:
    """One load: so many times the ceiling, what was asked, and the calls that it led to."""

    factor: float
    rate_s: float
    asked: Sequence[Asked]
    calls: Sequence[CallLine]

    def goodput_s(self) -> float:
        """Delivered within their deadline, per second, from when the phase is steady until its load ends."""
        begin_ms, end_ms = self.asked[0].due_ms + STEADY_MS, self.asked[-1].due_ms
        in_time = sum(one.is_in_time and begin_ms <= (one.ended_ms or 0) < end_ms for one in self.asked)
        return in_time * 1_000 / (end_ms - begin_ms)

    def wasted(self) -> float:
        """The part of the calls that were worked on and whose answer nobody got in time."""
        worked_on = sum(call.status == 200 for call in self.calls)
        return 1 - sum(one.is_in_time for one in self.asked) / worked_on if worked_on else 0.0

    def turned_away(self) -> float:
        """The part of the calls that the provider had no room for."""
        return sum(call.status in (429, 503) for call in self.calls) / len(self.calls) if self.calls else 0.0


def run(say: Callable[[str], None]) -> list[Finding]:
    """All requests of one lane."""
    return evidence(_run(say, ONE_LANE))


def run_mixed(say: Callable[[str], None]) -> list[Finding]:
    """A fifth interactive, three tenths standard, half batch."""
    return evidence(_run(say, MIXED))


async def _run(say: Callable[[str], None], lanes: Mapping[Lane, float]) -> list[Finding]:
    policy = PLAIN.model_copy(update={"hedge": False})
    controls = ({"provider": PROVIDER, "capacity": CAPACITY},)
    config = partial(fleet, tenants={TENANT: policy})
    setup = Setup(lambda url: config(url, (PROVIDER, MODEL)), {"executor": 2}, latency_scale=LATENCY_SCALE, controls=controls)
    async with running(setup, say) as system:
        half = await _phase(system, 0.5, CAPACITY, lanes, HALF_S)
        ceiling_s = CAPACITY / mean_s(half.calls)
        say(f"a call takes {mean_s(half.calls) * 1000:.0f} ms, so the provider's ceiling is {ceiling_s:.0f} calls/s")
        phases = []
        for factor in FACTORS:
            phases.append(phase := await _phase(system, factor, factor * ceiling_s, lanes, PHASE_S))
            say(_story(phase))
        return [*judge(phases, ceiling_s), _sender(system)]


async def _phase(system: System, factor: float, rate_s: float, lanes: Mapping[Lane, float], seconds: float) -> Phase:
    body = {"model": MODEL, "max_tokens": 40, "tenant": TENANT, "deadline_ms": DEADLINE_MS}
    streams = [Stream(lane, rate_s * part, seconds, {**body, "priority": lane}) for lane, part in lanes.items()]
    asked = await system.answered(await system.send(*streams))
    return Phase(factor, rate_s, asked, await system.simulator.calls(asked[0].due_ms))


def _story(phase: Phase) -> str:
    late = sorted(latencies_ms(phase.asked))
    ends = Counter(one.result.reason or one.result.status if one.result else "no result" for one in phase.asked)
    lanes = {one.stream: (0, 0) for one in phase.asked}
    for one in phase.asked:
        good, all_ = lanes[one.stream]
        lanes[one.stream] = good + one.is_in_time, all_ + 1
    return (
        f"{phase.factor:g} x: {phase.rate_s:.0f} requests/s, {phase.goodput_s():.1f}/s in time; "
        f"p50 {quantile(late, 0.5):.0f} ms, p99 {quantile(late, 0.99):.0f} ms; "
        + ", ".join(f"{reason} {count}" for reason, count in ends.most_common())
        + "; " + ", ".join(f"{lane} {good / all_:.0%}" for lane, (good, all_) in lanes.items())
    )


def _sender(system: System) -> Finding:
    return Finding("how late the sender was, at the worst", f"{system.late_ms} ms", "≤ 200 ms", system.late_ms <= 200)


# --- The judgement, pure -----------------------------------------------------------------------------------------


def mean_s(calls: Sequence[CallLine]) -> float:
    return sum(call.done_ms - call.at_ms for call in calls) / len(calls) / 1_000


def judge(phases: Sequence[Phase], ceiling_s: float) -> list[Finding]:
    """The first phase asks for as much as the provider can do: the peak is what it delivers then."""
    peak_s = max(phase.goodput_s() for phase in phases if phase.factor <= 1)
    findings = [Finding("delivered in time per second at its ceiling, the peak", f"{peak_s:.1f} of {ceiling_s:.1f}",
                        f"≥ {GOODPUT_MIN:.0%}", peak_s >= GOODPUT_MIN * ceiling_s)]
    for phase in phases:
        if phase.factor > 1:
            part = phase.goodput_s() / peak_s if peak_s else 0.0
            findings.append(Finding(f"the same at {phase.factor:g} times that load", f"{phase.goodput_s():.1f} ({part:.0%})",
                                    f"≥ {GOODPUT_MIN:.0%}", part >= GOODPUT_MIN))
    for phase in phases:
        findings += _quality(phase)
    return findings


def _quality(phase: Phase) -> list[Finding]:
    at, delivered = f"at {phase.factor:g} x: ", latencies_ms(phase.asked)
    p99_ms = quantile(delivered, 0.99)
    lost = sum(one.result is None for one in phase.asked)
    return [
        Finding(at + "p99 of what is delivered (p50)", f"{p99_ms:.0f} ms ({quantile(delivered, 0.5):.0f} ms)",
                f"≤ {DEADLINE_MS} ms", p99_ms <= DEADLINE_MS),
        Finding(at + "answers that came too late, of all answers", f"{phase.wasted():.1%}", f"≤ {WASTED_MAX:.0%}",
                phase.wasted() <= WASTED_MAX),
        Finding(at + "calls that the provider turned away", f"{phase.turned_away():.1%}", f"≤ {TURNED_AWAY_MAX:.0%}",
                phase.turned_away() <= TURNED_AWAY_MAX),
        Finding(at + "requests without a result", f"{lost} of {len(phase.asked)}", "0", not lost),
    ]
