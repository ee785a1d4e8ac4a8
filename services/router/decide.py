"""Ranks the models that can serve one task. Pure: no clock, no I/O, no globals, no randomness of its own.

Two steps: filters leave models out, each with its reason; a rank orders the rest. The order of `Bar` is the order of
the filters. When nothing is left, the last bar that any model ran into names the failure: those models came furthest.
Beside the candidates stand the configured fallbacks of each, for the two failures that other models can mend.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from schemas.config import CascadeRule, Policy, ShadowRule
from schemas.ledger import FailureClass
from schemas.messages import Candidate, Cascade, Excluded, Failure, Fallback, Features, Reason
from schemas.spend import SpendEntry, Spent
from services.router.cascades import begun
from services.router.fallbacks import chain, chains, sentence
from services.router.offers import Option
from services.router.rank import NOTHING_RANKED, Prospect, Ranked, Terms, prospect, rank
from shared.spend import Standing, periods_at

STAGE = "router"


class Bar(IntEnum):
    """What may stand between a model and a task, in the order it is asked."""

    TENANT = 1
    DENIED = 2
    PINNED = 3
    WEAKER = 4
    CAPABILITY = 5
    CERTIFICATE = 6
    CONTEXT = 7
    PRICE = 8
    BACKEND = 9
    CIRCUIT = 10
    BUDGET = 11
    TIME = 12


FAILURE_OF = {
    Bar.TENANT: (Reason.NO_ABLE_MODEL, "the tenant may use no model of the catalogue; see tenants.<name>.models"),
    Bar.DENIED: (Reason.NO_ABLE_MODEL, "deny and models leave no model the tenant may use; name fewer, or others"),
    Bar.PRICE: (Reason.NO_ABLE_MODEL, "max_price: every able model charges more; raise it"),
    Bar.PINNED: (Reason.NO_ABLE_MODEL, "model: the tenant may not use it; use auto or another one"),
    Bar.WEAKER: (Reason.NO_STRONGER_MODEL, "no stronger model than those that have answered"),
    Bar.CAPABILITY: (Reason.NO_ABLE_MODEL, "no model has every capability the request needs"),
    Bar.CERTIFICATE: (Reason.NO_ABLE_MODEL, "policies.<name>.require_certified: no able model has passed; run baton certify"),
    Bar.CONTEXT: (Reason.CONTEXT_TOO_LONG, "no model's context holds the prompt and max_tokens; shorten either"),
    Bar.BACKEND: (Reason.NO_ABLE_MODEL, "no provider of an able model is configured here; set its key and run baton apply"),
    Bar.CIRCUIT: (Reason.NO_ABLE_MODEL, "every able model's providers are failing at the moment; send it again later"),
    Bar.BUDGET: (Reason.OVER_BUDGET, "every able model could cost more than is left; raise max_cost_usd or lower max_tokens"),
    Bar.TIME: (Reason.NO_TIME_LEFT, "every able model usually takes longer than is left; allow a longer deadline_ms"),
}


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class Limits:
    """What bounds a decision beside the task. `stronger_than`: models that have answered already; their better is wanted.

    `others_will_do`: the last of them failed a check. Where none is better, or what was learned takes the failed one for the
    best, any other will do: `other_than` then stands in place of `stronger_than`.
    """

    quality_min: float
    time_left_ms: int
    now_ms: int = 0
    candidates_max: int = 3
    budget_left_microusd: int | None = None
    budget_field: str = ""  # the account's budget, where it leaves less than the request's own
    allowed: tuple[str, ...] = ()  # empty: every model
    pinned: str | None = None
    stronger_than: tuple[str, ...] = ()
    others_will_do: bool = False
    other_than: tuple[str, ...] = ()
    certified_for: tuple[str, ...] = ()  # what a model must have been tested in
    denied: tuple[str, ...] = ()
    max_price: tuple[float, float] | None = None  # USD per million tokens, input and output
    lane: str = "standard"
    cascade: CascadeRule | None = None
    terms: Terms | None = None  # None: cheapest with quality_min, by the catalogue's figures

    @property
    def deadline_ms(self) -> int:
        return self.now_ms + self.time_left_ms


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class Decision:
    """Candidates, best first, with their fallbacks, or a failure; `rule` is the sentence a human reads."""

    candidates: tuple[Candidate, ...]
    excluded: tuple[Excluded, ...]
    rule: str
    failure: Failure | None = None
    fallbacks: tuple[Fallback, ...] = ()
    ranked: Ranked = NOTHING_RANKED
    cascade: Cascade | None = None


def budget_left(budget_microusd: int | None, spent_microusd: int, account: Standing) -> tuple[int | None, str]:
    """What one more call may cost: what the request or, if that is less, its account has left; then with the account's field."""
    own = None if budget_microusd is None else budget_microusd - spent_microusd
    if account.left_microusd is None or (own is not None and own <= account.left_microusd):
        return own, ""
    return account.left_microusd, account.field


