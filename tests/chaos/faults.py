"""A seed becomes a schedule of faults, and the schedule is carried out against processes that this run started, by their pid.

SIGKILL, or SIGSTOP past the session timeout and SIGCONT: the latter makes a zombie, which wakes up believing that it still
owns what others have taken over. The broker is killed and restarted on its own data.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from services.cli.broker import KafkaProcess
from services.cli.processes import Processes, Say

KILL_SHARE = 0.7
BROKER = "broker"
FREEZE_BEYOND_S = 2.0
"""A frozen process sleeps this much longer than its session timeout: the group has given its partitions away by then."""

SPREAD = (0.4, 1.6)
"""Gaps between two faults, as multiples of the mean: some hit a system that has not yet got over the last one."""


class Kind(StrEnum):
    KILL = "SIGKILL"
    FREEZE = "SIGSTOP"
    BOUNCE = "SIGKILL and restart"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to whom, in seconds after the load began."""

    at_s: float
    victim: str
    kind: Kind


@dataclass(slots=True)
class Fired:
    """A fault as it happened; times are epoch ms. A freeze lasts until its process runs again."""

    fault: Fault
    at_ms: int
    until_ms: int = 0


def schedule(seed: int, victims: Sequence[str], count: int, bounces: int, from_s: float, until_s: float) -> list[Fault]:
    """`count` faults: every process is killed in turn, with every stage frozen once in between, then at random; and broker
    bounces, evenly spread. Pure: the same seed gives the same schedule."""
    random = Random(seed)
    freezes = [(victim, Kind.FREEZE) for victim in _one_per_stage(victims, random)]
    plan: list[tuple[str, Kind]] = []
    for victim in random.sample(victims, len(victims)):
        plan.append((victim, Kind.KILL))
        plan += [freezes.pop(0)] if freezes and len(plan) % 3 == 2 else []
    plan += freezes
    while len(plan) < count:
        kind = Kind.KILL if random.random() < KILL_SHARE else Kind.FREEZE
        plan.append((random.choice([victim for victim in victims if victim != plan[-1][0]]), kind))
    gaps = [random.uniform(*SPREAD) for _ in range(count)]
    scale = (until_s - from_s) / max(sum(gaps), 1.0)
    faults, at_s = [], from_s
    for (victim, kind), gap in zip(plan, gaps, strict=False):
        faults.append(Fault(round(at_s, 2), victim, kind))
        at_s += gap * scale
    every_s = (until_s - from_s) / (bounces + 1)
    faults += [Fault(round(from_s + every_s * (place + 1), 2), BROKER, Kind.BOUNCE) for place in range(bounces)]
    return sorted(faults, key=lambda fault: fault.at_s)


def _one_per_stage(victims: Sequence[str], random: Random) -> list[str]:
    """One replica of each stage; those where a zombie could do harm, executor and output, come first."""
    stages = {stage_of(victim): victim for victim in random.sample(victims, len(victims))}
    return sorted(stages.values(), key=lambda victim: stage_of(victim) not in ("executor", "output"))


def stage_of(victim: str) -> str:
    return victim.rpartition("-")[0]


class Injector:
    """Carries out a schedule. A freeze goes on while later faults happen."""

    def __init__(self, processes: Processes, broker: KafkaProcess, session_timeout_s: float, say: Say) -> None:
        self.fired: list[Fired] = []
        self._processes = processes
        self._broker = broker
        self._freeze_s = session_timeout_s + FREEZE_BEYOND_S
        self._say = say

    async def run(self, faults: Sequence[Fault]) -> None:
        """Returns when the last fault is over. Whatever was frozen runs again, also when this is cancelled."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
                group.create_task(self._fire(fault, time.monotonic() - began_s))

    async def _fire(self, fault: Fault, at_s: float) -> None:
        pid = self._broker.pid() if fault.kind is Kind.BOUNCE else self._processes.pid(fault.victim)
        self._say(f"  {at_s:6.1f} s  {fault.kind:<19}  {fault.victim} (pid {pid})")
        fired = Fired(fault, time.time_ns() // 1_000_000)
        self.fired.append(fired)
        if fault.kind is Kind.BOUNCE:
            await asyncio.to_thread(self._broker.kill)
            await asyncio.to_thread(self._broker.restart)
        elif fault.kind is Kind.KILL:
            await asyncio.to_thread(self._processes.kill, fault.victim, signal.SIGKILL)
        else:
            await self._freeze(fault.victim, pid)
        fired.until_ms = time.time_ns() // 1_000_000

    async def _freeze(self, victim: str, pid: int) -> None:
        self._processes.kill(victim, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._freeze_s)
        finally:
            if self._processes.pid(victim) == pid:   # killed in its sleep: its successor was never stopped
                self._processes.kill(victim, signal.SIGCONT)
