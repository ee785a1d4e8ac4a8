"""A cluster: makes producers, consumers and readers, and looks after topics."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import aiokafka
import aiokafka.producer.sender
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from schemas.topology import TopicSpec
from shared.broker import Broker, RebalanceCallback
from shared.kafka.consumer import KafkaConsumer, KafkaReader, Listener
from shared.kafka.errors import guard
from shared.kafka.options import KafkaOptions
from shared.kafka.positions import KafkaPositions
from shared.kafka.producer import KafkaProducer, KafkaTransactionalProducer
from shared.kafka.topics import TopicShape, apply_specs, topic_shapes, with_admin

CLIENT_VERSION = "0.14."
"""Private details are used below (the commit note's reader, the transaction back-off): checked against this version."""

REQUEST_BYTES_MAX = 5_242_880
"""Above the largest topic limit, so that the broker's answer decides, not the client."""

PARTITION_FETCH_BYTES = 262_144
"""Read ahead per partition; a larger record still comes alone. The executor owns three lanes: 18 partitions at 1 MB show."""

GATHER_BYTES = 262_144
"""As much is sent at once, whatever time there is left to gather more."""

TRANSACTION_BACKOFF_S = 0.002
"""The client sleeps 20 ms between two transactions of one id; with 2 ms a one-record transaction takes 7 ms, not 22."""


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
            raise RuntimeError(f"shared/kafka knows aiokafka {CLIENT_VERSION}x, not {aiokafka.__version__}")
        aiokafka.producer.sender.BACKOFF_OVERRIDE = TRANSACTION_BACKOFF_S
        self._options = options

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        return await with_admin(self._options, partial(apply_specs, specs, self._options.replication_factor))

    async def partition_counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        return {name: shape.partitions for name, shape in (await self.shapes(topics)).items()}

    async def shapes(self, names: Iterable[str]) -> Mapping[str, TopicShape]:
        """Partitions and copies of each topic that exists."""
        found = await with_admin(self._options, topic_shapes)
        return {name: found[name] for name in names if name in found}

    async def producer(self, linger_ms: int = 0) -> "KafkaProducer":
        client = aiokafka.AIOKafkaProducer(
            **self._options.client(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=262_144,
            max_request_size=REQUEST_BYTES_MAX,
        )
        await _start(client)
        return KafkaProducer(client, linger_ms)

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
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            max_poll_interval_ms=3_600_000,   # the runner polls all the time; its own liveness probe watches progress
            partition_assignment_strategy=(RangePartitionAssignor,),
        )
        client.subscribe(list(topics), listener=Listener(on_revoked, on_assigned))
        await _start(client)
        return KafkaConsumer(client)

    async def reader(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        since_ms: int | None = None,
        at_end: bool = False,
        starts: Mapping[int, int] | None = None,
        gather_ms: int = 0,
        idle_ms: int = 500,
    ) -> "KafkaReader":
        client = aiokafka.AIOKafkaConsumer(
            **self._options.client(), group_id=None, enable_auto_commit=False,
            isolation_level="read_committed", auto_offset_reset="earliest",
            fetch_min_bytes=GATHER_BYTES if gather_ms else 1, fetch_max_wait_ms=gather_ms or idle_ms,
        )
        await _start(client)
        reader = KafkaReader(client)
        try:
            await guard(reader.assign(topic, partitions, since_ms, at_end, starts or {}))
        except BaseException:
            await client.stop()
            raise
        return reader

    async def positions(self, topics: Iterable[str]) -> KafkaPositions:
        positions = KafkaPositions(self._options)
        try:
            await positions.open(await self.partition_counts(topics))
        except BaseException:
            await positions.close()
            raise
        return positions

    async def close(self) -> None:
        return


async def _start(client: Any) -> None:
    try:
        await guard(client.start())
    except BaseException:
        await client.stop()
        raise


def _protocol_holds(options: KafkaOptions) -> Broker:
    """Never called: the type checker proves here that KafkaBroker is a Broker."""
    return KafkaBroker(options)
