"""The adaptive limit finds the places of a backend, follows them, and is not deceived by the noise of models."""

import random
from statistics import median

import pytest

from services.executor.concurrency import Gradient
from tests.support.queueing import NEVER_FULL, Loaded, heavy_tail, quantile

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("places", [20, 50])
def test_under_overload_the_limit_settles_between_the_places_and_twice_as_many(places: int, seed: int) -> None:
    limit = Gradient(1000)
    loaded = Loaded(limit, lambda now_ms: places, random.Random(seed)).run(60)
    limits, used_ms, from_ms = [], loaded.used_ms, loaded.now_ms
    for second in range(60, 600, 4):
        loaded.run(second)
        limits.append(limit._limit)
    assert places <= quantile(limits, 0.5) <= 2 * places
    assert loaded.used_ms - used_ms >= 0.95 * places * (loaded.now_ms - from_ms), "it is kept busy"
    assert quantile(loaded.latencies_ms(60), 0.5) <= 2 * 1000, "and nobody queues for long"


def test_without_it_four_times_the_places_wait_four_times_as_long() -> None:
    loaded = Loaded(200, lambda now_ms: 50, random.Random(1)).run(180)
    assert quantile(loaded.latencies_ms(60), 0.5) > 4 * 1000


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backend_of_few_places_is_found_too(seed: int) -> None:
    loaded = Loaded(Gradient(1000), lambda now_ms: 5, random.Random(seed)).run(300)
    used_ms, from_ms = loaded.used_ms, loaded.now_ms
    loaded.run(800)
    assert quantile(loaded.latencies_ms(300), 0.5) <= 3.5 * 1000
    assert loaded.used_ms - used_ms >= 0.85 * 5 * (loaded.now_ms - from_ms)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backend_without_a_queue_gets_all_that_is_allowed(seed: int) -> None:
    limit = Gradient(160)
    loaded = Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(seed)).run(100)
    assert limit._limit > 150
    lowest = 160.0
    for second in range(100, 240, 2):
        loaded.run(second)
        lowest = min(lowest, limit._limit)
    assert lowest > 120, "heavy-tailed latencies are no queue"


def test_the_limit_grows_no_further_than_there_is_use_for() -> None:
    limit = Gradient(1000)
    Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(1), offered=60).run(150)
    assert 60 < limit.limit <= 150


@pytest.mark.parametrize("seed", SEEDS)
def test_places_that_go_and_come_back_are_followed(seed: int) -> None:
    limit = Gradient(1000)
    loaded = Loaded(limit, lambda now_ms: 20 if 60_000 <= now_ms < 120_000 else 40, random.Random(seed)).run(60)
    before = limit._limit
    loaded.run(85)
    assert limit._limit < before
    assert limit._limit <= 2.5 * 20
    low = min(limit._limit for _ in range(20) if loaded.run(loaded.now_ms / 1000 + 2))
    loaded.run(160)
    assert limit._limit > 1.3 * low
    assert limit._limit >= 40


def test_a_backend_that_became_slower_keeps_a_good_part_of_its_limit() -> None:
    calls = 0

    def slower_later(rng: random.Random) -> float:
        nonlocal calls
        calls += 1
        return heavy_tail(rng) * (3 if calls > 4000 else 1)

    limit = Gradient(100)
    loaded = Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(1), latency=slower_later).run(100)
    lowest = 100.0
    for second in range(100, 400, 4):
        loaded.run(second)
        lowest = min(lowest, limit._limit)
    assert calls > 6000
    assert lowest > 10


def test_replicas_that_share_a_backend_do_not_push_each_other_up() -> None:
    """Each sees the other's queue at all times but in a dip, which they make together. The limits may be 1.5 times the places
    and some; minutes of overload do not change that."""
    assert median(shared_limits(seed, seconds=300) for seed in range(4)) < 2.2 * 50


