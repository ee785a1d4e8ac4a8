"""What may be spent on second calls: tokens for retries, a share of the primaries for hedges, and what is unusually slow.

Pure: no clock and no randomness. Retries must never multiply the load of a backend that is down; a failover to another
backend is free, for there the circuit stops the traffic, and a long outage of one provider must not use up everybody's way out.
"""

from enum import IntEnum
from math import exp

TOKENS_MAX = 500
"""AWS SDKs' standard retry quota."""


class Retry(IntEnum):
    """What a retry costs (AWS SDKs, default mode since 2026). A throttled one costs less: the provider is well, and asked
    for it to come later."""

    TRANSIENT = 14
    THROTTLED = 5


class RetryTokens:
    """A bucket per backend and one for the replica: a retry needs both, a hedge both half full (gRPC A6).

    An answer at the first try earns a token; a retry that succeeds earns back what it cost. So where everything fails, 35
    retries are made and no more, and where half of the calls fail, about 7 per 100 calls.
    """

    __slots__ = ("_tokens", "tokens_max")

    def __init__(self, tokens_max: int = TOKENS_MAX) -> None:
        self.tokens_max = tokens_max
        self._tokens = tokens_max

    @property
    def tokens(self) -> int:
        return self._tokens

    def may_retry(self, kind: Retry = Retry.TRANSIENT) -> bool:
        return self._tokens >= kind

    def may_hedge(self) -> bool:
        """A second call on suspicion only: not while so much fails that retries need the tokens."""
        return 2 * self._tokens > self.tokens_max

    def spend(self, kind: Retry = Retry.TRANSIENT) -> None:
        """A retry is made."""
        self._tokens = max(0, self._tokens - kind)

    def refund(self, is_retry: bool, kind: Retry = Retry.TRANSIENT) -> None:
        """A call succeeded, at the first try or as a retry of this kind."""
        self._tokens = min(self.tokens_max, self._tokens + (kind if is_retry else 1))


class HedgeBudget:
    """At most `share` of the primaries are hedged, plus one: each earns its share of a hedge. What is not used is kept for
    ten hedges at the most, so that a slow minute is not answered with what a quiet hour has saved."""

    __slots__ = ("_credit", "_share")

    CREDIT_MAX = 10.0
    CREDIT_START = 1.0

    def __init__(self, share: float = 0.02) -> None:
        self._share = share
        self._credit = self.CREDIT_START

    def credit(self) -> None:
        """A primary call is made."""
        self._credit = min(self.CREDIT_MAX, self._credit + self._share)

    def may_hedge(self) -> bool:
        return self._credit >= 1.0

    def spend(self) -> None:
        """A hedge is made."""
        self._credit -= 1.0


class Quantile:
    """A running quantile of positive values in constant memory: `log q += step·(p - 1{x < q})`, the stochastic approximation
    of Robbins and Monro (1951), multiplicative so that it fits milliseconds and minutes alike.

    It rises within tens of values when everything becomes slower, and falls over hundreds. A call that was cut off counts
    with the time it had taken by then: all that matters is that it was longer than the quantile.
    """

    __slots__ = ("_count", "_p", "_step", "value")

    def __init__(self, p: float, step: float = 0.05) -> None:
        self._p = p
        self._step = step
        self._count = 0
        self.value = 0.0

    def observe(self, x: float) -> None:
        """Count one value above zero. The first ones move it further: it begins at the largest of them."""
        self._count += 1
        if self._count <= 1 / (1 - self._p):
            self.value = max(self.value, x)
            return
        self.value *= exp(self._step * (self._p - (x < self.value)))
