"""Reading: as a member of a group, and without one."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from shared.broker import Commit, Partition, RebalanceCallback, Record
from shared.errors import BrokerUnavailableError, FencedError
from shared.kafka.errors import guard

log = logging.getLogger(__name__)

BUSY_FETCH_MS = 50
"""How long the broker may wait for records while a member has work, or holds partitions back; else the client's own 500 ms.
The client asks a broker one question at a time: one about quiet partitions alone, sent while the others' records waited here,
kept those others for half a second once they were through (the router passed 1,100 records a second at a fifth of a core)."""

COORDINATOR_PATIENCE_S = 5
"""The client would ask an absent coordinator for ever, and the stage's loop would stand still with it."""


@aiokafka.ConsumerRebalanceListener.register   # the client asks for an instance; a base without types would be one of Any
class Listener:
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


def raw_offsets(offsets: Mapping[Partition, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*partition): OffsetAndMetadata(*commit) for partition, commit in offsets.items()}


class KafkaConsumer:
    """A member of a group.

    Holds partitions back by not asking for them: the client's own `pause` throws away what was read ahead, to be read again.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._idle_fetch_ms = client._fetch_max_wait_ms
        self._held_back: set[TopicPartition] = set()

    async def poll(self, timeout_ms: int, records_max: int) -> Mapping[Partition, Sequence[Record]]:
        wanted = [raw for raw in self._client.assignment() if raw not in self._held_back] if self._held_back else []
        if self._held_back and not wanted:   # none named would mean all
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        batch = await guard(self._client.getmany(*wanted, timeout_ms=timeout_ms, max_records=records_max))
        self._client._fetcher._fetch_max_wait_ms = BUSY_FETCH_MS if batch or self._held_back else self._idle_fetch_ms
        return {Partition(p.topic, p.partition): _records(records) for p, records in batch.items()}

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Commit | None]:
        # The public `committed()` drops the note that travels with the offset.
        wanted = [TopicPartition(*partition) for partition in partitions]
        found = await guard(asyncio.wait_for(self._client._coordinator.fetch_committed_offsets(wanted), COORDINATOR_PATIENCE_S))
        return {
            Partition(p.topic, p.partition): Commit(found[p].offset, found[p].metadata)
            if p in found and found[p].offset >= 0 else None
            for p in wanted
        }

    async def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        await guard(asyncio.wait_for(self._client.commit(raw_offsets(offsets)), COORDINATOR_PATIENCE_S))

    def seek(self, partition: Partition, offset: int) -> None:
        if TopicPartition(*partition) in self._client.assignment():
            self._client.seek(TopicPartition(*partition), offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._held_back.update(TopicPartition(*partition) for partition in partitions)
        self._client._fetcher._fetch_max_wait_ms = BUSY_FETCH_MS

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._held_back.difference_update(TopicPartition(*partition) for partition in partitions)

    def high_water(self, partition: Partition) -> int | None:
        raw = TopicPartition(*partition)
        return self._client.highwater(raw) if raw in self._client.assignment() else None

    async def close(self) -> None:
        try:
            async with asyncio.timeout(10):
                await guard(self._client.stop())
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("leaving the group: %s", error)


class KafkaReader:
    """Reads partitions without a group."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._assigned: list[TopicPartition] = []

    async def assign(
        self,
        topic: str,
        partitions: Sequence[int] | None,
        since_ms: int | None,
        at_end: bool,
        offsets: Mapping[int, int],
    ) -> None:
        """Place the reader at the beginning, at a time, or at the end; then at the offsets given, where the log has them."""
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
        if offsets:
            ends = await self._client.end_offsets(self._assigned)
            wanted = {raw: offsets[raw.partition] for raw in self._assigned if raw.partition in offsets}
            starts |= {raw: max(offset, starts[raw]) for raw, offset in wanted.items() if offset <= ends[raw]}
        for raw, offset in starts.items():
            self._client.seek(raw, offset)

    async def _starts_at(self, since_ms: int) -> dict[TopicPartition, int]:
        found = await self._client.offsets_for_times(dict.fromkeys(self._assigned, since_ms))
        ends = await self._client.end_offsets(self._assigned)
        return {raw: found[raw].offset if found.get(raw) else ends[raw] for raw in self._assigned}

    async def poll(self, timeout_ms: int, records_max: int = 2000) -> Sequence[Record]:
        if paused := self._client.paused():
            self._client.resume(*paused)
        batch = await guard(self._client.getmany(timeout_ms=timeout_ms, max_records=records_max))
        return [record for records in batch.values() for record in _records(records)]

    async def ends(self) -> Mapping[Partition, int]:
        found = await guard(self._client.end_offsets(self._assigned))
        return {Partition(raw.topic, raw.partition): offset for raw, offset in found.items()}

    async def position(self, partition: Partition) -> int:
        return int(await guard(self._client.position(TopicPartition(*partition))))

    async def close(self) -> None:
        try:
            async with asyncio.timeout(10):
                await guard(self._client.stop())
        except (BrokerUnavailableError, FencedError, TimeoutError) as error:
            log.warning("closing a reader: %s", error)
