"""Sketches, rings, deltas: what is counted, what is forgotten, what survives a restart."""

import random

import pytest

from schemas.ledger import FailureClass, Usage
from shared.windows import ACCURACY, Delta, Health, Ring, Run, add, fold, health, merge, quantile, subtract, window
from tests.support.builders_monitor import NOW_MS, an_observation


def folded(*observations):
    ring = Ring()
    for seen in observations:
        fold(ring, seen, seen.at_ms)
    return ring


def test_a_quantile_is_within_one_percent_of_the_true_value():
    values = [random.Random(7).lognormvariate(6, 1) for _ in range(5000)]
    sketch = {}
    for value in values:
        add(sketch, value)
    for share in (0.5, 0.95, 0.99):
        true = sorted(values)[round(share * len(values)) - 1]
        assert quantile(sketch, share) == pytest.approx(true, rel=ACCURACY)


def test_zero_and_negative_values_are_the_smallest():
    sketch = {}
    for value in (0.0, -3.0, 5.0):
        add(sketch, value)
    assert quantile(sketch, 0.5) < 0.01
    assert quantile(sketch, 1.0) == pytest.approx(5.0, rel=ACCURACY)


def test_nothing_has_the_quantile_zero():
    assert quantile({}, 0.99) == 0.0


def test_subtracting_what_was_merged_gives_back_what_was_there():
    sketch, other = {1: 2, 5: 1}, {5: 3, 9: 1}
    merge(sketch, other)
    subtract(sketch, other)
    assert sketch == {1: 2, 5: 1}


def test_subtracting_what_was_never_merged_is_refused():
    with pytest.raises(ValueError, match="never merged"):
        subtract({1: 1}, {1: 2})


def test_a_window_counts_calls_failures_and_latencies_of_its_period_only():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS - 30_000, latencies_ms=(100, 100), failures=2),
        an_observation(sequence=2, at_ms=NOW_MS, latencies_ms=(200,), others=1),
    )
    short, long = window(ring, NOW_MS, 10), window(ring, NOW_MS, 60)
    assert (short.calls, short.failed, short.error_rate) == (2, 0, 0.0)
    assert short.p99_ms == pytest.approx(200, rel=ACCURACY)
    assert (long.calls, long.failed, long.error_rate) == (6, 2, 0.4)
    assert long.p50_ms == pytest.approx(100, rel=ACCURACY)


def test_a_bad_request_says_nothing_about_the_backend():
    ring = folded(an_observation(others=10, failures=1, latencies_ms=(5,)))
    assert window(ring, NOW_MS, 10).error_rate == 0.5
    assert health(ring, NOW_MS, 10) == Health(judged=2, failed=1)


def test_a_window_empties_by_time_alone():
    ring = folded(an_observation(latencies_ms=(5,)))
    assert window(ring, NOW_MS + 9_000, 10).calls == 1
    assert window(ring, NOW_MS + 10_000, 10).calls == 0
    assert window(ring, NOW_MS + 60_000, 60).calls == 0
    assert window(ring, NOW_MS + 60_000, 300).calls == 1
    assert window(ring, NOW_MS + 301_000, 300).calls == 0


def test_health_leaves_out_what_was_before_a_moment():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS - 5_000, failures=3),
        an_observation(sequence=2, at_ms=NOW_MS, latencies_ms=(5,)),
    )
    assert health(ring, NOW_MS, 60) == Health(4, 3)
    assert health(ring, NOW_MS, 60, since_ms=NOW_MS - 4_000) == Health(1, 0)


def test_a_replay_adds_nothing():
    seen = an_observation(latencies_ms=(5,), failures=1)
    ring = folded(seen)
    assert not fold(ring, seen, NOW_MS)
    assert not fold(ring, an_observation(sequence=0, latencies_ms=(5,)), NOW_MS)
    assert window(ring, NOW_MS, 10).calls == 2


def test_each_reporter_has_its_own_sequence():
    ring = folded(an_observation(reporter="r1", latencies_ms=(5,)), an_observation(reporter="r2", latencies_ms=(5,)))
    assert window(ring, NOW_MS, 10).calls == 2


def test_a_late_observation_is_counted_in_its_minute_and_as_late():
    ring = folded(
        an_observation(reporter="r1", latencies_ms=(5,)),
        an_observation(reporter="r2", at_ms=NOW_MS - 120_000, latencies_ms=(5,), failures=9),
    )
    assert ring.late == 1
    assert window(ring, NOW_MS, 60).calls == 1
    assert window(ring, NOW_MS, 300).calls == 11
    assert ring.run.failures == 0


