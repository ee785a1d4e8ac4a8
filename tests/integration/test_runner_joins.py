"""What joins ask of the runner, on a broker in memory and on a real one: open records beside a new one, released one by one,
looked at again in time, and siblings that run side by side.
"""

import asyncio

from schemas.envelope import Envelope
from schemas.messages import Task
from shared.handler import Context
from shared.outcome import Drop, Emit, Hold, Outcome
from tests.conftest import RunLab
from tests.support.lab import Lab, LabHandler


async def feed_parts(lab: Lab, *ids: str) -> None:
    """Records of one request, one after the other."""
    envelope = lab.envelope("r")
    for id in ids:
        await lab.feed(lab.record(envelope.model_copy(update={"id": id})))


def test_a_record_sees_the_open_ones_and_releases_those_it_names(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        seen: list[list[str]] = []
        handler = LabHandler(lab)

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            seen.append([held.id for held, _ in context.held])
            if envelope.id == "drop":
                return Drop("late", frozenset())
            if envelope.id == "join":
                return Emit(handler.passed(envelope).outputs, frozenset(
                    record.offset for held, record in context.held if held.id == "a"))
            return handler.passed(envelope) if envelope.id == "end" else Hold(())

        handler._behaviour = behave
        async with lab.crashing(handler):
            await feed_parts(lab, "a", "b", "drop", "join")
            await lab.until_sunk(1)
            await asyncio.sleep(0.3)
        assert seen == [[], ["a"], ["a", "b"], ["a", "b"]]
        seen.clear()
        async with lab.running(handler):   # only b is still open
            await feed_parts(lab, "end")
            await lab.until(lambda: len(seen) == 2)
        assert seen == [[], ["b"]]

    run_lab(main)


def test_a_held_record_is_handled_again_when_its_time_has_come(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        due_ms = lab.clock.now_ms() + 600

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if envelope.id == "a" and lab.clock.now_ms() >= due_ms:
                assert [held.id for held, _ in context.held] == ["b"]
                return handler.passed(envelope)
            return Hold((), due_ms if envelope.id == "a" else due_ms + 60_000)

        handler._behaviour = behave
        async with lab.running(handler):
            await feed_parts(lab, "a", "b")
            await lab.until_sunk(1)
            assert due_ms <= lab.clock.now_ms() < due_ms + 1_000
            assert len(handler.handled) == 3
            await lab.feed_requests("r")   # nothing is open any more: it passes
            await lab.until(lambda: len(handler.handled) == 4)

    run_lab(main)


def test_siblings_run_side_by_side_and_the_same_record_twice_does_not(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        under_way: list[str] = []
        most: list[list[str]] = []

        class Siblings(LabHandler):
            side_by_side = True

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            under_way.append(envelope.id)
            most.append(sorted(under_way))
            await asyncio.sleep(0.4)
            under_way.remove(envelope.id)
            return handler.passed(envelope)

        handler = Siblings(lab)
        handler._behaviour = behave
        await feed_parts(lab, "a", "b", "a", "c")
        await lab.feed_requests("later", key="r")
        async with lab.running(handler):
            await lab.until(lambda: len(handler.handled) == 5)
            await lab.until_sunk(2)
        assert max(most, key=len) == ["a", "b", "c"]
        assert not any(ids.count("a") > 1 or ("later" in ids and len(ids) > 1) for ids in most)

    run_lab(main)
