"""Records whose handlers wait for something outside: they take no place, hold up no drain, and are not lost."""

import asyncio

from schemas.envelope import Envelope
from schemas.messages import Task
from shared.handler import Context
from shared.outcome import Outcome
from tests.conftest import RunLab
from tests.support.lab import Lab, LabHandler


class ParkingHandler(LabHandler):
    """Requests named `p…` wait for the gate; the others pass."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, self._behave)
        self.gate = asyncio.Event()

    async def _behave(self, envelope: Envelope[Task], context: Context) -> Outcome:
        if envelope.request_id.startswith("p"):
            with context.parked():
                await self.gate.wait()
        return self.passed(envelope)


def test_parked_records_leave_their_places_to_those_that_can_go_on(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = ParkingHandler(lab)
        await lab.feed_requests(*(f"p{n}" for n in range(60)), *(f"r{n}" for n in range(60)))
        async with lab.running(handler, in_flight_max=10, parked_max=100):
            sunk = await lab.until_sunk(60)
            assert {envelope.request_id[0] for envelope in sunk} == {"r"}
            handler.gate.set()
            assert len(await lab.until_sunk(120)) == 120

    run_lab(main)


def test_no_more_are_parked_than_the_limit_says(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = ParkingHandler(lab)
        await lab.feed_requests(*(f"p{n}" for n in range(300)))
        async with lab.running(handler, in_flight_max=10, parked_max=20):
            await lab.until(lambda: len(handler.handled) >= 20)
            await asyncio.sleep(0.5)     # what a greedy runner would need to take them all
            assert len(handler.handled) <= 20 + 10
            handler.gate.set()
            await lab.until_sunk(300)

    run_lab(main)


def test_a_drain_does_not_wait_for_the_parked_and_the_next_owner_gets_them(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = ParkingHandler(lab)
        await lab.feed_requests(*(f"p{n}" for n in range(30)), *(f"r{n}" for n in range(30)))
        loop = asyncio.get_running_loop()
        async with lab.running(handler, drain_ms=30_000):
            await lab.until_sunk(30)
            asked_s = loop.time()
        assert loop.time() - asked_s < 10
        successor = ParkingHandler(lab)
        successor.gate.set()
        async with lab.running(successor):
            sunk = await lab.until_sunk(60)
        assert len({envelope.request_id for envelope in sunk}) == len(sunk) == 60
        assert {request_id[0] for request_id in successor.handled} == {"p"}

    run_lab(main)
