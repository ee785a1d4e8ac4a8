"""How far groups are, seen from outside of them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from shared.broker import Commit, Partition
from shared.kafka.errors import guard
from shared.kafka.options import KafkaOptions

PATIENCE_S = 5
"""The client would ask an absent coordinator for ever."""


class KafkaPositions:
    """Two clients: the one that knows groups cannot ask for the ends of partitions."""

    def __init__(self, options: KafkaOptions) -> None:
        self._admin: Any = AIOKafkaAdminClient(**options.client())
        self._reader: Any = aiokafka.AIOKafkaConsumer(**options.client(), group_id=None, enable_auto_commit=False)
        self._coordinators: dict[str, int] = {}
        self._partitions: list[TopicPartition] = []

    async def open(self, partition_counts: Mapping[str, int]) -> None:
        await guard(self._admin.start())
        await guard(self._reader.start())
        self._partitions = [TopicPartition(topic, n) for topic, count in partition_counts.items() for n in range(count)]
        self._reader.assign(self._partitions)
        self._reader.pause(*self._partitions)   # nothing is read, only asked for

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        wanted = set(topics)
        coordinator = self._coordinators.get(group)
        if coordinator is None:
            coordinator = self._coordinators[group] = await guard(self._patiently(self._admin.find_coordinator(group)))
        asked = [raw for raw in self._partitions if raw.topic in wanted]
        found: Mapping[TopicPartition, Any] = {}
        try:
            found = await guard(self._patiently(self._admin.list_consumer_group_offsets(group, coordinator, asked)))
        finally:
            if not found:   # also how the client shows that another broker coordinates the group by now
                del self._coordinators[group]
        return {Partition(*raw): Commit(*commit) for raw, commit in found.items() if commit.offset >= 0}

    async def ends(self) -> Mapping[Partition, int]:
        found = await guard(self._patiently(self._reader.end_offsets(self._partitions)))
        return {Partition(*raw): offset for raw, offset in found.items()}

    async def _patiently(self, call: Any) -> Any:
        return await asyncio.wait_for(call, PATIENCE_S)

    async def close(self) -> None:
        await self._admin.close()
        await self._reader.stop()
