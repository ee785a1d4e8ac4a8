"""Ranks the models that can serve one task. Pure: no clock, no I/O, no globals, no randomness of its own.

Two steps: filters leave models out, each with its reason; a rank orders the rest. The order of `Bar` is the order of
the filters. When nothing is left, the last bar that any model ran into names the failure: those models came furthest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from schemas.config import Policy
from schemas.messages import Candidate, Excluded, Failure, Features, Reason
from services.router.offers import Option

STAGE = "router"


class Bar(IntEnum):
    """What may stand between a model and a task, in the order it is asked."""

    TENANT = 1
    PINNED = 2
    WEAKER = 3
    CAPABILITY = 4
    CONTEXT = 5
    CIRCUIT = 6
    BUDGET = 7
    TIME = 8


FAILURE_OF = {
    Bar.TENANT: (Reason.NO_ABLE_MODEL, "the tenant may use no model of the catalogue; see tenants.<name>.models"),
    Bar.PINNED: (Reason.NO_ABLE_MODEL, "model: the tenant may not use it; use auto or another one"),
    Bar.WEAKER: (Reason.NO_STRONGER_MODEL, "no stronger model than those that have answered"),
    Bar.CAPABILITY: (Reason.NO_ABLE_MODEL, "no model has every capability the request needs"),
    Bar.CONTEXT: (Reason.CONTEXT_TOO_LONG, "no model's context holds the prompt and max_tokens; shorten either"),
    Bar.CIRCUIT: (Reason.NO_ABLE_MODEL, "every able model's providers are failing at the moment; send it again later"),
    Bar.BUDGET: (Reason.OVER_BUDGET, "every able model could cost more than is left; raise max_cost_usd or lower max_tokens"),
    Bar.TIME: (Reason.NO_TIME_LEFT, "every able model usually takes longer than is left; allow a longer deadline_ms"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a decision beside the task. `stronger_than`: models that have answered already; their better is wanted."""

    quality_min: float
    time_left_ms: int
    candidates_max: int = 3
    budget_left_microusd: int | None = None
    allowed: tuple[str, ...] = ()  # empty: every model
    pinned: str | None = None
    stronger_than: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Candidates, best first, or a failure; `rule` is the sentence a human reads."""

    candidates: tuple[Candidate, ...]
    excluded: tuple[Excluded, ...]
    rule: str
    failure: Failure | None = None


def quality_min_of(policy: Policy, complexity: float) -> float:
    """The quality a task asks for: linear between the policy's figures for the easiest and the hardest task."""
    return round(policy.quality_min + complexity * (policy.quality_min_hard - policy.quality_min), 4)


def decide(task: Features, options: Sequence[Option], limits: Limits) -> Decision:
    """Cheapest model that is good enough first; where none is, the best first. Ties: cost, quality, name."""
    quality_tried = _quality_tried(options, limits.stronger_than)
    able: list[Option] = []
    excluded: list[Excluded] = []
    furthest = Bar.TENANT
    for option in options:
        barred = _barred(option, task, limits, quality_tried)
        if barred is None:
            able.append(option)
        else:
            bar, reason = barred
            excluded.append(Excluded(model=option.offer.model, reason=reason))
            furthest = max(furthest, bar)
    if not able:
        return _nothing(tuple(excluded), furthest, limits)
    able.sort(key=lambda option: _rank(option, task, limits.quality_min))
    candidates = tuple(_candidate(option, task) for option in _chosen(able, limits.candidates_max))
    return Decision(candidates, tuple(excluded), _rule(able, limits))


