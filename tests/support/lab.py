"""A small stage of its own, on either broker: what the runner's suite is written against."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from schemas.envelope import DeadHeader, Envelope, Header
from schemas.messages import Failure, Task
from schemas.topology import DEAD_LETTERS, Key, Stage, Topic, topic_spec
from shared.broker import Broker, Commit, Consumer, Output, Record
from shared.clock import Clock
from shared.codec import decode, encode, headers_for
from shared.handler import Context
from shared.outcome import Emit, Out, Outcome
from shared.session import RunnerOptions
from shared.stage import Runner


@dataclass
class Lab:
    name: str
    broker: Broker
    clock: Clock
    expel: Callable[[Consumer, asyncio.Event], Awaitable[None]]
    partitions: int = 3
    id: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.source = Topic(f"in-{self.id}", Key.REQUEST, Envelope[Task], "", partitions=self.partitions)
        self.sink = Topic(f"out-{self.id}", Key.REQUEST, Envelope[Task], "", partitions=self.partitions, bytes_max=1_048_588)
        self.stage = Stage(f"lab-{self.id}", (self.source,), (self.sink,))

    async def create(self) -> None:
        await self.broker.create_topics([topic_spec(self.source), topic_spec(self.sink), topic_spec(DEAD_LETTERS)])

    def envelope(self, request_id: str, key: str = "", deadline_in_ms: int = 600_000) -> Envelope[Task]:
        now_ms = self.clock.now_ms()
        return Envelope[Task](
            id=request_id, request_id=request_id, key=key or request_id, tenant="lab", accepted_ms=now_ms,
            deadline_ms=now_ms + deadline_in_ms, payload=Task(),
        )

    def record(self, envelope: Envelope[Task]) -> Output:
        headers = headers_for(self.source, "lab", envelope)
        return Output(self.source.name, envelope.key.encode(), encode(self.source, envelope), headers)

    async def feed(self, *outputs: Output) -> None:
        producer = await self.broker.producer()
        await asyncio.gather(*[await producer.send(output) for output in outputs])
        await producer.close()

    async def feed_requests(self, *ids: str, key: str = "") -> None:
        await self.feed(*(self.record(self.envelope(request_id, key)) for request_id in ids))

    @asynccontextmanager
    async def running(self, handler: "LabHandler", **limits: Any) -> AsyncIterator[Runner]:
        """One replica of the stage, drained at the end."""
        limits = {"poll_ms": 20, "commit_interval_ms": 20, "session_timeout_ms": 120_000, "drain_ms": 5_000} | limits
        runner = Runner(self.stage, handler, self.broker, RunnerOptions(**limits), self.clock)
        stop = asyncio.Event()
        task = asyncio.create_task(runner.run(stop))
        try:
            yield runner
        finally:
            stop.set()
            await task

    @asynccontextmanager
    async def crashing(self, handler: "LabHandler", **limits: Any) -> AsyncIterator[Runner]:
        """One replica that dies at the end: nothing is drained or committed, but the group learns of it at once."""
        limits = {"poll_ms": 20, "commit_interval_ms": 20, "session_timeout_ms": 120_000} | limits
        runner = Runner(self.stage, handler, self.broker, RunnerOptions(**limits), self.clock)
        task = asyncio.create_task(runner.run(asyncio.Event()))
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sunk(self) -> list[Envelope[Task]]:
        """Everything on the sink that a read_committed reader sees, partition by partition in order."""
        return [decode(self.sink, record.value) for record in await self.all_of(self.sink)]

    async def dead(self) -> list[Record]:
        """Dead letters of this lab's stage."""
        records = await self.all_of(DEAD_LETTERS)
        return [record for record in records if record.header(DeadHeader.STAGE) == self.stage.name]

    async def all_of(self, topic: Topic) -> list[Record]:
        reader = await self.broker.reader(topic.name)
        found: list[Record] = []
        try:
            for partition, end in (await reader.ends()).items():
                while await reader.position(partition) < end:
                    found += await reader.poll(timeout_ms=50)
        finally:
            await reader.close()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def until(self, holds: Callable[[], Any], within_s: float = 30.0) -> None:
        """Wait for a condition; the error says which. Awaitable conditions are awaited."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while True:
            value = holds()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            if asyncio.get_running_loop().time() > deadline_s:
                raise AssertionError(f"not within {within_s} s")
            await asyncio.sleep(0.02)

    async def until_committed(self, runner: Runner, unfinished: int) -> None:
        """Wait until a replica has finished all but so many records, and the log knows it."""

        def is_noted() -> bool:
            owned = list(runner._session._owned.values()) if runner._session else []
            is_known = all(progress.commit() == (progress.committed or Commit(0)) for progress in owned)
            return is_known and bool(owned) and sum(progress.unfinished for progress in owned) == unfinished

        await self.until(is_noted)

    @asynccontextmanager
    async def being_fed(self, at_least: int) -> AsyncIterator[list[str]]:
        """New requests all the while, and at least so many: who joins meanwhile gets some, however long joining takes."""
        ids: list[str] = []
        over = asyncio.Event()

        async def feed() -> None:
            while len(ids) < at_least or not over.is_set():
                more = [f"r{number:05}" for number in range(len(ids), len(ids) + 20)]
                await self.feed_requests(*more)
                ids.extend(more)
                await asyncio.sleep(0.02)

        feeding = asyncio.create_task(feed())
        try:
            yield ids
        finally:
            over.set()
            await feeding

    async def until_sunk(self, count: int, within_s: float = 30.0) -> list[Envelope[Task]]:
        """Wait for so many distinct requests on the sink."""

        async def enough() -> bool:
            return len({envelope.request_id for envelope in await self.sunk()}) >= count

        await self.until(enough, within_s)
        return await self.sunk()


Behaviour = Callable[[Envelope[Task], Context], Outcome | Awaitable[Outcome]]


class LabHandler:
    """Passes tasks on, or does what it is told; remembers what it was given."""

    def __init__(
        self, lab: Lab, behaviour: Behaviour | None = None, transactional: bool = False, raw: bool = False
    ) -> None:
        self._lab = lab
        self.raw = raw
        self._behaviour = behaviour
        self.transactional = transactional
        self.handled: list[str] = []
        self.assignments: list[frozenset[int]] = []

    def handle(self, envelope: Envelope[Task], context: Context) -> Outcome | Awaitable[Outcome]:
        self.handled.append("" if self.raw else envelope.request_id)
        return self._behaviour(envelope, context) if self._behaviour else self.passed(envelope)

    def passed(self, envelope: Envelope[Task]) -> Emit:
        return Emit((Out(self._lab.sink, envelope),))

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        return (Out(self._lab.sink, envelope.forward(Envelope[Task], envelope.id, Task(failure=failure))),)

    async def assigned(self, partitions: frozenset[int]) -> None:
        self.assignments.append(partitions)


def slow_where(lab: Lab, handler_passes: Callable[[Envelope[Task]], Outcome], slow: set[str], seconds: float) -> Behaviour:
    """An awaitable behaviour: the named requests take long, the others no time."""

    async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
        await asyncio.sleep(seconds if envelope.request_id in slow else 0)
        return handler_passes(envelope)

    return behave


Main = Callable[[Lab], Coroutine[Any, Any, None]]

__all__ = ["Header", "Lab", "LabHandler", "Main", "slow_where"]
