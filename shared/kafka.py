"""Kafka through aiokafka: the only file that imports the client. Maps its errors to Baton's and hides its traps
(each named where it is handled).
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import aiokafka
import aiokafka.producer.sender
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from schemas.topology import TopicSpec
from shared.broker import Broker, Commit, Output, Partition, RebalanceCallback, Record
from shared.errors import BrokerUnavailableError, FencedError, RecordTooLargeError

T = TypeVar("T")
log = logging.getLogger(__name__)

CLIENT_VERSION = "0.14."
"""Two private details are used below (the commit note's reader, the transaction back-off): checked against this version."""

REQUEST_BYTES_MAX = 5_242_880
"""Above the largest topic limit, so that the broker's answer decides, not the client."""

TRANSACTION_BACKOFF_S = 0.002
"""The client sleeps 20 ms between two transactions of one id; with 2 ms a one-record transaction takes 7 ms, not 22."""

_FENCED = (
    errors.ProducerFenced,
    errors.InvalidProducerEpoch,
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
    errors.IllegalStateError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordTooLargeError, errors.RecordListTooLargeError)


@dataclass(frozen=True)
class KafkaOptions:
    """Connection and timing; milliseconds throughout. Defaults are those of production."""

    bootstrap_servers: str
    client_id: str = "baton"
    security: tuple[tuple[str, Any], ...] = ()     # client arguments: security_protocol, sasl_*, ssl_cafile
    session_timeout_ms: int = 15_000
    heartbeat_interval_ms: int = 1_000
    rebalance_timeout_ms: int = 45_000
    transaction_timeout_ms: int = 15_000
    request_timeout_ms: int = 30_000
    replication_factor: int = 1

    def client(self) -> dict[str, Any]:
        """Arguments that every client of the library takes."""
        extra = dict(self.security)
        cafile = extra.pop("ssl_cafile", None)
        if "SSL" in extra.get("security_protocol", ""):
            extra["ssl_context"] = ssl.create_default_context(cafile=cafile)
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            **extra,
        }


async def _guard(call: Coroutine[Any, Any, T]) -> T:
    """Run a client call; its errors become Baton's."""
    try:
        return await call
    except _TOO_LARGE as error:
        raise RecordTooLargeError(str(error)) from error
    except _FENCED as error:
        raise FencedError(f"{type(error).__name__}: another process took over") from error
    except (errors.KafkaError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise BrokerUnavailableError(f"{type(error).__name__}: {error}") from error


def _mapped(error: BaseException) -> BaseException:
    if isinstance(error, _TOO_LARGE):
        return RecordTooLargeError(str(error))
    if isinstance(error, _FENCED):
        return FencedError(type(error).__name__)
    if isinstance(error, (errors.KafkaError, OSError)):
        return BrokerUnavailableError(f"{type(error).__name__}: {error}")
    return error


async def broker_ready(bootstrap: str, timeout_s: float) -> None:
    """Return when the broker answers a metadata request. Raises TimeoutError."""
    options = KafkaOptions(bootstrap, request_timeout_ms=2000)
    async with asyncio.timeout(timeout_s):
        while True:
            admin = AIOKafkaAdminClient(**options.client())
            try:
                await admin.start()
                await admin.list_topics()
                return
            except (errors.KafkaError, OSError):
                await asyncio.sleep(0.1)
            finally:
                await admin.close()


class KafkaBroker:
    """A cluster. Starting is lazy: each client connects when it is asked for."""

    def __init__(self, options: KafkaOptions) -> None:
        if not aiokafka.__version__.startswith(CLIENT_VERSION):
            raise RuntimeError(f"shared/kafka.py knows aiokafka {CLIENT_VERSION}x, not {aiokafka.__version__}")
        aiokafka.producer.sender.BACKOFF_OVERRIDE = TRANSACTION_BACKOFF_S
        self._options = options

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        return await _with_admin(self._options, partial(_create_topics, self._options, specs))

    async def partition_counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        counts = await _with_admin(self._options, _partition_counts)
        return {topic: counts[topic] for topic in topics if topic in counts}

    async def producer(self, linger_ms: int = 0) -> "KafkaProducer":
        client = aiokafka.AIOKafkaProducer(
            **self._options.client(),
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            max_batch_size=262_144,
            max_request_size=REQUEST_BYTES_MAX,
        )
        await _start(client)
        return KafkaProducer(client)

    async def transactional_producer(self, transactional_id: str) -> "KafkaTransactionalProducer":
        client = aiokafka.AIOKafkaProducer(
            **self._options.client(),
            transactional_id=transactional_id,
            transaction_timeout_ms=self._options.transaction_timeout_ms,
            linger_ms=0,
            max_batch_size=262_144,
            max_request_size=REQUEST_BYTES_MAX,
        )
        await _start(client)
        return KafkaTransactionalProducer(client)

    async def consumer(
        self, group: str, topics: Sequence[str], on_revoked: RebalanceCallback, on_assigned: RebalanceCallback
    ) -> "KafkaConsumer":
        options = self._options
        client = aiokafka.AIOKafkaConsumer(
            **options.client(),
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            session_timeout_ms=options.session_timeout_ms,
            heartbeat_interval_ms=options.heartbeat_interval_ms,
            rebalance_timeout_ms=options.rebalance_timeout_ms,
            max_poll_interval_ms=3_600_000,   # the runner polls all the time; its own liveness probe watches progress
            partition_assignment_strategy=(RangePartitionAssignor,),
        )
        client.subscribe(list(topics), listener=_Listener(on_revoked, on_assigned))
        await _start(client)
        return KafkaConsumer(client)

    async def reader(
        self, topic: str, partitions: Sequence[int] | None = None, since_ms: int | None = None, at_end: bool = False
    ) -> "KafkaReader":
        client = aiokafka.AIOKafkaConsumer(
            **self._options.client(), group_id=None, enable_auto_commit=False,
            isolation_level="read_committed", auto_offset_reset="earliest",
        )
        await _start(client)
        reader = KafkaReader(client)
        try:
            await _guard(reader.assign(topic, partitions, since_ms, at_end))
        except BaseException:
            await client.stop()
            raise
        return reader

    async def close(self) -> None:
        return


async def _start(client: Any) -> None:
    try:
        await _guard(client.start())
    except BaseException:
        await client.stop()
        raise


async def _with_admin(options: KafkaOptions, work: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, T]]) -> T:
    admin = AIOKafkaAdminClient(**options.client())
    try:
        await _guard(admin.start())
        return await _guard(work(admin))
    finally:
        await admin.close()


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    described = await admin.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}