def shadow_left(
    own: int | None, rule: ShadowRule | None, policy: str, account: Standing, spent: SpendEntry | None, now_ms: int
) -> tuple[int, str]:
    """What a shadow may cost, and the field that binds: its share of the day's spend, and nothing of an account that is nearly
    used up. `own`: what it may cost by itself."""
    if account.is_near:
        return 0, account.field
    is_today = spent is not None and spent.day.period == periods_at(now_ms).day
    day = spent.day if spent is not None and is_today else Spent()
    share = rule.spend_share if rule else 0.0
    left = max(0, int(share * (day.microusd + day.unknown_microusd)) - day.shadow_microusd)
    return (own, "") if own is not None and own <= left else (left, f"policies.{policy}.shadow.spend_share")


def quality_min_of(policy: Policy, complexity: float) -> float:
    """The quality a task asks for: linear between the policy's figures for the easiest and the hardest task."""
    return round(policy.quality_min + complexity * (policy.quality_min_hard - policy.quality_min), 4)


def decide(task: Features, options: Sequence[Option], limits: Limits) -> Decision:
    """The able models as `rank` orders them. No wish, however it is made, brings back a model that a bar has left out.

    A model whose circuits are all open is planned only where no other is left and a probe is due before the deadline: the
    plan is parked then. A pinned model too small for the prompt gives way to its configured fallbacks, in their order.
    """
    if limits.terms is None:
        limits = replace(limits, terms=Terms(quality_min=limits.quality_min))
    in_time = [option.until(limits.deadline_ms) if option.gated else option for option in options]
    sifted = _sift(task, in_time, limits)
    if limits.others_will_do and not sifted.able:
        limits = replace(limits, stronger_than=(), other_than=limits.stronger_than)
        sifted = _sift(task, in_time, limits)
    ranked, rule = _choice(task, sifted, limits)
    if not ranked.prospects:
        sifted = _sift(task, [option.waiting(limits.deadline_ms) for option in in_time], limits)
        ranked, rule = _choice(task, sifted, limits)
        rule += "; every circuit is open, so it waits for a probe"
    return _planned(task, ranked, sifted, rule, limits) if ranked.prospects else _nothing(sifted, limits)


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class _Sifted:
    """Every option, those that passed all bars, and the others with the bar and the reason."""

    options: Sequence[Option]
    able: Sequence[Option]
    barred: Sequence[tuple[str, Bar, str]]
    quality_tried: float

    def excluded(self, chosen: Iterable[Option] = ()) -> tuple[Excluded, ...]:
        if not self.barred:
            return ()
        names = {option.offer.model for option in chosen}
        return tuple(Excluded(model=model, reason=reason) for model, _, reason in self.barred if model not in names)

    def bar_of(self, model: str | None) -> Bar | None:
        return next((bar for barred, bar, _ in self.barred if barred == model), None)


def _sift(task: Features, options: Sequence[Option], limits: Limits) -> _Sifted:
    quality_tried, is_choosy = _quality_tried(options, limits), _is_choosy(limits)
    able: list[Option] = []
    barred: list[tuple[str, Bar, str]] = []
    for option in options:
        found = _unwanted(option, limits, quality_tried) if is_choosy else None
        found = found or _unfit(option, task, limits)
        if found is None:
            able.append(option)
        else:
            barred.append((option.offer.model, *found))
    return _Sifted(options, able, barred, quality_tried)


def _choice(task: Features, sifted: _Sifted, limits: Limits) -> tuple[Ranked, str]:
    """The models that may be planned, best first, and the rule that ordered them; none where every one is barred."""
    terms = _terms(limits)
    if sifted.able:
        ranked = rank(task, sifted.able, terms)
        return ranked, _rule(ranked, limits)
    rule = f"{limits.pinned} was pinned by the caller, but its context is too small: its fallbacks as configured"
    return Ranked([prospect(task, option, terms) for option in _instead_of_pinned(task, sifted, limits)]), rule