def shared_limits(seed: int, seconds: int) -> float:
    limits = Gradient(1000), Gradient(1000)
    rng = random.Random(seed)
    both = [Loaded(limit, lambda now_ms: 25, rng) for limit in limits]
    for tenth in range(10 * seconds):
        for loaded, other in (both, both[::-1]):
            # The places are shared in proportion to what each has there, as one common queue does.
            mine, theirs = loaded.in_flight + 1, other.in_flight + 1
            loaded.places = lambda now_ms, share=mine / (mine + theirs): max(1, round(50 * share))
            loaded.run(tenth / 10)
    return sum(limit._limit for limit in limits)


def test_a_busy_machine_is_no_queue_at_a_backend_of_a_few_milliseconds() -> None:
    def latency_ms(rng: random.Random) -> float:
        return 5 + (25 * rng.random() if loaded.in_flight > 10 else 0.0)

    limit = Gradient(160)
    loaded = Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(1), latency=latency_ms)
    loaded.run(5)
    lowest = min(limit._limit for tenth in range(50, 100) if loaded.run(tenth / 10))
    assert lowest > 100


def test_a_backend_of_slow_calls_has_its_places_within_a_dozen_of_their_times() -> None:
    limit = Gradient(1000)
    Loaded(limit, lambda now_ms: 80, random.Random(3)).run(20)
    assert limit.limit >= 60


def measured(floor_ms: float = 10.0) -> Gradient:
    """A limit of 20 whose floor is known."""
    limit = Gradient(100)
    for _ in range(30):
        limit.observe(floor_ms, 1, 0)
    return limit


def under_load(limit: Gradient, pace_ms: float, windows: int) -> Gradient:
    for _ in range(windows * 50):
        limit.observe(pace_ms, limit.limit, 0)
    return limit


def test_slow_calls_from_before_the_load_do_not_raise_the_floor() -> None:
    limit = measured()
    for _ in range(20):
        limit.observe(1000.0, 1, 0)
        under_load(limit, 16.0, 1)
    assert limit._limit < 100


def test_the_floor_of_a_slow_period_is_forgotten_under_load() -> None:
    limit = under_load(measured(floor_ms=100.0), 10.0, windows=20)
    before = limit._limit
    assert under_load(limit, 60.0, windows=4)._limit < before


def test_replicas_dip_together_whenever_they_began() -> None:
    dips: list[list[int]] = []
    for began_ms in (1_000_003_000, 1_000_010_000):
        limit, was_low, begun = Gradient(50), True, []
        limit.dropped(began_ms)     # full once: before that there are no dips
        for now_ms in range(began_ms, 1_000_900_000, 100):
            is_low = limit.limit <= 40
            if is_low and not was_low:
                begun.append(now_ms)
            was_low = is_low
            limit.observe(10.0, limit.limit, now_ms)
        dips.append([at_ms for at_ms in begun if at_ms > 1_000_300_000])
    assert len(dips[0]) == len(dips[1]) >= 3
    assert all(abs(one - other) <= 100 for one, other in zip(*dips, strict=True)), dips


def test_a_burst_of_refusals_counts_once() -> None:
    limit = Gradient(100)
    before = limit._places
    for now_ms in range(100):
        limit.dropped(now_ms)
    assert limit._places == pytest.approx(0.9 * before)
    limit.dropped(2000)
    assert limit._places == pytest.approx(0.81 * before)


def test_refusals_for_ever_leave_two_places() -> None:
    limit = Gradient(100)
    for round_trip in range(100):
        limit.dropped(2000 * round_trip)
    assert limit._limit == 2
    assert limit.limit >= 1


def test_an_idle_backend_keeps_its_limit() -> None:
    limit = Gradient(100)
    Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(1)).run(20)
    before = limit._limit
    for hour in range(1000):
        limit.observe(10.0, 1, 3_600_000 * hour)
    assert limit._limit == before


def test_a_lower_maximum_holds_at_once() -> None:
    limit = Gradient(100)
    Loaded(limit, lambda now_ms: NEVER_FULL, random.Random(1)).run(40)
    assert limit._limit > 10
    limit.set_max(8)
    assert limit.limit <= 8