async def _create_topics(
    options: KafkaOptions, specs: Sequence[TopicSpec], admin: AIOKafkaAdminClient
) -> Sequence[str]:
    existing = await _partition_counts(admin)
    missing = [spec for spec in specs if spec.name not in existing]
    if missing:
        response = await admin.create_topics(
            [NewTopic(s.name, s.partitions, options.replication_factor, topic_configs=s.configs) for s in missing]
        )
        for name, code, *_ in response.topic_errors:
            if code and code != errors.TopicAlreadyExistsError.errno:
                raise errors.for_code(code)(f"topic {name}")
    grown = {s.name: NewPartitions(s.partitions) for s in specs if existing.get(s.name, s.partitions) < s.partitions}
    if grown:
        await admin.create_partitions(grown)
    kept = [spec for spec in specs if spec.name in existing and spec.configs]
    if kept:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, spec.name, configs=spec.configs) for spec in kept]
        )
    await _until_known(admin, [spec.name for spec in missing])
    return [spec.name for spec in missing]


async def _until_known(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """A new topic takes a moment to reach the brokers' metadata; a client that asks too early waits far longer."""
    async with asyncio.timeout(15):
        while not set(names) <= (await _partition_counts(admin)).keys():
            await asyncio.sleep(0.02)


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # the client library has no types
    """The client logs and swallows what a listener raises; so the runner's callbacks keep their own errors."""

    def __init__(self, on_revoked: RebalanceCallback, on_assigned: RebalanceCallback) -> None:
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._on_revoked(_partitions(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._on_assigned(_partitions(assigned))


def _partitions(raw: Iterable[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(p.topic, p.partition) for p in raw)


def _records(raw: Sequence[Any]) -> list[Record]:
    return [
        Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in raw
    ]


class KafkaProducer:
    """Idempotent producer."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(self, output: Output) -> "asyncio.Future[object]":
        try:
            sent = await self._client.send(
                output.topic, output.value, key=output.key, partition=output.partition, headers=list(output.headers)
            )
        except (errors.KafkaError, OSError) as error:
            raise _mapped(error) from error
        return sent  # type: ignore[no-any-return]

    async def flush(self) -> None:
        await _guard(self._client.flush())

    async def close(self) -> None:
        try:
            async with asyncio.timeout(10):
                await _guard(self._client.stop())
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("closing a producer: %s", error)


class KafkaTransactionalProducer:
    """One transactional id. Never reused after an error: the protocol allows a late message to reach the next one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        try:
            await _guard(self._commit(outputs, offsets, group))
        except AssertionError as error:
            # After a fence the client's own state machine fails with a bare AssertionError.
            raise FencedError("the transactional producer was fenced") from error

    async def _commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        client = self._client
        await client.begin_transaction()
        sent = [
            await client.send(o.topic, o.value, key=o.key, partition=o.partition, headers=list(o.headers)) for o in outputs
        ]
        await asyncio.gather(*sent)
        await client.send_offsets_to_transaction(_raw_offsets(offsets), group)
        await client.commit_transaction()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._client.stop()
        except (errors.KafkaError, OSError, TimeoutError, AssertionError) as error:
            log.debug("closing a transactional producer: %s", type(error).__name__)


def _raw_offsets(offsets: Mapping[Partition, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*partition): OffsetAndMetadata(*commit) for partition, commit in offsets.items()}


class KafkaConsumer:
    """A member of a group."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def poll(self, timeout_ms: int, records_max: int) -> Mapping[Partition, Sequence[Record]]:
        batch = await _guard(self._client.getmany(timeout_ms=timeout_ms, max_records=records_max))
        return {Partition(p.topic, p.partition): _records(records) for p, records in batch.items()}

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Commit | None]:
        # The public `committed()` drops the note that travels with the offset.
        wanted = [TopicPartition(*partition) for partition in partitions]
        found = await _guard(self._client._coordinator.fetch_committed_offsets(wanted))
        return {
            Partition(p.topic, p.partition): Commit(found[p].offset, found[p].metadata)
            if p in found and found[p].offset >= 0 else None
            for p in wanted
        }

    async def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        await _guard(self._client.commit(_raw_offsets(offsets)))

    def seek(self, partition: Partition, offset: int) -> None:
        if TopicPartition(*partition) in self._client.assignment():
            self._client.seek(TopicPartition(*partition), offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._client.pause(*self._still_assigned(partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._client.resume(*self._still_assigned(partitions))

    def _still_assigned(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        assigned = self._client.assignment()
        return [raw for raw in (TopicPartition(*partition) for partition in partitions) if raw in assigned]

    def high_water(self, partition: Partition) -> int | None:
        raw = TopicPartition(*partition)
        return self._client.highwater(raw) if raw in self._client.assignment() else None

    async def close(self) -> None:
        try:
            async with asyncio.timeout(10):
                await _guard(self._client.stop())
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("leaving the group: %s", error)


class KafkaReader:
    """Reads partitions without a group."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._assigned: list[TopicPartition] = []

    async def assign(
        self, topic: str, partitions: Sequence[int] | None, since_ms: int | None, at_end: bool
    ) -> None:
        """Place the reader at the beginning, at a time, or at the end."""
        if partitions is None:
            found = await self._client._client.fetch_all_metadata()
            partitions = sorted(found.partitions_for_topic(topic) or ())
            if not partitions:
                raise errors.UnknownTopicOrPartitionError(f"topic {topic} does not exist")
        self._assigned = [TopicPartition(topic, number) for number in partitions]
        self._client.assign(self._assigned)
        # Paused until the first poll: a fetch waits 500 ms for records, and every question on its connection waits behind it.
        self._client.pause(*self._assigned)
        if at_end:
            starts = await self._client.end_offsets(self._assigned)
        elif since_ms is None:
            starts = await self._client.beginning_offsets(self._assigned)
        else:
            starts = await self._starts_at(max(since_ms, 0))
        for raw, offset in starts.items():
            self._client.seek(raw, offset)

    async def _starts_at(self, since_ms: int) -> dict[TopicPartition, int]:
        found = await self._client.offsets_for_times(dict.fromkeys(self._assigned, since_ms))
        ends = await self._client.end_offsets(self._assigned)
        return {raw: found[raw].offset if found.get(raw) else ends[raw] for raw in self._assigned}

    async def poll(self, timeout_ms: int, records_max: int = 2000) -> Sequence[Record]:
        if paused := self._client.paused():
            self._client.resume(*paused)
        batch = await _guard(self._client.getmany(timeout_ms=timeout_ms, max_records=records_max))
        return [record for records in batch.values() for record in _records(records)]

    async def ends(self) -> Mapping[Partition, int]:
        found = await _guard(self._client.end_offsets(self._assigned))
        return {Partition(raw.topic, raw.partition): offset for raw, offset in found.items()}

    async def position(self, partition: Partition) -> int:
        return int(await _guard(self._client.position(TopicPartition(*partition))))

    async def close(self) -> None:
        try:
            async with asyncio.timeout(10):
                await _guard(self._client.stop())
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("closing a reader: %s", error)


def _protocol_holds(options: KafkaOptions) -> Broker:
    """Never called: the type checker proves here that KafkaBroker is a Broker."""
    return KafkaBroker(options)
