"""How good routing is, from choices and outcomes. Pure; every definition stands at its function.

A point is (mean cost of a request, mean quality); a hull is non-decreasing and concave, from the cheapest single model on.
"""

import bisect
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Calls:
    """Of two models: area under the performance gap recovered over the share of strong calls, and the shares that buy
    50 % and 80 % of the gap."""

    apgr: float
    cpt50: float
    cpt80: float


def calls(gain: Sequence[float], weak: Sequence[float], strong: Sequence[float], seed: int = 1) -> Calls:
    """Strong calls are given in the order of falling `gain`, ties shuffled, at all n + 1 cut points.

    CPT is the first crossing. Random order: 0.5.
    """
    rng, count = random.Random(seed), len(weak)
    order = sorted(range(count), key=lambda at: (-gain[at], rng.random()))
    gap, won, recovered = sum(strong) - sum(weak), 0.0, [0.0]
    for at in order:
        won += strong[at] - weak[at]
        recovered.append(won / gap)
    area = sum(before + after for before, after in pairwise(recovered)) / 2 / count
    return Calls(area, _first(recovered, 0.5) / count, _first(recovered, 0.8) / count)


def _first(recovered: Sequence[float], share: float) -> int:
    return next(at for at, each in enumerate(recovered) if each >= share)


def hull(points: Sequence[Point]) -> list[Point]:
    """The non-decreasing upper concave hull, by rising cost; mixing two policies reaches every point between them."""
    found: list[Point] = []
    for cost, quality in sorted(points):
        if found and quality <= found[-1][1]:
            continue
        while found and found[-1][0] == cost:
            found.pop()
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-1], (cost, quality)):
            found.pop()
        found.append((cost, quality))
    return found


def _slope(one: Point, other: Point) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


def quality_at(line: Sequence[Point], cost: float) -> float:
    """Of a hull at a cost: between its points linear, beyond them the nearest one's."""
    at = bisect.bisect_left(line, (cost, -math.inf))
    if at == 0:
        return line[0][1]
    if at == len(line):
        return line[-1][1]
    return line[at - 1][1] + _slope(line[at - 1], line[at]) * (cost - line[at - 1][0])


def aiq(line: Sequence[Point], cost_min: float, cost_max: float, steps: int = 4_000) -> float:
    """Average quality over costs from the cheapest to the dearest single model."""
    return fmean(quality_at(line, cost_min + (cost_max - cost_min) * (at + 0.5) / steps) for at in range(steps))


def aiq_log(line: Sequence[Point], cost_min: float, cost_max: float, steps: int = 4_000) -> float:
    """The same, every factor of cost weighing the same."""
    ratio = cost_max / cost_min
    return fmean(quality_at(line, cost_min * ratio ** ((at + 0.5) / steps)) for at in range(steps))


def saving(line: Sequence[Point], share: float, best: Point) -> float | None:
    """What the same share of the best single model's quality costs less than that model; None: it is never reached."""
    wanted = share * best[1]
    if line[0][1] >= wanted:
        return 1 - line[0][0] / best[0]
    for one, other in pairwise(line):
        if other[1] >= wanted:
            return 1 - (one[0] + (wanted - one[1]) / _slope(one, other)) / best[0]
    return None


def area_over_cost(points: Sequence[Point], weak: Point, strong: Point) -> float:
    """Performance gap recovered over the extra cost, both as shares of what strong adds to weak, on the hull through weak."""
    gap, extra = strong[1] - weak[1], strong[0] - weak[0]
    scaled = [((cost - weak[0]) / extra, (quality - weak[1]) / gap) for cost, quality in points]
    return aiq(hull([(0.0, 0.0), *(point for point in scaled if point[0] >= 0)]), 0.0, 1.0)


def bootstrap_sd(figure: Callable[[Sequence[int]], float], count: int, rounds: int = 20, seed: int = 3) -> float:
    """Standard deviation of `figure(indices)` over draws of rows with replacement."""
    rng = random.Random(seed)
    return stdev(figure(rng.choices(range(count), k=count)) for _ in range(rounds))
