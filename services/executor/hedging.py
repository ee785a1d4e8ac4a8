"""When a call that takes unusually long is made a second time. Pure: times are passed in.

The trigger is the running quantile of latency per expected unit of answer at which hedges just fit their budget
(Dean and Barroso, The Tail at Scale, 2013).
"""

from schemas.messages import Features
from services.executor.retry_tokens import HedgeBudget, Quantile

HEDGE_SHARE = 0.02
START_UNITS = 40
CALLS_MIN = 50
"""Calls of a model before its quantile is trusted."""


class Hedging:
    """Mutable; one per replica. Streams are judged by their first token, other calls by their end."""

    def __init__(self) -> None:
        self._budget = HedgeBudget(HEDGE_SHARE)
        self._quantiles: dict[tuple[str, bool], Quantile] = {}
        self._calls: dict[tuple[str, bool], int] = {}

    def after_ms(self, model: str, features: Features | None, streamed: bool) -> float | None:
        """How long to wait for a call before a second one is worth it; None while nobody knows what is usual."""
        if self._calls.get((model, streamed), 0) < CALLS_MIN:
            return None
        return self._quantiles[model, streamed].value * _units(features, streamed)

    def primary(self) -> None:
        """A call was made for its request's sake: it earns its share of a hedge."""
        self._budget.credit()

    def may_hedge(self) -> bool:
        return self._budget.may_hedge()

    def hedged(self) -> None:
        self._budget.spend()

    def observe(self, model: str, features: Features | None, streamed: bool, waited_ms: float) -> None:
        """How long a primary call took, or has taken when its hedge was faster."""
        key = (model, streamed)
        per_unit = waited_ms / _units(features, streamed)
        quantile = self._quantiles.get(key)
        if quantile is None:
            quantile = self._quantiles[key] = Quantile(1 - HEDGE_SHARE)
        self._calls[key] = self._calls.get(key, 0) + 1
        quantile.observe(per_unit)


def _units(features: Features | None, streamed: bool) -> float:
    return 1.0 if streamed or features is None else features.tokens_out + START_UNITS
