"""What makes one able model better than another: utility, wishes, sessions, splits, exploring, and what was learned."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from schemas.config import Policy, ShadowRule
from schemas.fleet import FleetEntry
from schemas.messages import Chat, Reason
from services.router.beliefs import believed
from services.router.decide import Decision, Limits, decide
from services.router.offers import offers_of, options_of
from services.router.rank import WEIGHTS, Terms, lateness, prospects_of
from services.router.terms import Beliefs, Request, arm_of, shadow_of, terms_of
from shared.catalogue import Catalogue
from shared.quality import Judged, Knowledge
from shared.spend import Standing
from shared.words import sketch
from tests.support.builders import NOW_MS, a_backend, a_catalogue, a_chat, a_fleet_entry, a_model, some_features


def decided(
    terms: Terms | None = None,
    catalogue: Catalogue | None = None,
    fleet: Mapping[str, FleetEntry] | None = None,
    features: Mapping[str, Any] | None = None,
    **limits: Any,
) -> Decision:
    options = options_of(offers_of(catalogue or a_catalogue(), NOW_MS), fleet or {})
    bounds = Limits(**({"quality_min": 0.0, "time_left_ms": 60_000, "terms": terms} | limits))
    return decide(some_features(**(features or {})), options, bounds)


def models(decision: Decision) -> list[str]:
    return [candidate.model for candidate in decision.candidates]


def reasons(decision: Decision) -> dict[str, str]:
    return {excluded.model: excluded.reason for excluded in decision.excluded}


def terms_for(lane: str = "standard", chat: Chat | None = None, account: Standing | None = None, **policy: Any) -> Terms:
    request = Request("r1", lane, "acme")
    return terms_of(Policy(**policy), account or Standing(), chat or a_chat(), some_features(), request, Beliefs())


def test_utility_pays_for_quality_only_what_the_answer_is_worth() -> None:
    dear, cheap = Terms(mode="utility", microusd_price=0.0), Terms(mode="utility", microusd_price=1.0)
    assert models(decided(dear))[0] == "large"
    assert models(decided(cheap))[0] == "small"
    assert decided(dear).rule == "best of 3 able models in quality less cost, lateness and failures"


def test_the_price_of_money_of_the_account_comes_on_top() -> None:
    free = terms_for(choose="utility", answer_worth_usd="1000")
    pressed = terms_for(choose="utility", answer_worth_usd="1000", account=Standing(price=2.0, target_microusd=100.0))
    assert models(decided(free))[0] == "large"
    assert models(decided(pressed))[0] == "small"


def test_lexicographic_takes_the_cheapest_within_reach_of_the_best() -> None:
    assert models(decided(Terms(mode="lexicographic", quality_within=0.25)))[0] == "medium"
    assert models(decided(Terms(mode="lexicographic", quality_within=0.05)))[0] == "large"


@pytest.mark.parametrize(("mode", "first"), [("price", "small"), ("quality", "large"), ("latency", "medium")])
def test_a_caller_may_say_what_counts_first(mode: Any, first: str) -> None:
    figures = (("small", 900.0), ("medium", 300.0), ("large", 800.0))
    fleet = {f"{name}-a": a_fleet_entry(f"{name}-a", p95_ms=ms) for name, ms in figures}
    assert models(decided(Terms(mode=mode), fleet=fleet))[0] == first


def test_the_callers_list_of_models_is_kept_in_its_order_and_bars_still_hold() -> None:
    wished = Terms(mode="utility", order=("large", "small"))
    decision = decided(wished)
    assert (models(decision), decision.rule) == (["large", "small"], "first of 2 able models in the caller's order")
    assert reasons(decision) == {"medium": "it is not among the models the caller named"}
    assert models(decided(wished, features={"needs": ("tools",)})) == ["large"]
    assert models(decided(wished, budget_left_microusd=3_000)) == ["small"]


def test_denied_models_and_those_above_max_price_are_left_out_with_the_reason() -> None:
    assert reasons(decided(denied=("small",)))["small"] == "the caller or the policy denies it"
    priced = decided(max_price=(1.0, 4.0))
    assert set(reasons(priced).values()) == {"it charges more than max_price"}
    failed = decided(denied=("small", "medium", "large")).failure
    assert failed is not None
    assert failed.reason is Reason.NO_ABLE_MODEL


def test_interactive_requests_leave_a_model_that_became_slow_and_batch_stays() -> None:
    quick = {f"{name}-a": a_fleet_entry(f"{name}-a", p95_ms=1_000) for name in ("small", "medium", "large")}
    slow = quick | {"large-a": a_fleet_entry("large-a", p95_ms=30_000)}
    for lane, stays in (("interactive", False), ("batch", True)):
        terms = Terms(mode="utility", weights=WEIGHTS[lane])
        assert models(decided(terms, fleet=quick))[0] == "large"
        assert (models(decided(terms, fleet=slow))[0] == "large") is stays


def test_a_model_whose_calls_fail_comes_behind_one_that_is_a_little_worse() -> None:
    catalogue = a_catalogue({"good": a_model(quality=0.8), "better": a_model(quality=0.82)}, {
        "good-a": a_backend("good"), "better-a": a_backend("better")
    })
    failing = a_fleet_entry("better-a", p95_ms=500, calls=100)
    window = failing.windows[0].model_copy(update={"failed": 60})
    fleet = {"better-a": failing.model_copy(update={"windows": (window,)})}
    assert models(decided(Terms(mode="utility"), catalogue))[0] == "better"
    assert models(decided(Terms(mode="utility"), catalogue, fleet))[0] == "good"


def test_lateness_is_the_expected_excess_over_the_target_in_targets() -> None:
    assert lateness(0, 0, 5_000) == 0.0
    assert lateness(100, 200, 5_000) < 1e-6
    assert lateness(10_000, 10_100, 5_000) == pytest.approx(1.0, abs=0.02)
    assert 0.05 < lateness(4_000, 9_000, 5_000) < 0.5
    assert lateness(1e7, 2e7, 1) == 10.0


def test_a_session_stays_where_its_prompt_is_cached_unless_another_is_cheaper_all_the_same() -> None:
    prices = [{"input": "10", "output": "10", "cached_input": "1"}, {"input": "9", "output": "9"}]
    cached, other = (a_backend(name, prices=price) for name, price in zip(("cached", "other"), prices, strict=True))
    catalogue = a_catalogue(
        {"cached": a_model(quality=0.9), "other": a_model(quality=0.9)}, {"cached-a": cached, "other-a": other}
    )
    long = {"tokens_in": 2_000, "tokens_earlier": 1_900, "tokens_out": 100}
    assert models(decided(Terms(), catalogue, features=long))[0] == "other"
    assert models(decided(Terms(cached_by="cached"), catalogue, features=long))[0] == "cached"


def test_exploring_tries_little_known_models_in_their_share_and_logs_how_likely_that_was() -> None:
    evidence = {"small": 500.0, "medium": 0.0, "large": 3.0}
    counts: Counter[tuple[str, float, bool]] = Counter()
    for place in range(1_000):
        terms = Terms(explore=0.1, draw=place / 1_000, evidence=evidence, target_microusd=5_000)
        ranked = decided(terms).ranked
        counts[ranked.prospects[0].option.offer.model, round(ranked.propensity, 3), ranked.explored] += 1
    assert counts == {("small", 0.9, False): 900, ("medium", 0.05, True): 50, ("large", 0.05, True): 50}


def test_exploring_never_pays_more_than_a_few_times_the_best_models_cost_nor_explores_the_known() -> None:
    assert {decided(Terms(explore=0.2, draw=place / 50)).ranked.explored for place in range(50)} == {False, True}
    dear = a_catalogue(
        {"a": a_model(quality=0.9), "z": a_model(quality=0.9)}, {"a-a": a_backend("a"), "z-a": a_backend("z", "100", "400")}
    )
    assert {decided(Terms(explore=0.2, draw=place / 50), dear).ranked.explored for place in range(50)} == {False}
    known = Terms(explore=0.2, draw=0.0, evidence=dict.fromkeys(("small", "medium", "large"), 99.0))
    assert decided(known).ranked.propensity == 1.0


def test_interactive_requests_and_accounts_near_their_end_are_not_explored_with() -> None:
    assert terms_for("interactive", explore=0.2).explore == 0.0
    assert terms_for("batch", explore=0.2).explore == 0.2
    near = terms_for("batch", account=Standing(is_near=True), explore=0.2, choose="utility", split={"large": 1.0})
    assert (near.mode, near.explore, near.lead) == ("price", 0.0, "")


def test_money_that_is_left_over_explores_four_times_as_much_and_never_more_than_a_fifth() -> None:
    spare, scarce = Standing(price=0.0, target_microusd=500.0), Standing(price=0.1, target_microusd=500.0)
    assert terms_for(account=spare, explore=0.03).explore == pytest.approx(0.12)
    assert terms_for(account=spare, explore=0.1).explore == pytest.approx(0.2)
    assert terms_for(account=scarce, explore=0.03).explore == 0.03
    assert terms_for(explore=0.03).explore == 0.03
    assert terms_for("interactive", account=spare, explore=0.03).explore == 0.0


def test_a_split_gives_each_arm_its_share_and_a_session_its_arm() -> None:
    arms = Counter(arm_of({"large": 1, "small": 3}, Request(f"r{n}", "batch", "acme").draw("split")) for n in range(4_000))
    assert arms["small"] == pytest.approx(3_000, rel=0.05)
    sessions = [terms_for(chat=a_chat(session="s"), split={"large": 1, "small": 1}).lead for _ in range(3)]
    assert len(set(sessions)) == 1
    assert decided(Terms(lead="large")).rule == "large is this request's arm of the policy's split"
    assert models(decided(Terms(lead="large"), features={"needs": ("logprobs",)})) == []
    assert arm_of({}, 0.3) == ""


def test_a_shadow_is_noted_beside_its_share_of_requests() -> None:
    policy = Policy(shadow=ShadowRule(model="large", share=0.3))
    noted = sum(shadow_of(policy, Request(f"r{n}", "batch", "acme")) == "large" for n in range(2_000))
    assert noted == pytest.approx(600, rel=0.12)


def test_what_was_learned_takes_the_place_of_the_catalogues_figure() -> None:
    knowledge = Knowledge()
    task = some_features(domain="law")
    for offset in range(60):
        for model, score in (("small", 1.0), ("large", 0.0)):
            fact = Judged(model, "law", 0, "acme", score, f"verdicts/{model}", offset, NOW_MS, buckets=sketch("Sue him?"))
            knowledge.fold(fact, 0.5)
    beliefs = believed(knowledge, [("small", 0.4), ("medium", 0.7), ("large", 0.9)], "Sue him?", task, "acme")
    assert beliefs.quality["large"] < 0.3 < 0.8 < beliefs.quality["small"]
    assert beliefs.evidence["small"] > 50
    assert "medium" not in beliefs.quality
    assert models(decided(Terms(mode="quality", believed=beliefs.quality))) == ["small", "medium", "large"]


@pytest.mark.parametrize("tokens_out", [20, 900])
def test_a_model_nothing_was_learned_of_is_expected_to_answer_at_the_length_of_the_others(tokens_out: int) -> None:
    backends = {"k": a_backend("known"), "n": a_backend("new")}
    catalogue = a_catalogue(models=dict.fromkeys(("known", "new"), a_model()), backends=backends)
    knowledge, task = Knowledge(), some_features(domain="law", tokens_out=300, tokens_out_max=4_000)
    for offset in range(200):
        knowledge.fold(Judged("known", "law", 1, "acme", 1.0, "verdicts/0", offset, NOW_MS, tokens_out=tokens_out), 0.5)
    beliefs = believed(knowledge, [("known", 0.5), ("new", 0.5)], "Sue him?", task, "acme")
    terms = terms_of(Policy(), Standing(), a_chat(), task, Request("r1", "standard", "acme"), beliefs)
    known, new = prospects_of(task, options_of(offers_of(catalogue, NOW_MS), {}), terms)
    assert new.cost_microusd == pytest.approx(known.cost_microusd, rel=0.1)


def test_wishes_and_beliefs_bring_back_no_model_that_a_bar_left_out() -> None:
    believes = Terms(mode="quality", believed={"small": 1.0}, lead="small", explore=0.2, draw=0.0)
    assert "small" not in models(decided(believes, features={"needs": ("tools",)}))
    assert "small" not in models(decided(believes, allowed=("large",)))
