"""A whole Baton for evidence: Kafka as a child process, one simulator, so many replicas of each stage. What went in is timed
by the sender, what came out is read back from the topics and from the provider's own books.

Nothing of the shell's own Baton gets in, and nothing that is started here is left behind.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
import uvloop

from schemas.config import ConfigFile
from schemas.fleet import FleetEntry
from schemas.ledger import Attempt, AttemptPhase
from schemas.messages import Result
from schemas.topology import ATTEMPTS, FLEET, REQUEST_PARTITIONS_DEFAULT, RESULTS, STAGES, Topic
from services.cli.apply import apply_config
from services.cli.broker import KafkaProcess
from services.cli.broker_config import HOST
from services.cli.processes import Processes, service_ports
from services.cli.topics import create_all
from services.simulator.calls import CallLine
from shared.broker import Broker, Reader, Record
from shared.codec import decode
from shared.kafka import KafkaBroker, KafkaOptions
from tests.support.traffic import Asked, Stream, drive

Say = Callable[[str], None]
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
LOG_DIR = ROOT / "build" / "evidence"
SETTLE_S = 45.0
POLL_S = 0.1


@dataclass(frozen=True)
class Setup:
    """What is started. `config` makes the catalogue from the simulator's address; `replicas` are of stages with more than one;
    `controls` are in force before the first call.
    """

    config: Callable[[str], ConfigFile]
    replicas: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    profile: str = "steady"
    latency_scale: float = 1.0
    controls: Sequence[Mapping[str, object]] = ()


def now_ms() -> int:
    """Epoch milliseconds: everything runs on this machine, so all clocks are this one."""
    return time.time_ns() // 1_000_000


class Simulator:
    """The provider's control plane and its books."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._session = session

    async def control(self, **body: object) -> int:
        """Put a control body in force. Returns when it was, in epoch milliseconds."""
        async with self._session.post(f"{self.url}/control", json=body) as answer:
            if answer.status != 200:
                raise ValueError(f"the simulator refuses {body}: {await answer.text()}")
        return now_ms()

    async def calls(self, since_ms: int = 0) -> list[CallLine]:
        """Every call that has ended, billed or not, by arrival."""
        lines = [CallLine(**line) for line in await self._lines(f"/calls?since_ms={since_ms}")]
        return sorted(lines, key=lambda line: line.at_ms)

    async def invoice(self) -> list[dict[str, Any]]:
        """The billed calls."""
        return await self._lines("/invoice")

    async def gated(self) -> list[dict[str, Any]]:
        """The calls that came while their caller had been told to wait; `after_ms` is counted from when it was told."""
        async with self._session.get(f"{self.url}/gated") as answer:
            answer.raise_for_status()
            calls: list[dict[str, Any]] = (await answer.json())["calls"]
            return calls

    async def _lines(self, path: str) -> list[dict[str, Any]]:
        async with self._session.get(f"{self.url}{path}") as answer:
            answer.raise_for_status()
            return [orjson.loads(line) for line in (await answer.read()).splitlines()]


