"""Requests at a rate or from so many callers, and how long each took. Every sample is kept.

Open loop: each request has a due time, whatever became of those before it, and its latency counts from then: a system that
falls behind cannot hide it by slowing its callers down.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

import aiohttp

from shared.broker import Broker, Output, Producer, Reader, Record

ANSWER_S = 30.0
LEAD_S = 0.05


@dataclass
class Taken:
    """What a load measured. `seconds` run from the first due time to the last answer."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    failure: str = ""
    began_s: float = field(default_factory=perf_counter)
    ended_s: float = 0.0

    def answered(self, due_s: float) -> None:
        self.ended_s = perf_counter()
        self.latencies_ms.append((self.ended_s - due_s) * 1000)

    def lost(self, why: str, count: int = 1) -> None:
        self.failed += count
        self.failure = self.failure or why

    @property
    def requests_s(self) -> float:
        """Answered per second."""
        return len(self.latencies_ms) / (self.ended_s - self.began_s) if self.latencies_ms else 0.0


async def open_loop(rate_s: float, seconds: float, fire: Callable[[float], Awaitable[None]]) -> None:
    """Call `fire` with its due time, `rate_s` times a second. Returns when all calls have ended."""
    began_s, count, fired = perf_counter() + LEAD_S, int(rate_s * seconds), 0

    async def one(due_s: float) -> None:
        await fire(due_s)

    async with asyncio.TaskGroup() as group:
        while fired < count:
            while fired < count and (due_s := began_s + fired / rate_s) <= perf_counter():
                group.create_task(one(due_s))
                fired += 1
            await asyncio.sleep(max(0.0, began_s + fired / rate_s - perf_counter()))


class HttpLoad:
    """POSTs of one body to one address."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes) -> None:
        self._session = session
        self._url = url
        self._headers = {"content-type": "application/json"} | headers
        self._body = body

    async def open(self, rate_s: float, seconds: float) -> Taken:
        taken = Taken()
        await open_loop(rate_s, seconds, lambda due_s: self._call(due_s, taken))
        return taken

    async def closed(self, callers: int, seconds: float) -> Taken:
        """Each caller asks again as soon as it is answered."""
        taken = Taken()
        until_s = perf_counter() + seconds

        async def caller() -> None:
            while (now_s := perf_counter()) < until_s:
                await self._call(now_s, taken)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return taken

    async def _call(self, due_s: float, taken: Taken) -> None:
        try:
            async with self._session.post(self._url, data=self._body, headers=self._headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            taken.lost(type(error).__name__)
            return
        if response.status == 200:
            taken.answered(due_s)
        else:
            taken.lost(f"{response.status}: {content[:200].decode(errors='replace')}")


@asynccontextmanager
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections are kept, as many as are needed."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session


class TopicLoad:
    """Numbered records to one topic, each awaited on another. `read` gives a record's number, and why it is no answer."""

    def __init__(
        self,
        producer: Producer,
        reader: Reader,
        make: Callable[[int], Output],
        read: Callable[[Record], tuple[int | None, str]],
    ) -> None:
        self._producer = producer
        self._reader = reader
        self._make = make
        self._read = read
        self._numbers = itertools.count()
        self._due_s: dict[int, float] = {}

    async def open(self, rate_s: float, seconds: float) -> Taken:
        taken = Taken()
        tail = asyncio.create_task(self._tail(taken))
        try:
            await open_loop(rate_s, seconds, self._send)
            async with asyncio.timeout(ANSWER_S):
                while self._due_s:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            taken.lost(f"no answer within {ANSWER_S:.0f} s", len(self._due_s))
            self._due_s.clear()
        finally:
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)
        return taken

    async def _send(self, due_s: float) -> None:
        number = next(self._numbers)
        self._due_s[number] = due_s
        await self._producer.send(self._make(number))

    async def _tail(self, taken: Taken) -> None:
        while True:
            for record in await self._reader.poll(timeout_ms=200):
                number, problem = self._read(record)
                if number is None or (due_s := self._due_s.pop(number, None)) is None:
                    continue
                if problem:
                    taken.lost(problem)
                else:
                    taken.answered(due_s)


@asynccontextmanager
async def topic_load(
    broker: Broker, sink: str, make: Callable[[int], Output], read: Callable[[Record], tuple[int | None, str]]
) -> AsyncIterator[TopicLoad]:
    """A load that sends at once and reads `sink` from its end on, committed records only."""
    producer = await broker.producer(linger_ms=0)
    reader = await broker.reader(sink, at_end=True)
    try:
        yield TopicLoad(producer, reader, make, read)
    finally:
        await asyncio.gather(producer.close(), reader.close())
