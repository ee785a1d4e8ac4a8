"""Who would only expire on the way is told so at the door: how the wait is known, and what becomes of the request."""

from typing import Any

import pytest

from schemas.messages import Lane, Reason, Status, Verdict
from schemas.topology import COMPLETIONS, PLANS, REQUESTS, TASKS, VERDICTS, Topic, stage_named
from services.intake.lag import BEHIND, QUEUED, Lag, Lags, Queue
from services.intake.main import Intake
from shared.broker import Commit, Output, Partition
from shared.local import LocalBroker
from shared.outcome import Emit
from shared.progress import note_of
from tests.support.builders_edge import (
    NOW_MS,
    FixedClock,
    a_broker,
    a_catalogue,
    a_context,
    a_replica,
    an_intake_record,
    answering,
    requests_in,
    until,
)

ONE, OTHER = Partition("t", 0), Partition("t", 1)
STANDARD = PLANS[Lane.STANDARD]


def a_lag(*looks: tuple[float, dict[Partition, int]], ends: dict[Partition, int], in_progress: int = QUEUED) -> Lag:
    lag = Lag(in_progress)
    for now_s, passed in looks:
        lag.note(now_s, passed, ends)
    return lag


def moving(ahead: int, pace_s: int, in_progress: int = QUEUED) -> Lag:
    return a_lag((0, {ONE: 0}), (2, {ONE: 2 * pace_s}), ends={ONE: 2 * pace_s + ahead}, in_progress=in_progress)


# How long the wait is -----------------------------------------------------------------------------------------------


FAR = {ONE: 1_000_000, OTHER: 1_000_000}


def test_the_pace_is_that_of_the_last_seconds() -> None:
    assert a_lag((0, {ONE: 0}), (1, {ONE: 1000}), (4, {ONE: 1030}), (6, {ONE: 1050}), ends=FAR).pace_s == 10


def test_what_was_watched_for_less_than_a_second_has_no_pace_yet() -> None:
    assert a_lag((0, {ONE: 0}), (0.5, {ONE: 500}), ends=FAR).pace_s == 0


def test_a_partition_that_is_seen_for_the_first_time_is_not_taken_for_speed() -> None:
    assert a_lag((0, {ONE: 10}), (2, {ONE: 30, OTHER: 900_000}), ends=FAR).pace_s == 10


def test_a_group_that_went_back_has_no_pace() -> None:
    assert a_lag((0, {ONE: 5000}), (2, {ONE: 100}), ends=FAR).pace_s == 0


def test_a_partition_on_which_a_group_never_committed_holds_nobody_up() -> None:
    assert a_lag((0, {ONE: 10}), (2, {ONE: 10}), ends={ONE: 12, OTHER: 70_000}).ahead == 2


def test_readers_that_keep_up_are_as_slow_as_requests_come_which_is_no_pace_for_a_burst() -> None:
    """Two requests a second, then five thousand at once: they are not refused because two came in the second before."""
    lag = Lag()
    for second in range(10):
        lag.note(second, {ONE: 2 * second}, {ONE: 2 * second + 1})
    lag.note(10, {ONE: 20}, {ONE: 5_020})
    assert (lag.ahead, lag.pace_s, Queue((lag,)).wait_s(joined=5_000)) == (5_000, 0, 0)
    lag.note(11, {ONE: 820}, {ONE: 5_020})
    assert lag.pace_s == 800


def test_a_pace_outlives_the_queue_it_was_seen_at_so_a_flood_that_comes_back_is_no_surprise() -> None:
    """For as long as a pace was unknown everybody was let in: more than could be answered before their deadlines."""
    lag = moving(4_000, 2_000)
    lag.note(4, {ONE: 8_000}, {ONE: 8_003})
    assert (lag.wait_s, Queue((lag,)).wait_s(joined=8_000)) == (0, pytest.approx(4))
    lag.note(4.5, {ONE: 8_100}, {ONE: 18_100})
    assert Queue((lag,)).wait_s(joined=2_000) == pytest.approx(6)
    lag.note(5.5, {ONE: 10_100}, {ONE: 20_100})
    assert Queue((lag,)).wait_s(joined=2_000) == pytest.approx(6)


def test_a_pace_of_half_a_minute_ago_is_history() -> None:
    lag = moving(4_000, 500)
    lag.note(33, {ONE: 9_000}, {ONE: 9_003})
    assert Queue((lag,)).wait_s(joined=2_000) == 0


def test_how_slow_readers_were_while_some_of_the_time_they_stood_still_is_not_remembered() -> None:
    lag = a_lag((0, {ONE: 0}), (1, {ONE: 20}), (2, {ONE: 20}), (3, {ONE: 60}), ends={ONE: 2_000})
    assert (lag.pace_s, lag.pace_behind_s) == (20, 20)
    lag.note(3.5, {ONE: 2_000}, {ONE: 2_005})
    assert Queue((lag,)).wait_s(joined=100) == 0


