"""A flood in one lane before a provider that queues: what the limits and places of several replicas make of it, in simulated
time, from a cold start on. What is measured are the calls from when the replicas know the provider."""

import random
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

import pytest

from schemas.messages import Lane
from services.executor.concurrency import Gradient
from services.executor.lanes import LANES
from services.executor.local import BESIDE_MS, Local
from tests.support.flooding import Flood, Stream
from tests.support.queueing import heavy_tail, quantile

PLACES, P50_MS, MEAN_MS = 100, 1_500.0, 2_140      # the mean of `heavy_tail`, 1.43 medians
PER_S = PLACES * 1000 / MEAN_MS
COLD_S, UNTIL_S = 12, 120
SEEDS = range(5)


@dataclass(frozen=True)
class Seen:
    """The median of the interactive calls beside the flood, as a part more than they take without any queue; the part of the
    provider's places that was in use."""

    slower: float
    used: float


def flooded(seed: int, minds_lanes: bool = True) -> Seen:
    flood = Flood(lambda now_ms: PLACES, random.Random(seed), service=partial(heavy_tail, p50_ms=P50_MS), minds_lanes=minds_lanes)
    steady = Stream(Lane.INTERACTIVE, 0.25 * PER_S, 0, UNTIL_S)
    asked = flood.run([steady, Stream(Lane.BATCH, 4 * PER_S, 0, UNTIL_S, deadline_ms=12_000)], UNTIL_S)
    mine = [one for one in asked if one.stream.lane is Lane.INTERACTIVE and COLD_S * 1000 <= one.at_ms < (UNTIL_S - 15) * 1000]
    took_ms = [(one.ended_ms or UNTIL_S * 1000) - one.at_ms for one in mine]
    used = [busy for at_ms, _, busy in flood.at_once if at_ms >= COLD_S * 1000]
    slower = quantile(took_ms, 0.5) / quantile([one.service_ms for one in mine], 0.5) - 1
    return Seen(slower, mean(used) / PLACES)


def test_a_flood_of_batch_at_four_times_the_capacity_slows_interactive_calls_by_less_than_a_fifth() -> None:
    seen = [flooded(seed) for seed in SEEDS]
    assert median(one.slower for one in seen) <= 0.2, seen
    assert max(one.slower for one in seen) <= 0.3, seen
    assert median(one.used for one in seen) >= 0.9, "and the flood has the rest of the places"
    assert min(one.used for one in seen) >= 0.6, seen


def test_if_lanes_were_minded_at_the_door_alone_the_flood_would_queue_at_the_provider() -> None:
    assert median(flooded(seed, minds_lanes=False).slower for seed in range(2)) > 0.3


# --- Places by lane ----------------------------------------------------------------------------------------------


@pytest.fixture
def full() -> Local:
    """As many calls on their way as may be beside interactive ones, of a backend that was full once."""
    local = Local(Gradient(100))
    local.gradient.dropped(0)
    local.in_flight = local.gradient.limit_beside
    assert local.in_flight < local.gradient.limit
    return local


def test_while_no_interactive_plan_comes_all_lanes_have_all_places(full: Local) -> None:
    assert full.has_room(Lane.BATCH, 1_000)
    full.in_flight = full.gradient.limit
    assert not any(full.has_room(lane, 1_000) for lane in LANES)


@pytest.mark.parametrize("lane", [Lane.STANDARD, Lane.BATCH])
def test_beside_interactive_plans_the_other_lanes_leave_no_queue(full: Local, lane: Lane) -> None:
    assert full.has_room(Lane.INTERACTIVE, 1_000)
    assert not full.has_room(lane, 1_000)
    assert full.has_room(Lane.INTERACTIVE, 1_000)
    full.in_flight -= 1
    assert full.has_room(lane, 1_000)


def test_a_minute_after_the_last_interactive_plan_the_places_are_for_all_again(full: Local) -> None:
    full.has_room(Lane.INTERACTIVE, 1_000)
    assert full.lanes_let_in(1_000 + BESIDE_MS - 1) == 1
    assert full.lanes_let_in(1_000 + BESIDE_MS) == len(LANES)


# --- While the limit dips, to measure how long a call takes without a queue -----------------------------------------


@pytest.fixture
def dipping() -> Local:
    """In a dip, with as many calls on their way as may be without one, less one."""
    local = Local(Gradient(100))
    local.gradient.dropped(0)
    local.gradient.observe(10, local.gradient.limit, 1)
    assert local.gradient.limit < local.gradient.limit_undipped
    local.in_flight = local.gradient.limit_undipped - 1
    return local


def test_others_make_room_for_a_measurement_and_interactive_calls_go_on(dipping: Local) -> None:
    assert dipping.lanes_let_in(1_000) == 1
    dipping.in_flight += 1
    assert dipping.lanes_let_in(1_000) == 0


def test_where_most_calls_are_interactive_they_make_room_too(dipping: Local) -> None:
    dipping.interactive = dipping.in_flight // 2 + 1
    assert dipping.lanes_let_in(1_000) == 0