def _planned(task: Features, ranked: Ranked, sifted: _Sifted, rule: str, limits: Limits) -> Decision:
    cascade = None
    if limits.cascade is not None and sifted.able:
        depth = len(limits.stronger_than or limits.other_than) + 1
        left = limits.time_left_ms, limits.budget_left_microusd
        ranked, cascade = begun(ranked, _terms(limits), limits.cascade, *left, depth)
        rule += f"; {cascade.model} first, and {cascade.following} if its answer will not do" if cascade else "; no cascade pays"
    firsts = _chosen(ranked.prospects, limits.candidates_max) if sifted.able else ranked.prospects
    chosen = [each.option for each in firsts]
    fallbacks = tuple(_fallbacks(task, chosen, sifted, limits))
    return Decision(
        candidates=tuple(_candidate(each, task) for each in firsts),
        excluded=sifted.excluded(chosen),
        rule=rule + "".join(sentence(fallback) for fallback in fallbacks),
        fallbacks=fallbacks,
        ranked=ranked,
        cascade=cascade,
    )


def _barred(option: Option, task: Features, limits: Limits, quality_tried: float) -> tuple[Bar, str] | None:
    """The first bar this model does not pass, with the sentence for the plan."""
    return _unwanted(option, limits, quality_tried) or _unfit(option, task, limits)


def _is_choosy(limits: Limits) -> bool:
    """Whether anything but the task says which models will do."""
    named = limits.allowed or limits.denied or limits.stronger_than or limits.other_than or _terms(limits).order
    return bool(named) or limits.pinned is not None


def _unwanted(option: Option, limits: Limits, quality_tried: float) -> tuple[Bar, str] | None:
    """What tenant, policy, caller and earlier answers leave out."""
    model, terms = option.offer.model, _terms(limits)
    if limits.allowed and model not in limits.allowed:
        return Bar.TENANT, "the tenant may not use it"
    if model in limits.denied:
        return Bar.DENIED, "the caller or the policy denies it"
    if terms.order and model not in terms.order:
        return Bar.DENIED, "it is not among the models the caller named"
    if limits.pinned is not None and model != limits.pinned:
        return Bar.PINNED, f"the caller pinned {limits.pinned}"
    if limits.stronger_than and (model in limits.stronger_than or terms.quality_of(option) <= quality_tried):
        return Bar.WEAKER, f"not stronger than {', '.join(limits.stronger_than)}"
    if model in limits.other_than:
        return Bar.WEAKER, "it has answered, and failed the checks"
    return None


def _unfit(option: Option, task: Features, limits: Limits) -> tuple[Bar, str] | None:
    """What the task, its money and its time leave out."""
    offer = option.offer
    if task.needs and not offer.capabilities.issuperset(task.needs):
        return Bar.CAPABILITY, f"lacks {', '.join(need for need in task.needs if need not in offer.capabilities)}"
    if limits.certified_for and not offer.certified.issuperset(limits.certified_for):
        untested = ", ".join(each for each in limits.certified_for if each not in offer.certified)
        return Bar.CERTIFICATE, f"is not certified for {untested}"
    tokens = task.tokens_in + offer.tokens_out_max(task.tokens_out_max)
    if tokens > offer.context_tokens:
        return Bar.CONTEXT, f"its context of {offer.context_tokens} tokens cannot hold {tokens}"
    if limits.max_price is not None and not offer.charges_at_most(*limits.max_price):
        return Bar.PRICE, "it charges more than max_price"
    if not offer.backends:
        return Bar.BACKEND, "it has no backend; is its key set?"
    if not option.usable:
        shut = "no provider may be called before the deadline" if option.gated else "every circuit is open"
        return Bar.CIRCUIT, shut
    left_microusd = limits.budget_left_microusd
    if left_microusd is not None:
        cost_max_microusd = offer.cost_max_microusd(task.tokens_in, task.tokens_out_max)
        if cost_max_microusd > left_microusd:
            return Bar.BUDGET, f"may cost {cost_max_microusd} micro-USD, {left_microusd} are left"
    latency_ms = option.latency_ms if limits.lane == "standard" else _slow_ms(option, limits.lane)
    if latency_ms > limits.time_left_ms and not option.untried:
        return Bar.TIME, f"its {_PERCENTILE.get(limits.lane, 'p95')} is {latency_ms} ms, {limits.time_left_ms} ms are left"
    return None


_PERCENTILE = {"interactive": "p99", "batch": "p50"}


def _slow_ms(option: Option, lane: str) -> int:
    """The latency that must fit into the time left where it is not the p95: few interactive requests may miss it, half of a
    batch's."""
    return (option.p99_ms if lane == "interactive" else option.p50_ms) or option.latency_ms


def _candidate(each: Prospect, task: Features) -> Candidate:
    offer = each.option.offer
    return Candidate(
        model=offer.model,
        backends=each.option.usable,
        quality=each.quality,
        cost_microusd=each.cost_microusd,
        cost_max_microusd=offer.cost_max_microusd(task.tokens_in, task.tokens_out_max),
        latency_ms=each.option.latency_ms,
    )


