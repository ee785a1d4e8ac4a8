"""Second calls stay few, whatever fails, and hedges come where they help."""

import random

import pytest

from services.executor.retry_tokens import HedgeBudget, Quantile, Retry, RetryTokens
from tests.support.queueing import heavy_tail, quantile


def retries_per_call(failing: float, calls: int = 20_000, tries_max: int = 3) -> float:
    """Each call is tried again while it fails and the tokens allow it."""
    rng, tokens, retries = random.Random(1), RetryTokens(), 0
    for _ in range(calls):
        tries, failed = 1, rng.random() < failing
        while failed and tries < tries_max and tokens.may_retry():
            tokens.spend()
            tries, retries, failed = tries + 1, retries + 1, rng.random() < failing
        if not failed:
            tokens.refund(is_retry=tries > 1)
    return retries / calls


def test_where_everything_fails_few_retries_are_made_and_then_none() -> None:
    tokens, retries = RetryTokens(), 0
    for _ in range(1000):
        if tokens.may_retry():
            tokens.spend()
            retries += 1
    assert retries == 35
    assert retries / 1000 <= 0.10


def test_an_outage_is_not_multiplied_and_ordinary_failures_are_all_retried() -> None:
    assert retries_per_call(1.0) < 0.01
    assert retries_per_call(0.5) <= 0.10
    assert retries_per_call(0.02) == pytest.approx(0.02, rel=0.2)


def test_a_throttled_retry_costs_less() -> None:
    tokens = RetryTokens()
    tokens.spend(Retry.THROTTLED)
    assert tokens.tokens == 495
    tokens.spend(Retry.TRANSIENT)
    assert tokens.tokens == 481


def test_a_retry_that_succeeds_earns_back_its_cost_and_a_first_try_one_token() -> None:
    tokens = RetryTokens()
    tokens.spend()
    tokens.spend(Retry.THROTTLED)
    tokens.refund(is_retry=True)
    assert tokens.tokens == 495
    tokens.refund(is_retry=True, kind=Retry.THROTTLED)
    assert tokens.tokens == 500
    tokens.spend()
    tokens.refund(is_retry=False)
    assert tokens.tokens == 487


def test_nothing_is_saved_above_the_maximum() -> None:
    tokens = RetryTokens()
    tokens.refund(is_retry=False)
    assert tokens.tokens == 500


def test_hedges_stop_while_retries_need_the_tokens() -> None:
    tokens = RetryTokens()
    for _ in range(18):
        assert tokens.may_hedge()
        tokens.spend()
    assert not tokens.may_hedge()
    assert tokens.may_retry()


def test_a_hedge_is_earned_by_fifty_calls() -> None:
    budget = HedgeBudget(0.02)
    budget.spend()
    for _ in range(49):
        budget.credit()
        assert not budget.may_hedge()
    budget.credit()
    budget.credit()
    assert budget.may_hedge()


def test_a_quiet_hour_saves_ten_hedges_at_the_most() -> None:
    budget, hedges = HedgeBudget(0.02), 0
    for _ in range(10_000):
        budget.credit()
    while budget.may_hedge():
        budget.spend()
        hedges += 1
    assert hedges == 10


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_quantile_is_found_at_any_scale(scale: float) -> None:
    rng, running = random.Random(2), Quantile(0.98)
    values = [heavy_tail(rng, scale) for _ in range(20_000)]
    above = 0
    for value in values:
        above += value > running.value
        running.observe(value)
    assert above / len(values) == pytest.approx(0.02, abs=0.002)
    assert running.value == pytest.approx(quantile(values, 0.98), rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_the_quantile_is_of_use_after_fifty_values(seed: int) -> None:
    rng, running, above = random.Random(seed), Quantile(0.98), 0
    for index in range(250):
        value = rng.lognormvariate(0, 0.56)
        above += index >= 50 and value > running.value
        running.observe(value)
    assert above <= 0.05 * 200


def test_the_quantile_follows_when_everything_becomes_slower_and_quick_again() -> None:
    rng, running = random.Random(2), Quantile(0.98)
    at = {}
    for index in range(8_000):
        running.observe(rng.lognormvariate(0, 0.56) * (4 if 2000 <= index < 4000 else 1))
        at[index] = running.value
    assert at[2300] > 2 * at[1999]
    assert at[7999] < 1.5 * at[1999]


def test_hedges_cost_two_percent_and_take_a_third_off_the_tail() -> None:
    rng, running, budget = random.Random(3), Quantile(0.98), HedgeBudget(0.02)
    calls, alone, hedged, extra = 50_000, [], [], 0
    for index in range(calls):
        latency_ms, after_ms = heavy_tail(rng), running.value
        alone.append(latency_ms)
        budget.credit()
        if index >= 50 and latency_ms > after_ms and budget.may_hedge():
            budget.spend()
            extra += 1
            latency_ms = min(latency_ms, after_ms + heavy_tail(rng))
        running.observe(latency_ms)         # the loser is cut off, and counts with the time it had taken
        hedged.append(latency_ms)
    assert 0.015 * calls < extra <= 0.02 * calls
    assert quantile(hedged, 0.99) <= 0.70 * quantile(alone, 0.99)
    assert quantile(hedged, 0.5) == pytest.approx(quantile(alone, 0.5), rel=0.02)
