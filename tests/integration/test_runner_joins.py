"""What joins ask of the runner, on a broker in memory and on a real one: open records beside a new one, released one by one,
looked at again in time, siblings that run side by side, and thousands that are open at once.
"""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from schemas.envelope import Envelope
from schemas.messages import Reason, Task
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
        async with lab.crashing(handler) as runner:
            await feed_parts(lab, "a", "b", "drop", "join")
            await lab.until_sunk(1)
            await lab.until_committed(runner, unfinished=1)
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
        seen_ms: list[int] = []    # when a was handled
        wait_ms = 600

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            now_ms = lab.clock.now_ms()
            if envelope.id != "a":
                return Hold((), now_ms + 60_000)
            seen_ms.append(now_ms)
            if len(seen_ms) == 1:
                return Hold((), now_ms + wait_ms)
            assert [held.id for held, _ in context.held] == ["b"]
            return handler.passed(envelope)

        handler._behaviour = behave
        async with lab.running(handler):
            await feed_parts(lab, "a", "b")
            await lab.until_sunk(1)
            waited_ms = seen_ms[1] - seen_ms[0]
            assert wait_ms <= waited_ms
            assert waited_ms < wait_ms + 1_000 or lab.name == "kafka", "where time is virtual, nothing but the runner delays it"
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


# Many open at once ------------------------------------------------------------------------------------------------------


class JoiningHandler(LabHandler):
    """Holds `x/a` until `x/b` comes; what is neither passes. `until_ms`: when a held one gives up."""

    def __init__(self, lab: Lab, until_ms: int = 1 << 61) -> None:
        super().__init__(lab, self._behave)
        self.until_ms = until_ms

    def _behave(self, envelope: Envelope[Task], context: Context) -> Outcome:
        if not envelope.id.endswith("/a") or self._lab.clock.now_ms() >= self.until_ms:
            return self.passed(envelope)
        return Hold((), self.until_ms)


async def feed_each(lab: Lab, part: str, names: Iterable[str]) -> None:
    await lab.feed(*(lab.record(lab.envelope(name).model_copy(update={"id": f"{name}/{part}"})) for name in names))


def failed_of(sunk: Sequence[Envelope[Task]]) -> list[str]:
    return [each.request_id for each in sunk if each.payload.failure is not None]


def test_thousands_of_open_records_hold_up_neither_others_nor_what_releases_them(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler, names = JoiningHandler(lab), [f"j{n}" for n in range(2_400)]
        async with lab.running(handler, parked_max=100):
            await feed_each(lab, "a", names)
            await lab.until(lambda: len(handler.handled) == 2_400)
            await lab.feed_requests(*(f"plain{n}" for n in range(100)))
            await lab.until_sunk(100)
            await feed_each(lab, "b", names)
            sunk = await lab.until_sunk(2_500)
        assert failed_of(sunk) == []

    run_lab(main)


def test_beyond_the_limit_a_request_fails_at_once_with_the_fix_and_those_that_are_open_go_on(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler, names = JoiningHandler(lab), [f"j{n}" for n in range(60)]
        async with lab.running(handler, held_max=40):
            await feed_each(lab, "a", names)
            early = await lab.until_sunk(20)
            assert {each.payload.failure.reason for each in early if each.payload.failure} == {Reason.TOO_MANY_OPEN}
            shed = set(failed_of(early))
            assert len(shed) == 20
            await feed_each(lab, "b", [name for name in names if name not in shed])
            await feed_each(lab, "a", ["later"])       # there is room again
            await lab.until_sunk(60)
            await feed_each(lab, "b", ["later"])
            sunk = await lab.until_sunk(61)
        assert set(failed_of(sunk)) == shed

    run_lab(main)


def test_open_records_give_up_in_time_however_many_they_are(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = JoiningHandler(lab, lab.clock.now_ms() + 1_500)
        async with lab.running(handler, held_max=40, parked_max=10):
            await feed_each(lab, "a", [f"j{n}" for n in range(40)])
            await lab.until_sunk(40)
            assert lab.clock.now_ms() >= handler.until_ms

    run_lab(main)


def test_an_open_record_that_thousands_have_overtaken_ends_and_its_partition_reads_on(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = JoiningHandler(lab)
        async with lab.running(handler, span_max=50):
            opened = lab.record(lab.envelope("open").model_copy(update={"id": "open/a"}))
            others = [lab.record(lab.envelope(f"r{n}")) for n in range(200)]
            await lab.feed(*(each._replace(partition=0) for each in (opened, *others)))
            sunk = await lab.until_sunk(201)
        assert failed_of(sunk) == ["open"]

    run_lab(main)


# Behind an open record ------------------------------------------------------------------------------------------------


async def feed_key(lab: Lab, part: str, name: str) -> None:
    """One part of a request whose key others share."""
    await lab.feed(lab.record(lab.envelope(name, "one").model_copy(update={"id": f"{name}/{part}"})))


@pytest.mark.parametrize("limit", ["in_flight_max", "topic_in_flight_max"])
def test_those_behind_an_open_record_do_not_keep_what_releases_it_from_being_read(run_lab: RunLab, limit: str) -> None:
    async def main(lab: Lab) -> None:
        handler, behind = JoiningHandler(lab), [f"r{n:02}" for n in range(40)]
        async with lab.running(handler, **{limit: 10}):
            await feed_key(lab, "a", "first")
            await lab.feed_requests(*behind, key="one")
            await feed_key(lab, "b", "first")
            sunk = await lab.until_sunk(41)
        assert [each.request_id for each in sunk] == ["first", *behind]
        assert failed_of(sunk) == []

    run_lab(main)


def test_where_too_many_wait_the_request_that_keeps_them_waiting_ends_and_is_not_overtaken(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler, joins, behind = JoiningHandler(lab), [f"j{n}" for n in range(5)], [f"r{n:02}" for n in range(40)]
        async with lab.running(handler, held_max=20):
            await feed_each(lab, "a", joins)
            await feed_key(lab, "a", "first")
            await lab.until(lambda: len(handler.handled) == 6)
            await lab.feed_requests(*behind, key="one")
            early = await lab.until_sunk(41)
            assert [each.request_id for each in early] == ["first", *behind]
            assert {each.payload.failure.reason for each in early if each.payload.failure} == {Reason.TOO_MANY_OPEN}
            await feed_each(lab, "b", joins)
            sunk = await lab.until_sunk(46)
        assert failed_of(sunk) == ["first"]

    run_lab(main)
