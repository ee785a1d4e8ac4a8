"""What a call costs: every shape of usage that providers report, tiers and days, rounded once."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Backend, Prices, Tier
from schemas.ledger import Usage
from shared.prices import DAY_MS, cost_max_microusd, cost_microusd, dearest, prices_at
from tests.support.builders import a_backend

GPT_4O = {"input": "2.50", "cached_input": "1.25", "output": "10"}
O4_MINI = {"input": "1.10", "cached_input": "0.275", "output": "4.40"}
SONNET = {"input": "3", "cached_input": "0.30", "cache_write": "3.75", "output": "15"}
SONNET_LONG = SONNET | {
    "tiers": [{"above_tokens": 200_000, "input": "6", "cached_input": "0.60", "cache_write": "7.50", "output": "22.50"}]
}
FLASH = {"input": "0.30", "cached_input": "0.075", "output": "2.50"}
PRO = {"input": "1.25", "cached_input": "0.31", "output": "10",
       "tiers": [{"above_tokens": 200_000, "input": "2.50", "cached_input": "0.625", "output": "15"}]}
NANO = {"input": "0.05", "output": "0.20"}
REASONER = {"input": "1", "output": "2", "reasoning": "5"}


def prices(**fields: Any) -> Prices:
    return Prices.model_validate(fields)


@pytest.mark.parametrize(
    ("rates", "usage", "microusd"),
    [
        # OpenAI: input includes what was read from the cache, output includes reasoning, which costs as output.
        pytest.param(GPT_4O, Usage(tokens_in=1_200, tokens_out=300), 6_000, id="openai"),
        pytest.param(GPT_4O, Usage(tokens_in=1_200, tokens_out=300, tokens_cached=1_024), 4_720, id="openai_cached"),
        pytest.param(O4_MINI, Usage(tokens_in=75, tokens_out=1_186, tokens_reasoning=1_024), 5_301, id="openai_reasoning"),
        # Anthropic: what its cache was given costs more than input, what it gave costs a tenth.
        pytest.param(SONNET, Usage(tokens_in=2_095, tokens_out=503), 13_830, id="anthropic"),
        pytest.param(SONNET, Usage(tokens_in=2_051, tokens_out=300, tokens_cache_write=2_030), 12_176, id="anthropic_written"),
        pytest.param(SONNET, Usage(tokens_in=2_051, tokens_out=300, tokens_cached=2_030), 5_172, id="anthropic_cached"),
        pytest.param(
            SONNET, Usage(tokens_in=5_021, tokens_out=10, tokens_cached=3_000, tokens_cache_write=2_000), 8_613, id="both"
        ),
        pytest.param(SONNET_LONG, Usage(tokens_in=200_000, tokens_out=1_000), 615_000, id="anthropic_at_the_tier"),
        pytest.param(
            SONNET_LONG, Usage(tokens_in=200_001, tokens_out=1_000, tokens_cached=200_000), 142_506, id="anthropic_over_the_tier"
        ),
        # Gemini: thoughts are output; over 200,000 tokens of input the whole call has other rates.
        pytest.param(FLASH, Usage(tokens_in=900, tokens_out=1_250, tokens_reasoning=1_000), 3_395, id="gemini_thoughts"),
        pytest.param(FLASH, Usage(tokens_in=900, tokens_out=250, tokens_cached=800), 715, id="gemini_cached"),
        pytest.param(PRO, Usage(tokens_in=200_000, tokens_out=2_000), 270_000, id="gemini_at_the_tier"),
        pytest.param(PRO, Usage(tokens_in=200_001, tokens_out=2_000), 530_003, id="gemini_over_the_tier"),
        pytest.param(PRO, Usage(tokens_in=400_000, tokens_out=0, tokens_cached=400_000), 250_000, id="gemini_cached_over_it"),
        # Others: reasoning with a rate of its own; no rate for the cache; a model that costs nothing.
        pytest.param(REASONER, Usage(tokens_in=100, tokens_out=500, tokens_reasoning=400), 2_300, id="reasoning_has_its_rate"),
        pytest.param(NANO, Usage(tokens_in=1_200, tokens_out=300, tokens_cached=1_000), 120, id="no_cached_rate"),
        pytest.param({"input": 0, "output": 0}, Usage(tokens_in=10**9, tokens_out=10**9), 0, id="free"),
        pytest.param(GPT_4O, Usage(), 0, id="no_tokens"),
        # Rounding: once, halves up.
        pytest.param(NANO, Usage(tokens_in=10), 1, id="a_half_rounds_up"),
        pytest.param(NANO, Usage(tokens_in=9), 0, id="less_than_a_half_rounds_down"),
        pytest.param({"input": "0.15", "output": "0.60"}, Usage(tokens_in=3, tokens_out=5), 3, id="rounded_once_not_per_class"),
        pytest.param({"input": "0.10", "output": "0.30"}, Usage(tokens_in=5, tokens_out=5), 2, id="halves_that_meet"),
        # What cannot be: cut to what can.
        pytest.param(GPT_4O, Usage(tokens_in=100, tokens_cached=500), 125, id="more_cached_than_read"),
        pytest.param(SONNET, Usage(tokens_in=100, tokens_cached=60, tokens_cache_write=60), 168, id="more_cached_and_written"),
        pytest.param(REASONER, Usage(tokens_out=10, tokens_reasoning=50), 50, id="more_reasoning_than_output"),
        pytest.param(GPT_4O, Usage(tokens_in=-5, tokens_out=-5, tokens_cached=-5), 0, id="less_than_nothing"),
    ],
)
def test_every_known_shape_of_usage_has_its_cost(rates: dict[str, Any], usage: Usage, microusd: int) -> None:
    assert cost_microusd(prices(**rates), usage) == microusd


def test_the_highest_tier_reached_counts_in_whatever_order_they_stand() -> None:
    tiers = [{"above_tokens": above, "input": rate, "output": 0} for above, rate in ((200, 3), (100, 2), (300, 4))]
    stepped = prices(input=1, output=0, tiers=tiers)
    assert [cost_microusd(stepped, Usage(tokens_in=tokens)) for tokens in (100, 101, 200, 201, 301)] == [100, 202, 400, 603, 1204]


def a_priced_backend(*changes: tuple[str, str], first: str | None = None) -> Backend:
    later = tuple(prices(input=1, output=1, version=version, effective_from=day) for version, day in changes)
    return a_backend(prices=prices(input=1, output=1, version="first", effective_from=first), price_changes=later)


NEW_YEAR_MS = 20_454 * DAY_MS
"""2026-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("at_ms", "version"),
    [
        (0, "first"),
        (NEW_YEAR_MS - 1, "first"),
        (NEW_YEAR_MS, "new year"),
        (NEW_YEAR_MS + 31 * DAY_MS - 1, "new year"),
        (NEW_YEAR_MS + 31 * DAY_MS, "february"),
        (NEW_YEAR_MS + 3_000 * DAY_MS, "february"),
    ],
)
def test_a_price_holds_from_the_first_millisecond_of_its_day(at_ms: int, version: str) -> None:
    backend = a_priced_backend(("new year", "2026-01-01"), ("february", "2026-02-01"))
    assert prices_at(backend, at_ms).version == version


