"""What the log already holds for a partition, read back on take-over: so that nothing is called or delivered twice.

A reader goes back to the time a request was accepted, so the memory is bounded but the check is not.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterable

from schemas.topology import Topic
from shared.broker import Broker, Record
from shared.recent import Recent

CLOCK_SKEW_MAX_MS = 10_000
"""How far the clock of an accepting replica may be ahead of the broker's."""


class LogIndex:
    """Folds the records of one topic's partition, from a time to its end, once per ownership of that partition."""

    def __init__(self, broker: Broker, topic: Topic, fold: Callable[[Record], None]) -> None:
        self._broker = broker
        self._topic = topic
        self._fold = fold
        self._since_ms: dict[int, float] = {}
        self._floor_ms: dict[int, int] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    def covers(self, partition: int, since_ms: int) -> bool:
        """Whether everything logged at or after this time has been folded."""
        return self._since_ms.get(partition, math.inf) <= since_ms

    def may_cover(self, partition: int, since_ms: int) -> bool:
        """Whether nothing that was logged at or after this time was given up."""
        return self._floor_ms.get(partition, 0) <= since_ms

    async def cover(self, partition: int, since_ms: int) -> None:
        """Read back to this time unless it is covered already. Raises BrokerUnavailableError."""
        async with self._locks.setdefault(partition, asyncio.Lock()):
            if self.covers(partition, since_ms):
                return
            await self.scan(partition, since_ms, self._fold)
            self._since_ms[partition] = max(since_ms, self._floor_ms.get(partition, 0))

    async def scan(self, partition: int, since_ms: int, fold: Callable[[Record], None]) -> None:
        """Fold what is in the log now, without remembering that it was read."""
        reader = await self._broker.reader(self._topic.name, [partition], max(since_ms - CLOCK_SKEW_MAX_MS, 0))
        try:
            for source, end in (await reader.ends()).items():
                while await reader.position(source) < end:
                    for record in await reader.poll(timeout_ms=200):
                        fold(record)
        finally:
            await reader.close()

    def forget(self, partitions: Iterable[int]) -> None:
        """Another replica may have owned these: what was read of them is stale."""
        for partition in partitions:
            self._since_ms.pop(partition, None)
            self._floor_ms.pop(partition, None)

    def raise_floor(self, partition: int, since_ms: int) -> None:
        """Memory was given up: from now on only what was logged at or after this time is covered."""
        floor_ms = self._floor_ms[partition] = max(self._floor_ms.get(partition, 0), since_ms)
        if partition in self._since_ms:
            self._since_ms[partition] = max(self._since_ms[partition], floor_ms)


class SeenIds:
    """Ids that a topic's partitions hold. Bounded: when it is full older ones go, and older requests are looked up.

    `ids_max` counts all partitions together that this replica has had; each has the same share. Of its share a partition
    remembers at least half, at 12 to 24 bytes an id.
    """

    def __init__(self, broker: Broker, topic: Topic, id_of: Callable[[Record], str | None], ids_max: int) -> None:
        self._index = LogIndex(broker, topic, self._remember)
        self._id_of = id_of
        self._ids_max = ids_max
        self._ids: defaultdict[int, Recent] = defaultdict(Recent)
        self._wanted: dict[int, dict[str, int]] = {}
        self._found: dict[int, set[str]] = {}
        self._scanning: dict[int, asyncio.Lock] = {}

    def covers(self, partition: int, since_ms: int) -> bool:
        return self._index.covers(partition, since_ms)

    def has(self, partition: int, id: str) -> bool:
        """Whether the id is remembered; final only when the request's time is covered."""
        return id in self._ids.get(partition, ())

    async def lookup(self, partition: int, id: str, since_ms: int) -> bool:
        """Whether the log holds the id, reading back as far as needed."""
        if not self.covers(partition, since_ms) and self._index.may_cover(partition, since_ms):
            await self._index.cover(partition, since_ms)
        if self.has(partition, id):
            return True
        if self.covers(partition, since_ms):
            return False
        return await self._scanned_for(partition, id, since_ms)

    async def look_again(self, partition: int, id: str, since_ms: int) -> bool:
        """Whether the log holds the id by now, though it did not when it was read: somebody else may still write."""
        return await self._scanned_for(partition, id, since_ms)

    async def _scanned_for(self, partition: int, id: str, since_ms: int) -> bool:
        """Memory is full: read the log without remembering it. One scan serves everybody who waits when it begins."""
        wanted = self._wanted.setdefault(partition, {})
        wanted[id] = min(since_ms, wanted.get(id, since_ms))
        async with self._scanning.setdefault(partition, asyncio.Lock()):
            if id in wanted:
                asked = dict(wanted)
                wanted.clear()
                found: set[str] = set()

                def look(record: Record) -> None:
                    if (seen := self._id_of(record)) in asked:   # an hour of a busy topic would else be in memory at once
                        found.add(seen)

                try:
                    await self._index.scan(partition, min(asked.values()), look)
                except BaseException:
                    wanted.update(asked)   # whoever waits must look for itself
                    raise
                self._found[partition] = found
            return id in self._found.get(partition, ())

    def add(self, partition: int, id: str, logged_ms: int) -> None:
        """Remember an id that is now, or is about to be, in the log."""
        ids = self._ids[partition]
        given_up_ms = ids.add(id, logged_ms, self._ids_max // len(self._ids))
        if given_up_ms is not None:
            self._index.raise_floor(partition, given_up_ms + CLOCK_SKEW_MAX_MS)

    def forget(self, partitions: Iterable[int]) -> None:
        partitions = list(partitions)
        self._index.forget(partitions)
        self._ids.update({partition: Recent() for partition in partitions})   # each counts from now on: the limit is shared

    def _remember(self, record: Record) -> None:
        id = self._id_of(record)
        if id is not None:
            self.add(record.partition, id, record.timestamp_ms)
