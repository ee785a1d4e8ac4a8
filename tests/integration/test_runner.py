"""The runner's promises, on a broker in memory and on a real one: the same tests, the same numbers."""

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from schemas.envelope import DeadHeader, Envelope
from schemas.messages import Failure, Reason, Task
from schemas.topology import RESULTS, Key, Topic, topic_spec
from shared import metrics
from shared.broker import Output, Partition
from shared.errors import DeadLetterCapError, ForeignTopicError
from shared.handler import Context
from shared.outcome import Drop, Emit, Hold, Out, Outcome
from shared.session import RunnerOptions
from shared.stage import Runner
from tests.conftest import RunLab
from tests.support.lab import Lab, LabHandler, slow_where

NEVER_S = 1_000_000.0


def test_every_record_becomes_one_output(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        ids = [f"r{n}" for n in range(300)]
        await lab.feed_requests(*ids)
        async with lab.running(LabHandler(lab)):
            sunk = await lab.until_sunk(300)
        assert sorted(envelope.request_id for envelope in sunk) == sorted(ids)

    run_lab(main)


def test_records_of_one_key_stay_in_order_though_each_takes_another_time(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        pick = random.Random(7)

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            await asyncio.sleep(pick.random() * 0.05)
            return handler.passed(envelope)

        handler._behaviour = behave
        for n in range(60):
            await lab.feed_requests(f"r{n:03}", key=f"key{n % 5}")
        async with lab.running(handler):
            sunk = await lab.until_sunk(60)
        for key in {envelope.key for envelope in sunk}:
            ids = [envelope.request_id for envelope in sunk if envelope.key == key]
            assert ids == sorted(ids)

    run_lab(main)


def test_keys_do_not_wait_for_each_other(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler, others_are_through = LabHandler(lab), asyncio.Event()

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if envelope.request_id == "slow":
                await others_are_through.wait()
            return handler.passed(envelope)

        handler._behaviour = behave
        await lab.feed_requests("slow", *(f"r{n}" for n in range(50)))
        async with lab.running(handler):
            sunk = await lab.until_sunk(50)
            assert "slow" not in {envelope.request_id for envelope in sunk}
            others_are_through.set()

    run_lab(main)


def test_after_a_crash_behind_a_straggler_only_the_straggler_is_read_again(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        handler._behaviour = slow_where(lab, handler.passed, {"r000"}, NEVER_S)
        ids = [f"r{n:03}" for n in range(500)]
        await lab.feed_requests(*ids)
        async with lab.crashing(handler) as runner:
            await lab.until_sunk(499)
            await lab.until_committed(runner, unfinished=1)
        again = LabHandler(lab)
        async with lab.running(again):
            await lab.until_sunk(500)
        assert again.handled == ["r000"]

    run_lab(main)


def test_a_drain_finishes_what_runs_and_starts_nothing_new(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        handler._behaviour = slow_where(lab, handler.passed, {"a0", "a1"}, 0.5)
        await lab.feed_requests("a0", "a1", key="one")
        async with lab.running(handler):
            await lab.until(lambda: handler.handled)
        assert handler.handled == ["a0"]
        assert [envelope.request_id for envelope in await lab.sunk()] == ["a0"]
        again = LabHandler(lab)
        async with lab.running(again):
            await lab.until_sunk(2)
        assert again.handled == ["a1"]

    run_lab(main)


def test_back_pressure_bounds_what_is_in_flight_and_everything_comes_through(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        gate = asyncio.Event()
        handler = LabHandler(lab)
        running = {"now": 0, "most": 0}

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            running["now"] += 1
            running["most"] = max(running["most"], running["now"])
            await gate.wait()
            running["now"] -= 1
            return handler.passed(envelope)

        handler._behaviour = behave
        await lab.feed_requests(*(f"r{n}" for n in range(200)))
        async with lab.running(handler, in_flight_max=10):
            await lab.until(lambda: running["now"] >= 10)
            await asyncio.sleep(0.5)   # time enough to take more, were there no limit
            assert running["most"] <= 11
            gate.set()
            await lab.until_sunk(200)

    run_lab(main)


def test_a_straggler_holds_reading_back_at_the_span_and_not_before(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        gate = asyncio.Event()

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if envelope.request_id == "r000":
                await gate.wait()
            return handler.passed(envelope)

        handler._behaviour = behave
        straggler = lab.record(lab.envelope("r000"))
        await lab.feed(Output(straggler.topic, straggler.key, straggler.value, straggler.headers, 0))
        others = [lab.record(lab.envelope(f"r{n:03}")) for n in range(1, 400)]
        await lab.feed(*(Output(o.topic, o.key, o.value, o.headers, 0) for o in others))
        async with lab.running(handler, span_max=100, in_flight_max=50):
            await lab.until(lambda: len(handler.handled) >= 100)
            await asyncio.sleep(0.5)
            assert len(handler.handled) <= 100 + 50
            gate.set()
            await lab.until_sunk(400)

    run_lab(main)


def test_poison_goes_to_dead_letters_byte_for_byte_and_its_request_fails_while_others_pass(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if envelope.request_id == "crash":
                raise ValueError("a bug with the prompt in its text")
            return handler.passed(envelope)

        handler._behaviour = behave
        good = lab.record(lab.envelope("good"))
        broken = lab.record(lab.envelope("broken-json"))
        wrong = lab.record(lab.envelope("wrong-schema"))
        await lab.feed(
            Output(lab.source.name, b"broken-json", b"{not json", broken.headers),
            Output(lab.source.name, b"wrong-schema", b'{"id": 5}', wrong.headers),
            Output(lab.source.name, b"nobody", b"\xff\xfe", ()),
            lab.record(lab.envelope("crash")),
            good,
        )
        async with lab.running(handler):
            await lab.until_sunk(4)
            dead = await lab.dead()
            assert len(dead) == 4
        failures = {envelope.request_id: envelope.payload.failure for envelope in await lab.sunk()}
        assert failures["good"] is None
        assert {id: failure.reason for id, failure in failures.items() if failure} == {
            "broken-json": Reason.UNDECODABLE, "wrong-schema": Reason.UNDECODABLE, "crash": Reason.HANDLER_CRASHED,
        }
        causes = {record.value: record for record in dead}
        assert causes[b"{not json"].key == b"broken-json"
        assert causes[b"{not json"].header(DeadHeader.REASON) == "undecodable"
        crash = next(record for record in dead if record.header(DeadHeader.REASON) == "handler_crashed")
        assert (crash.header(DeadHeader.ERROR), crash.header(DeadHeader.TRIES)) == ("ValueError", "3")
        assert handler.handled.count("crash") == 3
        assert not any(b"the prompt" in value for record in dead for _, value in record.headers)

    run_lab(main)


def test_an_awaitable_handler_that_recovers_on_the_second_try_leaves_no_dead_letter(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            if handler.handled.count(envelope.request_id) < 2:
                raise OSError("passing")
            return handler.passed(envelope)

        handler._behaviour = behave
        await lab.feed_requests("once-more")
        async with lab.running(handler):
            await lab.until_sunk(1)
        assert await lab.dead() == []

    run_lab(main)


def test_a_handler_that_crashes_at_once_on_a_later_try_costs_its_record_and_not_the_stage(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)

        def behave(envelope: Envelope[Task], context: Context) -> Outcome | Awaitable[Outcome]:
            if envelope.request_id != "crash":
                return handler.passed(envelope)
            if handler.handled.count("crash") > 1:   # what the first try waited for is known by now
                raise ValueError("a bug")
            return crashing_later()

        async def crashing_later() -> Outcome:
            raise ValueError("a bug")

        handler._behaviour = behave
        await lab.feed_requests("crash", "sound")
        async with lab.running(handler):
            sunk = await lab.until_sunk(2)
        assert {each.request_id: each.payload.failure and each.payload.failure.reason for each in sunk} == {
            "crash": Reason.HANDLER_CRASHED, "sound": None,
        }
        assert handler.handled.count("crash") == 3
        assert len(await lab.dead()) == 1

    run_lab(main)


def grown(envelope: Envelope[Task]) -> Envelope[Task]:
    """Too large for the lab's topics."""
    return envelope.model_copy(update={"metadata": {"note": "x" * 1_048_577}})


def test_an_output_over_the_limit_of_a_record_fails_its_own_request_only(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            return Emit((Out(lab.sink, grown(envelope)),)) if envelope.request_id == "big" else handler.passed(envelope)

        handler._behaviour = behave
        await lab.feed_requests("big", "small")
        async with lab.running(handler):
            sunk = await lab.until_sunk(2)
        failures = {envelope.request_id: envelope.payload.failure for envelope in sunk}
        assert failures["small"] is None
        assert failures["big"] is not None
        assert failures["big"].reason is Reason.TOO_LARGE

    run_lab(main)


@pytest.mark.parametrize("kind", [Emit, Hold])
def test_an_outcome_that_does_not_fit_is_the_requests_failure_as_a_whole_wherever_that_is_written(
    run_lab: RunLab, kind: type[Emit] | type[Hold]
) -> None:
    async def main(lab: Lab) -> None:
        aside = Topic(f"aside-{lab.id}", Key.REQUEST, Envelope[Task], "", partitions=lab.partitions, bytes_max=1_048_588)
        await lab.broker.create_topics([topic_spec(aside)])
        lab.stage = replace(lab.stage, writes=(lab.sink, aside))
        handler = LabHandler(lab, lambda envelope, _: kind((Out(lab.sink, envelope), Out(aside, grown(envelope)))))
        envelope = lab.envelope("big").model_copy(update={"lane": "interactive", "metadata": {"label": "mine"}})
        await lab.feed(lab.record(envelope))
        async with lab.running(handler):
            (sunk,) = await lab.until_sunk(1)
        assert sunk.payload.failure is not None
        assert sunk.payload.failure.reason is Reason.TOO_LARGE
        assert (sunk.lane, sunk.metadata) == ("interactive", {"label": "mine"})
        assert await lab.all_of(aside) == []

    run_lab(main)


def test_where_nobody_can_be_told_an_outcome_that_does_not_fit_is_a_dead_letter(run_lab: RunLab) -> None:
    class Silent(LabHandler):
        def failed(self, envelope: Envelope[Task], failure: Failure) -> tuple[Out, ...]:
            return ()

    async def main(lab: Lab) -> None:
        handler = Silent(lab)
        handler._behaviour = lambda e, c: Emit((Out(lab.sink, grown(e)),)) if e.request_id == "big" else handler.passed(e)
        await lab.feed_requests("big", "small")
        async with lab.running(handler):
            await lab.until_sunk(1)
        (dead,) = await lab.dead()
        assert (dead.key, dead.header(DeadHeader.REASON)) == (b"big", "too_large")

    run_lab(main)


def test_a_request_past_its_deadline_expires_without_being_handled(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        await lab.feed(lab.record(lab.envelope("late", deadline_in_ms=-1)), lab.record(lab.envelope("in-time")))
        async with lab.running(handler):
            sunk = await lab.until_sunk(2)
        failures = {envelope.request_id: envelope.payload.failure for envelope in sunk}
        assert failures["late"] is not None
        assert failures["late"].reason is Reason.DEADLINE_PASSED
        assert handler.handled == ["in-time"]

    run_lab(main)


def test_too_many_rejects_stop_the_stage_before_it_drains_its_topic_and_the_next_start_repeats_none(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        identity = lab.record(lab.envelope("x")).headers
        await lab.feed(*(Output(lab.source.name, b"k%d" % n, b"rubbish", identity) for n in range(300)))
        for _ in range(2):
            runner = Runner(lab.stage, LabHandler(lab), lab.broker, RunnerOptions(poll_ms=20), lab.clock)
            with pytest.raises(DeadLetterCapError, match="of the last"):
                await runner.run(asyncio.Event())
        places = [(dead.header(DeadHeader.PARTITION), dead.header(DeadHeader.OFFSET)) for dead in await lab.dead()]
        assert len(set(places)) == len(places) < 60

    run_lab(main)


def test_a_topic_outside_the_stages_row_ends_the_stage_at_once(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab, lambda envelope, context: Emit((Out(RESULTS, envelope),)))
        await lab.feed_requests("r0")
        runner = Runner(lab.stage, handler, lab.broker, RunnerOptions(poll_ms=20), lab.clock)
        with pytest.raises(ForeignTopicError, match="may not write results"):
            await runner.run(asyncio.Event())

    run_lab(main)


def test_a_held_record_lets_only_its_own_request_pass_until_that_is_finished(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)

        def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            first = envelope.request_id == "first" and not envelope.id.endswith("/again")
            return Hold(()) if first else handler.passed(envelope)

        handler._behaviour = behave
        await lab.feed_requests("first", key="one")
        await lab.feed_requests("second", key="one")
        await lab.feed_requests("other", key="two")
        async with lab.running(handler):
            await lab.until_sunk(1)
            assert handler.handled.count("second") == 0
            again = lab.envelope("first", "one")
            await lab.feed(lab.record(again.model_copy(update={"id": "first/again"})))
            sunk = await lab.until_sunk(3)
        assert [e.request_id for e in sunk if e.key == "one"] == ["first", "second"]

    run_lab(main)


def test_a_held_record_is_read_again_after_a_crash(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        await lab.feed_requests("held", "done")
        first = LabHandler(lab)
        first._behaviour = lambda e, c: Hold(()) if e.request_id == "held" else first.passed(e)
        async with lab.crashing(first) as runner:
            await lab.until_sunk(1)
            await lab.until_committed(runner, unfinished=1)
        second = LabHandler(lab)
        async with lab.running(second):
            await lab.until_sunk(2)
        assert second.handled == ["held"]

    run_lab(main)


def test_replicas_that_come_and_go_lose_nothing(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        first, second, third = LabHandler(lab), LabHandler(lab), LabHandler(lab)
        async with lab.running(first):
            async with lab.being_fed(600) as ids:
                async with lab.running(second):
                    await lab.until(lambda: second.handled)
                async with lab.crashing(third):
                    await lab.until(lambda: third.handled)
            sunk = await lab.until_sunk(len(ids))
        assert {envelope.request_id for envelope in sunk} == set(ids)

    run_lab(main)


def test_a_call_under_way_survives_a_rebalance_that_leaves_its_partition_here(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        handler._behaviour = slow_where(lab, handler.passed, {"slow"}, 2.0)
        record = lab.record(lab.envelope("slow"))
        async with lab.running(handler, revoke_drain_ms=50):
            await lab.feed(lab.record(lab.envelope("warm")), Output(record.topic, record.key, record.value, record.headers, 0))
            await lab.until_sunk(1)
            await asyncio.sleep(0.3)
            other = LabHandler(lab)
            async with lab.running(other, revoke_drain_ms=50):
                await lab.until_sunk(2)
        assert (handler.handled + other.handled).count("slow") <= 2
        assert len([e for e in await lab.sunk() if e.request_id == "slow"]) <= 2

    run_lab(main)


@pytest.mark.parametrize("faults", ["none", "joins and leaves", "crashes"])
def test_a_transactional_stage_writes_each_result_once(run_lab: RunLab, faults: str) -> None:
    async def main(lab: Lab) -> None:
        async with lab.running(LabHandler(lab, transactional=True), flush_interval_ms=5):
            other = LabHandler(lab, transactional=True)
            async with lab.being_fed(400) as ids:
                if faults == "joins and leaves":
                    async with lab.running(other):
                        await lab.until(lambda: other.handled)
                elif faults == "crashes":
                    async with lab.crashing(other):
                        await lab.until(lambda: other.handled)
            await lab.until_sunk(len(ids))
        assert sorted(envelope.request_id for envelope in await lab.sunk()) == ids

    run_lab(main)


def test_a_zombie_that_wakes_up_writes_nothing_twice(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        ids = [f"r{n:03}" for n in range(100)]
        asleep, notice = asyncio.Event(), asyncio.Event()
        zombie, heir = LabHandler(lab, transactional=True), LabHandler(lab, transactional=True)

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            await asleep.wait()
            return zombie.passed(envelope)

        zombie._behaviour = behave
        await lab.feed_requests(*ids)
        async with lab.running(zombie) as runner:
            await lab.until(lambda: len(zombie.handled) == 100)
            assert runner._session is not None
            await lab.expel(runner._session._consumer, notice)
            async with lab.running(heir):
                await lab.until_sunk(100)
                asleep.set()                       # the zombie finishes what it held, before it learns that it is one
                await asyncio.sleep(0.5)
                notice.set()
                await lab.feed_requests("after")
                await lab.until_sunk(101)
        assert sorted(e.request_id for e in await lab.sunk()) == ["after", *ids]

    run_lab(main)


def test_a_dropped_record_is_finished_and_writes_nothing(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        handler._behaviour = lambda e, c: Drop("twice") if e.request_id == "dup" else handler.passed(e)
        await lab.feed_requests("dup", "one")
        async with lab.running(handler):
            await lab.until_sunk(1)
        again = LabHandler(lab)
        async with lab.running(again):
            await lab.feed_requests("two")
            await lab.until_sunk(2)
        assert again.handled == ["two"]

    run_lab(main)


def test_the_trace_context_travels_from_record_to_record(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        trace = (("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), ("tracestate", b"vendor=1"))
        record = lab.record(lab.envelope("traced"))
        await lab.feed(Output(record.topic, record.key, record.value, record.headers + trace))
        async with lab.running(LabHandler(lab)):
            await lab.until_sunk(1)
        (sunk,) = await lab.all_of(lab.sink)
        assert [header for header in sunk.headers if header[0].startswith("trace")] == list(trace)

    run_lab(main)


def test_a_raw_stage_begins_a_trace_where_the_user_sent_none_or_rubbish(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab, raw=True)
        handler._behaviour = lambda record, context: Emit((Out(lab.sink, lab.envelope(context.record.key.decode())),))
        await lab.feed(
            Output(lab.source.name, b"none", b"{}"), Output(lab.source.name, b"rubbish", b"{}", (("traceparent", b"x"),))
        )
        async with lab.running(handler):
            await lab.until_sunk(2)
        traces = {record.header("traceparent") for record in await lab.all_of(lab.sink)}
        assert len(traces) == 2
        assert all(trace and trace.startswith("00-") for trace in traces)

    run_lab(main)


def test_a_hold_whose_continuation_never_comes_ends_with_a_result_and_frees_its_key(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        if lab.name == "kafka":
            return   # the grace of ten seconds is waited for in virtual time alone
        handler = LabHandler(lab)
        handler._behaviour = lambda e, c: Hold(()) if e.request_id == "lost" else handler.passed(e)
        await lab.feed(lab.record(lab.envelope("lost", "one", deadline_in_ms=5_000)))
        await lab.feed_requests("next", key="one")
        async with lab.running(handler):
            sunk = await lab.until_sunk(2, within_s=60)
        failures = {envelope.request_id: envelope.payload.failure for envelope in sunk}
        assert failures["lost"] is not None
        assert failures["lost"].reason is Reason.DEADLINE_PASSED
        assert failures["next"] is None

    run_lab(main)


def test_a_partition_paused_behind_a_straggler_goes_on_while_others_stay_busy(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        handler = LabHandler(lab)
        gates = {"straggler": asyncio.Event(), "busy": asyncio.Event()}

        async def behave(envelope: Envelope[Task], context: Context) -> Outcome:
            name = envelope.request_id.split("-")[0]
            if name in gates:
                await gates[name].wait()
            return handler.passed(envelope)

        def placed(request_id: str, partition: int) -> Output:
            record = lab.record(lab.envelope(request_id))
            return Output(record.topic, record.key, record.value, record.headers, partition)

        handler._behaviour = behave
        await lab.feed(*(placed(f"busy-{n}", 1) for n in range(120)))
        async with lab.running(handler, span_max=50, in_flight_max=200, poll_records_max=200):
            await lab.until(lambda: len(handler.handled) == 120)   # more than half of all places, less than all
            await lab.feed(placed("straggler", 0), *(placed(f"quick-{n}", 0) for n in range(60)))
            await lab.until(lambda: len(handler.handled) == 181)
            await lab.feed(*(placed(f"late-{n}", 0) for n in range(20)))
            await asyncio.sleep(0.5)
            assert len(handler.handled) == 181
            gates["straggler"].set()
            await lab.until_sunk(81)
            gates["busy"].set()
            await lab.until_sunk(201)

    run_lab(main)


def lag_said(lab: Lab) -> set[int]:
    """Partitions of whose lag this process speaks."""
    samples = [sample for metric in metrics.LAG_RECORDS.collect() for sample in metric.samples]
    return {int(sample.labels["partition"]) for sample in samples if sample.labels["stage"] == lab.stage.name}


def test_the_lag_of_a_partition_that_moved_away_is_no_longer_said_here(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        async def nothing(partitions: frozenset[Partition]) -> None:
            return

        handler = LabHandler(lab)
        handler._behaviour = slow_where(lab, handler.passed, {f"r{n}" for n in range(90)}, NEVER_S)
        await lab.feed_requests(*(f"r{n}" for n in range(90)))
        async with lab.running(handler, in_flight_max=5, drain_ms=50, revoke_drain_ms=50) as runner:
            await lab.until(lambda: lag_said(lab) == {0, 1, 2})
            other = await lab.broker.consumer(lab.stage.group, [lab.source.name], nothing, nothing)

            async def has_moved() -> bool:
                await other.poll(20, 1)
                owned = {partition.number for partition in runner._session._owned} if runner._session else set()
                return len(owned) < 3 and lag_said(lab) == owned

            await lab.until(has_moved)
            await other.close()
        assert lag_said(lab) == set()

    run_lab(main)
