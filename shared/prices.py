"""What a call costs: the prices a backend has on a day, and the micro-USD of a usage under them.

Pure. Decimals throughout, rounded once per call; USD per million tokens is micro-USD per token, so no unit changes here.
"""

from datetime import date
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

from schemas.config import Backend, Prices, Rates, Tier
from schemas.ledger import Usage

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1).toordinal()
_ONE = Decimal(1)


def prices_at(backend: Backend, at_ms: int) -> Prices:
    """The newest prices whose first day, UTC, has begun. Before any has, the backend's `prices`: a guess, but never 0."""
    if not backend.price_changes:
        return backend.prices
    day = date.fromordinal(_EPOCH + at_ms // DAY_MS)
    begun = (prices for prices in (backend.prices, *backend.price_changes) if _first_day(prices) <= day)
    return max(begun, key=_first_day, default=backend.prices)


def cost_microusd(prices: Prices, usage: Usage) -> int:
    """Cost of one call in micro-USD, rounded once, halves up. Counts that cannot be, such as more cached than read, are cut."""
    tokens_in, tokens_out = max(usage.tokens_in, 0), max(usage.tokens_out, 0)
    cached = _within(usage.tokens_cached, tokens_in)
    written = _within(usage.tokens_cache_write, tokens_in - cached)
    reasoning = _within(usage.tokens_reasoning, tokens_out)
    rates = rates_for(prices, tokens_in)
    exact = rates.input * (tokens_in - cached - written) + rates.output * (tokens_out - reasoning)
    if cached:
        exact += _or(rates.cached_input, rates.input) * cached
    if written:
        exact += _or(rates.cache_write, rates.input) * written
    if reasoning:
        exact += _or(rates.reasoning, rates.output) * reasoning
    return int(exact.quantize(_ONE, rounding=ROUND_HALF_UP))


def cost_max_microusd(prices: Prices, tokens_in: int, tokens_out: int) -> int:
    """The most a call of at most so many tokens can cost, whichever tier and class of token they fall into; rounded up."""
    reached = (rates for rates in (prices, *prices.tiers) if _begins(rates) <= tokens_in)
    exact = max(rate_in * tokens_in + rate_out * tokens_out for rate_in, rate_out in map(dearest, reached))
    return int(exact.to_integral_value(ROUND_CEILING))


def rates_for(prices: Prices, tokens_in: int) -> Rates:
    """The rates of a call with so much input: those of the highest tier it reaches, else the basic ones."""
    if not prices.tiers:
        return prices
    return max((rates for rates in (prices, *prices.tiers) if _begins(rates) <= tokens_in), key=_begins)


def dearest(rates: Rates) -> tuple[Decimal, Decimal]:
    """USD per million tokens of the dearest kind of input and of output."""
    return (
        max(rates.input, _or(rates.cached_input, rates.input), _or(rates.cache_write, rates.input)),
        max(rates.output, _or(rates.reasoning, rates.output)),
    )


def _begins(rates: Rates) -> int:
    """The first count of input tokens these rates are for."""
    return rates.above_tokens + 1 if isinstance(rates, Tier) else 0


def _first_day(prices: Prices) -> date:
    return prices.effective_from or date.min


def _within(tokens: int, most: int) -> int:
    return min(max(tokens, 0), most)


def _or(rate: Decimal | None, default: Decimal) -> Decimal:
    return default if rate is None else rate
