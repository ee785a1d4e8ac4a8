"""A ring of sketches answers as a plain list of all calls would, whatever the order, repetition or restart."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.windows import ACCURACY, VALUE_MIN, Ring, add, fold, health, merge, quantile, subtract, window
from tests.support.builders_monitor import NOW_MS, an_observation

latencies_ms = st.floats(min_value=VALUE_MIN, max_value=1e7)
windows_s = st.sampled_from([1, 10, 60, 120, 300, 3600])


@st.composite
def observations(draw, age_ms_max=4_000_000):
    """Observations of three reporters with rising sequences; ages relative to NOW_MS."""
    ages = draw(st.lists(st.integers(0, age_ms_max), min_size=1, max_size=25))
    return [
        an_observation(
            reporter=draw(st.sampled_from(["r1", "r2", "r3"])),
            sequence=number,
            at_ms=NOW_MS - age_ms,
            latencies_ms=tuple(draw(st.lists(latencies_ms, max_size=4))),
            failures=draw(st.integers(0, 3)),
            others=draw(st.integers(0, 2)),
        )
        for number, age_ms in enumerate(ages)
    ]


def nearest_rank(values, share):
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def in_window(at_ms, seconds):
    if seconds <= 60:
        return at_ms // 1000 > NOW_MS // 1000 - seconds
    return at_ms // 60_000 > NOW_MS // 60_000 - seconds // 60


@given(st.lists(latencies_ms, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_percent(values, share):
    sketch = {}
    for value in values:
        add(sketch, value)
    assert quantile(sketch, share) == pytest.approx(nearest_rank(values, share), rel=ACCURACY + 1e-9)


@given(st.lists(latencies_ms), st.lists(latencies_ms))
def test_merging_is_adding_all_and_subtracting_undoes_it(these, those):
    first, second, both = {}, {}, {}
    for value in these:
        add(first, value)
        add(both, value)
    for value in those:
        add(second, value)
        add(both, value)
    before = dict(first)
    merge(first, second)
    assert first == both
    subtract(first, second)
    assert first == before


@given(observations(), windows_s)
def test_a_window_equals_the_calls_it_covers(seen, seconds):
    """Folded oldest first, as a log is read: nothing is late then, and every call in the period counts."""
    seen.sort(key=lambda observation: observation.at_ms)
    seen = [o.model_copy(update={"sequence": number}) for number, o in enumerate(seen)]
    ring = Ring()
    for observation in seen:
        assert fold(ring, observation, NOW_MS)
    covered = [o for o in seen if in_window(o.at_ms, seconds)]
    found = window(ring, NOW_MS, seconds)
    judged = sum(o.calls - sum(o.other_failures.values()) for o in covered)
    failed = sum(sum(o.failures.values()) for o in covered)
    assert found.calls == sum(o.calls for o in covered)
    assert found.failed == failed
    assert found.error_rate == pytest.approx(failed / judged if judged else 0.0, abs=1e-6)
    if seconds <= 60:
        assert health(ring, NOW_MS, seconds) == (judged, failed)
    merged = {}
    for observation in covered:
        merge(merged, observation.latency_sketch)
    assert found.p95_ms == pytest.approx(quantile(merged, 0.95), abs=1e-3)


@given(observations(age_ms_max=50_000), st.data())
def test_repetition_and_restarts_change_nothing(seen, data):
    once, often = Ring(), Ring()
    for observation in seen:
        fold(once, observation, NOW_MS)
    for number, observation in enumerate(seen):
        fold(often, observation, NOW_MS)
        if data.draw(st.booleans()):
            often = Ring.from_bytes(often.to_bytes())
        for again in seen[data.draw(st.integers(0, number)) : number + 1]:
            fold(often, again, NOW_MS)
    assert often == once


@given(observations())
def test_nothing_is_dropped_silently(seen):
    """Whatever the order: calls are among the minutes, or have aged out of them, or their observation counted as late."""
    ring = Ring()
    late_calls = 0
    for observation in seen:
        late = ring.late
        fold(ring, observation, NOW_MS)
        late_calls += observation.calls * (ring.late - late)
    oldest_minute = ring.newest_ms // 60_000 - 60
    recent = sum(o.calls for o in seen if o.at_ms // 60_000 > oldest_minute)
    counted = sum(bucket.calls for bucket in ring.minutes.values())
    assert recent - late_calls <= counted <= recent
