"""Sketches, rings, deltas: what is counted, what is forgotten, what survives a restart."""

import random

import pytest

from schemas.fleet import Gate, GateReason, RateLimits
from schemas.ledger import FailureClass, Usage
from shared.delta import Delta, Seen
from shared.sketch import ACCURACY, above, add, pace_ms, quantiles
from shared.windows import Health, Ring, Run, Usual, fold, health, slowness, usual, window
from tests.support.builders_monitor import NOW_MS, a_gate, an_observation

QUOTA = GateReason.QUOTA_EXHAUSTED


def folded(*observations):
    ring = Ring()
    for seen in observations:
        fold(ring, seen, seen.at_ms)
    return ring


def sketch_of(*values):
    sketch = {}
    for value in values:
        add(sketch, value)
    return sketch


def test_a_quantile_is_within_one_percent_of_the_true_value():
    values = [random.Random(7).lognormvariate(6, 1) for _ in range(5000)]
    for share, found in zip((0.5, 0.95, 0.99), quantiles(sketch_of(*values), (0.5, 0.95, 0.99)), strict=True):
        assert found == pytest.approx(sorted(values)[round(share * len(values)) - 1], rel=ACCURACY)


def test_zero_and_negative_values_are_the_smallest():
    smallest, largest = quantiles(sketch_of(0.0, -3.0, 5.0), (0.5, 1.0))
    assert smallest < 0.01
    assert largest == pytest.approx(5.0, rel=ACCURACY)


def test_nothing_has_the_quantile_zero():
    assert quantiles({}, (0.5, 0.99)) == [0.0, 0.0]


def test_what_is_above_a_value_is_counted_by_bucket():
    assert above(sketch_of(10, 100, 101, 150, 1000), 100) == 2


def test_the_pace_of_short_answers_is_not_all_start():
    start_ms, per_token_ms = 400, 10
    short, long = (pace_ms(start_ms + tokens * per_token_ms, tokens) for tokens in (3, 500))
    assert short == pytest.approx(long, rel=0.05)
    assert pace_ms(400, 0) == 10.0


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


def test_a_window_tells_first_tokens_and_pace_apart_from_the_whole():
    ring = folded(an_observation(latencies_ms=(1400.0,) * 9, first_token_ms=200.0, tokens_out=100))
    seen = window(ring, NOW_MS, 60)
    assert (seen.p50_ms, seen.first_token_p50_ms, seen.pace_p50_ms) == pytest.approx((1400, 200, 10), rel=ACCURACY)
    assert (seen.first_token_p95_ms, seen.pace_p95_ms) == pytest.approx((200, 10), rel=ACCURACY)


def test_calls_without_a_stream_or_without_usage_have_no_first_token_and_no_pace():
    seen = window(folded(an_observation(latencies_ms=(1400.0,))), NOW_MS, 60)
    assert (seen.first_token_p95_ms, seen.pace_p95_ms) == (0.0, 0.0)


# --- what is usual, and what is slow


def usual_hour(calls_a_minute=10, minutes=30, **seen):
    given = {"latencies_ms": (1400.0,) * calls_a_minute, "tokens_out": 100} | seen
    return folded(*(
        an_observation(sequence=n, at_ms=NOW_MS - (minutes - n) * 60_000, **given) for n in range(minutes)
    ))  # fmt: skip


def test_what_is_usual_is_the_p95_of_the_last_hour():
    assert usual(usual_hour(first_token_ms=200.0), NOW_MS) == pytest.approx((200, 10), rel=ACCURACY)


def test_without_a_hundred_calls_nothing_is_usual():
    assert usual(usual_hour(calls_a_minute=3), NOW_MS) == Usual()


def test_the_newest_two_minutes_are_not_yet_usual():
    ring = usual_hour()
    before = usual(ring, NOW_MS)
    fold(ring, an_observation(reporter="r2", at_ms=NOW_MS - 60_000, latencies_ms=(90_000.0,) * 500, tokens_out=1), NOW_MS)
    assert usual(ring, NOW_MS) == before