def test_readers_that_stopped_while_they_were_behind_have_no_pace_that_could_be_kept() -> None:
    lag = moving(4_000, 500)
    for now_s in range(3, 9):
        lag.note(now_s, {ONE: 1_000}, {ONE: 5_000})
    assert Queue((lag,)).wait_s(joined=2_000) == 0


def test_waits_of_the_stages_add_up_and_who_joins_after_the_look_counts_at_the_slowest_pace() -> None:
    queue = Queue((moving(4_000, 1_000), moving(1_500, 300)))
    assert queue.wait_s() == pytest.approx(9)
    assert queue.wait_s(joined=600) == pytest.approx(11)


def test_calls_in_progress_are_no_queue() -> None:
    assert Queue((moving(BEHIND - 1, 10, in_progress=BEHIND),)).wait_s() == 0
    assert Queue((moving(BEHIND, 10, in_progress=BEHIND),)).wait_s() == pytest.approx(BEHIND / 10)


def test_a_short_queue_is_the_wait_it_is_but_its_pace_is_not_the_most_its_readers_can_do() -> None:
    queue = Queue((moving(60, 300),))
    assert queue.wait_s() == queue.wait_s(joined=3_000) == pytest.approx(0.2)


def test_where_nothing_moves_nobody_is_refused_for_an_outage_may_end_at_any_moment() -> None:
    assert Queue((moving(50_000, 0),)).wait_s() == 0


# As the log shows it ------------------------------------------------------------------------------------------------


class Road:
    """A log in memory, on which the stages' groups are where a test puts them."""

    def __init__(self, broker: LocalBroker, clock: FixedClock) -> None:
        self.broker = broker
        self.clock = clock

    def write(self, topic: Topic, count: int) -> None:
        for _ in range(count):
            self.broker.append(Output(topic.name, b"k", b"{}", (), 0))

    def commit(self, stage: str, topic: Topic, commit: Commit) -> None:
        self.broker.groups[stage_named(stage).group].committed[Partition(topic.name, 0)] = commit

    async def crowd(self, lags: Lags, topic: Topic, stage: str, ahead: int, pace_s: int) -> None:
        """Makes a queue, and has it looked at twice."""
        self.write(topic, ahead + 2 * pace_s)
        self.commit(stage, topic, Commit(0))
        await self.look(lags)
        self.clock.ms += 2_000
        self.commit(stage, topic, Commit(2 * pace_s))
        await self.look(lags)

    async def look(self, lags: Lags) -> None:
        topics = (REQUESTS, TASKS, *PLANS.values(), COMPLETIONS, VERDICTS)
        await lags.look(await self.broker.positions([topic.name for topic in topics]))


@pytest.fixture
async def road() -> Road:
    clock = FixedClock()
    return Road(await a_broker(clock), clock)


async def test_a_queue_of_one_lane_is_no_wait_for_the_others(road: Road) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, STANDARD, "executor", ahead=2_000, pace_s=100)
    assert [lags.wait_s(lane) for lane in (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH)] == [0, pytest.approx(20), 0]


@pytest.mark.parametrize(("stage", "topic"), [
    ("preprocessing", REQUESTS), ("router", TASKS), ("quality-gate", COMPLETIONS), ("output", VERDICTS),
])
async def test_a_queue_before_a_stage_that_all_share_is_a_wait_for_all(road: Road, stage: str, topic: Topic) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, topic, stage, ahead=2_000, pace_s=100)
    assert [lags.wait_s(lane) for lane in Lane] == [pytest.approx(20)] * 3


async def test_a_straggler_does_not_make_finished_requests_a_queue(road: Road) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, STANDARD, "executor", ahead=2_000, pace_s=100)
    road.commit("executor", STANDARD, Commit(200, note_of(200, 2_200, [200], set())))   # all but the oldest are done
    await road.look(lags)
    assert lags.wait_s(Lane.STANDARD) == 0


async def test_who_was_accepted_since_the_look_counts_until_the_next_one(road: Road) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, STANDARD, "executor", ahead=2_000, pace_s=100)
    for _ in range(100):
        lags.joined(Lane.STANDARD)
    assert lags.wait_s(Lane.STANDARD) == pytest.approx(21)
    await road.look(lags)
    assert lags.wait_s(Lane.STANDARD) == pytest.approx(20)


async def test_a_pace_that_is_history_is_forgotten_though_no_request_comes(road: Road) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, STANDARD, "executor", ahead=2_000, pace_s=100)
    road.commit("executor", STANDARD, Commit(2_200))
    await road.look(lags)
    assert lags._queues[Lane.STANDARD].wait_s(joined=100) == pytest.approx(1)
    road.clock.ms += 31_000
    lags.start()
    await until(lambda: lags._queues[Lane.STANDARD].wait_s(joined=100) == 0)
    await lags.stop()