def _barred(option: Option, task: Features, limits: Limits, quality_tried: float) -> tuple[Bar, str] | None:
    """The first bar this model does not pass, with the sentence for the plan."""
    offer = option.offer
    if limits.allowed and offer.model not in limits.allowed:
        return Bar.TENANT, "the tenant may not use it"
    if limits.pinned is not None and offer.model != limits.pinned:
        return Bar.PINNED, f"the caller pinned {limits.pinned}"
    if limits.stronger_than and offer.quality <= quality_tried:
        return Bar.WEAKER, f"not stronger than {', '.join(limits.stronger_than)}"
    if not offer.capabilities.issuperset(task.needs):
        return Bar.CAPABILITY, f"lacks {', '.join(need for need in task.needs if need not in offer.capabilities)}"
    tokens = task.tokens_in + offer.tokens_out_max(task.tokens_out_max)
    if tokens > offer.context_tokens:
        return Bar.CONTEXT, f"its context of {offer.context_tokens} tokens cannot hold {tokens}"
    if not option.usable:
        return Bar.CIRCUIT, "every circuit is open" if offer.backends else "it has no backend; is its key set?"
    left_microusd = limits.budget_left_microusd
    if left_microusd is not None:
        cost_max_microusd = offer.cost_max_microusd(task.tokens_in, task.tokens_out_max)
        if cost_max_microusd > left_microusd:
            return Bar.BUDGET, f"may cost {cost_max_microusd} micro-USD, {left_microusd} are left"
    if option.latency_ms > limits.time_left_ms and not option.untried:
        return Bar.TIME, f"its p95 is {option.latency_ms} ms, {limits.time_left_ms} ms are left"
    return None


def _rank(option: Option, task: Features, quality_min: float) -> tuple[bool, float, float, str]:
    """Good enough ones first, cheapest first; then the others, best first: a weaker answer beats none when calls fail."""
    offer = option.offer
    cost_microusd = offer.cost_microusd(task.tokens_in, task.tokens_out)
    if offer.quality >= quality_min:
        return False, cost_microusd, -offer.quality, offer.model
    return True, -offer.quality, cost_microusd, offer.model


def _candidate(option: Option, task: Features) -> Candidate:
    offer = option.offer
    return Candidate(
        model=offer.model,
        backends=option.usable,
        quality=offer.quality,
        cost_microusd=offer.cost_microusd(task.tokens_in, task.tokens_out),
        cost_max_microusd=offer.cost_max_microusd(task.tokens_in, task.tokens_out_max),
        latency_ms=option.latency_ms,
    )


def _chosen(ranked: list[Option], candidates_max: int) -> list[Option]:
    """The first ones. A model that may only be probed is no last resort: a firm one follows it, over the limit if need be."""
    chosen, rest = ranked[:candidates_max], ranked[candidates_max:]
    if chosen[-1].probing:
        chosen += [option for option in rest if not option.probing][:1]
    return chosen


def _rule(ranked: list[Option], limits: Limits) -> str:
    quality_min = limits.quality_min
    good_enough = sum(option.offer.quality >= quality_min for option in ranked)
    if limits.pinned is not None:
        return f"{limits.pinned} was pinned by the caller"
    than = f" stronger than {', '.join(limits.stronger_than)}" if limits.stronger_than else ""
    if not good_enough:
        return f"best of {len(ranked)} able models{than}; none reaches quality {quality_min:.2f}"
    return f"cheapest of {good_enough} able models{than} with quality ≥ {quality_min:.2f}"


def _nothing(excluded: tuple[Excluded, ...], furthest: Bar, limits: Limits) -> Decision:
    reason, message = FAILURE_OF[furthest]
    if not excluded:
        message = "the catalogue has no models; apply a baton.yaml with some"
    if limits.stronger_than:
        reason = Reason.NO_STRONGER_MODEL
        message = message if furthest is Bar.WEAKER else f"no stronger model: {message}"
    return Decision((), excluded, f"no model: {message}", Failure(reason=reason, stage=STAGE, message=message))


def _quality_tried(options: Iterable[Option], tried: tuple[str, ...]) -> float:
    """The best quality that has answered already; a model that has left the catalogue counts as 0."""
    return max((option.offer.quality for option in options if option.offer.model in tried), default=0.0) if tried else 0.0
