"""Orders the models that can serve a task: what to expect of each, and what is preferred. Pure.

The utility of a model is `w_q·q̂ − ĉ/worth − λ·ĉ/B − w_L·lateness − w_f·P(fail)`, in units of quality: expected quality; expected
cost against what a perfect answer is worth, and against the account's target B at its price of money λ; the expected time
beyond the wanted one, in multiples of it; the share of calls that fail. Cost counts linearly: a logarithm would overspend.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from schemas.messages import Features
from services.router.offers import Option

_Key = Callable[["Prospect"], tuple[Any, ...]]
Mode = Literal["quality_min", "utility", "lexicographic", "price", "latency", "quality"]

EXPLORE_EVIDENCE = 20.0
"""A model is explored in a domain until it has so many judgements there."""
EXPLORE_COST_MAX = 5.0
"""No model is explored that costs more than so many times the best one, or the account's target: nobody's text can."""


@dataclass(frozen=True, slots=True)
class Weights:
    """By priority. `target_ms`: the wanted latency; beyond it a request is late. Sources: routing's usual 0.3 and 0.1 for
    critical and normal traffic; a failed call costs the time of another one, and little else, as others are asked then."""

    quality: float = 1.0
    late: float = 0.1
    failing: float = 0.1
    target_ms: int = 20_000


WEIGHTS: Mapping[str, Weights] = {
    "interactive": Weights(late=0.3, failing=0.3, target_ms=5_000),
    "standard": Weights(),
    "batch": Weights(late=0.0, failing=0.05),
}


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class Terms:
    """How to choose. `microusd_price`: quality that a micro-USD must buy. `draw`: evenly in [0, 1), from the request's id.

    `believed`, `evidence`, `tokens_out`: by model; what is missing is as the catalogue and the task say, but `tokens_usual`
    counts for a model of unknown length where it is not 0. `lead`: a model to put first where it is able (an arm of a
    split). `order`: the caller's list of models, best first; empty: none. `cached_by`: the model whose prompt cache holds
    the session's earlier messages.
    """

    mode: Mode = "quality_min"
    weights: Weights = WEIGHTS["standard"]
    quality_min: float = 0.0
    quality_within: float = 0.03
    microusd_price: float = 0.0
    target_microusd: float = 0.0
    explore: float = 0.0
    draw: float = 1.0
    believed: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, float] = field(default_factory=dict)
    tokens_out: Mapping[str, int] = field(default_factory=dict)
    tokens_usual: int = 0
    lead: str = ""
    order: tuple[str, ...] = ()
    cached_by: str = ""

    def quality_of(self, option: Option) -> float:
        return self.believed.get(option.offer.model, option.offer.quality)


class Prospect(NamedTuple):
    """What to expect of one model for one task. A tuple: twenty are made per decision, and frozen classes are slow to make."""

    option: Option
    quality: float
    cost_microusd: int
    utility: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """Best first. `propensity`: how likely the first one was to be first; below 1 only where models are explored."""

    prospects: Sequence[Prospect]
    propensity: float = 1.0
    explored: bool = False


NOTHING_RANKED = Ranked(())


def prospect(task: Features, option: Option, terms: Terms) -> Prospect:
    """Expected quality, cost and utility of one model."""
    return prospects_of(task, (option,), terms)[0]


def prospects_of(task: Features, options: Sequence[Option], terms: Terms) -> list[Prospect]:
    """Of each model, in the order given. One loop with all it reads at hand: it is a third of a decision."""
    weights, believed, microusd_price = terms.weights, terms.believed, terms.microusd_price
    tokens_in, allowed = task.tokens_in, task.tokens_out_max
    expected = min(terms.tokens_usual or task.tokens_out, allowed)
    late, failing, target_ms, worth = weights.late, weights.failing, weights.target_ms, weights.quality
    learned_out, cached_by, made = terms.tokens_out, terms.cached_by, tuple.__new__
    found = []
    for option in options:
        offer = option.offer
        model = offer.model
        quality = believed.get(model, offer.quality)
        tokens_out = min(learned_out.get(model, expected), allowed) if learned_out else expected
        cost = offer.cost_microusd(tokens_in, tokens_out, task.tokens_earlier if model == cached_by else 0)
        utility = worth * quality - microusd_price * cost - failing * option.failing
        if late:
            utility -= late * lateness(option.p50_ms, option.latency_ms, target_ms)
        found.append(made(Prospect, (option, quality, cost, utility)))
    return found


@lru_cache(4_096)      # of models' windows, which change once a second; two logarithms a model would be a fifth of a decision
def lateness(p50_ms: float, p95_ms: float, target_ms: float) -> float:
    """E[(L − T)⁺]/T of a log-normal latency with these quantiles, at most 10; 0 where nothing is known."""
    if p95_ms <= 0 or target_ms <= 0:
        return 0.0
    middle = p50_ms if 0 < p50_ms < p95_ms else p95_ms / 2
    spread = math.log(p95_ms / middle) / 1.645
    above = math.log(middle / target_ms) / spread
    beyond = middle * math.exp(spread * spread / 2) * _normal(above + spread) - target_ms * _normal(above)
    return min(10.0, max(0.0, beyond / target_ms))


def rank(task: Features, able: Sequence[Option], terms: Terms) -> Ranked:
    """The able models in the order to try them; the same inputs make the same order."""
    prospects = prospects_of(task, able, terms)
    prospects.sort(key=_keys(prospects, terms))
    if terms.lead and not terms.order:
        prospects.sort(key=lambda each: each.option.offer.model != terms.lead)
    elif terms.explore and not terms.order and len(prospects) > 1:
        return _explored(prospects, terms)
    return Ranked(prospects)


def _keys(prospects: Sequence[Prospect], terms: Terms) -> _Key:
    if terms.order:
        places = {model: place for place, model in enumerate(terms.order)}
        return lambda each: (places.get(each.option.offer.model, len(places)), each.option.offer.model)
    if terms.mode == "utility":
        return lambda each: (-each.utility, each.cost_microusd, each.option.offer.model)
    if terms.mode == "price":
        return lambda each: (each.cost_microusd, -each.quality, each.option.offer.model)
    if terms.mode == "latency":
        return lambda each: (each.option.untried, each.option.latency_ms, each.cost_microusd, each.option.offer.model)
    if terms.mode == "quality":
        return lambda each: (-each.quality, each.cost_microusd, each.option.offer.model)
    enough = terms.quality_min
    if terms.mode == "lexicographic":
        enough = max(each.quality for each in prospects) - terms.quality_within

    def good_enough_first(each: Prospect) -> tuple[bool, float, float, str]:
        """Good enough ones, cheapest first; then the others, best first: a weaker answer beats none when calls fail."""
        option, quality, cost, _ = each
        if quality >= enough:
            return False, cost, -quality, option.offer.model
        return True, -quality, cost, option.offer.model

    return good_enough_first


def _explored(prospects: list[Prospect], terms: Terms) -> Ranked:
    """With the chance `explore` one of the models little is known of comes first, each as likely; its cost is bounded."""
    best = prospects[0]
    cost_max = EXPLORE_COST_MAX * max(best.cost_microusd, terms.target_microusd)
    little_known = [
        each
        for each in prospects
        if terms.evidence.get(each.option.offer.model, 0.0) < EXPLORE_EVIDENCE and each.cost_microusd <= cost_max
    ]
    if not little_known:
        return Ranked(prospects)
    each_share = terms.explore / len(little_known)
    if terms.draw >= terms.explore:
        return Ranked(prospects, 1.0 - terms.explore + (each_share if best in little_known else 0.0))
    drawn = little_known[min(int(terms.draw / each_share), len(little_known) - 1)]
    if drawn is best:
        return Ranked(prospects, 1.0 - terms.explore + each_share)
    return Ranked([drawn, *(each for each in prospects if each is not drawn)], each_share, explored=True)


def _normal(value: float) -> float:
    return 0.5 * (1.0 + math.erf(value / math.sqrt(2.0)))
