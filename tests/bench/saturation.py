"""As much as Baton takes: its steady rate and what a request costs then, and whether the rate holds when far more is asked.

Steady: as many requests as are answered are added, so that a backlog always waits and every stage runs at the same rate.
A preloaded topic would not do: the first stages would be through it long before the last, on the same two cores.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import click
import orjson

from schemas.topology import RESULTS
from shared.broker import Producer, Reader
from tests.bench import relay
from tests.bench.cpu import Meter, rss_mb
from tests.bench.load import LEAD_S
from tests.bench.system import DEADLINE_MS, Baton, problem_of, to_intake

BACKLOG = 2_000
RELAY_BACKLOG = 20_000
WARM_S = 3.0
SILENCE_S = 30.0
TICK_S = 0.005
OVERLOADS = (2, 5)
OVERLOAD_DEADLINE_MS = 10_000
SETTLE_S = 12.0
"""Of an overload, not counted: until then queues fill, and nothing has expired yet. What comes out after it does so for ever."""


class NoAnswersError(click.ClickException):
    """Results stopped coming, or came with a failure: there is nothing to measure."""


@dataclass
class Count:
    """Results so far, by how they ended, and how many were paid for but not delivered."""

    ends: Counter[str] = field(default_factory=Counter)
    in_vain: int = 0
    heard_s: float = field(default_factory=perf_counter)

    @property
    def delivered(self) -> int:
        return self.ends[""]

    async def take(self, reader: Reader) -> int:
        """Count what has come. Raises NoAnswersError after a long silence."""
        records = await reader.poll(timeout_ms=50, records_max=5000)
        now_s = perf_counter()
        if records:
            self.heard_s = now_s
        elif now_s - self.heard_s > SILENCE_S:
            raise NoAnswersError(f"no result for {SILENCE_S:.0f} s, {self.ends.total()} before; the logs are in build/bench")
        for record in records:
            result = orjson.loads(record.value or b"{}")
            problem = problem_of(result)
            self.ends[problem] += 1
            self.in_vain += bool(problem and result.get("cost_microusd"))
        return len(records)


async def sustained(baton: Baton, seconds: float) -> dict[str, Any]:
    """Requests a second in the steady middle, CPU-ms per request and MB of memory, per process and in total."""
    broker = baton.broker()
    producer, reader = await broker.producer(linger_ms=5), await broker.reader(RESULTS.name, at_end=True)
    count, sent = Count(), 0
    try:
        began_s = perf_counter()
        while perf_counter() - began_s < WARM_S:
            sent = await _top_up(producer, sent, count)
            await count.take(reader)
        meter, from_s, before = Meter(baton.pids()), perf_counter(), count.delivered
        while perf_counter() - from_s < seconds:
            sent = await _top_up(producer, sent, count)
            await count.take(reader)
        spent, took_s, answered = meter.spent_ms(), perf_counter() - from_s, count.delivered - before
        while count.ends.total() < sent:
            await count.take(reader)
    finally:
        await asyncio.gather(producer.close(), reader.close())
    if count.delivered < sent:
        raise NoAnswersError(f"not every request was delivered: {dict(count.ends)}")
    memory = {name: rss_mb(pid) for name, pid in baton.pids().items()}
    return {
        "sustained_rps": answered / took_s,
        "processes": {name: {"cpu_ms_per_request": ms / answered, "rss_mb": memory[name]} for name, ms in spent.items()},
    }


async def _top_up(producer: Producer, sent: int, count: Count) -> int:
    for number in range(sent, count.ends.total() + BACKLOG):
        await producer.send(to_intake(number, DEADLINE_MS))
        sent = number + 1
    return sent


async def relayed(system: Baton, relays: Sequence[str], seconds: float) -> dict[str, float]:
    """Records a second of the bare chain at its most, and its CPU-ms per record, all processes of it together."""
    broker = system.broker()
    producer, reader = await broker.producer(linger_ms=5), await broker.reader(relay.TOPICS[-1], at_end=True)
    sent = passed = 0

    async def go_on(seconds: float) -> float:
        nonlocal sent, passed
        began_s = perf_counter()
        while perf_counter() - began_s < seconds:
            while sent < passed + RELAY_BACKLOG:
                await producer.send(relay.record(sent))
                sent += 1
            passed += len(await reader.poll(timeout_ms=50, records_max=5000))
        return perf_counter() - began_s

    try:
        await go_on(WARM_S)
        meter, before = Meter({name: system.processes.pid(name) for name in relays}), passed
        took_s = await go_on(seconds)
        spent_ms, count = sum(meter.spent_ms().values()), passed - before
    finally:
        await asyncio.gather(producer.close(), reader.close())
    if not count:
        raise NoAnswersError("nothing came through the relay chain; the logs are in build/bench")
    return {"relay_rps": count / took_s, "relay_cpu_ms": spent_ms / count}


async def overload(baton: Baton, rate_s: float, seconds: float) -> dict[str, Any]:
    """Offer `rate_s`, open loop, of requests with a deadline of 10 s. What came out meanwhile, how all of it ended, and what part
    of the calls was paid for without a use."""
    broker = baton.broker()
    producer, reader = await broker.producer(linger_ms=5), await broker.reader(RESULTS.name, at_end=True)
    count = Count()
    offering = asyncio.create_task(_offer(producer, rate_s, seconds))
    try:
        settled_s = perf_counter() + LEAD_S + SETTLE_S
        while perf_counter() < settled_s:
            await count.take(reader)
        from_s, before = perf_counter(), count.delivered
        while not offering.done():
            await count.take(reader)
        took_s, delivered = perf_counter() - from_s, count.delivered - before
        offered = await offering
        while count.ends.total() < offered:
            await count.take(reader)
    finally:
        offering.cancel()
        await asyncio.gather(offering, return_exceptions=True)
        await asyncio.gather(producer.close(), reader.close())
    return {
        "offered_rps": rate_s,
        "delivered_rps": delivered / took_s,
        "requests": offered,
        "in_vain_percent": 100 * count.in_vain / max(count.in_vain + count.delivered, 1),
        "ends": {why or "delivered": many for why, many in count.ends.items()},
    }


async def _offer(producer: Producer, rate_s: float, seconds: float) -> int:
    """All that are due, every few milliseconds. Returns how many."""
    began_s, count, sent = perf_counter() + LEAD_S, int(rate_s * (seconds + SETTLE_S)), 0
    while sent < count:
        due = min(count, int((perf_counter() - began_s) * rate_s))
        for number in range(sent, due):
            await producer.send(to_intake(number, OVERLOAD_DEADLINE_MS))
            sent = number + 1
        await asyncio.sleep(TICK_S)
    await producer.flush()
    return count
