"""`make bench`: the order of a run, and the figures and targets it ends in."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop

from schemas.topology import RESULTS
from tests.bench import relay, stages
from tests.bench.cpu import Meter, busy_warning, require_proc, surroundings
from tests.bench.load import HttpLoad, Taken, TopicLoad, http_session, topic_load
from tests.bench.report import Row, Target, latencies, rounded, table, targets_table, write_section
from tests.bench.saturation import OVERLOAD, overload, sustained
from tests.bench.system import HEADERS, Baton, baton, body, chat_body, from_results, own, start_simulator, supervised, to_intake

RATES = (50, 200)
IDLE_S = 3.0
WARM_RATE_S, WARM_S = 200, 2.0
SUSTAINED_SHARE = 0.9   # of the sustained rate is what "the rate holds" means under overload
RELAY_SHARE_MAX = 1.5

# What a request may cost each process at saturation, in CPU-ms; together less than 0.7 would be.
CPU_MS_MAX = {
    "intake": 0.060, "preprocessing": 0.120, "router": 0.100, "executor": 0.250, "quality-gate": 0.060, "output": 0.070, "monitor": 0.040,
}  # fmt: skip
CPU_MS_MAX_TOTAL = 0.7
SUSTAINED_RPS_MIN = 1200
RSS_MB_MAX = 120
READY_S_MAX = 3.0
ROUTING_US_MAX = 100


@dataclass(frozen=True)
class Length:
    """How much is measured. Loads alternate in rounds, so that a slow minute of the machine hits all of them."""

    rounds: int
    seconds: float
    sustained_s: float
    overload_s: float
    stage_rounds: int


FULL = Length(rounds=3, seconds=8, sustained_s=20, overload_s=8, stage_rounds=9)
QUICK = Length(rounds=1, seconds=3, sustained_s=6, overload_s=2, stage_rounds=3)
SMOKE = Length(rounds=1, seconds=1, sustained_s=1, overload_s=1, stage_rounds=1)


@dataclass
class Pool:
    """All samples of one load at one rate, over the rounds, and what the processes spent on them."""

    latencies_ms: list[float] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)

    def add(self, taken: Taken, spent_ms: dict[str, float]) -> None:
        self.latencies_ms += taken.latencies_ms
        self.spent_ms = {name: self.spent_ms.get(name, 0.0) + ms for name, ms in spent_ms.items()}

    def cpu_ms(self) -> dict[str, float]:
        """Per request, by process."""
        return {name: ms / len(self.latencies_ms) for name, ms in self.spent_ms.items()}


class Loads:
    """The loads that are compared, each with the processes that it keeps busy."""

    def __init__(self, system: Baton, relays: Sequence[str], simulator_url: str) -> None:
        self._system = system
        self._relays = relays
        self._simulator_url = simulator_url

    async def open(self, stack: AsyncExitStack) -> "dict[str, HttpLoad | TopicLoad]":
        broker = self._system.broker()
        session: aiohttp.ClientSession = await stack.enter_async_context(http_session())
        request = _json(body(0))
        return {
            "relay": await stack.enter_async_context(relay.load(broker)),
            "reply": HttpLoad(session, f"{self._system.http_url}/v1/requests?wait=30", HEADERS, request),
            "results": await stack.enter_async_context(topic_load(broker, RESULTS.name, to_intake, from_results)),
            "simulator": HttpLoad(session, f"{self._simulator_url}/v1/chat/completions", {}, chat_body()),
        }

    def pids(self, name: str) -> dict[str, int]:
        if name == "relay":
            return {relay_name: self._system.processes.pid(relay_name) for relay_name in self._relays}
        return self._system.pids()
