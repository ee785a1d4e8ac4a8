"""Keeps what an account spends per request at a target: the price of money rises while it spends more, and falls again. Pure.

The dual step of the knapsack: λ ← clip(λ + η·(c̄/B − 1), 0, λ_max), c̄ an exponential mean of the costs, B the target per
request. A router that maximises quality − λ·cost/B under it spends B per request in the long run.
"""

from dataclasses import dataclass

STEP = 0.05
KEEP = 0.95
PRICE_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one account. `price` is λ: the quality, in [0, 1], that spending the whole target must buy."""

    mean_microusd: float | None = None      # exponential mean of the cost of a request; None before the first
    price: float = 0.0


START = Pace()


def target_of(left_microusd: float, requests_left: float) -> float:
    """What a request may cost for the money to last as long as the requests: what was saved is there to be spent."""
    return left_microusd / max(requests_left, 1.0)


def paced(pace: Pace, cost_microusd: float, target_microusd: float) -> Pace:
    """After one more request of that cost. Raises ValueError for a target of nothing."""
    if target_microusd <= 0:
        raise ValueError("target_microusd: must be above 0")
    before = target_microusd if pace.mean_microusd is None else pace.mean_microusd
    mean_microusd = KEEP * before + (1.0 - KEEP) * cost_microusd
    price = pace.price + STEP * (mean_microusd / target_microusd - 1.0)
    return Pace(mean_microusd, min(max(price, 0.0), PRICE_MAX))
