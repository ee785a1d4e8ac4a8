"""Cascades over recorded answers: the shipped rule on a weak model's text, every call paid."""

import random
from collections.abc import Sequence
from statistics import fmean

from services.router.beliefs import of_sketch
from services.router.terms import Beliefs
from shared.cascade import Call, answer_sketch, confidence, gain, pays
from shared.quality import ANSWERS, Knowledge
from tests.bench.routing.learning import ORDER_SEED, TENANT, Pool, means, prospects, teach
from tests.bench.routing.measures import Point, area_over_cost
from tests.bench.routing.rows import cross_validated

POINTS = 300


def gains(pool: Pool, weak: str, strong: str) -> list[tuple[float, float]]:
    """Per row, expected gain of asking strong: before anything was asked, and after weak answered; cross-validated."""
    rows, models = pool.rows, (weak, strong)

    def predict(train: Sequence[int], test: Sequence[int]) -> list[tuple[float, float]]:
        order, priors, knowledge = list(train), means(rows, models, train), Knowledge()
        random.Random(ORDER_SEED).shuffle(order)
        for place, each in enumerate(order):
            for model in models:
                teach(knowledge, rows[each], model, place, priors[model], answers=model == weak)
        read = knowledge.words(weak, ANSWERS)
        found = []
        for each in test:
            quality = of_sketch(knowledge, list(priors.items()), rows[each].buckets, rows[each].seen, TENANT).quality
            sure = confidence(quality[weak], read.logit(answer_sketch(rows[each].answers[weak])) if read else 0.0)
            following = Call(quality[strong], 0.0)
            found.append((gain(quality[weak], following, 0.0), gain(sure, following, 0.0)))
        return found

    return cross_validated(len(rows), predict)


def is_begun(pool: Pool, weak: str, strong: str) -> bool:
    """Whether the router would begin a cascade here, by its own expected costs; time and budget allow it."""
    singles = pool.singles()
    first, following = (Call(singles[model][1], _expected(pool, model)) for model in (weak, strong))
    return pays(first, following, 60_000, None)


def _expected(pool: Pool, model: str) -> float:
    return fmean(prospects(pool, at, Beliefs())[model].cost_microusd for at in range(0, len(pool.rows), 50))


def area(pool: Pool, weak: str, strong: str, ranked: Sequence[float], is_cascade: bool) -> float:
    """APGR-cost of giving strong the rows of highest gain first; a cascade pays weak's call as well."""
    rows, (at_weak, at_strong) = pool.rows, (pool.singles()[model] for model in (weak, strong))
    cost, quality, points = at_weak[0] * len(rows), at_weak[1] * len(rows), list[Point]()
    for place, at in enumerate(sorted(range(len(rows)), key=lambda at: -ranked[at])):
        if place % max(1, len(rows) // POINTS) == 0:
            points.append((cost / len(rows), quality / len(rows)))
        cost += rows[at].costs_microusd[strong] - (0.0 if is_cascade else rows[at].costs_microusd[weak])
        quality += rows[at].scores[strong] - rows[at].scores[weak]
    return area_over_cost([*points, (cost / len(rows), quality / len(rows))], at_weak, at_strong)
