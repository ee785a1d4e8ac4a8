"""Teaches the shipped learners recorded outcomes and asks the shipped router what it believes. No estimator of its own."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

from schemas.config import Backend, Model
from schemas.config import Prices as Tariffs
from services.router.beliefs import of_sketch
from services.router.decide import Limits, decide
from services.router.offers import Option, offers_of, options_of
from services.router.rank import Prospect, Terms, prospect
from services.router.terms import Beliefs
from shared.cascade import answer_sketch
from shared.catalogue import Catalogue
from shared.quality import Judged, Knowledge, tier_of
from tests.bench.routing.rows import Prices, Row, cross_validated

TENANT = "bench"
ORDER_SEED = 7


@dataclass(frozen=True)
class Pool:
    """Some models of a data set with the options the router has: every backend well, nothing else to choose by."""

    rows: Sequence[Row]
    models: Sequence[str]
    options: Mapping[str, Option]

    def singles(self, at: Sequence[int] | None = None) -> dict[str, tuple[float, float]]:
        """Mean cost in micro-USD and mean score of each model alone."""
        chosen = self.rows if at is None else [self.rows[each] for each in at]
        return {
            model: (fmean(row.costs_microusd[model] for row in chosen), fmean(row.scores[model] for row in chosen))
            for model in self.models
        }


def pool(rows: Sequence[Row], models: Sequence[str], listed: Mapping[str, Prices], priors: Mapping[str, float]) -> Pool:
    """A catalogue of these models at their published prices, through the router's own offers and options."""
    catalogue = Catalogue(
        models={name: Model(quality=priors[name], context_tokens=1_000_000, output_tokens_max=100_000) for name in models},
        backends={f"{name}.a": _backend(name, listed) for name in models},
    )
    return Pool(rows, models, {option.offer.model: option for option in options_of(offers_of(catalogue, 0), {})})


def _backend(name: str, listed: Mapping[str, Prices]) -> Backend:
    rates = listed[name if name in listed else name.rpartition("/")[2]]
    prices = Tariffs(input=Decimal(str(rates.input)), output=Decimal(str(rates.output)))
    return Backend(model=name, provider="bench", base_url="http://127.0.0.1:1/v1", prices=prices)


def teach(knowledge: Knowledge, row: Row, model: str, place: int, prior: float, answers: bool = False) -> None:
    """One outcome, through the fold of the monitor."""
    fact = Judged(
        model=model,
        domain=row.seen.domain,
        tier=tier_of(row.seen.complexity),
        tenant=TENANT,
        score=row.scores[model],
        source="verdicts/0",
        offset=place,
        at_ms=0,
        buckets=row.buckets,
        tokens_out=row.tokens_out[model],
        answer_buckets=answer_sketch(row.answers[model]) if answers else (),
    )
    knowledge.fold(fact, prior)


def means(rows: Sequence[Row], models: Sequence[str], at: Sequence[int]) -> dict[str, float]:
    """What a catalogue would say of each model: its mean score on some rows."""
    return {model: fmean(rows[each].scores[model] for each in at) for model in models}


def believed(rows: Sequence[Row], models: Sequence[str]) -> list[Beliefs]:
    """Per row, what the router believes of each model after the other folds were taught, cross-validated.

    The catalogue's priors are the models' means over the same folds.
    """

    def predict(train: Sequence[int], test: Sequence[int]) -> list[Beliefs]:
        order, priors, knowledge = list(train), means(rows, models, train), Knowledge()
        random.Random(ORDER_SEED).shuffle(order)
        for place, each in enumerate(order):
            for model in models:
                teach(knowledge, rows[each], model, place, priors[model])
        listed = list(priors.items())
        return [of_sketch(knowledge, listed, rows[each].buckets, rows[each].seen, TENANT) for each in test]

    return cross_validated(len(rows), predict)


def prospects(pool: Pool, at: int, beliefs: Beliefs) -> dict[str, Prospect]:
    """Expected quality and cost of each model for a row, as the router's utility counts them."""
    terms = Terms(believed=beliefs.quality, tokens_out=beliefs.tokens_out)
    return {model: prospect(pool.rows[at].seen, pool.options[model], terms) for model in pool.models}


def choose(pool: Pool, at: int, beliefs: Beliefs, microusd_price: float) -> str:
    """The model the router plans first at a price of money."""
    terms = Terms(
        mode="utility", microusd_price=microusd_price, believed=beliefs.quality, tokens_out=beliefs.tokens_out
    )
    bounds = Limits(quality_min=0.0, time_left_ms=60_000, candidates_max=1, terms=terms)
    return decide(pool.rows[at].seen, list(pool.options.values()), bounds).candidates[0].model
