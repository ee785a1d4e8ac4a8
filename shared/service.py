"""Starts one stage as a process: settings, broker, tables, health, runner, signals. Every `__main__.py` is one call of it."""

import asyncio
import gc
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop

from schemas.config import ConfigRecord
from schemas.fleet import FleetEntry
from schemas.quality import QualityEntry
from schemas.spend import SpendEntry
from schemas.topology import CONFIG, FLEET, QUALITY, SPEND, Stage, Topic, stage_named
from shared import log
from shared.broker import Broker
from shared.catalogue import EMPTY, VERSION_KEY, Catalogue
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.errors import BatonError, BrokerUnavailableError, SettingsError
from shared.handler import Handler
from shared.health import serve_health
from shared.kafka import KafkaBroker, KafkaOptions
from shared.scheduling import gather_turns
from shared.session import RunnerOptions
from shared.stage import Runner
from shared.table import Table

logger = logging.getLogger(__name__)

EXIT_SETTINGS = 64
EXIT_ENDED_ITSELF = 75
"""The process could not go on safely; starting it again is right."""

BROKER_RETRY_S = 2.0

COLLECT_AFTER_ALLOCATIONS = 50_000
"""Instead of 700: records are trees of small objects that die by reference count, and scanning them for cycles every few
records was a tenth of a stage's CPU. What lives since the start (modules, schemas) is never scanned again."""


class ConfigView:
    """The catalogue as of the last complete apply."""

    def __init__(self) -> None:
        self.catalogue: Catalogue = EMPTY
        self.table: Table[ConfigRecord] | None = None

    def changed(self, key: str) -> None:
        """Swap the catalogue when an apply is complete, never half of one."""
        if key == VERSION_KEY and self.table is not None:
            self.catalogue = Catalogue.from_records(self.table.values)
            logger.info("config applied", extra={"config_version": self.catalogue.version})
            for problem in self.catalogue.problems:
                logger.error("config: %s", problem)


@dataclass(frozen=True)
class World:
    """What a handler is built from."""

    broker: Broker
    clock: Clock
    settings: Settings
    instance: str                                   # 8 hex digits, new with every process
    catalogue: Callable[[], Catalogue]
    fleet: Callable[[], Mapping[str, FleetEntry]]
    spend: Callable[[], Mapping[str, SpendEntry]] = dict
    quality: Callable[[], Mapping[str, QualityEntry]] = dict     # by `model/domain`


def runner_options(settings: Settings, stage: Stage) -> RunnerOptions:
    """A stage that reads several topics, such as the executor its lanes, leaves no one of them more than half the places.

    Half of a rebalance's time is for what is under way, the rest for joining again: who takes all of it is put out of the group.
    """
    return RunnerOptions(
        topic_in_flight_max=settings.in_flight_max // 2 if len(stage.reads) > 1 else 0,
        parked_max=settings.parked_max,
        held_max=settings.held_max,
        commit_interval_ms=settings.commit_interval_ms,
        span_max=settings.span_max,
        in_flight_max=settings.in_flight_max,
        drain_ms=settings.drain_ms,
        revoke_drain_ms=min(RunnerOptions.revoke_drain_ms, settings.rebalance_timeout_ms // 2),
        tries_max=settings.tries_max,
        linger_ms=settings.linger_ms,
        flush_interval_ms=settings.flush_interval_ms,
        session_timeout_ms=settings.session_timeout_ms,
    )


def kafka_options(settings: Settings, client_id: str) -> KafkaOptions:
    return KafkaOptions(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=client_id,
        security=settings.kafka_security,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        transaction_timeout_ms=settings.transaction_timeout_ms,
        replication_factor=settings.replication_factor,
    )


def run_service(stage_name: str, make_handler: Callable[[World], Handler]) -> None:
    """Run until SIGTERM or SIGINT, drain, exit 0. Exits 64 for bad settings, 75 when only a restart helps."""
    instance = secrets.token_hex(4)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{stage_name}: {error}\n")
        sys.exit(EXIT_SETTINGS)
    log.set_up(stage_name, instance, settings.log_level)
    gather_turns()
    try:
        uvloop.run(_serve(stage_named(stage_name), make_handler, settings, instance))
    except BatonError as error:
        logger.error("ending: %s", error)
        sys.exit(EXIT_ENDED_ITSELF)
    except OSError as error:
        logger.error("ending: %s", error)
        sys.exit(EXIT_SETTINGS)


async def _serve(
    stage: Stage, make_handler: Callable[[World], Handler], settings: Settings, instance: str
) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    broker = KafkaBroker(kafka_options(settings, f"baton-{stage.name}-{instance}"))
    config = ConfigView()
    config.table = Table(broker, CONFIG, config.changed)
    fleet: Table[FleetEntry] = Table(broker, FLEET)
    spend: Table[SpendEntry] = Table(broker, SPEND)
    quality: Table[QualityEntry] = Table(broker, QUALITY)
    offered: dict[Topic, Table[Any]] = {FLEET: fleet, SPEND: spend, QUALITY: quality}
    tables: list[Table[Any]] = [config.table, *(table for topic, table in offered.items() if topic in stage.tables)]
    world = World(
        broker, SystemClock(), settings, instance, lambda: config.catalogue,
        fleet.snapshot, spend.snapshot, quality.snapshot,
    )  # fmt: skip
    handler = make_handler(world)
    runner = Runner(stage, handler, broker, runner_options(settings, stage), world.clock)
    health = None
    if settings.health_port:
        health = await serve_health(
            settings.health_port, runner.is_live, lambda: runner.is_ready() and all(t.ready for t in tables), settings.http_host
        )
    try:
        if not await _broker_reached(broker, stage, tables, stop, settings):
            return
        config.changed(VERSION_KEY)
        await _hook(handler, "start")
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, 10, 10)
        try:
            await runner.run(stop)
        finally:
            await _hook(handler, "stop")
    finally:
        for table in tables:
            await table.close()
        if health:
            await health.cleanup()


async def _broker_reached(
    broker: Broker,
    stage: Stage,
    tables: list[Table[Any]],
    stop: asyncio.Event,
    settings: Settings,
) -> bool:
    """Wait for the broker, the stage's topics and its tables. False: told to stop meanwhile."""
    needed = {topic.name for topic in _topics_of(stage)}
    while not stop.is_set():
        try:
            missing = needed - (await broker.partition_counts(needed)).keys()
            if not missing:
                await asyncio.gather(*(table.start() for table in tables))
                return True
            logger.warning("topics are missing: %s; create them with: baton topics apply", ", ".join(sorted(missing)))
        except BrokerUnavailableError as error:
            logger.warning(
                "no broker at KAFKA_BOOTSTRAP_SERVERS=%s yet (%s); trying again every %.0f s",
                settings.kafka_bootstrap_servers, error, BROKER_RETRY_S,
            )
        try:
            await asyncio.wait_for(stop.wait(), BROKER_RETRY_S)
        except TimeoutError:
            continue
    return False


def _topics_of(stage: Stage) -> tuple[Topic, ...]:
    return (*stage.reads, *stage.writes, *stage.tables)


async def _hook(handler: Handler, name: str) -> None:
    """Optional `start` and `stop` of a handler."""
    hook = getattr(handler, name, None)
    if hook is not None:
        await hook()
