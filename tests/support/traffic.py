"""Streams of requests at a rate, open loop, and what became of each request: when it was due, when its result came."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge

import orjson

from schemas.messages import Result, Status
from schemas.topology import INTAKE
from shared.broker import Broker, Output, Producer

LEAD_S = 0.1


def a_sentence(number: int) -> str:
    """A prompt of which no two are the same."""
    return f"Say in a sentence what the number {number} means to you."


@dataclass(frozen=True)
class Stream:
    """So many requests a second for so long, the first one `after_s` from the start. `body` is what all of them have."""

    name: str
    rate_s: float
    seconds: float
    body: Mapping[str, object]
    after_s: float = 0.0
    prompt: Callable[[int], str] = a_sentence


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. Times in epoch milliseconds; `ended_ms` is the broker's stamp on its result."""

    stream: str
    mark: str
    due_ms: int
    deadline_ms: int | None = None
    result: Result | None = field(default=None, repr=False)
    ended_ms: int | None = None

    def with_result(self, result: Result, ended_ms: int) -> "Asked":
        return replace(self, result=result, ended_ms=ended_ms)

    @property
    def latency_ms(self) -> int | None:
        """From the due time, not from when it was sent: a sender that falls behind must not flatter the system."""
        return None if self.ended_ms is None else self.ended_ms - self.due_ms

    @property
    def is_delivered(self) -> bool:
        return self.result is not None and self.result.status is Status.DELIVERED

    @property
    def is_in_time(self) -> bool:
        """Delivered, and within the deadline that its caller gave."""
        late = self.ended_ms is not None and self.deadline_ms is not None and self.ended_ms > self.deadline_ms
        return self.is_delivered and not late


_runs = iter(range(1_000_000))


async def drive(broker: Broker, streams: Sequence[Stream]) -> tuple[list[Asked], int]:
    """Send everything at its time. Returns the requests, and by how many ms the sender fell behind at the worst."""
    run = next(_runs)
    producer = await broker.producer()
    gc.collect()
    gc.freeze()     # what earlier loads left behind is not searched during this one: that takes longer than a sender may be late
    began_s, began_ms = time.monotonic() + LEAD_S, time.time_ns() / 1e6 + LEAD_S * 1000
    asked, acknowledged, late_s = [], [], 0.0
    try:
        for due_s, place, number in merge(*(_due(place, stream) for place, stream in enumerate(streams))):
            stream = streams[place]
            await asyncio.sleep(max(began_s + due_s - time.monotonic(), 0))
            late_s = max(late_s, time.monotonic() - began_s - due_s)
            due_ms, mark = round(began_ms + due_s * 1000), f"{run}/{place}/{number}"
            body = {"prompt": stream.prompt(number), **stream.body, "metadata": {"mark": mark}}
            # Not even a log that stands still makes the sender late: users do not wait for each other either.
            acknowledged.append(asyncio.create_task(_sent(producer, Output(INTAKE.name, None, orjson.dumps(body)))))
            allowed_ms = stream.body.get("deadline_ms")
            asked.append(Asked(stream.name, mark, due_ms, due_ms + allowed_ms if isinstance(allowed_ms, int) else None))
        await asyncio.gather(*acknowledged)
    finally:
        gc.unfreeze()
        await producer.close()
    return asked, round(late_s * 1000)


async def _sent(producer: Producer, output: Output) -> None:
    await (await producer.send(output))


def _due(place: int, stream: Stream) -> Iterable[tuple[float, int, int]]:
    return ((stream.after_s + number / stream.rate_s, place, number) for number in range(round(stream.rate_s * stream.seconds)))


def of_stream(asked: Iterable[Asked], name: str) -> list[Asked]:
    return [one for one in asked if one.stream == name]


def latencies_ms(asked: Iterable[Asked]) -> list[int]:
    """Of the delivered ones, sorted."""
    return sorted(one.latency_ms for one in asked if one.is_delivered and one.latency_ms is not None)


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, the nearest rank; NaN of none."""
    return values[min(int(share * len(values)), len(values) - 1)] if values else float("nan")
