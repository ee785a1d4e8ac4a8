"""A compacted topic as a table in memory, tailed whole by every replica outside any group."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from schemas.topology import Topic
from shared.broker import Broker, Reader, Record
from shared.codec import decode
from shared.errors import BrokerUnavailableError, UndecodableError

V = TypeVar("V")
log = logging.getLogger(__name__)

RETRY_S = 1.0
IDLE_MS = 5_000
"""A change comes at once all the same; where nothing changes, every question less is a wake-up less, here and at the broker."""


class Table(Generic[V]):
    """Last value per key. `start` returns when the topic was read to its end; a broker that goes away leaves the last
    known values in place. `on_change` is called with the key after each change, once the table is complete."""

    def __init__(self, broker: Broker, topic: Topic, on_change: Callable[[str], None] | None = None) -> None:
        self.values: dict[str, V] = {}
        self.ready = False
        self._broker = broker
        self._topic = topic
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises BrokerUnavailableError."""
        if self.ready:
            return
        reader = await self._read()
        self.ready = True
        self._task = asyncio.create_task(self._tail(reader))

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> Reader:
        """A reader that has read everything there is."""
        reader = await self._broker.reader(self._topic.name, idle_ms=IDLE_MS)
        try:
            for partition, end in (await reader.ends()).items():
                while await reader.position(partition) < end:
                    self._fold(await reader.poll(timeout_ms=200))
        except BaseException:
            await reader.close()
            raise
        return reader

    async def _tail(self, reader: Reader) -> None:
        while True:
            try:
                while True:
                    self._fold(await reader.poll(timeout_ms=1000))
            except BrokerUnavailableError as error:
                log.warning("table %s keeps its last known values: %s", self._topic.name, error)
            finally:
                await reader.close()
            reader = await self._reopened()

    async def _reopened(self) -> Reader:
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                return await self._read()
            except BrokerUnavailableError as error:
                log.warning("table %s: %s", self._topic.name, error)

    def _fold(self, records: Any) -> None:
        for record in records:
            key = (record.key or b"").decode("utf-8", "replace")
            if not self._apply(key, record):
                continue
            if self.ready and self._on_change:
                self._on_change(key)

    def _apply(self, key: str, record: Record) -> bool:
        if record.value is None:
            return self.values.pop(key, None) is not None
        try:
            self.values[key] = decode(self._topic, record.value)
        except UndecodableError as error:
            # A newer writer, or rubbish: the last good value is better than none, and the rest of the table stays usable.
            log.error("table %s: key %s: %s", self._topic.name, key, error)
            return False
        return True

    def snapshot(self) -> Mapping[str, V]:
        """The live mapping; do not change it."""
        return self.values