def _terms(limits: Limits) -> Terms:
    assert limits.terms is not None, "decide sets them"
    return limits.terms


def _chosen(ranked: Sequence[Prospect], candidates_max: int) -> list[Prospect]:
    """The first ones. One that may only be probed, or not yet called, is no last resort: a firm one follows, over the limit."""
    chosen, rest = list(ranked[:candidates_max]), ranked[candidates_max:]
    if not chosen[-1].option.firm:
        chosen += [each for each in rest if each.option.firm][:1]
    return chosen


def _fallbacks(task: Features, chosen: Sequence[Option], sifted: _Sifted, limits: Limits) -> Iterator[Fallback]:
    terms = _terms(limits)
    for model, failure, able in chains(chosen, sifted.options, _stands_in(task, sifted, limits)):
        candidates = tuple(_candidate(prospect(task, each, terms), task) for each in able)
        yield Fallback(model=model, failure=failure, candidates=candidates)


def _instead_of_pinned(task: Features, sifted: _Sifted, limits: Limits) -> list[Option]:
    if limits.pinned is None or sifted.bar_of(limits.pinned) is not Bar.CONTEXT:
        return []
    pinned = next(option for option in sifted.options if option.offer.model == limits.pinned)
    return chain(pinned, FailureClass.CONTEXT_LENGTH, sifted.options, _stands_in(task, sifted, limits))


def _stands_in(task: Features, sifted: _Sifted, limits: Limits) -> Callable[[Option], bool]:
    """Whether a model of a chain is able. Whoever pins a model gets its chains, too."""
    return lambda option: _barred(option, task, replace(limits, pinned=None), sifted.quality_tried) is None


_ORDERS = {"price": "cheapest", "latency": "fastest", "quality": "best"}


def _rule(ranked: Ranked, limits: Limits) -> str:
    terms, able = _terms(limits), len(ranked.prospects)
    first = ranked.prospects[0].option.offer.model
    if limits.pinned is not None:
        return f"{limits.pinned} was pinned by the caller"
    than = _than(limits)
    if terms.order:
        return f"first of {able} able models{than} in the caller's order"
    if terms.lead == first:
        return f"{first} is asked on, {limits.stronger_than[-1]} was not sure enough" if limits.stronger_than else (
            f"{first} is this request's arm of the policy's split"
        )
    if ranked.explored:
        return f"{first} is tried to learn how good it is"
    if terms.mode in _ORDERS:
        return f"{_ORDERS[terms.mode]} of {able} able models{than}, as the caller asked"
    if terms.mode == "utility":
        return f"best of {able} able models{than} in quality less cost, lateness and failures"
    if terms.mode == "lexicographic":
        return f"cheapest of {able} able models{than} within {terms.quality_within:.2f} of the best quality"
    good_enough = sum(each.quality >= terms.quality_min for each in ranked.prospects)
    if not good_enough:
        return f"best of {able} able models{than}; none reaches quality {terms.quality_min:.2f}"
    return f"cheapest of {good_enough} able models{than} with quality ≥ {terms.quality_min:.2f}"


def _than(limits: Limits) -> str:
    if limits.other_than:
        return f" other than {', '.join(limits.other_than)}"
    return f" stronger than {', '.join(limits.stronger_than)}" if limits.stronger_than else ""


def _nothing(sifted: _Sifted, limits: Limits) -> Decision:
    furthest = max((bar for _, bar, _ in sifted.barred), default=Bar.TENANT)
    reason, message = FAILURE_OF[furthest]
    if not sifted.barred:
        message = "the catalogue has no models; apply a baton.yaml with some"
    if furthest is Bar.BUDGET and limits.budget_field:
        message = f"{limits.budget_field}: every able model could cost more than is left; raise it, or wait for the next period"
    if limits.other_than and furthest is Bar.WEAKER:
        message = "no other model than those that have answered"
    if limits.stronger_than or limits.other_than:
        reason = Reason.NO_STRONGER_MODEL
        message = message if furthest is Bar.WEAKER else f"no stronger model: {message}"
    failure = Failure(reason=reason, stage=STAGE, message=message)
    return Decision((), sifted.excluded(), f"no model: {message}", failure)


def _quality_tried(options: Iterable[Option], limits: Limits) -> float:
    """The best quality that has answered already; a model that has left the catalogue counts as 0."""
    tried, terms = limits.stronger_than, _terms(limits)
    return max((terms.quality_of(option) for option in options if option.offer.model in tried), default=0.0) if tried else 0.0
