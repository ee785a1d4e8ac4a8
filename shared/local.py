"""A Kafka in memory, for tests and first steps: real bytes, partitions, groups with generations, fencing, retained logs.

It passes the same suite as `shared/kafka`. What it adds for tests: `expel` (a zombie), `unavailable` (an outage),
`fail_commits` (a transaction whose outcome the client never learns). It must never grow an opinion about Baton.
"""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.topology import TopicSpec
from shared.broker import Broker, Commit, Output, Partition, RebalanceCallback, Record
from shared.clock import Clock, SystemClock
from shared.errors import BrokerUnavailableError, FencedError, RecordTooLargeError

RECORD_BYTES_MAX_DEFAULT = 1_048_588


@dataclass(eq=False)
class _Member:
    """One consumer of a group, as the coordinator sees it."""

    topics: tuple[str, ...]
    on_revoked: RebalanceCallback
    on_assigned: RebalanceCallback
    consumer: "LocalConsumer"
    assignment: frozenset[Partition] = frozenset()


@dataclass
class _Group:
    members: list[_Member] = field(default_factory=list)
    committed: dict[Partition, Commit] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LocalBroker:
    """All state of the stand-in cluster. One event loop, no threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.logs: dict[str, list[list[Record]]] = {}
        self.configs: dict[str, dict[str, str]] = {}
        self.groups: dict[str, _Group] = defaultdict(_Group)
        self.epochs: dict[str, int] = defaultdict(int)
        self.unavailable = False
        self.fail_commits: list[bool] = []   # per coming commit: True applies it first, False does not; both raise
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # What Broker promises ------------------------------------------------------------------------------------------

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        self.check()
        created = []
        for spec in specs:
            partitions = self.logs.setdefault(spec.name, [])
            if not partitions:
                created.append(spec.name)
            partitions.extend([] for _ in range(spec.partitions - len(partitions)))
            self.configs.setdefault(spec.name, {}).update(spec.configs)
        return created

    async def partition_counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        self.check()
        return {topic: len(self.logs[topic]) for topic in topics if topic in self.logs}

    async def producer(self, linger_ms: int = 0) -> "LocalProducer":
        self.check()
        return LocalProducer(self)

    async def transactional_producer(self, transactional_id: str) -> "LocalTransactionalProducer":
        self.check()
        self.epochs[transactional_id] += 1
        return LocalTransactionalProducer(self, transactional_id, self.epochs[transactional_id])

    async def consumer(
        self, group: str, topics: Sequence[str], on_revoked: RebalanceCallback, on_assigned: RebalanceCallback
    ) -> "LocalConsumer":
        self.check()
        consumer = LocalConsumer(self, group)
        consumer.member = _Member(tuple(topics), on_revoked, on_assigned, consumer)
        self.groups[group].members.append(consumer.member)
        await self.rebalance(group)
        return consumer

    async def reader(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        since_ms: int | None = None,
        at_end: bool = False,
        starts: Mapping[int, int] | None = None,
        gather_ms: int = 0,
        idle_ms: int = 500,
    ) -> "LocalReader":
        self.check()
        numbers = range(len(self.logs[topic])) if partitions is None else partitions
        places = {Partition(topic, n): self._start(topic, n, since_ms, at_end) for n in numbers}
        for number, start in (starts or {}).items():
            if start <= len(self.logs[topic][number]):
                places[Partition(topic, number)] = start
        return LocalReader(self, places)

    async def positions(self, topics: Iterable[str]) -> "LocalPositions":
        self.check()
        return LocalPositions(self, [topic for topic in topics if topic in self.logs])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # What tests may do to it ---------------------------------------------------------------------------------------

    async def expel(self, consumer: "LocalConsumer", notice: asyncio.Event) -> None:
        """Make a member a zombie: the group goes on without it, and it learns so only when `notice` is set."""
        group = self.groups[consumer.group]
        member = consumer.member
        group.members.remove(member)
        await self.rebalance(consumer.group)

        async def rejoin() -> None:
            await notice.wait()
            if not consumer.closed:
                await member.on_revoked(member.assignment)
                group.members.append(member)
                await self.rebalance(consumer.group)

        self._spawn(rejoin())

    # Inside ----------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.unavailable:
            raise BrokerUnavailableError("the broker is away")

    def _start(self, topic: str, number: int, since_ms: int | None, at_end: bool) -> int:
        log = self.logs[topic][number]
        if at_end:
            return len(log)
        if since_ms is None:
            return 0
        return next((record.offset for record in log if record.timestamp_ms >= since_ms), len(log))

    def append(self, output: Output) -> Record:
        """The broker's side of a produce. Raises RecordTooLargeError as a broker's topic limit would."""
        log = self.logs.get(output.topic)
        if log is None:
            raise BrokerUnavailableError(f"topic {output.topic} does not exist")
        self.check_size(output)
        number = output.partition
        if number is None:
            number = zlib.crc32(output.key or b"") % len(log)
        record = Record(
            output.topic, number, len(log[number]), self.clock.now_ms(), output.key, output.value, output.headers
        )
        log[number].append(record)
        self.wake()
        return record

    def wake(self) -> None:
        """Everyone who waits for a record looks again, whether or not there is one."""
        self._arrived.set()
        self._arrived = asyncio.Event()

    def check_size(self, output: Output) -> None:
        """Raises RecordTooLargeError; counted as a broker counts: key, value, headers and 70 bytes of framing."""
        limit = int(self.configs.get(output.topic, {}).get("max.message.bytes", RECORD_BYTES_MAX_DEFAULT))
        size = 70 + len(output.key or b"") + len(output.value or b"")
        size += sum(len(name) + len(value) for name, value in output.headers)
        if size > limit:
            raise RecordTooLargeError(f"{output.topic}: a record of {size} bytes, limit {limit}")

    async def arrival(self, timeout_s: float) -> None:
        """Wait until any record arrives, or the time is over."""
        try:
            # Not `wait_for`: that of Python 3.11 loses a cancellation that comes together with a record.
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def rebalance(self, name: str) -> None:
        """Eager: everyone gives up everything, then gets a range of each topic."""
        group = self.groups[name]
        async with group.lock:
            members = list(group.members)
            await asyncio.gather(*(m.on_revoked(m.assignment) for m in members if m.assignment))
            for member in members:
                member.consumer.positions.clear()
                member.consumer.paused.clear()
            shares = self._shares(members)
            for member in members:
                member.assignment = frozenset(shares[member])
                for partition in member.assignment:
                    commit = group.committed.get(partition)
                    member.consumer.positions[partition] = commit.offset if commit else 0
            # As with the real client, records of the new assignment may be polled before the callback has ended.
            await asyncio.gather(*(m.on_assigned(m.assignment) for m in members))

    def _shares(self, members: list[_Member]) -> dict[_Member, list[Partition]]:
        shares: dict[_Member, list[Partition]] = {member: [] for member in members}
        for topic in sorted({topic for member in members for topic in member.topics}):
            takers = [member for member in members if topic in member.topics]
            for number in range(len(self.logs.get(topic, ()))):
                shares[takers[number * len(takers) // len(self.logs[topic])]].append(Partition(topic, number))
        return shares

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class LocalProducer:
    """Acknowledges on the next turn of the loop, in order."""

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker

    async def send(self, output: Output) -> "asyncio.Future[object]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        self._broker.check_size(output)
        try:
            self._broker.check()
            record = self._broker.append(output)
        except BrokerUnavailableError as error:
            loop.call_soon(_fail, future, error)
        else:
            loop.call_soon(_resolve, future, record)
        return future

    async def flush(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)


def _resolve(future: "asyncio.Future[object]", value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[object]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class LocalTransactionalProducer:
    """A commit is one step of the loop, so nobody ever sees half of one."""

    def __init__(self, broker: LocalBroker, transactional_id: str, epoch: int) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch = epoch

    async def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, Commit], group: str) -> None:
        await asyncio.sleep(0)
        self._broker.check()
        if self._broker.epochs[self._id] != self._epoch:
            raise FencedError(f"{self._id} is owned by another process")
        applied = self._broker.fail_commits.pop(0) if self._broker.fail_commits else None
        if applied is not False:
            for output in outputs:
                self._broker.check_size(output)
            for output in outputs:
                self._broker.append(output)
            self._broker.groups[group].committed.update(offsets)
        if applied is not None:
            raise BrokerUnavailableError("the connection broke during the commit")

    async def close(self) -> None:
        return


class LocalConsumer:
    """A member of a group."""

    member: _Member

    def __init__(self, broker: LocalBroker, group: str) -> None:
        self._broker = broker
        self.group = group
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.closed = False

    async def poll(self, timeout_ms: int, records_max: int) -> Mapping[Partition, Sequence[Record]]:
        await asyncio.sleep(0)   # as over a wire: who polls on and on leaves the loop to others
        self._broker.check()
        batch = self._take(records_max)
        if not batch:
            await self._broker.arrival(timeout_ms / 1000)
            self._broker.check()
            batch = self._take(records_max)
        return batch

    def _take(self, records_max: int) -> dict[Partition, list[Record]]:
        batch: dict[Partition, list[Record]] = {}
        for partition, position in list(self.positions.items()):
            if partition in self.paused or records_max <= 0:
                continue
            records = self._broker.logs[partition.topic][partition.number][position : position + records_max]
            if records:
                batch[partition] = records
                self.positions[partition] = position + len(records)
                records_max -= len(records)
        return batch

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Commit | None]:
        self._broker.check()
        return {partition: self._broker.groups[self.group].committed.get(partition) for partition in partitions}

    async def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        await asyncio.sleep(0)
        self._broker.check()
        group = self._broker.groups[self.group]
        if self.member not in group.members:
            raise FencedError(f"no longer a member of {self.group}")
        group.committed.update(offsets)

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self.positions:
            self.positions[partition] = offset

    def pause(self, partitions: Iterable[Partition]) -> None:
        self.paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        self.paused.difference_update(partitions)

    def high_water(self, partition: Partition) -> int | None:
        return len(self._broker.logs[partition.topic][partition.number])

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        members = self._broker.groups[self.group].members
        if self.member in members:
            members.remove(self.member)
            if not self._broker.unavailable:
                await self._broker.rebalance(self.group)


class LocalPositions:
    """How far groups are, seen from outside of them."""

    def __init__(self, broker: LocalBroker, topics: Sequence[str]) -> None:
        self._broker = broker
        self._topics = topics

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[Partition, Commit]:
        self._broker.check()
        wanted = set(topics)
        committed = self._broker.groups[group].committed
        return {partition: commit for partition, commit in committed.items() if partition.topic in wanted}

    async def ends(self) -> Mapping[Partition, int]:
        self._broker.check()
        logs = self._broker.logs
        return {Partition(topic, number): len(log) for topic in self._topics for number, log in enumerate(logs[topic])}

    async def close(self) -> None:
        return


class LocalReader:
    """Reads partitions from a position on, without a group."""

    def __init__(self, broker: LocalBroker, positions: dict[Partition, int]) -> None:
        self._broker = broker
        self._positions = positions

    async def poll(self, timeout_ms: int, records_max: int = 2000) -> Sequence[Record]:
        await asyncio.sleep(0)   # see LocalConsumer.poll
        self._broker.check()
        records = self._take(records_max)
        if not records:
            await self._broker.arrival(timeout_ms / 1000)
            self._broker.check()
            records = self._take(records_max)
        return records

    def _take(self, records_max: int) -> list[Record]:
        taken: list[Record] = []
        for partition, position in self._positions.items():
            log = self._broker.logs[partition.topic][partition.number]
            part = log[position : position + records_max - len(taken)]
            self._positions[partition] = position + len(part)
            taken.extend(part)
        return taken

    async def ends(self) -> Mapping[Partition, int]:
        self._broker.check()
        return {p: len(self._broker.logs[p.topic][p.number]) for p in self._positions}

    async def position(self, partition: Partition) -> int:
        return self._positions[partition]

    async def close(self) -> None:
        return


def _protocol_holds() -> Broker:
    """Never called: the type checker proves here that LocalBroker is a Broker."""
    return LocalBroker()
