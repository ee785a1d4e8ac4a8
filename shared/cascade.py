"""When to ask a cheap model first, and when to ask a dearer one after it has answered. Pure; the router asks the first, the gate
the second.

The rule is the expected gain: ask on iff P(next right | text) − P(current right | text, answer) > what the next call costs, in
units of quality. A bare confidence threshold is the limit in which the next model is equally good everywhere; it asks on for
hopeless questions, too, and can be worse than a coin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from shared.words import bucket_of, chance, sketch

DEPTH_MAX = 3
COST_RATIO_MAX = 0.1
"""A first call dearer than this share of the next one does not pay for itself: at 1:14 cascades beat routing, at 1:3 to 1:4
they lose to it (`make bench-routing`)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One model's call, before it is made: expected quality, cost in micro-USD, p95 in ms (0: not known)."""

    quality: float
    cost_microusd: float
    latency_ms: float = 0.0


def pays(first: Call, following: Call, time_left_ms: float, budget_left_microusd: float | None, depth: int = 1) -> bool:
    """Whether to begin with `first` and ask `following` only where its answer will not do. Else one of them is asked directly."""
    return (
        depth < DEPTH_MAX
        and following.quality > first.quality
        and first.cost_microusd <= COST_RATIO_MAX * following.cost_microusd
        and first.latency_ms + following.latency_ms <= time_left_ms
        and (budget_left_microusd is None or first.cost_microusd + following.cost_microusd <= budget_left_microusd)
    )


def confidence(believed: float, answer_logit: float, move_max: float = 1.0) -> float:
    """P(current right | text, answer): what was believed of the model on this text, moved by the words of its answer.

    By at most `move_max`: whoever taught what the words mean must not decide for everybody.
    """
    return believed + max(-move_max, min(move_max, chance(believed, answer_logit) - believed))


def answer_sketch(text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
    """The sketch of an answer: its words, and where the provider says how sure the model was of each token, the mean and the
    lowest tenth of that, in steps. Quantiles tell more than sums, which grow with the answer."""
    buckets = sketch(text)
    sure = sorted(-each["logprob"] for each in logprobs if isinstance(each.get("logprob"), int | float))
    if not sure:
        return buckets
    doubts = (f"doubt {min(12, int(4 * fmean(sure)))}", f"most doubt {min(12, int(2 * sure[len(sure) * 9 // 10]))}")
    return tuple(sorted({*buckets, *map(bucket_of, doubts)}))


def gain(confident: float, following: Call, microusd_price: float) -> float:
    """Quality that asking `following` is expected to add, less what it costs; above 0 it is worth asking."""
    return following.quality - confident - microusd_price * following.cost_microusd


def asks_on(
    confident: float,
    following: Call,
    microusd_price: float,
    time_left_ms: float,
    budget_left_microusd: float | None,
    threshold: float | None = None,
) -> bool:
    """Whether the answer goes to the next model. `threshold`: the simple form, ask on below it. Time and budget bind."""
    if following.latency_ms > time_left_ms:
        return False
    if budget_left_microusd is not None and following.cost_microusd > budget_left_microusd:
        return False
    if threshold is not None:
        return confident < threshold
    return gain(confident, following, microusd_price) > 0.0
