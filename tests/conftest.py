"""One broker per run, chosen and said as `baton broker` does it; the lab runs the same suite on memory and on Kafka."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from services.cli.broker import Chosen, choose
from shared.broker import Broker, Consumer
from shared.clock import SystemClock
from shared.kafka import KafkaBroker, KafkaOptions
from shared.local import LocalBroker, LocalConsumer
from tests.support.lab import Lab
from tests.support.virtual import LoopClock, VirtualLoop
from tests.support.zombies import expel_from_kafka

# How long an example takes is the machine's affair, and its neighbours': what may take no longer has a test that says so.
settings.register_profile("baton", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("baton")

RunLab = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="session")
def kafka() -> Iterator[Chosen]:
    """A real broker for the whole run."""
    with choose() as chosen:
        yield chosen


@pytest.fixture
def kafka_options(kafka: Chosen) -> KafkaOptions:
    """Short heartbeats, so that rebalances take no longer than they must."""
    return KafkaOptions(kafka.bootstrap, heartbeat_interval_ms=200, session_timeout_ms=10_000, rebalance_timeout_ms=20_000)


async def _local_lab(main: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    clock = LoopClock()
    broker = LocalBroker(clock)

    async def expel(consumer: Consumer, notice: asyncio.Event) -> None:
        assert isinstance(consumer, LocalConsumer)
        await broker.expel(consumer, notice)

    lab = Lab("local", broker, clock, expel=expel)
    await lab.create()
    await main(lab)
    await broker.close()


async def _kafka_lab(broker: Broker, main: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    lab = Lab("kafka", broker, SystemClock(), expel=expel_from_kafka)
    await lab.create()
    await main(lab)


@pytest.fixture(params=["local", "kafka"])
def run_lab(request: pytest.FixtureRequest) -> RunLab:
    """Runs a test's body on a broker in memory (virtual time) and on a real one."""
    if request.param == "local":

        def run_local(main: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
            loop = VirtualLoop()
            try:
                loop.run_until_complete(_local_lab(main))
            finally:
                loop.close()

        return run_local
    options = request.getfixturevalue("kafka_options")
    return lambda main: uvloop.run(_kafka_lab(KafkaBroker(options), main))
