"""Whatever the catalogue, the fleet and the task: what a plan may never say."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import CAPABILITIES, Backend, CascadeRule, Model, Policy, Prices
from schemas.fleet import Circuit, FleetEntry, Gate, GateReason
from schemas.ledger import FailureClass
from schemas.messages import Candidate, Features
from services.preprocessing.features import features
from services.router.beliefs import believed
from services.router.decide import Decision, Limits, decide
from services.router.offers import offers_of, options_of
from services.router.rank import WEIGHTS, Terms
from services.router.terms import Request, terms_of
from shared.catalogue import Catalogue
from shared.prices import cost_max_microusd
from shared.quality import Judged, Knowledge, tier_of
from shared.spend import Standing
from shared.words import sketch
from tests.support.builders import NOW_MS, a_backend, a_catalogue, a_chat, a_fleet_entry, a_model, some_features

NAMES = ("a", "b", "c", "d", "e")
CAPABILITY_SETS = st.lists(st.sampled_from(CAPABILITIES[:3]), unique=True, max_size=3).map(lambda found: tuple(sorted(found)))
CHAINS = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
PRICES = st.decimals(min_value=0, max_value=100, places=3).map(str)


@st.composite
def seldom(draw: st.DrawFn, rare: st.SearchStrategy[Any], usual: Any) -> Any:
    """The rare value one time in five: bars that leave hardly a model would hide what the rank does."""
    return draw(rare) if draw(st.integers(0, 4)) == 4 else usual


@st.composite
def models(draw: st.DrawFn) -> Model:
    return a_model(
        quality=draw(st.floats(0, 1)),
        context_tokens=draw(st.integers(1_000, 50_000)),
        output_tokens_max=draw(st.integers(1, 5_000)),
        capabilities=draw(CAPABILITY_SETS),
        on_context_length=draw(CHAINS),
        on_content_filtered=draw(CHAINS),
    )


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    known = draw(st.dictionaries(st.sampled_from(NAMES), models(), min_size=3))
    backends: dict[str, Backend] = {}
    for name in known:
        for place in draw(st.sampled_from(("x", "xy", "xyz", "z", ""))):
            listed = draw(st.sampled_from((None, *PRICE_LISTS)))
            backend = a_backend(name, draw(PRICES), draw(PRICES)) if listed is None else a_backend(name, prices=listed)
            backends[f"{name}-{place}"] = backend
    return a_catalogue(known, backends)


def steps(*rates: tuple[str, str]) -> list[dict[str, Any]]:
    """Tiers above 500 tokens, 1,000, 1,500 …"""
    return [{"above_tokens": 500 * (n + 1), "input": rate_in, "output": rate_out} for n, (rate_in, rate_out) in enumerate(rates)]


PRICE_LISTS = tuple(
    Prices.model_validate(fields)
    for fields in (
        {"input": "0", "output": "0"},
        {"input": "0.001", "output": "99.999", "reasoning": "100"},
        {"input": "3", "output": "15", "cached_input": "0.3", "cache_write": "3.75", "tiers": steps(("6", "22.5"))},
        {"input": "1.25", "output": "10", "tiers": steps(("2.5", "15"), ("1", "30"), ("9", "0.5"))},
        {"input": "2", "output": "4", "cached_input": "7", "tiers": steps(("1", "1"))},
    )
)


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, FleetEntry]:
    names = draw(st.lists(st.sampled_from([f"{name}-{place}" for name in NAMES for place in "xyz"]), unique=True))
    p95_ms = st.none() | st.floats(1, 20_000)
    times_ms = st.integers(0, 30_000)
    gates = seldom(times_ms.map(lambda ms: Gate(until_ms=ms, reason=GateReason.RATE_LIMITED)), None)
    return {
        name: a_fleet_entry(name, draw(st.sampled_from(list(Circuit))), draw(p95_ms), draw(st.integers(0, 50))).model_copy(
            update={"cooldown_until_ms": draw(times_ms), "gate": draw(gates)}
        )
        for name in names
    }


@st.composite
def tasks(draw: st.DrawFn) -> Features:
    return some_features(
        tokens_in=draw(st.integers(1, 1_000) | st.integers(1, 20_000)),
        tokens_out=draw(st.integers(1, 2_000)),
        tokens_out_max=draw(st.integers(1, 5_000)),
        needs=draw(seldom(CAPABILITY_SETS, ())),
    )


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    return Limits(
        quality_min=draw(st.floats(0, 1)),
        time_left_ms=draw(st.integers(5_000, 20_000)),
        candidates_max=draw(st.integers(1, 4)),
        budget_left_microusd=draw(seldom(st.integers(10_000, 500_000), None)),
        allowed=draw(seldom(st.lists(st.sampled_from(NAMES), unique=True, min_size=2).map(tuple), ())),
        pinned=draw(seldom(st.sampled_from(NAMES), None)),
        stronger_than=draw(seldom(st.lists(st.sampled_from(NAMES), unique=True, max_size=2).map(tuple), ())),
        others_will_do=draw(st.booleans()),
    )


BY_MODEL = st.sampled_from(NAMES)
MODES = ("quality_min", "utility", "lexicographic", "price", "latency", "quality")
CASCADES = st.builds(CascadeRule, threshold=st.none() | st.floats(0, 1), depth_max=st.integers(2, 3))


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    """Wishes, beliefs and exploring, in any combination."""
    return Terms(
        mode=draw(st.sampled_from(MODES)),
        weights=WEIGHTS[draw(st.sampled_from(("interactive", "standard", "batch")))],
        quality_min=draw(st.floats(0, 1)),
        quality_within=draw(st.floats(0, 0.2)),
        microusd_price=draw(st.sampled_from((0.0, 1e-6, 1e-4, 1e-2))),
        target_microusd=draw(st.sampled_from((0.0, 1_000.0))),
        explore=draw(st.sampled_from((0.0, 0.2))),
        draw=draw(st.sampled_from((0.0, 0.05, 0.19, 0.5))),
        believed=draw(st.dictionaries(BY_MODEL, st.floats(0, 1))),
        evidence=draw(st.dictionaries(BY_MODEL, st.floats(0, 100))),
        tokens_out=draw(st.dictionaries(BY_MODEL, st.integers(1, 20_000))),
        lead=draw(seldom(BY_MODEL, "")),
        order=draw(seldom(st.lists(BY_MODEL, unique=True, min_size=1, max_size=3).map(tuple), ())),
        cached_by=draw(seldom(BY_MODEL, "")),
    )


@st.composite
def wishes(draw: st.DrawFn) -> Limits:
    """Limits as a policy, an account and a caller make them."""
    return replace(
        draw(limits()),
        terms=draw(terms()),
        denied=draw(seldom(st.lists(BY_MODEL, unique=True, max_size=2).map(tuple), ())),
        max_price=draw(seldom(st.tuples(st.floats(0, 100), st.floats(0, 100)), None)),
        lane=draw(st.sampled_from(("interactive", "standard", "batch"))),
        cascade=draw(st.none() | CASCADES),
    )


def made(catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits) -> Decision:
    return decide(task, options_of(offers_of(catalogue, NOW_MS), fleet), bounds)


def named(decision: Decision) -> list[Candidate]:
    return [*decision.candidates, *(candidate for fallback in decision.fallbacks for candidate in fallback.candidates)]


@given(catalogues(), fleets(), tasks(), limits())
def test_no_plan_names_a_model_that_cannot_or_may_not_serve(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    for candidate in named(decision):
        model = catalogue.models[candidate.model]
        assert set(task.needs) <= set(model.capabilities)
        assert task.tokens_in + min(task.tokens_out_max, model.output_tokens_max) <= model.context_tokens
        assert candidate.backends
        assert set(candidate.backends) <= set(catalogue.backends_of(candidate.model))
        assert not bounds.allowed or candidate.model in bounds.allowed
        tried = [catalogue.models[name].quality for name in bounds.stronger_than if name in catalogue.models]
        assert candidate.model not in bounds.stronger_than
        is_other = bounds.others_will_do and " other than " in decision.rule
        assert is_other or all(candidate.quality > quality for quality in tried)
    if bounds.pinned and "its fallbacks as configured" not in decision.rule:
        assert {candidate.model for candidate in decision.candidates} <= {bounds.pinned}


@given(catalogues(), fleets(), tasks(), limits())
def test_no_plan_names_a_backend_that_cannot_be_called_before_the_deadline(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    waits = "waits for a probe" in decision.rule
    for entry in (fleet[name] for candidate in named(decision) for name in candidate.backends if name in fleet):
        assert entry.gate is None or entry.gate.until_ms < bounds.deadline_ms
        assert entry.circuit is not Circuit.OPEN or (waits and entry.cooldown_until_ms < bounds.deadline_ms)


@given(catalogues(), fleets(), tasks(), limits())
def test_fallbacks_are_those_configured_in_their_order_and_bigger_where_the_context_was_too_small(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    planned = {candidate.model for candidate in decision.candidates}
    for fallback in decision.fallbacks:
        model = catalogue.models[fallback.model]
        bigger = fallback.failure is FailureClass.CONTEXT_LENGTH
        chain = list(dict.fromkeys(model.on_context_length if bigger else model.on_content_filtered))
        names = [candidate.model for candidate in fallback.candidates]
        assert fallback.model in planned
        assert names == [name for name in chain if name in names]
        assert fallback.model not in names
        assert all(catalogue.models[name].context_tokens > model.context_tokens for name in names if bigger)


@given(catalogues(), fleets(), tasks(), limits())
def test_no_candidate_can_cost_more_than_is_left_whatever_its_backends_charge(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    for candidate in named(made(catalogue, fleet, task, bounds)):
        if bounds.budget_left_microusd is not None:
            assert candidate.cost_max_microusd <= bounds.budget_left_microusd
        tokens_out = min(task.tokens_out_max, catalogue.models[candidate.model].output_tokens_max)
        for name in candidate.backends:
            charged = cost_max_microusd(catalogue.backends[name].prices, task.tokens_in * 5 // 2, tokens_out)
            assert charged <= candidate.cost_max_microusd


@given(catalogues(), fleets(), tasks(), limits())
def test_the_same_inputs_make_the_same_plan_in_whatever_order_they_came(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    reordered = Catalogue(
        version=catalogue.version,
        models=dict(reversed(list(catalogue.models.items()))),
        backends=dict(reversed(list(catalogue.backends.items()))),
        tenants=catalogue.tenants,
        policies=catalogue.policies,
    )
    backwards = dict(reversed(fleet.items()))
    assert made(catalogue, fleet, task, bounds) == made(reordered, backwards, task, bounds)


@given(catalogues(), fleets(), tasks(), limits())
def test_every_model_is_a_candidate_or_beyond_the_limit_or_left_out_for_a_reason(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    chosen = [candidate.model for candidate in decision.candidates]
    excluded = {left_out.model for left_out in decision.excluded}
    assert len(chosen) == len(set(chosen))
    assert not excluded & set(chosen)
    unnamed = len(catalogue.models) - len(excluded) - len(chosen)
    assert unnamed == 0 or len(chosen) >= bounds.candidates_max
    assert (decision.failure is None) == bool(chosen)


@given(catalogues(), fleets(), tasks(), limits())
def test_a_model_good_enough_is_never_behind_a_dearer_or_weaker_one(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    if "its fallbacks as configured" in decision.rule:
        return
    candidates = decision.candidates[: bounds.candidates_max]
    good = [candidate for candidate in candidates if candidate.quality >= bounds.quality_min]
    assert list(candidates[: len(good)]) == good
    assert [candidate.cost_microusd for candidate in good] == sorted(candidate.cost_microusd for candidate in good)
    rest = [candidate.quality for candidate in candidates[len(good) :]]
    assert rest == sorted(rest, reverse=True)


@given(catalogues(), fleets(), tasks(), wishes())
def test_no_wish_no_belief_and_no_exploring_brings_back_what_a_bar_left_out(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    decision = made(catalogue, fleet, task, bounds)
    waits = "waits for a probe" in decision.rule
    for candidate in named(decision):
        model = catalogue.models[candidate.model]
        assert set(task.needs) <= set(model.capabilities)
        assert task.tokens_in + min(task.tokens_out_max, model.output_tokens_max) <= model.context_tokens
        assert not bounds.allowed or candidate.model in bounds.allowed
        assert candidate.model not in bounds.denied
        assert candidate.model not in bounds.stronger_than
        assert not _terms(bounds).order or candidate.model in _terms(bounds).order
        assert bounds.budget_left_microusd is None or candidate.cost_max_microusd <= bounds.budget_left_microusd
        for entry in (fleet[name] for name in candidate.backends if name in fleet):
            assert entry.circuit is not Circuit.OPEN or (waits and entry.cooldown_until_ms < bounds.deadline_ms)


@given(catalogues(), fleets(), tasks(), wishes())
def test_wishes_beliefs_and_draws_leave_the_same_inputs_with_the_same_plan(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits
) -> None:
    options = options_of(offers_of(catalogue, NOW_MS), fleet)
    decision = decide(task, options, bounds)
    assert decide(task, list(reversed(options)), bounds).candidates == decision.candidates
    assert 0.0 < decision.ranked.propensity <= 1.0
    assert decision.ranked.explored <= (_terms(bounds).explore > 0)


@settings(max_examples=300)     # one in twenty begins a cascade
@given(catalogues(), fleets(), tasks(), wishes(), CASCADES)
def test_a_cascade_leads_from_the_first_candidate_to_a_better_one_ten_times_as_dear_within_time_and_budget(
    catalogue: Catalogue, fleet: dict[str, FleetEntry], task: Features, bounds: Limits, rule: CascadeRule
) -> None:
    decision = made(catalogue, fleet, task, replace(bounds, cascade=rule))
    cascade = decision.cascade
    if cascade is None:
        return
    assert len(bounds.stronger_than) + 1 < rule.depth_max
    first, following = decision.ranked.prospects[:2]
    assert (first.option.offer.model, following.option.offer.model) == (cascade.model, cascade.following)
    assert decision.candidates[0].model == cascade.model
    assert cascade.quality > cascade.believed
    assert 10 * first.cost_microusd <= cascade.cost_microusd
    assert first.option.latency_ms + cascade.latency_ms <= bounds.time_left_ms
    left = bounds.budget_left_microusd
    assert left is None or first.cost_microusd + cascade.cost_microusd <= left


@given(st.text(max_size=400), st.integers(50, 20_000), st.sampled_from(MODES[:3]), st.booleans())
def test_a_text_alone_never_forces_the_dearest_model_past_the_budget(
    text: str, left_microusd: int, choose: Any, is_near: bool
) -> None:
    """However much the words speak for the dearest model: what is left of the budget comes before what is believed."""
    knowledge, seen = Knowledge(), features(a_chat(text))
    for offset in range(60):
        model, score = ("large", 1.0) if offset % 2 else ("small", 0.0)
        knowledge.fold(Judged(
            model=model, domain=seen.domain, tier=tier_of(seen.complexity), tenant="acme", score=score, source="feedback/0",
            offset=offset, at_ms=0, buckets=sketch(text),
        ), 0.5)  # fmt: skip
    known = a_catalogue()
    offers = offers_of(known, NOW_MS)
    beliefs = believed(knowledge, [(offer.model, offer.quality) for offer in offers], text, seen, "acme")
    account = Standing(left_microusd, "budget_usd_per_day", is_near=is_near)
    chosen = terms_of(Policy(choose=choose), account, a_chat(text), seen, Request("r1", "standard", "acme"), beliefs)
    bounds = Limits(quality_min=chosen.quality_min, time_left_ms=60_000, budget_left_microusd=left_microusd, terms=chosen)
    decision = decide(seen, options_of(offers, {}), bounds)
    assert all(candidate.cost_max_microusd <= left_microusd for candidate in decision.candidates)
    if is_near and decision.candidates:
        able = [each for each in offers if each.cost_max_microusd(seen.tokens_in, seen.tokens_out_max) <= left_microusd]
        cheapest = min(able, key=lambda each: each.cost_microusd(seen.tokens_in, seen.tokens_out))
        assert decision.candidates[0].model == cheapest.model


def _terms(bounds: Limits) -> Terms:
    assert bounds.terms is not None
    return bounds.terms
