"""Two and many models over recorded outcomes: what the router's expectations are worth beside the baselines."""

import random
from collections.abc import Mapping, Sequence
from statistics import fmean

from services.router.terms import Beliefs
from tests.bench.report import Row as Line
from tests.bench.routing.learning import Pool, believed, choose, prospects
from tests.bench.routing.measures import Calls, Point, aiq, aiq_log, bootstrap_sd, calls, hull, saving

PRICES = tuple(10 ** (-6 + 0.15 * step) for step in range(40))
"""Prices of a micro-USD swept: from money is nothing to money is everything."""

CHECKED = 200
"""Decisions made in full to see that the sweep orders models as `decide` does."""


def pair(pool: Pool, weak: str, strong: str) -> tuple[Calls, float]:
    """By expected gain; and the bootstrap's standard deviation of APGR."""
    quality = [each.quality for each in believed(pool.rows, (weak, strong))]
    gain = [each[strong] - each[weak] for each in quality]
    outcomes = [[row.scores[model] for row in pool.rows] for model in (weak, strong)]

    def redrawn(at: Sequence[int]) -> float:
        return calls([gain[each] for each in at], *([scores[each] for each in at] for scores in outcomes)).apgr

    return calls(gain, *outcomes), bootstrap_sd(redrawn, len(gain), rounds=8)


def many(pool: Pool) -> dict[str, list[Point]]:
    """Points of (mean cost, mean quality): the router's at each price, the single models' (static mixes), the oracle's."""
    beliefs = believed(pool.rows, pool.models)
    expected = [prospects(pool, at, each) for at, each in enumerate(beliefs)]
    swept = []
    for price in PRICES:
        chosen = [
            min(row, key=lambda model: (price * row[model].cost_microusd - row[model].quality, row[model].cost_microusd, model))
            for row in expected
        ]
        swept.append(_point(pool, chosen))
        _check(pool, beliefs, chosen, price)
    oracle = [
        _point(pool, [max(pool.models, key=lambda m: row.scores[m] - price * row.costs_microusd[m]) for row in pool.rows])
        for price in PRICES
    ]
    return {"router": swept, "static mix": list(pool.singles().values()), "oracle": oracle}


def _check(pool: Pool, beliefs: Sequence[Beliefs], chosen: Sequence[str], price: float) -> None:
    for at in random.Random(price).sample(range(len(chosen)), CHECKED // len(PRICES)):
        decided = choose(pool, at, beliefs[at], price)
        assert decided == chosen[at], f"row {at}: decide says {decided}, the sweep {chosen[at]}"


def _point(pool: Pool, chosen: Sequence[str]) -> Point:
    pairs = list(zip(pool.rows, chosen, strict=True))
    return fmean(row.costs_microusd[model] for row, model in pairs), fmean(row.scores[model] for row, model in pairs)


def figures(pool: Pool, points: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, float | None]]:
    """AIQ, AIQ-log and savings of each line of points, each joined to the cheapest single model."""
    singles = pool.singles()
    cheapest, best = min(singles.values()), max(singles.values(), key=lambda point: point[1])
    ends = cheapest[0], max(cost for cost, _ in singles.values())
    found = {}
    for name, line in points.items():
        bent = hull([cheapest, *line])
        savings = {f"saving_{share:.0%}": saving(bent, share, best) for share in (0.95, 0.98, 1.0)}
        found[name] = {"aiq": aiq(bent, *ends), "aiq_log": aiq_log(bent, *ends), **savings}
    return found


def lines(pool: Pool, found: Mapping[str, Mapping[str, float | None]]) -> list[Line]:
    """For the table, with the plain baselines: one model at random, always the cheapest, always the dearest."""
    singles = pool.singles().values()
    plain = [
        ("random", fmean(cost for cost, _ in singles), fmean(quality for _, quality in singles)),
        ("always cheapest", *min(singles)),
        ("always dearest", *max(singles)),
    ]
    return [
        *((name, *each.values(), None, None) for name, each in found.items()),
        *((name, None, None, None, None, None, cost, quality) for name, cost, quality in plain),
    ]