class System:
    """A Baton that runs. Sending and reading may go on side by side."""

    def __init__(self, broker: Broker, processes: Processes, simulator: Simulator, results: Reader, bootstrap: str) -> None:
        self.broker = broker
        self.bootstrap = bootstrap
        self.processes = processes
        self.simulator = simulator
        self.late_ms = 0            # how far the sender fell behind its own schedule, at the worst
        self._results = results
        self._records: list[Record] = []

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.processes.http_port('intake-0')}"

    async def send(self, *streams: Stream) -> list[Asked]:
        """All streams from now on, open loop: each request at its due time. Returns when the last one is acknowledged."""
        asked, late_ms = await drive(self.broker, streams)
        self.late_ms = max(self.late_ms, late_ms)
        return asked

    async def answered(self, asked: Sequence[Asked], timeout_s: float = SETTLE_S) -> list[Asked]:
        """The same requests with their results; those without one by then keep none."""
        wanted = {one.mark for one in asked}
        until_s = time.monotonic() + timeout_s
        while True:
            found = {mark: (result, record.timestamp_ms) for mark, result, record in await self._marked() if mark in wanted}
            if len(found) == len(wanted) or time.monotonic() > until_s:
                return [one.with_result(*found[one.mark]) if one.mark in found else one for one in asked]
            await asyncio.sleep(POLL_S)

    async def results(self) -> list[Result]:
        """Everything on `results` so far: one request may be there twice, if the system is broken."""
        return [result for _, result, _ in await self._marked()]

    async def attempts(self) -> list[Attempt]:
        """The whole ledger so far: a started and a finished line of each call."""
        return [decode(ATTEMPTS, record.value) for record in await self.records(ATTEMPTS)]

    async def booked_ms(self) -> dict[str, int]:
        """When the line that a call needs before it may leave came into the log, by attempt. By the broker's clock."""
        lines = [(decode(ATTEMPTS, record.value), record.timestamp_ms) for record in await self.records(ATTEMPTS)]
        return {line.attempt_id: ms for line, ms in lines if line.phase is AttemptPhase.STARTED}

    async def fleet(self) -> list[FleetEntry]:
        """Every entry that was published, in order."""
        return [decode(FLEET, record.value) for record in await self.records(FLEET)]

    async def records(self, topic: Topic) -> list[Record]:
        """Everything on a topic so far, in order per partition; what was taken off it is left out."""
        reader = await self.broker.reader(topic.name)
        found: list[Record] = []
        for partition, end in (await reader.ends()).items():
            while await reader.position(partition) < end:
                found += [record for record in await reader.poll(200) if record.value is not None]
        await reader.close()
        return found

    async def apply(self, config: ConfigFile) -> None:
        """Another config, hot."""
        await apply_config(self.broker, config, now_ms())

    def restarts(self) -> int:
        """Of any process: a figure from a run with one is worthless."""
        return sum(self.processes.restarts(name) for name in self.processes.names())

    async def _marked(self) -> list[tuple[str, Result, Record]]:
        for partition, end in (await self._results.ends()).items():
            while await self._results.position(partition) < end:
                self._records += await self._results.poll(200)
        decoded = [(decode(RESULTS, record.value), record) for record in self._records]
        return [(str(result.metadata.get("mark")), result, record) for result, record in decoded]


@asynccontextmanager
async def running(setup: Setup, say: Say) -> AsyncIterator[System]:
    """Everything up and ready; at the end it is killed, for what a section wants to know it has read by then."""
    async with AsyncExitStack() as stack:
        kafka = stack.enter_context(await asyncio.to_thread(KafkaProcess.start, say=say))
        broker = KafkaBroker(KafkaOptions(kafka.bootstrap, client_id="evidence"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATON_", "KAFKA_"))}
        env = kept | {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "PYTHONPATH": str(ROOT)} | setup.env
        processes = stack.enter_context(Processes(env, LOG_DIR, say=say, stop_timeout_s=0))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        simulator = Simulator(session, _start_simulator(processes, setup))
        await create_all(broker, REQUEST_PARTITIONS_DEFAULT)
        await apply_config(broker, setup.config(simulator.url), now_ms())
        for stage in STAGES:
            for replica in range(setup.replicas.get(stage.name, 1)):
                processes.start(stage.name, stage.module, replica)
        await asyncio.to_thread(processes.wait_ready)
        results = await broker.reader(RESULTS.name)
        stack.push_async_callback(results.close)
        say(f"{len(processes.names())} processes are up; their logs are in {LOG_DIR.relative_to(ROOT)}")
        yield System(broker, processes, simulator, results, kafka.bootstrap)


def _start_simulator(processes: Processes, setup: Setup) -> str:
    (port,) = service_ports(1)
    arguments = ["--port", str(port), "--invoice", str(LOG_DIR / "invoice.jsonl"), "--profile", setup.profile]
    arguments += ["--latency-scale", str(setup.latency_scale)]
    for control in setup.controls:
        arguments += ["--control", orjson.dumps(control).decode()]
    (LOG_DIR / "invoice.jsonl").unlink(missing_ok=True)
    processes.run("simulator", ["services.simulator", *arguments], (port, "/livez"))
    return f"http://{HOST}:{port}"


def evidence(main: Coroutine[Any, Any, T]) -> T:
    """Run one section's coroutine."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)   # a topic's first second without a leader is normal
    return uvloop.run(main)
