"""observations -> fleet; the ledger, verdicts and feedback -> spend and quality: wires the Faust app, the watch, the tables and
the books, and runs them until told to stop.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from random import SystemRandom

import faust
from faust.contrib.asgi import bind_to_running_loop

from schemas.fleet import FleetEntry
from schemas.topology import CONFIG, FLEET, OBSERVATIONS
from services.monitor.books import Books
from services.monitor.decide import Watch
from services.monitor.monitor import STAGE, Monitor, Progress
from services.monitor.stream import changelog_spec, faust_app, is_first, owner, rings_table, windows_agent
from shared.broker import Broker
from shared.catalogue import VERSION_KEY
from shared.circuit import CircuitRules
from shared.clock import SystemClock
from shared.config import Settings
from shared.errors import BatonError, BrokerUnavailableError
from shared.health import serve_health
from shared.kafka import KafkaBroker
from shared.service import BROKER_RETRY_S, ConfigView, kafka_options
from shared.table import Table
from shared.writer import Writer

log = logging.getLogger(__name__)


class StreamEndedError(BatonError):
    """Faust gave up: only a restart of the process helps."""


def rules_of(settings: Settings) -> CircuitRules:
    return CircuitRules(
        cooldown_ms=settings.circuit_cooldown_ms,
        ramp_ms=settings.circuit_ramp_ms,
        probe_patience_ms=settings.circuit_probe_patience_ms,
    )


async def serve(settings: Settings, instance: str, stop: asyncio.Event) -> None:
    """Until `stop`; then finish the batch at hand, commit, leave the group. Raises StreamEndedError, or what a bug raised."""
    broker = KafkaBroker(kafka_options(settings, f"baton-{STAGE.name}-{instance}"))
    if not await _topics_ready(broker, settings, stop):
        return
    config = ConfigView()
    config.table = Table(broker, CONFIG, config.changed)
    fleet: Table[FleetEntry] = Table(broker, FLEET)
    producer = await broker.producer()
    try:
        # Circuits are restored before the first observation is judged: else an open one would be published as closed.
        await asyncio.gather(config.table.start(), fleet.start())
        config.changed(VERSION_KEY)
        watch = Watch(rules_of(settings), fleet.snapshot, lambda: config.catalogue.backends)
        writer = Writer(STAGE, producer)
        monitor = Monitor(watch, writer, SystemClock(), SystemRandom())
        books_of = partial(Books, broker, writer, SystemClock(), lambda: config.catalogue)
        await _stream(settings, broker, monitor, books_of, stop)
        await producer.flush()
    finally:
        await asyncio.gather(config.table.close(), fleet.close(), producer.close())


async def _stream(
    settings: Settings, broker: Broker, monitor: Monitor, books_of: Callable[[Callable[[], bool]], Books], stop: asyncio.Event
) -> None:
    app = faust_app(settings)
    books = books_of(is_first(app))
    windows_agent(app, monitor, rings_table(app, monitor))
    progress = Progress(monitor, SystemClock())
    health = None
    if settings.health_port:
        health = await serve_health(settings.health_port, progress.is_live, lambda: app.tables.actives_ready, settings.http_host)
    bind_to_running_loop(app)
    app.finalize()
    try:
        await app.start()
        await _until_any_ends(stop, app, monitor, books, progress, broker)
    finally:
        if not app.crashed:      # a crashed app cannot be stopped: parts of it are gone
            await app.stop()
        if health:
            await health.cleanup()


async def _until_any_ends(
    stop: asyncio.Event, app: faust.App, monitor: Monitor, books: Books, progress: Progress, broker: Broker
) -> None:
    """Raises what any of them raised, or StreamEndedError when Faust gave up."""
    ended = asyncio.Event()
    tasks = [
        asyncio.create_task(stop.wait()),
        asyncio.create_task(app.wait()),
        asyncio.create_task(monitor.tick(ended, lambda: app.tables.actives_ready, owner(app))),
        asyncio.create_task(books.keep(ended)),
        asyncio.create_task(progress.watch(ended, broker)),
    ]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ended.set()      # and cancel: the Kafka client swallows a cancellation while it closes
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()
    if app.crashed:
        raise StreamEndedError(f"the stream ended: {type(app.crash_reason).__name__}") from app.crash_reason


async def _topics_ready(broker: Broker, settings: Settings, stop: asyncio.Event) -> bool:
    """Wait for the broker and the stage's topics, and create the changelog. False: told to stop meanwhile."""
    needed = {topic.name for topic in (*STAGE.reads, *STAGE.writes, *STAGE.tables)}
    while not stop.is_set():
        try:
            partitions = await broker.partition_counts(needed)
            missing = needed - partitions.keys()
            if not missing:
                await broker.create_topics([changelog_spec(partitions[OBSERVATIONS.name])])
                return True
            log.warning("topics are missing: %s; create them with: baton topics apply", ", ".join(sorted(missing)))
        except BrokerUnavailableError as error:
            servers = settings.kafka_bootstrap_servers
            log.warning("no broker at KAFKA_BOOTSTRAP_SERVERS=%s yet (%s); trying again", servers, error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), BROKER_RETRY_S)
    return False
