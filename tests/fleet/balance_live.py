"""Two backends of one model, of which one becomes five times slower: how fast traffic leaves it, and what that is worth.

Judged on the provider's log of calls. The same requests are replayed through `choose` without any knowledge of latency.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from services.executor.decide import Option, choose
from services.simulator.calls import CallLine
from tests.support.findings import Finding
from tests.support.fleets import PLAIN, TENANT, fleet
from tests.support.system import Setup, System, evidence, running
from tests.support.traffic import Stream, quantile

MODEL = "sim-small"
FAST, SLOW = "alpha", "beta"
FACTOR = 5
RATE_S = 80
USUAL_S, SLOW_S, BACK_S = 9.0, 14.0, 14.0
LEARNING_MS = 3_000     # after a start: nothing is known of either
REST_MS = 8_000
"""The end of a phase, taken as its equilibrium."""

SHARE_MAX = 1 / (1 + FACTOR)
"""In proportion to its speed: whoever looks at latency gives it no more."""

WINDOW_MS, STEP_MS = 1_000, 100
SHIFTED = 0.9
SHIFT_MS_MAX = 3_000
BODY = {"model": MODEL, "max_tokens": 40, "priority": "interactive", "tenant": TENANT}


def run(say: Callable[[str], None]) -> list[Finding]:
    return evidence(_run(say))


async def _run(say: Callable[[str], None]) -> list[Finding]:
    policy = PLAIN.model_copy(update={"hedge": False})
    setup = Setup(lambda url: fleet(url, (FAST, MODEL), (SLOW, MODEL), tenants={TENANT: policy}), {"executor": 2})
    async with running(setup, say) as system:
        return await _phases(system, say)


async def _phases(system: System, say: Callable[[str], None]) -> list[Finding]:
    say(f"{RATE_S} requests/s over two backends and two executors")
    sending = asyncio.create_task(system.send(Stream("load", RATE_S, USUAL_S + SLOW_S + BACK_S, BODY)))
    await asyncio.sleep(USUAL_S)
    slow_ms = await system.simulator.control(provider=SLOW, fault={"kind": "slow", "factor": FACTOR})
    say(f"{SLOW} takes {FACTOR} times as long")
    await asyncio.sleep(SLOW_S)
    well_ms = await system.simulator.control(provider=SLOW, fault=None)
    say(f"{SLOW} is as fast as before")
    asked = await system.answered(await sending)
    calls = [call for call in await system.simulator.calls() if call.status == 200]
    starts_ms = range(asked[0].due_ms, asked[-1].due_ms, 1_000)
    say(f"{SLOW}'s share per second: " + " ".join(f"{share(calls, ms, ms + 1_000):.0%}" for ms in starts_ms))
    delivered = sum(one.is_delivered for one in asked)
    return [
        *judge(calls, asked[0].due_ms + LEARNING_MS, slow_ms, well_ms, asked[-1].due_ms),
        Finding("requests answered", f"{delivered} of {len(asked)}", "all", delivered == len(asked)),
    ]


# --- The judgement, pure -----------------------------------------------------------------------------------------


def share(calls: Sequence[CallLine], from_ms: int, to_ms: int) -> float:
    """The slow one's part of the calls that arrived in that time."""
    inside = [call for call in calls if from_ms <= call.at_ms < to_ms]
    return sum(call.provider == SLOW for call in inside) / len(inside) if inside else 0.0


def shifted_ms(calls: Sequence[CallLine], step_ms: int, end_ms: int, before: float, after: float) -> int | None:
    """From a step to the end of the first window that has gone SHIFTED of the way from `before` to `after`."""
    for start_ms in range(step_ms, end_ms - WINDOW_MS, STEP_MS):
        gone = (before - share(calls, start_ms, start_ms + WINDOW_MS)) / (before - after or 1.0)
        if gone >= SHIFTED:
            return start_ms + WINDOW_MS - step_ms
    return None


def blind_ms(calls: Sequence[CallLine], seed: int = 7) -> list[int]:
    """What the same calls would have taken, sorted, had each been placed by `choose` with equal loads: each call draws the
    time of one that its backend really served."""
    random = Random(seed)
    times = {name: [call.done_ms - call.at_ms for call in calls if call.provider == name] for name in (FAST, SLOW)}
    options = [Option(name, usable=True, load=1.0, p50_ms=None, timeout_ms=60_000, context_tokens=1) for name in times]
    return sorted(random.choice(times[choose(options, "", random.random).backend]) for _ in calls)


def judge(calls: Sequence[CallLine], begin_ms: int, slow_ms: int, well_ms: int, end_ms: int) -> list[Finding]:
    usual = share(calls, begin_ms, slow_ms)
    rest = share(calls, well_ms - REST_MS, well_ms)
    away_ms = shifted_ms(calls, slow_ms, well_ms, usual, rest)
    back_ms = shifted_ms(calls, well_ms, end_ms, rest, usual)
    settled = [call for call in calls if slow_ms + SHIFT_MS_MAX <= call.at_ms < well_ms]
    took_ms, blind = sorted(call.done_ms - call.at_ms for call in settled), blind_ms(settled)
    return [
        Finding(f"{SLOW}'s share while both are equally fast", f"{usual:.0%}", "40 … 60 %", 0.4 <= usual <= 0.6),
        Finding(f"its share at rest when it is {FACTOR} times slower (blind: 50 %)", f"{rest:.1%}", f"1 … {SHARE_MAX:.0%}",
                0.01 <= rest <= SHARE_MAX),
        Finding(f"from the step to {SHIFTED:.0%} of the shift", f"{away_ms} ms", f"≤ {SHIFT_MS_MAX} ms",
                away_ms is not None and away_ms <= SHIFT_MS_MAX),
        _beside("median of a call, ms, against blind", took_ms, blind, 0.5),
        _beside("p95 of a call, ms, against blind", took_ms, blind, 0.95),
        _way_back(calls, well_ms, end_ms, back_ms),
    ]


def _way_back(calls: Sequence[CallLine], well_ms: int, end_ms: int, back_ms: int | None) -> Finding:
    """Reported only: a backend that gets few calls is found well by those few."""
    last = f"{share(calls, end_ms - 2 * WINDOW_MS, end_ms):.0%} after {(end_ms - well_ms) / 1_000:.0f} s"
    figure = f"{f'{back_ms} ms' if back_ms else 'not yet'}; {last}"
    return Finding(f"from well again to {SHIFTED:.0%} of the way back; its share", figure, "reported", True)


def _beside(what: str, took_ms: Sequence[int], blind: Sequence[int], part: float) -> Finding:
    ours, theirs = quantile(took_ms, part), quantile(blind, part)
    return Finding(what, f"{ours:.0f} : {theirs:.0f} ({ours / theirs - 1:+.0%})", "less", ours < theirs)
