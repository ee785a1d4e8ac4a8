"""Follows a topic outside any group: everything since a time, then whatever comes. Survives a broker that goes away.

After an outage records may come twice, so whoever listens must not mind a repeat.
"""

import asyncio
import logging
from collections.abc import Callable

from schemas.topology import Topic
from shared.broker import Broker, Reader, Record
from shared.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

POLL_MS = 1_000
REOPEN_PAUSE_S = 0.5


class Tail:
    """One topic, all partitions or one."""

    def __init__(
        self, broker: Broker, topic: Topic, on_record: Callable[[Record], None], since_ms: int, partition: int | None = None
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._on_record = on_record
        self._since_ms = since_ms
        self._partitions = None if partition is None else [partition]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when everything up to now has been seen. Raises BrokerUnavailableError."""
        reader = await self._open()
        try:
            for partition, end in (await reader.ends()).items():
                while await reader.position(partition) < end:
                    await self._pass_on(reader)
        except BaseException:
            await reader.close()
            raise
        self._task = asyncio.create_task(self._follow(reader))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _open(self) -> Reader:
        return await self._broker.reader(self._topic.name, self._partitions, since_ms=self._since_ms)

    async def _pass_on(self, reader: Reader) -> None:
        for record in await reader.poll(POLL_MS):
            self._on_record(record)
            self._since_ms = max(self._since_ms, record.timestamp_ms)

    async def _follow(self, reader: Reader) -> None:
        while True:
            try:
                while True:
                    await self._pass_on(reader)
            except BrokerUnavailableError as error:
                log.warning("lost sight of %s: %s", self._topic.name, error)
            finally:
                await reader.close()
            reader = await self._reopened()

    async def _reopened(self) -> Reader:
        while True:
            await asyncio.sleep(REOPEN_PAUSE_S)
            try:
                return await self._open()
            except BrokerUnavailableError as error:
                log.warning("%s is still out of sight: %s", self._topic.name, error)
