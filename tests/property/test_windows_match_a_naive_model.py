"""A ring of sketches answers as a plain list of all calls would, whatever the order, repetition or restart."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fleet import GateReason
from shared.sketch import ACCURACY, VALUE_MIN, add, merge, quantiles
from shared.windows import Ring, fold, health, window
from tests.support.builders_monitor import NOW_MS, a_gate, an_observation

latencies_ms = st.floats(min_value=VALUE_MIN, max_value=1e7)
windows_s = st.sampled_from([1, 10, 60, 120, 300, 3600])


def gates(at_ms):
    """Known ends, past and future, and unknown ones."""
    return st.builds(a_gate, st.sampled_from([0, at_ms - 5_000, at_ms + 1_000, at_ms + 700_000]), st.sampled_from(GateReason))


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
            first_token_ms=draw(st.none() | latencies_ms),
            tokens_out=draw(st.none() | st.integers(0, 5000)),
            refused=draw(st.integers(0, 2)),
            gate=draw(st.none() | gates(NOW_MS - age_ms)),
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
    assert quantiles(sketch, (share,)) == [pytest.approx(nearest_rank(values, share), rel=ACCURACY + 1e-9)]


@given(st.lists(latencies_ms), st.lists(latencies_ms))
def test_merging_is_adding_all(these, those):
    first, second, both = {}, {}, {}
    for value in these:
        add(first, value)
        add(both, value)
    for value in those:
        add(second, value)
        add(both, value)
    merge(first, second)
    assert first == both


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
    for p95_ms, sketch in (
        (found.p95_ms, "latency_sketch"),
        (found.first_token_p95_ms, "first_token_sketch"),
        (found.pace_p95_ms, "pace_sketch"),
    ):
        merged = {}
        for observation in covered:
            merge(merged, getattr(observation, sketch))
        assert [p95_ms] == pytest.approx(quantiles(merged, (0.95,)), abs=1e-3)


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
    assert often.to_bytes() == once.to_bytes()


@given(observations())
def test_a_gate_never_gets_earlier(seen):
    ring, until_ms = Ring(), 0
    for observation in seen:
        fold(ring, observation, NOW_MS)
        assert until_ms <= (ring.gate.until_ms if ring.gate else 0)
        until_ms = ring.gate.until_ms if ring.gate else 0


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
