"""What Baton asks of Kafka, as small protocols, so that `shared/kafka` (aiokafka) and `shared/local.py` (memory) are
interchangeable: both pass the same suite. Nothing here or above knows the client library.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.topology import TopicSpec

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Record(NamedTuple):
    """One record as read. `timestamp_ms` is the broker's clock where the topic says so."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def source(self) -> Partition:
        return Partition(self.topic, self.partition)

    def header(self, name: str) -> str | None:
        """Text of a header, or None; undecodable bytes are replaced, never an error."""
        for key, value in self.headers:
            if key == name:
                return value.decode("utf-8", "replace")
        return None


class Output(NamedTuple):
    """One record to write. `partition=None` lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


class Commit(NamedTuple):
    """A group's position in a partition: the oldest unfinished offset, and a note (≤ 4,000 characters) that travels with it."""

    offset: int
    note: str = ""


class Producer(Protocol):
    """Idempotent, acks from all replicas. Sends of one task keep their order per partition."""

    async def send(self, output: Output) -> "asyncio.Future[object]":
        """Queue a record; the future resolves when it is acknowledged, or raises BrokerUnavailableError.

        Raises RecordTooLargeError at once.
        """

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


class TransactionalProducer(Protocol):
    """Owner of one transactional id. Opening it fences whoever held the id before and ends its open transaction."""

    async def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        """Write all outputs and the offsets in one transaction, or none of them.

        Raises FencedError when another process took the id over; BrokerUnavailableError when the outcome is not known.
        After either this producer must not be used again: close it, and open a new one while still the owner.
        """

    async def close(self) -> None: ...


class Consumer(Protocol):
    """A member of a consumer group. Positions start at the committed offsets, or at the beginning."""

    async def poll(self, timeout_ms: int, records_max: int) -> Mapping[Partition, Sequence[Record]]: ...

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Commit | None]: ...

    async def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        """Raises FencedError when the member no longer belongs to the group's generation."""

    def seek(self, partition: Partition, offset: int) -> None: ...

    def pause(self, partitions: Iterable[Partition]) -> None: ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    def high_water(self, partition: Partition) -> int | None:
        """Offset after the partition's newest record as last seen, or None before the first fetch."""

    async def close(self) -> None: ...


class Reader(Protocol):
    """Reads partitions without a group: tables, replies, read-backs, tails. Sees committed records only."""

    async def poll(self, timeout_ms: int, records_max: int = 2000) -> Sequence[Record]: ...

    async def ends(self) -> Mapping[Partition, int]:
        """Offset after the newest readable record of each partition, now."""

    async def position(self, partition: Partition) -> int:
        """Next offset to be read: passes compacted gaps and transaction markers."""

    async def close(self) -> None: ...


class Positions(Protocol):
    """How far groups are, seen from outside of them. Raises BrokerUnavailableError."""

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        """Where a group is on partitions of these topics, as far as it has ever committed there."""

    async def ends(self) -> Mapping[Partition, int]:
        """Offset after the newest readable record of each partition of all topics this was opened for."""

    async def close(self) -> None: ...


RebalanceCallback = Callable[[frozenset[Partition]], Awaitable[None]]


class Broker(Protocol):
    """A Kafka cluster."""

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing, grow partitions, alter what the specs say; never shrink or delete, nor touch what else is
        set on a topic. Returns the names it created. Raises TopicRefusedError.
        """

    async def partition_counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Partitions of each topic that exists."""

    async def producer(self, linger_ms: int = 0) -> Producer: ...

    async def transactional_producer(self, transactional_id: str) -> TransactionalProducer: ...

    async def consumer(
        self, group: str, topics: Sequence[str], on_revoked: RebalanceCallback, on_assigned: RebalanceCallback
    ) -> Consumer:
        """Join a group. `on_assigned` ends before any record of the new assignment may be handled (see shared/stage.py)."""

    async def reader(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        since_ms: int | None = None,
        at_end: bool = False,
        starts: Mapping[int, int] | None = None,
        gather_ms: int = 0,
        idle_ms: int = 500,
    ) -> Reader:
        """Read a topic from its beginning, from a time, or from its end; all partitions unless some are named.

        `starts` gives partitions their first offset; one that the log does not reach means the beginning. `gather_ms`: how
        long the broker may keep records back to send more of them at once. `idle_ms`: how long it may take to say that
        there are none; what else the reader is asked waits behind that.
        """

    async def positions(self, topics: Iterable[str]) -> Positions:
        """Look at groups that read these topics."""

    async def close(self) -> None: ...
