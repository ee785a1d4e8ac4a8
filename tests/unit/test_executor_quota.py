"""A replica keeps to its part of what a backend allows per minute, and wastes nothing of it."""

import pytest

from services.executor.quota import Quota

T0_MS = 1_760_000_000_000


def rested(quota: Quota) -> Quota:
    """After an hour without calls: what may go in one burst is there."""
    quota.ready_at_ms(1, T0_MS - 3_600_000)
    return quota


def calls_within(quota: Quota, tokens: int, milliseconds: int) -> int:
    """Calls of so many tokens, each as soon as it may go."""
    now_ms, calls = T0_MS, 0
    while (now_ms := quota.ready_at_ms(tokens, now_ms)) < T0_MS + milliseconds:
        quota.take(tokens, now_ms)
        calls += 1
    return calls


def test_without_limits_a_call_may_go_now() -> None:
    quota = Quota()
    quota.take(10**9, T0_MS)
    assert quota.ready_at_ms(10**9, T0_MS) == T0_MS


def test_a_minute_never_has_more_than_the_limit_burst_included() -> None:
    assert 595 <= calls_within(rested(Quota(rpm=600)), 1, 60_000) <= 600
    assert 595 <= calls_within(rested(Quota(tpm=60_000)), 100, 60_000) <= 600


def test_a_replica_that_has_just_begun_has_no_burst_for_it_does_not_know_of_the_others() -> None:
    assert calls_within(Quota(rpm=600), 1, 1_000) <= 11
    assert calls_within(rested(Quota(rpm=600)), 1, 1_000) >= 50


def test_the_tighter_of_both_limits_holds() -> None:
    assert 58 <= calls_within(rested(Quota(rpm=600, tpm=60_000)), 1000, 60_000) <= 60
    assert 58 <= calls_within(rested(Quota(rpm=60, tpm=60_000)), 1, 60_000) <= 60


def test_replicas_share_a_limit() -> None:
    assert 146 <= calls_within(rested(Quota(rpm=600, executors=4)), 1, 60_000) <= 150
    assert calls_within(rested(Quota(rpm=600, executors=0)), 1, 60_000) > 590, "nobody has been counted yet"


def test_even_a_tiny_limit_gives_whole_calls() -> None:
    quota = rested(Quota(rpm=1, executors=2))
    quota.take(1, T0_MS)
    again_ms = quota.ready_at_ms(1, T0_MS)
    assert T0_MS + 60_000 < again_ms <= T0_MS + 130_000
    assert quota.ready_at_ms(1, again_ms) == again_ms


def test_a_call_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_off_after_it() -> None:
    quota = rested(Quota(tpm=13_000))       # 1,000 in a burst, one in 5 ms
    assert quota.ready_at_ms(6_000, T0_MS) == T0_MS
    quota.take(6_000, T0_MS)
    assert quota.ready_at_ms(1, T0_MS) == T0_MS + 5_001 * 5
    assert quota.ready_at_ms(6_000, T0_MS) == T0_MS + 6_000 * 5


def test_what_was_reserved_and_not_used_comes_back() -> None:
    quota = rested(Quota(tpm=65_000))
    quota.take(5_000, T0_MS)
    assert quota.ready_at_ms(1_000, T0_MS) == T0_MS + 1_000
    quota.settle(5_000, 3_000, T0_MS)
    assert quota.ready_at_ms(1_000, T0_MS) == T0_MS


def test_what_was_used_beyond_the_reserve_is_owed() -> None:
    quota = rested(Quota(tpm=65_000))
    quota.take(1_000, T0_MS)
    quota.settle(1_000, 7_000, T0_MS)
    assert quota.ready_at_ms(1, T0_MS) == T0_MS + 2_001


def test_giving_back_never_makes_more_than_a_burst() -> None:
    quota = rested(Quota(tpm=65_000))
    quota.take(100, T0_MS)
    quota.settle(5_000, 0, T0_MS)
    assert calls_within(quota, 1_000, 1) == 5


@pytest.mark.parametrize(("executors", "ready_in_ms"), [(1, 500), (2, 1_000)])
def test_a_new_part_keeps_the_bucket_as_full_as_it_was(executors: int, ready_in_ms: int) -> None:
    quota = rested(Quota(rpm=130))          # 10 in a burst
    for _ in range(10):
        quota.take(1, T0_MS)
    quota.set(130, None, executors)
    assert quota.ready_at_ms(1, T0_MS) == T0_MS + ready_in_ms


def test_a_debt_does_not_grow_with_the_limit() -> None:
    quota = rested(Quota(tpm=65_000))
    quota.take(15_000, T0_MS)               # 10,000 owed: 10 s
    quota.set(None, 650_000, 1)
    assert quota.ready_at_ms(1, T0_MS) == T0_MS + 1_001     # ten times as fast


def test_setting_the_same_limit_again_gives_nothing() -> None:
    quota = Quota(rpm=120)
    for _ in range(10):
        quota.take(1, T0_MS)
        quota.set(120, None, 1)
    assert quota.ready_at_ms(1, T0_MS) > T0_MS


def test_a_clock_that_goes_back_gives_nothing() -> None:
    quota = rested(Quota(rpm=13))
    quota.take(1, T0_MS)
    ready_ms = quota.ready_at_ms(1, T0_MS)
    assert ready_ms > T0_MS
    assert quota.ready_at_ms(1, T0_MS - 60_000) == ready_ms
