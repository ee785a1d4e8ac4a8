"""Writing: acknowledged batches, and transactions."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from aiokafka import errors
from aiokafka.partitioner import murmur2

from shared.broker import Commit, Output, Partition
from shared.errors import BrokerUnavailableError, FencedError, RecordTooLargeError
from shared.kafka.consumer import raw_offsets
from shared.kafka.errors import guard, mapped

log = logging.getLogger(__name__)

CLOSE_PATIENCE_S = 10
BATCHES_WAITING_MAX = 256
"""Of 256 KB each, per partition: what callers may pile up while the broker is away."""


class KafkaProducer:
    """Idempotent producer. Records of one turn of the loop and one partition become one batch of the client: four times
    cheaper than its `send`, which makes a future, a task switch and a metadata look-up of every record."""

    def __init__(self, client: Any, linger_ms: int = 0) -> None:
        self._client = client
        self._linger_s = linger_ms / 1000
        self._counts: dict[str, int] = {}
        self._gathering: dict[tuple[str, int], _Gathering] = {}

    async def send(self, output: Output) -> "asyncio.Future[object]":
        topic, number = output.topic, output.partition
        if number is None:
            count = self._counts.get(topic) or await self._count(topic)
            number = (_hash_of(output.key) if output.key is not None else random.getrandbits(31)) % count
        gathering = self._gathering.get((topic, number))
        if gathering is None:
            gathering = self._gathering[topic, number] = _Gathering(self._client, topic, number, self._linger_s)
        return gathering.append(output)

    async def _count(self, topic: str) -> int:
        self._counts[topic] = len(await guard(self._client.partitions_for(topic)))
        return self._counts[topic]

    async def flush(self) -> None:
        await asyncio.gather(*(each.task for each in self._gathering.values() if each.task), return_exceptions=True)
        await guard(self._client.flush())

    async def close(self) -> None:
        """Returns soon even in an outage; the client then ends by itself when its batches have expired."""
        stopping = asyncio.create_task(self._stop())
        _stopping.add(stopping)
        stopping.add_done_callback(_stopping.discard)
        try:
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await asyncio.shield(stopping)
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("closing a producer: %s", error)

    async def _stop(self) -> None:
        try:
            await self.flush()
        finally:
            await guard(self._client.stop())


_stopping: set[asyncio.Task[None]] = set()   # a task that nobody holds may be collected


@lru_cache(8192)
def _hash_of(key: bytes) -> int:
    """Kafka's own partitioner, so that every client puts a key on the same partition; pure Python, hence remembered."""
    return int(murmur2(key)) & 0x7FFFFFFF


class _Gathering:
    """Records of one partition on their way into batches; the client takes one batch per partition at a time."""

    def __init__(self, client: Any, topic: str, number: int, linger_s: float) -> None:
        self._client = client
        self._topic = topic
        self._number = number
        self._linger_s = linger_s
        self._full: deque[tuple[Any, asyncio.Future[object]]] = deque()
        self._batch: Any = None
        self._future: asyncio.Future[object]
        self.task: asyncio.Task[None] | None = None

    def append(self, output: Output) -> "asyncio.Future[object]":
        """The future of the batch that the record went into. Raises RecordTooLargeError."""
        if self._batch is None:
            self._open()
        if not _append(self._batch, output):
            if len(self._full) >= BATCHES_WAITING_MAX:
                raise BrokerUnavailableError(f"{self._topic}/{self._number}: too much is waiting for the broker")
            self._full.append((self._batch, self._future))
            self._open()
            if not _append(self._batch, output):
                raise RecordTooLargeError(f"{output.topic}: {len(output.value or b'')} bytes")
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run())
        return self._future

    def _open(self) -> None:
        self._batch = self._client.create_batch()
        self._future = asyncio.get_running_loop().create_future()

    async def _run(self) -> None:
        """Hand batch after batch over. What comes meanwhile gathers in the next one."""
        try:
            while self._full or self._batch is not None:
                if self._linger_s and not self._full:
                    await asyncio.sleep(self._linger_s)
                if self._full:
                    batch, future = self._full.popleft()
                else:
                    batch, future, self._batch = self._batch, self._future, None
                batch.close()
                await self._hand_over(batch, future)
        finally:
            self.task = None

    async def _hand_over(self, batch: Any, future: "asyncio.Future[object]") -> None:
        try:
            sent = await self._client.send_batch(batch, self._topic, partition=self._number)
        except (errors.KafkaError, OSError, AssertionError) as error:
            if not future.done():
                future.set_exception(mapped(error))
            return
        except asyncio.CancelledError:
            future.cancel()
            raise
        sent.add_done_callback(partial(_settle, future))


def _append(batch: Any, output: Output) -> bool:
    fits = batch.append(timestamp=None, key=output.key, value=output.value, headers=list(output.headers))
    return fits is not None


def _settle(future: "asyncio.Future[object]", sent: "asyncio.Future[object]") -> None:
    if future.done():
        return
    if sent.cancelled():
        future.set_exception(BrokerUnavailableError("the producer was closed"))
    elif (error := sent.exception()) is not None:
        future.set_exception(mapped(error))
    else:
        future.set_result(sent.result())


class KafkaTransactionalProducer:
    """One transactional id. Never reused after an error: the protocol allows a late message to reach the next one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        try:
            await guard(self._commit(outputs, offsets, group))
        except AssertionError as error:
            # After a fence the client's own state machine fails with a bare AssertionError.
            raise FencedError("the transactional producer was fenced") from error

    async def _commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        client = self._client
        await client.begin_transaction()
        producer = KafkaProducer(client)
        await asyncio.gather(*{await producer.send(output) for output in outputs})
        await client.send_offsets_to_transaction(raw_offsets(offsets), group)
        await client.commit_transaction()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._client.stop()
        except (errors.KafkaError, OSError, TimeoutError, AssertionError) as error:
            log.debug("closing a transactional producer: %s", type(error).__name__)