def test_prices_without_changes_hold_always_even_before_their_day() -> None:
    assert prices_at(a_priced_backend(first="2026-01-01"), NEW_YEAR_MS - 1).version == "first"
    early = a_priced_backend(("february", "2026-02-01"), first="2026-01-01")
    assert prices_at(early, NEW_YEAR_MS - 1).version == "first"


def test_the_newest_day_wins_wherever_it_stands() -> None:
    backend = a_priced_backend(("old", "2025-01-01"), first="2026-01-01")
    assert prices_at(backend, NEW_YEAR_MS - 1).version == "old"
    assert prices_at(backend, NEW_YEAR_MS).version == "first"


RATES = st.decimals(min_value=0, max_value=100, places=3)
TOKENS = st.integers(0, 400_000)


OPTIONAL = st.none() | RATES
KINDS = {"input": RATES, "output": RATES, "cached_input": OPTIONAL, "cache_write": OPTIONAL, "reasoning": OPTIONAL}


def any_prices() -> st.SearchStrategy[Prices]:
    return st.builds(Prices, **KINDS)


@st.composite
def tiered_prices(draw: st.DrawFn) -> Prices:
    sizes = draw(st.lists(st.sampled_from((1_000, 32_000, 200_000)), unique=True))
    tiers = tuple(draw(st.builds(Tier, above_tokens=st.just(above), **KINDS)) for above in sizes)
    return draw(st.builds(Prices, tiers=st.just(tiers), **KINDS))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    tokens_in, tokens_out = draw(TOKENS), draw(TOKENS)
    cached = draw(st.integers(0, tokens_in))
    return Usage(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_cached=cached,
        tokens_cache_write=draw(st.integers(0, tokens_in - cached)),
        tokens_reasoning=draw(st.integers(0, tokens_out)),
    )


@given(tiered_prices(), usages(), TOKENS, TOKENS)
def test_no_call_within_the_bounds_costs_more_than_the_bound(charged: Prices, usage: Usage, more_in: int, more_out: int) -> None:
    bound = cost_max_microusd(charged, usage.tokens_in + more_in, usage.tokens_out + more_out)
    assert 0 <= cost_microusd(charged, usage) <= bound


@given(tiered_prices(), TOKENS, TOKENS, st.integers(0, 1_000))
def test_the_bound_rises_with_the_tokens(charged: Prices, tokens_in: int, tokens_out: int, more: int) -> None:
    bound = cost_max_microusd(charged, tokens_in, tokens_out)
    assert cost_max_microusd(charged, tokens_in + more, tokens_out) >= bound
    assert cost_max_microusd(charged, tokens_in, tokens_out + more) >= bound


@given(any_prices(), usages(), st.integers(1, 1_000), st.sampled_from(("cached", "cache_write", "reasoning", "")))
def test_a_token_more_of_any_kind_never_costs_less(charged: Prices, usage: Usage, more: int, kind: str) -> None:
    whole = "tokens_out" if kind == "reasoning" else "tokens_in"
    fields = {whole: getattr(usage, whole) + more} | ({f"tokens_{kind}": getattr(usage, f"tokens_{kind}") + more} if kind else {})
    assert cost_microusd(charged, usage.model_copy(update=fields)) >= cost_microusd(charged, usage)


@given(any_prices(), st.lists(usages(), max_size=10))
def test_the_costs_of_attempts_add_up_to_the_cost_of_all_within_half_a_micro_each(charged: Prices, calls: list[Usage]) -> None:
    whole = Usage(**{name: sum(getattr(call, name) for call in calls) for name in Usage.model_fields if name != "estimated"})
    parts = [cost_microusd(charged, call) for call in calls]
    assert abs(sum(parts) - cost_microusd(charged, whole)) <= (len(calls) + 1) / 2


@given(any_prices())
def test_the_dearest_token_is_at_least_as_dear_as_every_other(charged: Prices) -> None:
    rate_in, rate_out = dearest(charged)
    assert all(rate_in >= rate for rate in (charged.input, charged.cached_input, charged.cache_write) if rate is not None)
    assert all(rate_out >= rate for rate in (charged.output, charged.reasoning) if rate is not None)
    assert isinstance(rate_in, Decimal)
