"""The monitor's Faust app: an agent hands batches of observations and the table of rings to the monitor.

Only what was found to hold in faust-streaming 0.15.3: one sequential agent, a plain table with bytes keys and values,
`take_events`, at least once. No windowed tables, timers, `concurrency` or `exactly_once`. No topic is declared by Faust:
it would ignore a missing one for ever, so `main` makes sure of them first.
"""

import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from mode.supervisors import CrashingSupervisor
from mode.utils.queues import FlowControlEvent

from schemas.topology import OBSERVATIONS, TopicSpec
from services.monitor.monitor import STAGE, Monitor, RawTable
from shared.broker import Record
from shared.config import Settings

BATCH_RECORDS_MAX = 500
BATCH_S = 0.05
"""An observation waits this long at most for others of its backend: each batch writes a ring once."""

CHANGELOG_BYTES_MAX = 4_194_304


class SteadyFlow(FlowControlEvent):
    """Resuming what flows already does nothing.

    Faust resumes for the recovery of a table and once more after it, and each time it empties the queues of its agents:
    records that came in between would be lost, unseen and later committed.
    """

    def resume(self) -> None:
        if not self.is_active():
            super().resume()


def faust_app(settings: Settings) -> faust.App:
    """The app; its consumer group is the stage's."""
    app = faust.App(
        STAGE.group,
        broker=";".join(f"kafka://{host.strip()}" for host in settings.kafka_bootstrap_servers.split(",")),
        broker_credentials=_credentials(settings),
        broker_session_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.heartbeat_interval_ms / 1000,
        broker_rebalance_timeout=settings.rebalance_timeout_ms / 1000,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        producer_compression_type="lz4",
        producer_max_request_size=CHANGELOG_BYTES_MAX,
        store="memory://",
        Table=RingsTable,
        datadir=Path(tempfile.gettempdir()) / "baton-monitor",
        stream_recovery_delay=0,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.flow_control = SteadyFlow()
    return app


def _credentials(settings: Settings) -> Any:
    """Faust's form of the settings; None for plaintext."""
    tls = None
    if settings.kafka_security_protocol.endswith("SSL"):
        tls = ssl.create_default_context(cafile=settings.kafka_ssl_cafile or None)
    if settings.kafka_security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=tls,
        )
    return faust.SSLCredentials(tls) if tls else None


class RingsTable(faust.Table[bytes, bytes]):
    """Keeps a ring's changelog on the partition of its observations: one replica owns both.

    Faust's own `use_partitioner` asks a producer that knows no metadata of the changelog before its first record.
    """

    def partition_for_key(self, key: bytes) -> int | None:
        number: int | None = self.app.consumer.key_partition(OBSERVATIONS.name, key)
        return number


def rings_table(app: faust.App, monitor: Monitor) -> Any:
    """The table of rings. Whenever Faust has recovered it, the monitor takes it over."""
    table = app.Table("windows", key_type=bytes, value_type=bytes)

    async def restore() -> None:
        try:
            monitor.restore(table)
        except ValueError as error:      # Faust would only log it, and go on without the rings
            await app.crash(error)

    table.on_recover(restore)
    return table


def windows_agent(app: faust.App, monitor: Monitor, table: RawTable) -> Any:
    """The one agent. Its crash ends the app: Faust alone would restart it, with the batch lost and nobody told."""
    topic = app.topic(OBSERVATIONS.name, key_type=bytes, value_type=bytes)

    async def windows(stream: Any) -> None:
        async for events in stream.take_events(BATCH_RECORDS_MAX, within=BATCH_S):
            await monitor.take(table, [_record(event.message) for event in events])

    return app.agent(topic, name="windows", supervisor_strategy=CrashingSupervisor)(windows)


def _record(message: Any) -> Record:
    return Record(
        topic=OBSERVATIONS.name,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
    )


def changelog_spec(partitions: int) -> TopicSpec:
    """The table's topic: as many partitions as its source. It rolls early, so that a restart reads little."""
    configs = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(CHANGELOG_BYTES_MAX),
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": "600000",
        "segment.bytes": "33554432",
    }
    return TopicSpec(f"{STAGE.group}-windows-changelog", partitions, configs)


def owner(app: faust.App) -> Callable[[str], bool]:
    """Whether a backend's observations come to this replica."""
    homes: dict[str, TP] = {}

    def owns(backend: str) -> bool:
        if backend not in homes:
            number = app.consumer.key_partition(OBSERVATIONS.name, backend.encode())
            if number is None:      # the client knows no metadata yet
                return False
            homes[backend] = TP(OBSERVATIONS.name, number)
        return homes[backend] in app.consumer.assignment()

    return owns


def is_first(app: faust.App) -> Callable[[], bool]:
    """Whether this replica owns the first partition of the observations: one of all does."""
    first = TP(OBSERVATIONS.name, 0)
    return lambda: app.tables.actives_ready and first in app.consumer.assignment()
