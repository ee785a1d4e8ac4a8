"""`make failover`: a provider fails under load, two routers and two executors leave it, probe it and come back to it.

Real broker, real processes, one outage per provider: all calls answered 503; then 503, 500 and resets mixed. Judged on the
provider's log of calls, the ledger and the fleet's entries. Prints a table each, exits 1 when a promise is broken.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from shared.circuit import CircuitRules
from tests.failover.judge import Outage, Seen, judge, share
from tests.support.findings import Finding, report, say
from tests.support.fleets import TENANT, fleet
from tests.support.system import Setup, Simulator, System, evidence, now_ms, running
from tests.support.traffic import Asked, Stream

MODEL = "sim-small"
RATE_S = 100
REPLICAS = {"router": 2, "executor": 2}
BODY = {"model": MODEL, "max_tokens": 40, "priority": "interactive", "tenant": TENANT}


@dataclass(frozen=True)
class Pace:
    """How long all is well, a backend is down, and is watched afterwards; and the circuit's times, shorter than in
    production, so that one run sees the whole cycle: the rules are the same."""

    usual_s: float
    broken_s: float
    back_s: float
    cooldown_ms: int
    ramp_ms: int
    latency_scale: float = 1.0


FULL = Pace(usual_s=10, broken_s=7, back_s=21, cooldown_ms=3_000, ramp_ms=6_000)
QUICK = Pace(usual_s=4, broken_s=2, back_s=8.5, cooldown_ms=1_000, ramp_ms=2_100, latency_scale=0.5)


async def _answers_503(simulator: Simulator, provider: str) -> int:
    return await simulator.control(provider=provider, fault={"kind": "error", "status": 503})


async def _fails_in_every_way(simulator: Simulator, provider: str) -> int:
    return await simulator.control(provider=provider, profile="outage", outage_at_s=0, time_scale=600)


async def _is_well(simulator: Simulator, provider: str) -> int:
    return await simulator.control(provider=provider, profile="steady", fault=None)


Break = Callable[[Simulator, str], Coroutine[None, None, int]]
OUTAGES = (
    ("alpha", "503 to everything", _answers_503),
    ("beta", "503, 500 and resets", _fails_in_every_way),
)


async def run(say: Callable[[str], None], pace: Pace = FULL, outages: int = len(OUTAGES)) -> dict[str, list[Finding]]:
    """Healthy, broken, healed, for so many outages. Findings by outage."""
    rules = CircuitRules()
    env = {"BATON_CIRCUIT_COOLDOWN_MS": str(pace.cooldown_ms), "BATON_CIRCUIT_RAMP_MS": str(pace.ramp_ms)}
    say(f"cooldown {pace.cooldown_ms / 1000:g} s, ramp {pace.ramp_ms / 1000:g} s; "
        f"in production {rules.cooldown_ms / 1000:g} s and {rules.ramp_ms / 1000:g} s")
    setup = Setup(lambda url: fleet(url, ("alpha", MODEL), ("beta", MODEL)), REPLICAS, env, latency_scale=pace.latency_scale)
    async with running(setup, say) as system:
        seconds = pace.usual_s + outages * (pace.broken_s + pace.back_s)
        say(f"{RATE_S} requests/s for {seconds:.0f} s")
        sending = asyncio.create_task(system.send(Stream("load", RATE_S, seconds, BODY)))
        await asyncio.sleep(pace.usual_s)
        past = [await _outage(system.simulator, pace, say, *OUTAGES[number]) for number in range(outages)]
        asked = await system.answered(await sending)
        seen = Seen(await system.simulator.calls(), await system.attempts(), await system.fleet(), asked)
        for outage in past:
            say(f"{outage.backend}'s share of calls per second: " + _shares(outage, seen))
        overall = await _overall(system, asked)
    found = {f"{provider}: {how}": judge(outage, seen) for (provider, how, _), outage in zip(OUTAGES, past, strict=False)}
    return found | {"all of it": overall}


async def _outage(simulator: Simulator, pace: Pace, say: Callable[[str], None], provider: str, how: str, breaks: Break) -> Outage:
    broke_ms = await breaks(simulator, provider)
    say(f"{provider} fails: {how}")
    await asyncio.sleep(pace.broken_s)
    healed_ms = await _is_well(simulator, provider)
    say(f"{provider} is well again")
    await asyncio.sleep(pace.back_s)
    return Outage(f"{provider}-small", provider, broke_ms, healed_ms, now_ms(), pace.ramp_ms)


def _shares(outage: Outage, seen: Seen) -> str:
    seconds = range(outage.broke_ms - 3_000, outage.end_ms, 1_000)
    return " ".join(f"{share(seen.attempts, outage.backend, start_ms, start_ms + 1_000):.0%}" for start_ms in seconds)


async def _overall(system: System, asked: list[Asked]) -> list[Finding]:
    results = await system.results()
    ids = {result.request_id for result in results}
    failed = [one for one in asked if not one.is_delivered]
    return [
        Finding("requests with exactly one result", f"{len(ids)} of {len(asked)}", "all",
                len(ids) == len(asked) == len(results)),
        Finding("requests that were not answered", str(len(failed)), "0", not failed),
        Finding("processes that had to be started again", str(system.restarts()), "0", not system.restarts()),
    ]


def main() -> int:
    found = evidence(run(say))
    title = f"under {RATE_S} requests/s, {REPLICAS['router']} routers, {REPLICAS['executor']} executors"
    return max([report(f"{name}; {title}", findings) for name, findings in found.items()])


if __name__ == "__main__":
    sys.exit(main())
