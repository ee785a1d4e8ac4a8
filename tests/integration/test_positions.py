"""How far a group is, as others see it: the same on the broker in memory and on a real one."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from schemas.envelope import Envelope
from schemas.messages import Task
from shared.broker import Partition
from shared.handler import Context
from shared.outcome import Outcome
from shared.progress import reached
from tests.support.lab import Lab, LabHandler

RunLab = Callable[[Callable[[Lab], Coroutine[None, None, None]]], None]


def test_what_a_group_has_reached_is_seen_past_a_straggler(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler, gate = LabHandler(lab), asyncio.Event()

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if envelope.request_id == "r0":
                await gate.wait()
            return handler.passed(envelope)

        handler._behaviour = behave
        positions = await lab.broker.positions([lab.source.name, lab.sink.name])
        place = Partition(lab.source.name, 1)
        try:
            await lab.feed(*(lab.record(lab.envelope(f"r{n}"))._replace(partition=1) for n in range(30)))
            async with lab.running(handler):
                await lab.until_sunk(29)

                async def is_noted() -> bool:
                    found = await positions.committed(lab.stage.group, [lab.source.name])
                    return place in found and reached(found[place]) == 30

                await lab.until(is_noted)
                found = await positions.committed(lab.stage.group, [lab.source.name])
                assert found[place].offset == 0
                ends = await positions.ends()
                assert {partition: end for partition, end in ends.items() if partition.topic == lab.source.name} == {
                    Partition(lab.source.name, n): 30 if n == 1 else 0 for n in range(lab.partitions)
                }
                assert sum(end for partition, end in ends.items() if partition.topic == lab.sink.name) >= 29
                assert await positions.committed(lab.stage.group, [lab.sink.name]) == {}
                gate.set()
                await lab.until_sunk(30)
        finally:
            await positions.close()

    run_lab(main)


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_group_that_reads_all_has_reached_the_end(run_lab: RunLab, ahead: int) -> None:
    async def main(lab: Lab) -> None:
        positions = await lab.broker.positions([lab.source.name])
        try:
            await lab.feed_requests(*(f"r{n}" for n in range(20)))
            async with lab.running(LabHandler(lab)) as runner:
                await lab.until_sunk(20)
                await lab.until_committed(runner, 0)
            await lab.feed_requests(*(f"late{n}" for n in range(ahead)))
            found, ends = await positions.committed(lab.stage.group, [lab.source.name]), await positions.ends()
            assert sum(ends.values()) - sum(reached(commit) for commit in found.values()) == ahead
        finally:
            await positions.close()

    run_lab(main)
