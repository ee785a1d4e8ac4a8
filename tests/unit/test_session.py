"""What a session does while its handlers keep it busy."""

import asyncio
import time

from schemas.envelope import Envelope
from schemas.messages import Task
from shared.broker import Consumer
from shared.clock import SystemClock
from shared.handler import Context
from shared.local import LocalBroker
from shared.outcome import Outcome
from tests.support.lab import Lab, LabHandler


async def nobody(consumer: Consumer, notice: asyncio.Event) -> None:
    raise AssertionError("nobody is expelled here")


async def test_a_stage_with_much_to_do_does_not_take_itself_for_one_that_stood_still() -> None:
    """300 records of 10 ms in one batch, and a session timeout of 3 s: without a breath it would end itself, again and again."""
    lab = Lab("local", LocalBroker(SystemClock()), SystemClock(), nobody)
    await lab.create()
    handler = LabHandler(lab)

    def behave(envelope: Envelope[Task], context: Context) -> Outcome:
        time.sleep(0.01)
        return handler.passed(envelope)

    handler._behaviour = behave
    await lab.feed_requests(*(f"r{number}" for number in range(300)))
    async with lab.running(handler, session_timeout_ms=3_000):
        await lab.until_sunk(300)
    assert len(handler.handled) == 300