def test_slow_is_what_takes_longer_than_it_may_whatever_its_length():
    ring = folded(
        an_observation(sequence=1, latencies_ms=(14_000.0,) * 8, tokens_out=100),
        an_observation(sequence=2, latencies_ms=(14_000.0,) * 2, tokens_out=2_000),
    )
    limits = Usual(pace_ms=10.0).times(3)
    assert slowness(ring, NOW_MS, 60, 0, limits) == (("answers", 10, 8),)
    assert slowness(ring, NOW_MS, 60, NOW_MS + 1_000, limits) == (("answers", 0, 0),)
    assert slowness(ring, NOW_MS, 60, 0, Usual()) == ()


# --- gates, limits, refusals


def test_the_later_gate_wins():
    ring = folded(
        an_observation(sequence=1, gate=a_gate(NOW_MS + 9_000)),
        an_observation(sequence=2, gate=a_gate(NOW_MS + 5_000, QUOTA)),
        an_observation(reporter="r2", gate=a_gate(NOW_MS + 8_000)),
    )
    assert ring.gate == a_gate(NOW_MS + 9_000)


def test_a_quota_without_a_reset_is_left_alone_for_longer_each_time_until_a_call_succeeds():
    ring, at_ms, lengths = Ring(), NOW_MS, []
    for sequence in range(6):
        fold(ring, an_observation(sequence=sequence, at_ms=at_ms, gate=a_gate(0, QUOTA)), at_ms)
        lengths.append((ring.gate.until_ms - at_ms) // 60_000)
        at_ms = ring.gate.until_ms
    assert lengths == [5, 10, 20, 40, 60, 60]
    fold(ring, an_observation(sequence=6, at_ms=at_ms, latencies_ms=(5,)), at_ms)
    fold(ring, an_observation(sequence=7, at_ms=at_ms, gate=a_gate(0, QUOTA)), at_ms)
    assert ring.gate.until_ms == at_ms + 300_000


def test_calls_that_were_on_their_way_neither_lengthen_a_gate_nor_end_it():
    ring = folded(
        an_observation(sequence=1, gate=a_gate(0, QUOTA)),
        an_observation(sequence=2, at_ms=NOW_MS + 100, gate=a_gate(0, QUOTA)),
        an_observation(sequence=3, at_ms=NOW_MS + 200, latencies_ms=(5,)),
    )
    assert ring.gate == Gate(until_ms=NOW_MS + 300_000, reason=QUOTA)
    assert ring.gates_unsaid == 1


def test_no_provider_can_close_itself_for_more_than_a_day():
    assert folded(an_observation(gate=a_gate(NOW_MS * 1000))).gate.until_ms == NOW_MS + 86_400_000


def test_of_limits_the_newest_is_believed():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS, limits=RateLimits(rpm=60)),
        an_observation(reporter="r2", at_ms=NOW_MS - 1, limits=RateLimits(rpm=30)),
        an_observation(sequence=2, at_ms=NOW_MS + 1, latencies_ms=(5,)),
    )
    assert (ring.limits, ring.limits_ms) == (RateLimits(rpm=60), NOW_MS)


@pytest.mark.parametrize(
    ("deltas", "row"),
    [
        ([{"refused": 1}, {"refused": 1, "reporter": "r2"}], 2),
        ([{"refused": 1}, {"refused": 1, "latencies_ms": (5,)}], 1),
        ([{"refused": 2}, {"latencies_ms": (5,)}], 0),
        ([{"refused": 1}, {"failures": 3, "others": 2}, {"refused": 1}], 2),
    ],
)
def test_a_row_of_refusals_ends_with_a_success_only(deltas, row):
    assert folded(*(an_observation(sequence=n, **delta) for n, delta in enumerate(deltas))).refused.failures == row


def test_a_key_that_is_refused_elsewhere_counts_without_a_call():
    seen = an_observation().model_copy(update={"refused": 2})
    ring = folded(seen)
    assert (ring.refused, window(ring, NOW_MS, 60).calls) == (Run(2, NOW_MS), 0)


