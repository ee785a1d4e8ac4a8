"""A stream from cold: only the chosen model's outcome is seen, an account has a target per request, prices and models change."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from schemas.messages import Features
from services.router.beliefs import of_sketch
from services.router.decide import Limits, decide
from services.router.offers import Option
from services.router.rank import Terms, Weights
from services.router.terms import explore_share
from shared.pacing import START, Pace, paced, target_of
from shared.quality import Knowledge
from shared.spend import Standing
from tests.bench.routing.learning import TENANT, Pool, teach
from tests.bench.routing.rows import Row

PRIOR = 0.85
"""Of every model alike: the stream begins with nothing known."""
EXPLORE = 0.05
TARGET_MIN_MICROUSD = 1.0
WEIGHTS = Weights(late=0.0, failing=0.0)


@dataclass(frozen=True, slots=True)
class Step:
    """What one request brought."""

    model: str
    score: float
    cost_microusd: float


Change = Callable[[Row, str], tuple[float, float]]
"""Score and micro-USD of a model on a row, as they are after a change."""


def stream(
    pool: Pool, target_microusd: float, seed: int,
    after: Change | None = None, options_after: Sequence[Option] = (), saves: bool = True,
) -> list[Step]:
    """All rows once, shuffled, under a budget of `target_microusd` for each. Paced as the monitor does, by what is left; but
    without `saves` by the same target for each request, so that parts of a stream can be compared.

    From the middle on outcomes are those of `after`, and the catalogue that of `options_after`.
    """
    rng = random.Random(seed)
    order = list(range(len(pool.rows)))
    rng.shuffle(order)
    knowledge, pace, steps = Knowledge(), START, list[Step]()
    left_microusd = target_microusd * len(order)
    options: Sequence[Option] = list(pool.options.values())
    for place, at in enumerate(order):
        changed = after is not None and place >= len(order) // 2
        if changed and options_after:
            options = options_after
        row = pool.rows[at]
        target_now = max(target_of(left_microusd, len(order) - place), TARGET_MIN_MICROUSD) if saves else target_microusd
        model = _chosen(knowledge, options, row, row.seen, pace, target_now, rng.random())
        score, cost = after(row, model) if changed and after else (row.scores[model], row.costs_microusd[model])
        steps.append(Step(model, score, cost))
        pace = paced(pace, cost, target_now)
        left_microusd -= cost
        seen = Row(row.seen, row.buckets, {model: score}, {model: cost}, row.tokens_out, {})
        teach(knowledge, seen, model, place, PRIOR)
    return steps


def _chosen(
    knowledge: Knowledge, options: Sequence[Option], row: Row, seen: Features, pace: Pace, target_microusd: float, draw: float
) -> str:
    beliefs = of_sketch(knowledge, [(option.offer.model, PRIOR) for option in options], row.buckets, seen, TENANT)
    terms = Terms(
        mode="utility",
        weights=WEIGHTS,
        microusd_price=pace.price / target_microusd,
        target_microusd=target_microusd,
        explore=explore_share(EXPLORE, Standing(price=pace.price, target_microusd=target_microusd)),
        draw=draw,
        believed=beliefs.quality,
        evidence=beliefs.evidence,
        tokens_out=beliefs.tokens_out,
    )
    return decide(seen, options, Limits(quality_min=0.0, time_left_ms=60_000, candidates_max=1, terms=terms)).candidates[0].model


def reward(steps: Sequence[Step]) -> float:
    return fmean(step.score for step in steps)


def utilisation(steps: Sequence[Step], target_microusd: float) -> float:
    """Spent over what the target allows for so many requests."""
    return fmean(step.cost_microusd for step in steps) / target_microusd
