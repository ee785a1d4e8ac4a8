"""Back-pressure costs nothing but the wait for room: what was held back goes on at once, however quiet it is elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from schemas.envelope import Envelope
from schemas.messages import Task
from schemas.topology import Key, Stage, Topic, topic_spec
from shared.broker import Consumer, Output, Partition
from tests.support.lab import Lab, LabHandler

RunLab = Callable[[Callable[[Lab], Coroutine[None, None, None]]], None]

AT_ONCE_S = 0.2
"""Far below the half second for which a question about quiet partitions may wait at the broker."""


async def add_quiet_topic(lab: Lab) -> Topic:
    """A topic that the lab's stage reads as well, and to which nobody writes."""
    quiet = Topic(f"quiet-{lab.id}", Key.REQUEST, Envelope[Task], "", partitions=lab.partitions)
    await lab.broker.create_topics([topic_spec(quiet)])
    lab.stage = Stage(lab.stage.name, (lab.source, quiet), (lab.sink,))
    return quiet


def placed(lab: Lab, request_id: str, partition: int) -> Output:
    return lab.record(lab.envelope(request_id))._replace(partition=partition)


@asynccontextmanager
async def member(lab: Lab, *topics: Topic) -> AsyncIterator[Consumer]:
    """One that owns all partitions of the topics, with nothing to read yet."""

    async def noted(partitions: frozenset[Partition]) -> None:
        return

    consumer = await lab.broker.consumer(lab.stage.group, [topic.name for topic in topics], noted, noted)
    try:
        while not all(consumer.high_water(Partition(lab.source.name, number)) is not None for number in range(lab.partitions)):
            await consumer.poll(50, 1)
        yield consumer
    finally:
        await consumer.close()


async def polled(consumer: Consumer, count: int) -> int:
    """Reads `count` records."""
    found = 0
    while found < count:
        found += sum(map(len, (await consumer.poll(50, count - found)).values()))
    return found


def test_what_was_held_back_comes_as_soon_as_it_is_let_go_though_another_topic_is_quiet(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        quiet = await add_quiet_topic(lab)
        source = [Partition(lab.source.name, number) for number in range(lab.partitions)]
        async with member(lab, lab.source, quiet) as consumer:
            await lab.feed(*(placed(lab, f"r{n}", n % lab.partitions) for n in range(30)))
            await polled(consumer, 10)
            consumer.pause(source)
            until_s = lab.clock.monotonic_s() + 0.3   # long enough for a question about what is not held back alone
            while lab.clock.monotonic_s() < until_s:
                assert not await consumer.poll(20, 100)
            consumer.resume(source)
            let_go_s = lab.clock.monotonic_s()
            await polled(consumer, 20)
            assert lab.clock.monotonic_s() - let_go_s < AT_ONCE_S

    run_lab(main)


def test_a_busy_partition_does_not_wait_for_quiet_ones_when_its_reader_was_slow(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        async with member(lab, lab.source) as consumer:
            await asyncio.gather(polled(consumer, 1), lab.feed(placed(lab, "first", 1)))
            for number in range(6):
                await lab.feed(placed(lab, f"r{number}", 1))
                if number % 2 == 0:
                    await asyncio.sleep(0.2)   # it is read ahead meanwhile, and the others are asked for without its partition
                asked_s = lab.clock.monotonic_s()
                await polled(consumer, 1)
                assert lab.clock.monotonic_s() - asked_s < AT_ONCE_S

    run_lab(main)


def test_a_stage_at_its_limit_goes_on_as_fast_as_it_finishes_though_another_topic_is_quiet(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        await add_quiet_topic(lab)
        handler = LabHandler(lab)
        await lab.feed_requests(*(f"r{n}" for n in range(2_000)))
        async with lab.running(handler, poll_ms=200, in_flight_max=100, topic_in_flight_max=50):
            await lab.until_sunk(2_000, within_s=4)

    run_lab(main)
