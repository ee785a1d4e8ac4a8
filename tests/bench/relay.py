"""The yardstick: processes that pass records from one topic to the next and do nothing else, chained as long as Baton's path.

Each is as quick as a Python process on this broker can be: bytes untouched, idempotent sends without linger, a commit of
what is acknowledged every 200 ms. `python -m tests.bench.relay SOURCE SINK` is one of them.
"""

import asyncio
import contextlib
import itertools
import signal
import sys

import uvloop

from schemas.topology import REQUEST_PARTITIONS_DEFAULT, TopicSpec
from services.cli.processes import Processes, service_ports
from shared.broker import Broker, Commit, Output, Partition, Record
from shared.clock import SystemClock
from shared.config import Settings
from shared.health import serve_health
from shared.kafka import KafkaBroker
from shared.service import kafka_options
from tests.bench.load import TopicLoad, topic_load

HOPS = 6   # intake, preprocessing, router, executor, quality-gate, output
COMMIT_S = 0.2
BATCH_RECORDS_MAX = 1000
TOPICS = tuple(f"relay-{place}" for place in range(HOPS + 1))
VALUE = b"x" * 1000


async def create_topics(broker: Broker) -> None:
    await broker.create_topics([TopicSpec(name, REQUEST_PARTITIONS_DEFAULT) for name in TOPICS])


def start(processes: Processes, bootstrap: str) -> list[str]:
    """The chain, ready. The names of its processes."""
    names = []
    for place, (source, sink) in enumerate(itertools.pairwise(TOPICS)):
        (port,) = service_ports(1)
        env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "BATON_HEALTH_PORT": str(port)}
        names.append(processes.run(f"relay-{place}", (__name__, source, sink), (port, "/readyz"), env))
    processes.wait_ready(*names)
    return names


def load(broker: Broker) -> "contextlib.AbstractAsyncContextManager[TopicLoad]":
    """Records through the whole chain."""
    return topic_load(broker, TOPICS[-1], record, _number)


def record(number: int) -> Output:
    """One to send through the chain."""
    return Output(TOPICS[0], str(number).encode(), VALUE)


def _number(record: Record) -> tuple[int | None, str]:
    return int(record.key or b"-1"), ""


# One process of the chain -----------------------------------------------------------------------------------------------


class Relay:
    """From one topic to another."""

    def __init__(self, broker: Broker, source: str, sink: str) -> None:
        self._broker = broker
        self._source = source
        self._sink = sink
        self._passed: dict[Partition, int] = {}
        self.is_assigned = False

    async def run(self, stop: asyncio.Event) -> None:
        clock = SystemClock()
        producer = await self._broker.producer(linger_ms=0)
        consumer = await self._broker.consumer(f"bench.{self._source}", [self._source], self._revoked, self._assigned)
        due_s = clock.monotonic_s() + COMMIT_S
        while not stop.is_set():
            for partition, records in (await consumer.poll(100, BATCH_RECORDS_MAX)).items():
                for record in records:
                    await producer.send(Output(self._sink, record.key, record.value, record.headers))
                self._passed[partition] = records[-1].offset + 1
            if self._passed and clock.monotonic_s() >= due_s:
                await producer.flush()
                await consumer.commit({partition: Commit(offset) for partition, offset in self._passed.items()})
                self._passed.clear()
                due_s = clock.monotonic_s() + COMMIT_S
        await producer.close()
        await consumer.close()

    async def _revoked(self, partitions: frozenset[Partition]) -> None:
        self._passed.clear()

    async def _assigned(self, partitions: frozenset[Partition]) -> None:
        self.is_assigned = True


async def _serve(source: str, sink: str) -> None:
    settings = Settings.from_environment()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    relay = Relay(KafkaBroker(kafka_options(settings, f"bench-{source}")), source, sink)
    health = await serve_health(settings.health_port, lambda: True, lambda: relay.is_assigned)
    try:
        await relay.run(stop)
    finally:
        await health.cleanup()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