# --- bytes


def test_a_ring_survives_bytes():
    ring = folded(
        an_observation(sequence=1, at_ms=NOW_MS - 90_000, latencies_ms=(5, 700.5, 0.0004), failures=2, others=1),
        an_observation(sequence=2, failures=2, probes=(4, 1, 1), refused=1, gate=a_gate(0, QUOTA), limits=RateLimits(tpm=9)),
        an_observation(sequence=3, latencies_ms=(5, 900), first_token_ms=3.0, tokens_out=7),
    )
    again = Ring.from_bytes(ring.to_bytes())
    assert again == ring
    assert again.to_bytes() == ring.to_bytes()


def test_the_bytes_follow_a_bucket_that_changes():
    ring = folded(an_observation(sequence=1, latencies_ms=(5,)))
    before = ring.to_bytes()
    fold(ring, an_observation(sequence=2, latencies_ms=(5,)), NOW_MS)
    assert Ring.from_bytes(ring.to_bytes()) == ring
    assert ring.to_bytes() != before


def test_what_an_older_version_remembered_is_forgotten():
    assert Ring.from_bytes(b'{"version":1,"seconds":{"1700000000":[1,{},{},[5,1],0,0,0]}}') == Ring()


def test_bytes_of_an_unknown_version_are_refused():
    with pytest.raises(ValueError, match="version 99"):
        Ring.from_bytes(b'{"version":99}')


# --- the reporter's side


def test_a_delta_reports_what_was_recorded_once():
    delta = Delta()
    delta.record(Seen(140, None, True, Usage(tokens_in=10, tokens_out=60), 7, first_token_ms=20.0))
    delta.record(Seen(5, FailureClass.TIMEOUT, True, None, 1))
    delta.record(Seen(5, FailureClass.CONTEXT_LENGTH, False))
    delta.record_probe(3, passed=True)
    delta.hedged()
    seen = delta.take("a", "r1", 5, NOW_MS, in_flight=4)
    assert seen is not None
    assert (seen.backend, seen.reporter, seen.sequence, seen.at_ms) == ("a", "r1", 5, NOW_MS)
    assert (seen.calls, seen.failures, seen.other_failures) == (
        3, {FailureClass.TIMEOUT: 1}, {FailureClass.CONTEXT_LENGTH: 1},
    )  # fmt: skip
    assert (seen.consecutive_failures, seen.tokens_in, seen.tokens_out, seen.cost_microusd) == (1, 10, 60, 8)
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed, seen.in_flight, seen.hedges) == (3, 1, 0, 4, 1)
    assert (seen.latency_sketch, seen.first_token_sketch, seen.pace_sketch) == (
        sketch_of(140), sketch_of(20), sketch_of(1.4),
    )  # fmt: skip
    assert delta.take("a", "r1", 6, NOW_MS, in_flight=4) is None


def test_a_delta_counts_refusals_since_the_last_success():
    delta = Delta()
    delta.refused()
    delta.record(Seen(5, None, True))
    delta.refused()
    delta.refused()
    assert delta.take("a", "r1", 1, NOW_MS).refused == 2


@pytest.mark.parametrize(
    ("gates", "kept"), [((9, 5), 9), ((5, 9), 9), ((0, 9), 0), ((9, 0), 0)], ids=["first", "second", "unsaid", "unsaid last"]
)
def test_a_delta_keeps_the_later_gate_and_one_without_an_end_is_the_latest(gates, kept):
    delta = Delta()
    for until_ms in gates:
        delta.gated(a_gate(until_ms))
    assert delta.take("a", "r1", 1, NOW_MS).gate == a_gate(kept)


def test_a_delta_drops_probes_of_an_older_epoch():
    delta = Delta()
    delta.record_probe(3, passed=False)
    delta.record_probe(4, passed=True)
    delta.record_probe(3, passed=False)
    seen = delta.take("a", "r1", 1, NOW_MS)
    assert seen is not None
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed) == (4, 1, 0)
