"""A compacted topic as a table in memory, tailed whole by every replica outside any group."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

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
    known values in place until the topic was read to its end again. `on_change` is called with the key after each change,
    once the table is complete."""

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
        reader, self.values = await self._read()
        self.ready = True
        self._task = asyncio.create_task(self._tail(reader))

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> tuple[Reader, dict[str, V]]:
        """A reader that has read everything there is, and what that comes to. Beside the values that are in use: the log holds
        old ones of a key too, and nobody may go by a sum or a circuit of an hour ago while it is read again."""
        reader = await self._broker.reader(self._topic.name, idle_ms=IDLE_MS)
        values: dict[str, V] = {}
        try:
            for partition, end in (await reader.ends()).items():
                while await reader.position(partition) < end:
                    for record in await reader.poll(timeout_ms=200):
                        self._fold(values, record)
        except BaseException:
            await reader.close()
            raise
        return reader, values

    async def _tail(self, reader: Reader) -> None:
        while True:
            try:
                while True:
                    for record in await reader.poll(timeout_ms=1000):
                        self._tell(self._fold(self.values, record))
            except BrokerUnavailableError as error:
                log.warning("table %s keeps its last known values: %s", self._topic.name, error)
            finally:
                await reader.close()
            reader = await self._reopened()

    async def _reopened(self) -> Reader:
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                reader, values = await self._read()
            except BrokerUnavailableError as error:
                log.warning("table %s: %s", self._topic.name, error)
                continue
            before, self.values = self.values, values
            for key in before | values:   # a key may have gone for good: its deletion need not be in the log any more
                if before.get(key) != values.get(key):
                    self._tell(key)
            return reader

    def _tell(self, key: str | None) -> None:
        if key is not None and self._on_change:
            self._on_change(key)

    def _fold(self, values: dict[str, V], record: Record) -> str | None:
        """The key, where the record changes anything."""
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            return None if values.pop(key, None) is None else key
        try:
            values[key] = decode(self._topic, record.value)
        except UndecodableError as error:
            # A newer writer, or rubbish: the last good value is better than none, and the rest of the table stays usable.
            log.error("table %s: key %s: %s", self._topic.name, key, error)
            if key in self.values:
                values.setdefault(key, self.values[key])   # the log itself may hold only the bad one by now
            return None
        return key

    def snapshot(self) -> Mapping[str, V]:
        """The mapping as it is now; do not change it, and ask again after waiting."""
        return self.values