@pytest.mark.parametrize("what", ["outage", "bug"])
async def test_a_wait_that_nobody_can_look_at_any_more_refuses_nobody(road: Road, what: str) -> None:
    lags = Lags(road.broker, road.clock)
    await road.crowd(lags, STANDARD, "executor", ahead=2_000, pace_s=100)
    if what == "outage":
        road.broker.unavailable = True
    else:
        del road.broker.groups
    lags.start()
    await until(lambda: lags.wait_s(Lane.STANDARD) == 0)
    assert lags._task is not None
    assert not lags._task.done(), "it goes on looking"
    await lags.stop()


# At the door --------------------------------------------------------------------------------------------------------


async def taken(road: Road, body: dict[str, Any], ahead: int = 2_000, timestamp_ms: int = NOW_MS + 2_000) -> Emit:
    """What becomes of a record of `intake` when so many stand before it, at 100 a second."""
    intake = Intake(road.broker, road.clock, a_catalogue)
    await intake.open()
    try:
        if ahead:
            await road.crowd(intake._lags, STANDARD, "executor", ahead, pace_s=100)
        record = an_intake_record({"prompt": "hi"} | body, timestamp_ms=timestamp_ms)
        outcome = intake.handle(record, a_context(record=record))
        if not isinstance(outcome, Emit):
            outcome = await outcome  # type: ignore[misc, assignment]
        assert isinstance(outcome, Emit)
        return outcome
    finally:
        await intake.stop()


async def test_a_request_with_less_time_than_its_wait_gets_its_verdict_at_once(road: Road) -> None:
    (out,) = (await taken(road, {"deadline_ms": 20_000})).outputs
    verdict = out.value.payload  # type: ignore[union-attr]
    assert out.topic is VERDICTS
    assert isinstance(verdict, Verdict)
    assert (verdict.status, verdict.reason, verdict.stage) == (Status.EXPIRED, Reason.NO_TIME_LEFT, "intake")
    assert "about 20 s" in verdict.message


@pytest.mark.parametrize("body", [
    {"deadline_ms": 60_000},                                # time enough
    {"deadline_ms": 20_000, "priority": "interactive"},     # another lane
    {"deadline_ms": 20_000, "ordering_key": "k"},           # its verdict must not overtake those before it
    {"deadline_ms": 20_000, "idempotency_key": "k"},        # a repeat must not get another answer than the first
])
async def test_others_go_on(road: Road, body: dict[str, Any]) -> None:
    (out,) = (await taken(road, body)).outputs
    assert out.topic is REQUESTS
    assert out.value.payload.failure is None  # type: ignore[union-attr]


async def test_a_request_that_is_read_after_its_deadline_gets_its_verdict_at_once(road: Road) -> None:
    (out,) = (await taken(road, {"deadline_ms": 1_000}, ahead=0, timestamp_ms=NOW_MS - 1_000)).outputs
    assert out.topic is VERDICTS
    assert out.value.payload.reason is Reason.DEADLINE_PASSED  # type: ignore[union-attr]


@pytest.mark.parametrize(("deadline_ms", "age_ms", "topic"), [
    (10_000, 8_900, REQUESTS), (10_000, 9_100, VERDICTS),      # a tenth of its time
    (600_000, 597_000, REQUESTS), (600_000, 599_000, VERDICTS),   # two seconds
    (100, 80, REQUESTS),
])
async def test_a_request_is_not_begun_with_hardly_any_time_left(
    road: Road, deadline_ms: int, age_ms: int, topic: Topic
) -> None:
    (out,) = (await taken(road, {"deadline_ms": deadline_ms}, ahead=0, timestamp_ms=NOW_MS - age_ms)).outputs
    assert out.topic is topic
    if topic is VERDICTS:
        assert out.value.payload.reason is Reason.NO_TIME_LEFT  # type: ignore[union-attr]


async def test_over_http_it_is_told_to_come_again_and_nothing_is_written_or_claimed(road: Road) -> None:
    async with a_replica(road.broker, clock=road.clock) as replica:
        await road.crowd(replica.intake._lags, STANDARD, "executor", ahead=2_000, pace_s=100)
        for headers in ({}, {"Idempotency-Key": "k"}):
            response = await replica.client.post("/v1/requests", json={"prompt": "hi", "deadline_ms": 20_000}, headers=headers)
            error = (await response.json())["error"]
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
            assert "x-should-retry" not in response.headers
            assert "about 20 s" in error["message"]
        assert not requests_in(road.broker)
        assert len(replica.intake._claims) == 0


async def test_who_repeats_a_request_that_was_accepted_gets_its_answer_however_long_the_queue_is_now(road: Road) -> None:
    async with a_replica(road.broker, clock=road.clock) as replica, answering(road.broker):
        ask = {"json": {"prompt": "hi", "deadline_ms": 20_000}, "headers": {"Idempotency-Key": "k"}}
        first = await replica.client.post("/v1/requests?wait=5", **ask)
        await road.crowd(replica.intake._lags, STANDARD, "executor", ahead=2_000, pace_s=100)
        again = await replica.client.post("/v1/requests?wait=5", **ask)
        assert (first.status, again.status) == (200, 200)
        assert await first.json() == await again.json()
