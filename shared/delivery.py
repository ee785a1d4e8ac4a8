"""How what a record caused gets into the log, and how its offset is committed.

PlainDelivery: at least once, an offset is finished when its outputs are acknowledged.
TransactionalDelivery: one transactional producer per owned partition; outputs and offset commit together, and opening it
fences whoever owned the partition before.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.broker import Broker, Commit, Consumer, Output, Partition, Producer, TransactionalProducer
from shared.errors import BrokerUnavailableError, FencedError
from shared.progress import Progress

log = logging.getLogger(__name__)

TRANSACTION_RECORDS_MAX = 200


@dataclass(slots=True, eq=False)
class Work:
    """One record on its way through a stage."""

    partition: Partition
    offset: int
    progress: Progress
    started_s: float
    request_id: str = ""
    key: str = ""
    deadline_ms: int = 0
    accepted_ms: int = 0
    unacknowledged: int = 0
    envelope: Any = None
    context: Any = None                                # of a record that is held
    until_ms: int | None = None
    held: "list[Work]" = field(default_factory=list)   # open records that finish together with this one


Finished = Callable[[Work], None]
Failed = Callable[[BaseException], None]


class Delivery(Protocol):
    """One way of delivering; `finished` is called once per work, `failed` ends the session."""

    async def opened(self, partitions: frozenset[Partition]) -> None: ...

    async def deliver(self, work: Work, outputs: list[Output]) -> None: ...

    async def commit(self, owned: Mapping[Partition, Progress]) -> None: ...

    async def close(self) -> None: ...


class PlainDelivery:
    """Acknowledged sends, and commits of the low-water marks."""

    def __init__(self, producer: Producer, consumer: Consumer, finished: Finished, failed: Failed) -> None:
        self._producer = producer
        self._consumer = consumer
        self._finished = finished
        self._failed = failed
        self._sent: dict[asyncio.Future[object], list[Work]] = {}   # by batch: what its acknowledgement finishes

    async def opened(self, partitions: frozenset[Partition]) -> None:
        return

    async def deliver(self, work: Work, outputs: list[Output]) -> None:
        if not outputs:
            self._finished(work)
            return
        # Outputs of one turn and one partition share a batch, and so an acknowledgement.
        acknowledgements = {await self._producer.send(output) for output in outputs}
        work.unacknowledged = len(acknowledgements)
        for acknowledgement in acknowledgements:
            works = self._sent.get(acknowledgement)
            if works is None:
                self._sent[acknowledgement] = works = []
                acknowledgement.add_done_callback(self._acknowledged)
            works.append(work)

    def _acknowledged(self, future: "asyncio.Future[object]") -> None:
        works = self._sent.pop(future)
        if future.cancelled():
            self._failed(BrokerUnavailableError("a produce was cancelled"))
        elif (error := future.exception()) is not None:
            self._failed(BrokerUnavailableError(f"a produce failed: {type(error).__name__}"))
        else:
            for work in works:
                work.unacknowledged -= 1
                if not work.unacknowledged:
                    self._finished(work)

    async def commit(self, owned: Mapping[Partition, Progress]) -> None:
        changed: dict[Partition, Commit] = {}
        for partition, progress in owned.items():
            commit = progress.commit()
            if commit != progress.committed and (progress.committed is not None or commit.offset > 0 or commit.note):
                changed[partition] = commit
        if not changed:
            return
        await self._consumer.commit(changed)
        for partition, commit in changed.items():
            owned[partition].committed = commit

    async def close(self) -> None:
        return


class TransactionalDelivery:
    """A lane per owned partition. While one transaction runs the next one gathers, so batches grow with the load."""

    def __init__(self, broker: Broker, group: str, finished: Finished, failed: Failed, interval_s: float) -> None:
        self._broker = broker
        self._group = group
        self._finished = finished
        self._failed = failed
        self._interval_s = interval_s
        self._lanes: dict[Partition, _Lane] = {}

    async def opened(self, partitions: frozenset[Partition]) -> None:
        """Fence the previous owners of all these partitions before anybody reads their committed offsets. `close` closes what
        was opened, also where one of them cannot be."""
        await self.close()
        opening = [self._open(partition) for partition in partitions]
        # All of them come to an end first: one that opened after the failure of another would never be closed.
        for error in await asyncio.gather(*opening, return_exceptions=True):
            if error is not None:
                raise error

    async def _open(self, partition: Partition) -> None:
        producer = await self._broker.transactional_producer(f"{self._group}.{partition.topic}.{partition.number}")
        lane = self._lanes[partition] = _Lane(partition, producer, self._group, self._finished, self._interval_s)
        lane.task = asyncio.create_task(lane.run())
        lane.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A lane runs until it is cancelled; whatever else ends it ends the session."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def deliver(self, work: Work, outputs: list[Output]) -> None:
        lane = self._lanes.get(work.partition)
        if lane is None:
            raise FencedError(f"{work.partition} is no longer owned")
        lane.add(work, outputs)

    async def commit(self, owned: Mapping[Partition, Progress]) -> None:
        return

    async def close(self) -> None:
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            if lane.task:
                lane.task.cancel()
        await asyncio.gather(*(lane.task for lane in lanes if lane.task), return_exceptions=True)
        await asyncio.gather(*(lane.producer.close() for lane in lanes))


class _Lane:
    """Outcomes of one partition on their way into transactions."""

    def __init__(
        self, partition: Partition, producer: TransactionalProducer, group: str, finished: Finished, interval_s: float
    ) -> None:
        self.partition = partition
        self.producer = producer
        self.task: asyncio.Task[None] | None = None
        self._group = group
        self._finished = finished
        self._interval_s = interval_s
        self._waiting: list[tuple[Work, list[Output]]] = []
        self._wake = asyncio.Event()

    def add(self, work: Work, outputs: list[Output]) -> None:
        self._waiting.append((work, outputs))
        self._wake.set()

    async def run(self) -> None:
        """One transaction after the other until cancelled. Raises FencedError or BrokerUnavailableError."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:TRANSACTION_RECORDS_MAX], self._waiting[TRANSACTION_RECORDS_MAX:]
            if not self._waiting:
                self._wake.clear()
            await self._transact(batch)
            await asyncio.sleep(self._interval_s)

    async def _transact(self, batch: list[tuple[Work, list[Output]]]) -> None:
        progress = batch[0][0].progress
        finishing = frozenset(each.offset for work, _ in batch for each in (work, *work.held))
        commit = progress.commit(finishing)
        outputs = [output for _, outputs in batch for output in outputs]
        await self.producer.commit(outputs, {self.partition: commit}, self._group)
        progress.committed = commit
        for work, _ in batch:
            self._finished(work)
