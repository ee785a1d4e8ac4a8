"""Log-bucket sketches: how many values fell into each bucket, for quantiles within one percent. Pure.

Bucket i holds values in (gamma^(i-1), gamma^i]. Any estimate is within ACCURACY of the true value, and merging is exact,
in any order (DDSketch, Masson et al. 2019).
"""

import math
from collections.abc import Sequence

Sketch = dict[int, int]

ACCURACY = 0.01
VALUE_MIN = 1e-3
"""Below it everything is one bucket. It keeps zero and negative durations out of the logarithm."""

START_TOKENS = 40
"""What the start of an answer is worth: without it a short answer, which is nearly all start, would look slow."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


def index_of(value: float) -> int:
    """The bucket of a value."""
    return math.ceil(math.log(max(value, VALUE_MIN)) / _LOG_GAMMA)


def add(sketch: Sketch, value: float) -> None:
    """Count one value."""
    index = index_of(value)
    sketch[index] = sketch.get(index, 0) + 1


def merge(sketch: Sketch, other: Sketch) -> None:
    """Add what `other` counted."""
    for index, count in other.items():
        sketch[index] = sketch.get(index, 0) + count


def quantiles(sketch: Sketch, shares: Sequence[float]) -> list[float]:
    """Nearest-rank quantiles in one pass, 0.0 of nothing; `shares` in [0, 1] must rise."""
    total = sum(sketch.values())
    ranks = [max(1, math.ceil(share * total)) for share in shares]
    found: list[float] = []
    counted = 0
    for index in sorted(sketch):
        counted += sketch[index]
        while len(found) < len(ranks) and counted >= ranks[len(found)]:
            found.append(2 * _GAMMA**index / (_GAMMA + 1))
    return found or [0.0] * len(ranks)


def above(sketch: Sketch, value: float) -> int:
    """How many of the values lie in buckets above the one of `value`."""
    limit = index_of(value)
    return sum(count for index, count in sketch.items() if index > limit)


def pace_ms(latency_ms: float, tokens_out: int) -> float:
    """Milliseconds per unit of answer: an output token, or the start, which is worth START_TOKENS of them.

    How slow a backend is whatever the length of its answers. Total latency grows with that length, and milliseconds per
    token of a three-token answer are all start.
    """
    return latency_ms / (tokens_out + START_TOKENS)