def test_a_reporter_whose_clock_is_ahead_does_not_push_the_others_out():
    ring = folded(an_observation(latencies_ms=(5,)))
    fold(ring, an_observation(reporter="r2", at_ms=NOW_MS + 3_600_000, latencies_ms=(5,)), logged_ms=NOW_MS)
    assert window(ring, NOW_MS, 10).calls == 2


def test_reporters_that_are_silent_for_ten_minutes_are_forgotten():
    ring = folded(
        an_observation(reporter="gone", at_ms=NOW_MS - 600_001),
        an_observation(reporter="quiet", at_ms=NOW_MS - 600_000),
        an_observation(reporter="here"),
    )
    assert set(ring.reporters) == {"quiet", "here"}


def test_buckets_are_bounded():
    ring = folded(*(an_observation(sequence=n, at_ms=NOW_MS + n * 700, latencies_ms=(5,)) for n in range(6_000)))
    assert len(ring.seconds) <= 60
    assert len(ring.minutes) <= 60


@pytest.mark.parametrize(
    ("deltas", "run"),
    [
        ([{"failures": 3}, {"failures": 3}], 6),
        ([{"failures": 3}, {"failures": 3, "reporter": "r2"}], 6),
        ([{"failures": 3}, {"failures": 2, "latencies_ms": (5,)}], 2),
        ([{"failures": 3}, {"failures": 2, "latencies_ms": (5,), "failures_last": False}], 0),
        ([{"failures": 3}, {"others": 4}], 3),
        ([{"latencies_ms": (5,)}, {"failures": 4, "others": 2}], 4),
        ([{"failures": 3}, {}], 3),
    ],
)
def test_a_row_of_failures_ends_with_any_success(deltas, run):
    ring = folded(*(an_observation(sequence=n, **delta) for n, delta in enumerate(deltas)))
    assert ring.run.failures == run


def test_a_row_knows_when_it_began():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS, failures=3), an_observation(sequence=2, at_ms=NOW_MS + 500, failures=3)
    )
    assert ring.run == Run(6, NOW_MS)


def test_probes_of_the_newest_epoch_are_counted():
    ring = folded(
        an_observation(sequence=1, probes=(1, 2, 0)),
        an_observation(sequence=2, probes=(2, 1, 0)),
        an_observation(sequence=3, probes=(1, 0, 1)),
        an_observation(sequence=4, probes=(2, 1, 1)),
    )
    assert ring.probes == (2, 2, 1)


def test_a_ring_survives_bytes():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS - 90_000, latencies_ms=(5, 700.5, 0.0004), failures=2, others=1),
        an_observation(sequence=2, failures=2, probes=(4, 1, 1)),
    )
    assert Ring.from_bytes(ring.to_bytes()) == ring


def test_bytes_of_another_version_are_refused():
    with pytest.raises(ValueError, match="version 99"):
        Ring.from_bytes(b'{"version":99}')


def test_a_delta_reports_what_was_recorded_once():
    delta = Delta()
    delta.record(100, None, True, Usage(tokens_in=10, tokens_out=20), 7)
    delta.record(5, FailureClass.TIMEOUT, True, None, 1)
    delta.record(5, FailureClass.CONTEXT_LENGTH, False, None, 0)
    delta.record_probe(3, passed=True)
    seen = delta.take("a", "r1", 5, NOW_MS)
    assert seen is not None
    assert (seen.backend, seen.reporter, seen.sequence, seen.at_ms) == ("a", "r1", 5, NOW_MS)
    assert (seen.calls, seen.failures, seen.other_failures) == (
        3, {FailureClass.TIMEOUT: 1}, {FailureClass.CONTEXT_LENGTH: 1},
    )  # fmt: skip
    assert (seen.consecutive_failures, seen.tokens_in, seen.tokens_out, seen.cost_microusd) == (1, 10, 20, 8)
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed) == (3, 1, 0)
    assert quantile(seen.latency_sketch, 0.5) == pytest.approx(100, rel=ACCURACY)
    assert delta.take("a", "r1", 6, NOW_MS) is None


def test_a_delta_drops_probes_of_an_older_epoch():
    delta = Delta()
    delta.record_probe(3, passed=False)
    delta.record_probe(4, passed=True)
    delta.record_probe(3, passed=False)
    seen = delta.take("a", "r1", 1, NOW_MS)
    assert seen is not None
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed) == (4, 1, 0)
