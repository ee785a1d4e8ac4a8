"""The monitor as a process on a real broker: what executors observe is what the fleet knows, also across its restart."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any
from uuid import uuid4

import click
import pytest

from schemas.fleet import Alert, AlertKind, Circuit, FleetEntry, Observation
from schemas.topology import ALERTS, DEAD_LETTERS, FLEET, OBSERVATIONS, topic_spec
from services.monitor.monitor import STAGE
from shared.broker import Output, Producer
from shared.codec import decode, encode
from shared.kafka import KafkaBroker
from shared.table import Table
from tests.support.builders_monitor import a_gate, an_observation

COOLDOWN_MS = 1_000
RAMP_MS = 2_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def until(holds: Callable[[], bool], timeout_s: float) -> float:
    """Seconds until it holds. Raises TimeoutError."""
    began_s = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
    return time.monotonic() - began_s


class Fleet:
    """The `fleet` table as any reader has it, and a producer that speaks for executors."""

    def __init__(self, broker: KafkaBroker, table: Table[FleetEntry], producer: Producer) -> None:
        self._broker = broker
        self._table = table
        self._producer = producer
        self._sequence = 0
        self.history: list[FleetEntry] = []

    def __getitem__(self, backend: str) -> FleetEntry:
        return self._table.values.get(backend, FleetEntry(backend="nothing yet"))

    async def tell(self, backend: str, reporter: str = "r1", **seen: Any) -> Observation:
        self._sequence += 1
        observation = an_observation(backend, reporter, self._sequence, now_ms(), **seen)
        value = encode(OBSERVATIONS, observation)
        await (await self._producer.send(Output(OBSERVATIONS.name, backend.encode(), value)))
        return observation

    async def alerts(self) -> list[Alert]:
        """Everything on the topic now."""
        reader = await self._broker.reader(ALERTS.name)
        found = []
        for partition, end in (await reader.ends()).items():
            while await reader.position(partition) < end:
                found += [decode(ALERTS, record.value) for record in await reader.poll(200)]
        await reader.close()
        return found


@asynccontextmanager
async def a_fleet(broker: KafkaBroker) -> AsyncIterator[Fleet]:
    await broker.create_topics([topic_spec(topic) for topic in {*STAGE.reads, *STAGE.writes, *STAGE.tables, DEAD_LETTERS}])
    table: Table[FleetEntry] = Table(broker, FLEET, lambda backend: fleet.history.append(table.values[backend]))
    producer = await broker.producer()
    fleet = Fleet(broker, table, producer)
    await table.start()
    try:
        yield fleet
    finally:
        await table.close()
        await producer.close()


@asynccontextmanager
async def a_monitor(bootstrap: str, kill: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process; ended by SIGTERM, after which it must exit cleanly, or killed."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "BATON_SESSION_TIMEOUT_MS": "5000",     # so long its partitions lie idle after a kill
        "BATON_HEARTBEAT_INTERVAL_MS": "500",
        "BATON_CIRCUIT_COOLDOWN_MS": str(COOLDOWN_MS),
        "BATON_CIRCUIT_RAMP_MS": str(RAMP_MS),
        "BATON_CIRCUIT_PROBE_PATIENCE_MS": "10000",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.monitor", env=os.environ | settings)
    try:
        yield process
        assert process.returncode is None, "the monitor ended by itself"
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == (-signal.SIGKILL if kill else 0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(fleet: Fleet) -> str:
    """Returns when the monitor has published what it was told: the name of a backend that is fine."""
    fine = f"fine-{uuid4().hex[:8]}"
    await fleet.tell(fine, latencies_ms=(100.0,) * 20)
    await until(lambda: fleet[fine].backend == fine, 40)
    return fine


async def test_a_failing_backend_is_open_for_the_fleet_and_recovers_by_probes(kafka, kafka_options):
    async with a_fleet(KafkaBroker(kafka_options)) as fleet, a_monitor(kafka.bootstrap):
        await ready(fleet)
        ill = f"ill-{uuid4().hex[:8]}"
        for reporter in ("r1", "r2"):
            await fleet.tell(ill, reporter, failures=4)
        await until(lambda: fleet[ill].circuit is Circuit.OPEN, 20)      # how soon: see the median of trips, below
        assert fleet[ill].reason == "8 hard failures in a row"

        await until(lambda: fleet[ill].circuit is Circuit.HALF_OPEN, 20)
        entry = fleet[ill]
        assert entry.updated_ms >= entry.cooldown_until_ms >= entry.since_ms - COOLDOWN_MS
        assert sum(entry.probe_leases.values()) == 3
        assert set(entry.probe_leases) <= {"r1", "r2"}

        for reporter, probes in entry.probe_leases.items():
            await fleet.tell(ill, reporter, latencies_ms=(100.0,) * probes, probes=(entry.probe_epoch, probes, 0))
        await until(lambda: fleet[ill].circuit is Circuit.CLOSED, 20)
        await until(lambda: fleet[ill].share == 1.0, 20)
        shares = [e.share for e in fleet.history if e.backend == ill and e.circuit is Circuit.CLOSED]
        steps = list(dict.fromkeys(shares[1:]))      # a monitor that the machine held up may have slept through a step
        assert steps[0] == 0.10
        assert steps == [step for step in (0.10, 0.25, 0.50, 1.0) if step in steps]


async def test_what_is_observed_reaches_the_fleet_in_under_half_a_second_also_after_silence(kafka, kafka_options):
    async with a_fleet(KafkaBroker(kafka_options)) as fleet, a_monitor(kafka.bootstrap):
        fine = await ready(fleet)
        took_s = []
        for calls in (21, 22, 23):
            await asyncio.sleep(1.7)      # longer than a fetch waits at the broker
            await fleet.tell(fine, latencies_ms=(100.0,))
            took_s.append(await until(lambda calls=calls: fleet[fine].windows[2].calls == calls, 20))
        assert median(took_s) < 0.5, took_s


async def test_gates_and_trips_reach_the_fleet_in_a_moment(kafka, kafka_options):
    """From the reporter's send to the reader's table; 150 ms when nothing else keeps the machine busy."""
    async with a_fleet(KafkaBroker(kafka_options)) as fleet, a_monitor(kafka.bootstrap):
        await ready(fleet)
        took_s = []
        for number in range(12):
            ill, began_s = f"ill-{uuid4().hex[:8]}", time.monotonic()
            await fleet.tell(ill, **({"failures": 8} if number % 2 else {"gate": a_gate(now_ms() + 60_000)}))
            await until(lambda ill=ill: fleet[ill].gate is not None or fleet[ill].circuit is Circuit.OPEN, 5)
            took_s.append(time.monotonic() - began_s)
        click.echo(f"from a gate or a trip to the fleet: median {median(took_s) * 1000:.0f} ms, most {max(took_s) * 1000:.0f} ms")
        assert median(took_s) < 0.3


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_restart_in_the_middle_keeps_windows_and_circuit(kafka, kafka_options, kill):
    async with a_fleet(KafkaBroker(kafka_options)) as fleet:
        ill = f"ill-{uuid4().hex[:8]}"
        async with a_monitor(kafka.bootstrap, kill):
            fine = await ready(fleet)
            await fleet.tell(fine, latencies_ms=(50.0, 100.0, 200.0), failures=1)
            await fleet.tell(ill, failures=30)
            await until(lambda: fleet[ill].circuit is not Circuit.CLOSED and fleet[fine].windows[2].calls == 24, 20)
            before = fleet[fine]
            tripped = fleet[ill]
        await fleet.tell(fine, latencies_ms=(400.0,))      # while nobody looks
        async with a_monitor(kafka.bootstrap):
            await until(lambda: fleet[fine].windows[2].calls == 25, 40)
            after = fleet[fine]
            assert after.windows[2].failed == before.windows[2].failed == 1
            assert after.windows[2].p50_ms == before.windows[2].p50_ms
            await until(lambda: fleet[ill].circuit is Circuit.HALF_OPEN, 20)
            assert fleet[ill].trips == tripped.trips == 1
            closed = [e for e in fleet.history if e.backend == ill and e.circuit is Circuit.CLOSED and e.trips]
            assert closed == [], "a restart must never close a circuit"
            kinds = [alert.kind for alert in await fleet.alerts() if alert.subject == ill]
            assert kinds.count(AlertKind.CIRCUIT_OPEN) == 1, "a restart must repeat no alert"
            assert AlertKind.CIRCUIT_HALF_OPEN in kinds
