"""How long a request takes at 50 and 200 a second, beside a bare relay chain and the provider alone, and what it costs then.

The loads take turns in rounds, each system being there all the time: a slow minute of the machine hits all of them.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import click
import orjson

from schemas.topology import RESULTS
from tests.bench import relay
from tests.bench.cpu import Meter
from tests.bench.load import HttpLoad, Taken, TopicLoad, http_session, topic_load
from tests.bench.report import latencies
from tests.bench.system import HEADERS, Baton, Say, body, chat_body, from_results, own, to_intake

RATES = (50, 200)
WARM_RATE_S, WARM_S = 400, 2.0   # the broker is a fresh JVM
PAUSE_S = 0.5
IDLE_S = 3.0

Pids = Mapping[str, int]


@dataclass
class Load:
    """One of the loads that are compared, with the processes it keeps busy."""

    run: HttpLoad | TopicLoad
    pids: Callable[[], Pids]


@dataclass
class Pool:
    """All samples of one load at one rate over the rounds, and what its processes spent on them."""

    name: str
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    spent_ms: dict[str, float] = field(default_factory=dict)

    def add(self, taken: Taken, spent_ms: Mapping[str, float]) -> None:
        if not taken.latencies_ms:
            raise click.ClickException(f"{self.name}: no request was answered ({taken.failure}); the logs are in build/bench")
        self.latencies_ms += taken.latencies_ms
        self.failed += taken.failed
        self.spent_ms = {name: self.spent_ms.get(name, 0.0) + ms for name, ms in spent_ms.items()}

    def figures(self) -> dict[str, float]:
        cost_ms = sum(own(self.spent_ms).values()) / len(self.latencies_ms)
        figures = latencies(self.name, self.latencies_ms) | {f"{self.name}_cpu_ms_per_request": cost_ms}
        return figures | ({f"{self.name}_failed": self.failed} if self.failed else {})


async def measure(
    system: Baton, relays: list[str], simulator_url: str, rounds: int, seconds: float, say: Say
) -> dict[str, dict[str, Any]]:
    """Figures by rate. `simulator` is the upstream's own time, which is in `reply` and `results` too."""
    found: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as stack:
        loads = await _loads(stack, system, relays, simulator_url)
        for load in loads.values():
            await load.run.open(WARM_RATE_S, WARM_S)
        for rate_s in RATES:
            pools = {name: Pool(name) for name in loads}
            for number in range(rounds):
                say(f"{rate_s} requests/s, round {number + 1} of {rounds}: {', '.join(loads)}")
                for name, load in loads.items():
                    pools[name].add(*await _taken(load, rate_s, seconds))
            found[str(rate_s)] = {name: value for pool in pools.values() for name, value in pool.figures().items()}
            found[str(rate_s)]["processes"] = _by_process(pools["results"])
    return found


async def idle(system: Baton, relays: list[str]) -> dict[str, float]:
    """Share of a core in percent that Baton, the relays and the broker take while nothing is asked."""
    meter = Meter(system.pids() | _pids(system, relays))
    await asyncio.sleep(IDLE_S)
    spent = {name: ms / IDLE_S / 10 for name, ms in meter.spent_ms().items()}
    chain = sum(spent[name] for name in relays)
    return {"baton": sum(own(spent).values()) - chain, "relay": chain, "broker": spent["broker"]}


async def _loads(stack: AsyncExitStack, system: Baton, relays: list[str], simulator_url: str) -> dict[str, Load]:
    broker, session = system.broker(), await stack.enter_async_context(http_session())
    reply = HttpLoad(session, f"{system.http_url}/v1/requests?wait=30", HEADERS, orjson.dumps(body(0)))
    alone = HttpLoad(session, f"{simulator_url}/v1/chat/completions", {}, chat_body())
    chain = await stack.enter_async_context(relay.load(broker))
    results = await stack.enter_async_context(topic_load(broker, RESULTS.name, to_intake, from_results))
    return {
        "relay": Load(chain, lambda: _pids(system, relays)),
        "reply": Load(reply, system.pids),
        "results": Load(results, system.pids),
        "simulator": Load(alone, lambda: {"upstream": system.processes.pid(system.simulator)}),
    }


def _pids(system: Baton, relays: list[str]) -> dict[str, int]:
    return {name: system.processes.pid(name) for name in relays}


async def _taken(load: Load, rate_s: float, seconds: float) -> tuple[Taken, dict[str, float]]:
    await asyncio.sleep(PAUSE_S)
    meter = Meter(load.pids())
    taken = await load.run.open(rate_s, seconds)
    return taken, meter.spent_ms()


def _by_process(pool: Pool) -> dict[str, dict[str, float]]:
    return {name: {"cpu_ms_per_request": ms / len(pool.latencies_ms)} for name, ms in pool.spent_ms.items()}
