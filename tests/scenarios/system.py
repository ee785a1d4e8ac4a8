"""A whole Baton as processes on somebody's broker, as `baton up` starts them: simulator, topics, config, stages.

Nothing is left of what is started here, and nothing of the shell's own Baton gets in.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from schemas.config import ConfigFile
from schemas.topology import STAGES, Topic
from services.cli.apply import apply_config
from services.cli.broker_config import HOST
from services.cli.processes import Processes, Say, service_ports
from services.cli.topics import create_all
from shared.broker import Broker, Record
from shared.kafka import KafkaBroker, KafkaOptions

ROOT = Path(__file__).resolve().parents[2]
LOG_DIR = ROOT / "build" / "scenarios"
PARTITIONS = 6
POLL_MS = 200


@dataclass(frozen=True)
class Baton:
    """A Baton that is ready. `simulator` is its provider's address."""

    processes: Processes
    broker: Broker
    simulator: str

    def restarted(self) -> tuple[str, ...]:
        """Processes that ended by themselves and were started again."""
        return tuple(name for name in self.processes.names() if self.processes.restarts(name))

    async def control(self, **body: object) -> None:
        """Change what the simulator does."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.simulator}/control", json=body) as answer:
            answer.raise_for_status()

    async def lines(self, path: str) -> list[dict[str, Any]]:
        """The simulator's JSON lines: /calls, /invoice."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.simulator}{path}") as answer:
            answer.raise_for_status()
            return [orjson.loads(line) for line in (await answer.read()).splitlines()]


@asynccontextmanager
async def a_baton(
    bootstrap: str, config: Callable[[str], ConfigFile], say: Say, replicas: Mapping[str, int], simulator: Sequence[str] = ()
) -> AsyncIterator[Baton]:
    """Baton on this broker, stopped in order at the end. `config` is given the simulator's address; stages not in
    `replicas` have one. `simulator` are arguments of its command line.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATON_", "KAFKA_"))}
    env = kept | {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(ROOT)}
    broker = KafkaBroker(KafkaOptions(bootstrap, client_id="scenarios"))
    with Processes(env, LOG_DIR, say=say) as processes:
        (port,) = service_ports(1)
        url = f"http://{HOST}:{port}"
        arguments = ["services.simulator", "--port", str(port), "--profile", "steady", *simulator]
        processes.run("simulator", arguments, (port, "/livez"))
        await create_all(broker, PARTITIONS)
        await apply_config(broker, config(url), time.time_ns() // 1_000_000)
        for stage in STAGES:
            for replica in range(replicas.get(stage.name, 1)):
                processes.start(stage.name, stage.module, replica)
        await asyncio.to_thread(processes.wait_ready)
        try:
            yield Baton(processes, broker, url)
        finally:
            await asyncio.to_thread(processes.stop)
            await broker.close()


async def read_all(broker: Broker, topic: Topic) -> list[Record]:
    """The topic from beginning to end, as of now."""
    reader = await broker.reader(topic.name)
    records: list[Record] = []
    try:
        for partition, end in (await reader.ends()).items():
            while await reader.position(partition) < end:
                records += await reader.poll(POLL_MS)
    finally:
        await reader.close()
    return records
