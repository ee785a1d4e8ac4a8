"""The router: which models may answer a task, in which order, at what cost, and why the others may not."""

from collections.abc import Mapping
from typing import Any

import pytest

from schemas.config import Policy, Prices, Tenant
from schemas.envelope import Envelope
from schemas.fleet import Circuit, FleetEntry, Gate, GateReason
from schemas.ledger import FailureClass, Usage
from schemas.messages import Escalation, Lane, Plan, Reason, Task
from schemas.topology import PLANS
from services.router.decide import Decision, Limits, decide, quality_min_of
from services.router.main import Router
from services.router.offers import offers_of, options_of
from shared.catalogue import Catalogue
from shared.codec import decode, encode
from shared.outcome import Out
from shared.prices import DAY_MS, cost_microusd
from tests.support.builders import (
    NOW_MS,
    REQUEST_ID,
    ManualClock,
    a_backend,
    a_catalogue,
    a_chat,
    a_context,
    a_failure,
    a_fleet_entry,
    a_model,
    a_task,
    an_answer,
    an_envelope,
    an_escalation,
    some_features,
)


def decided(
    catalogue: Catalogue | None = None,
    fleet: Mapping[str, FleetEntry] | None = None,
    features: Mapping[str, Any] | None = None,
    **limits: Any,
) -> Decision:
    options = options_of(offers_of(catalogue or a_catalogue(), NOW_MS), fleet or {})
    return decide(some_features(**(features or {})), options, Limits(**({"quality_min": 0.0, "time_left_ms": 60_000} | limits)))


def models(decision: Decision) -> list[str]:
    return [candidate.model for candidate in decision.candidates]


def reasons(decision: Decision) -> dict[str, str]:
    return {excluded.model: excluded.reason for excluded in decision.excluded}


def failed_for(decision: Decision) -> Reason:
    assert decision.failure is not None
    assert decision.candidates == ()
    return decision.failure.reason


def fleet_of(*entries: FleetEntry) -> dict[str, FleetEntry]:
    return {entry.backend: entry for entry in entries}


def opened(backend: str, cooldown_until_ms: int) -> FleetEntry:
    return a_fleet_entry(backend, Circuit.OPEN).model_copy(update={"cooldown_until_ms": cooldown_until_ms})


def gated(backend: str, until_ms: int) -> FleetEntry:
    return a_fleet_entry(backend).model_copy(update={"gate": Gate(until_ms=until_ms, reason=GateReason.RATE_LIMITED)})


def planned(payload: Task | Escalation, *, id: str = "", catalogue: Catalogue | None = None, **envelope: Any) -> Out:
    router = Router(lambda: catalogue or a_catalogue(), dict, ManualClock())
    asked: Any = an_envelope(payload, id=id, **envelope)
    (out,) = router.handle(asked, a_context()).outputs
    assert isinstance(out.value, Envelope)
    assert decode(out.topic, encode(out.topic, out.value)) == out.value
    return out


def plan_of(out: Out) -> Plan:
    assert isinstance(out.value, Envelope)
    assert isinstance(out.value.payload, Plan)
    return out.value.payload


def test_the_cheapest_model_that_is_good_enough_comes_first_then_the_next_cheapest() -> None:
    decision = decided()
    assert models(decision) == ["small", "medium", "large"]
    assert decision.rule == "cheapest of 3 able models with quality ≥ 0.00"


def test_models_below_the_wanted_quality_follow_the_good_ones_best_first() -> None:
    decision = decided(quality_min=0.8)
    assert models(decision) == ["large", "medium", "small"]
    assert decision.rule == "cheapest of 1 able models with quality ≥ 0.80"


def test_where_no_model_is_good_enough_the_best_comes_first_and_the_rule_says_so() -> None:
    decision = decided(quality_min=0.95, candidates_max=2)
    assert models(decision) == ["large", "medium"]
    assert decision.rule == "best of 3 able models; none reaches quality 0.95"


def test_ties_are_broken_by_cost_then_quality_then_name() -> None:
    same = {name: a_model(quality=quality) for name, quality in (("b", 0.5), ("a", 0.5), ("c", 0.6))}
    assert models(decided(a_catalogue(same, {f"{name}-a": a_backend(name) for name in same}))) == ["c", "a", "b"]


def test_a_model_that_lacks_a_capability_is_left_out_with_the_reason() -> None:
    decision = decided(features={"needs": ("tools", "vision")})
    assert models(decision) == ["large"]
    assert reasons(decision) == {"small": "lacks tools, vision", "medium": "lacks vision"}


def test_what_no_model_can_do_fails_as_such() -> None:
    assert failed_for(decided(features={"needs": ("logprobs",)})) is Reason.NO_ABLE_MODEL


def test_prompt_and_output_must_fit_the_context() -> None:
    decision = decided(features={"tokens_in": 8_000})
    assert models(decision) == ["large"]
    assert reasons(decision)["small"] == "its context of 8192 tokens cannot hold 9000"
    assert failed_for(decided(features={"tokens_in": 200_000})) is Reason.CONTEXT_TOO_LONG


def test_output_beyond_what_a_model_can_write_does_not_count_against_its_context() -> None:
    modest = a_catalogue({"small": a_model(output_tokens_max=100)})
    assert models(decided(modest, features={"tokens_in": 8_000, "tokens_out_max": 4_096})) == ["small"]


def test_a_tenant_gets_only_its_models_and_a_pinned_model_stands_alone() -> None:
    assert models(decided(allowed=("medium", "large"))) == ["medium", "large"]
    pinned = decided(pinned="medium")
    assert models(pinned) == ["medium"]
    assert pinned.rule == "medium was pinned by the caller"
    assert failed_for(decided(pinned="medium", allowed=("small",))) is Reason.NO_ABLE_MODEL


def test_a_model_is_out_only_when_every_one_of_its_circuits_is_open() -> None:
    two = a_catalogue({"small": a_model()}, {"small-a": a_backend(), "small-b": a_backend()})
    half = decided(two, fleet_of(a_fleet_entry("small-a", Circuit.OPEN)))
    assert half.candidates[0].backends == ("small-b",)
    none = decided(two, fleet_of(opened("small-a", 60_000), opened("small-b", 90_000)))
    assert failed_for(none) is Reason.NO_ABLE_MODEL
    assert reasons(none) == {"small": "every circuit is open"}


UNSERVED = a_catalogue({"small": a_model(), "large": a_model(capabilities=("tools",))}, {"small-a": a_backend()})
"""Nobody serves `large`: the key of its provider is not set."""


@pytest.mark.parametrize("question", [{"pinned": "large"}, {"features": {"needs": ("tools",)}}, {"denied": ("small",)}])
def test_where_an_able_model_has_no_provider_the_fix_is_said_and_nobody_is_told_to_send_it_later(
    question: dict[str, Any],
) -> None:
    decision = decided(UNSERVED, **question)
    assert failed_for(decision) is Reason.NO_ABLE_MODEL
    assert decision.rule == "no model: no provider of an able model is configured here; set its key and run baton apply"
    assert reasons(decision)["large"] == "it has no backend; is its key set?"


def test_where_one_able_model_has_no_provider_and_the_other_ones_are_failing_it_may_be_sent_later() -> None:
    decision = decided(UNSERVED, fleet_of(opened("small-a", 90_000)))
    assert failed_for(decision) is Reason.NO_ABLE_MODEL
    assert decision.rule.endswith("providers are failing at the moment; send it again later")


def test_where_every_circuit_is_open_the_plan_waits_for_the_probes_that_are_due_in_time() -> None:
    fleet = fleet_of(opened("small-a", 90_000), opened("medium-a", 59_999), opened("large-a", 1_000))
    decision = decided(fleet=fleet)
    assert models(decision) == ["medium", "large"]
    assert decision.rule.endswith("every circuit is open, so it waits for a probe")
    assert reasons(decision) == {"small": "every circuit is open"}


def test_a_model_that_can_be_called_now_is_never_left_for_one_that_must_be_waited_for() -> None:
    decision = decided(fleet=fleet_of(opened("small-a", 1_000), opened("medium-a", 1_000)))
    assert models(decision) == ["large"]
    assert "waits" not in decision.rule


def test_waiting_is_no_way_around_another_bar() -> None:
    fleet = fleet_of(*(opened(f"{name}-a", 1_000) for name in ("small", "medium", "large")))
    assert failed_for(decided(fleet=fleet, budget_left_microusd=10)) is Reason.OVER_BUDGET


def test_a_gate_that_opens_before_the_deadline_is_waited_for_and_a_later_one_is_not() -> None:
    fleet = fleet_of(gated("small-a", 59_999), gated("medium-a", 60_000))
    decision = decided(fleet=fleet)
    assert models(decision) == ["small", "large"]
    assert reasons(decision) == {"medium": "no provider may be called before the deadline"}
    assert models(decided(fleet=fleet, candidates_max=1)) == ["small", "large"], "one behind a gate is no last resort"


def test_only_the_backend_behind_the_gate_is_left_out() -> None:
    two = a_catalogue({"small": a_model()}, {"small-a": a_backend(), "small-b": a_backend()})
    assert decided(two, fleet_of(gated("small-a", 60_000))).candidates[0].backends == ("small-b",)


def test_an_open_circuit_behind_a_long_gate_is_not_waited_for() -> None:
    alone = a_catalogue({"small": a_model()})
    entry = opened("small-a", 1_000).model_copy(update={"gate": Gate(until_ms=60_000, reason=GateReason.CREDENTIAL)})
    assert failed_for(decided(alone, fleet_of(entry))) is Reason.NO_ABLE_MODEL


def test_a_half_open_model_may_be_probed_but_is_never_the_last_resort() -> None:
    probing = fleet_of(a_fleet_entry("small-a", Circuit.HALF_OPEN))
    assert models(decided(fleet=probing, candidates_max=1)) == ["small", "medium"]
    alone = a_catalogue({"small": a_model()})
    assert models(decided(alone, probing, candidates_max=1)) == ["small"]


def test_a_model_that_could_cost_more_than_is_left_is_left_out() -> None:
    price = a_catalogue().backends["small-a"].prices
    bound = decided().candidates[0].cost_max_microusd
    assert bound == 50 + 800  # 250 tokens in at 0.2, 1,000 out at 0.8
    assert cost_microusd(price, Usage(tokens_in=250, tokens_out=1000)) <= bound
    assert models(decided(budget_left_microusd=bound)) == ["small"]
    broke = decided(budget_left_microusd=bound - 1)
    assert failed_for(broke) is Reason.OVER_BUDGET
    assert reasons(broke)["small"] == "may cost 850 micro-USD, 849 are left"


def test_costs_are_bounded_by_the_dearest_backend_and_expected_at_the_mean() -> None:
    two = a_catalogue(
        {"small": a_model()},
        {"small-a": a_backend(price_in="1", price_out="1"), "small-b": a_backend(price_in="3", price_out="3")},
    )
    (candidate,) = decided(two).candidates
    assert candidate.cost_microusd == (100 + 200) * 2
    assert candidate.cost_max_microusd == (250 + 1000) * 3


def test_the_bound_holds_for_the_dearest_tier_that_may_be_reached_and_for_every_kind_of_token() -> None:
    tier = {"above_tokens": 1_000, "input": "2", "output": "8", "cache_write": "2.5"}
    rates = Prices.model_validate({"input": "1", "output": "4", "reasoning": "6", "cache_write": "1.25", "tiers": [tier]})
    tiered = a_catalogue({"small": a_model()}, {"small-a": a_backend(prices=rates), "small-b": a_backend()})

    def costs(tokens_in: int) -> tuple[int, int]:
        (candidate,) = decided(tiered, features={"tokens_in": tokens_in}).candidates
        return candidate.cost_microusd, candidate.cost_max_microusd

    assert costs(400) == (400 + 200 * 4, 1_250 + 1_000 * 6)              # at most 1,000 tokens in: no tier
    assert costs(404) == (404 + 200 * 4, 2_525 + 1_000 * 8)              # at most 1,010: maybe the tier
    assert costs(1_010) == (1_515 + 200 * 6, 2_525 * 5 // 2 + 1 + 1_000 * 8)   # expected: the mean of tier and plain


def test_offers_have_the_prices_of_the_day_and_change_with_it() -> None:
    dearer = Prices.model_validate({"input": "10", "output": "40", "effective_from": "2027-01-16"})
    tomorrow_ms = (NOW_MS // DAY_MS + 1) * DAY_MS
    catalogue = a_catalogue({"small": a_model()}, {"small-a": a_backend(price_changes=(dearer,))})
    clock = ManualClock(tomorrow_ms - 1)
    router = Router(lambda: catalogue, dict, clock)

    def cost_microusd() -> int:
        (out,) = router.handle(an_envelope(a_task(), deadline_ms=tomorrow_ms + 60_000), a_context()).outputs
        return plan_of(out).candidates[0].cost_microusd

    assert cost_microusd() == 100 + 200 * 4
    clock.ms += 1
    assert cost_microusd() == 10 * (100 + 200 * 4)


def test_a_model_that_usually_takes_longer_than_is_left_is_left_out() -> None:
    slow = fleet_of(*(a_fleet_entry(f"{name}-a", p95_ms=4_000) for name in ("small", "medium", "large")))
    assert failed_for(decided(fleet=slow, time_left_ms=3_000)) is Reason.NO_TIME_LEFT
    in_time = decided(fleet=slow, time_left_ms=4_000)
    assert [candidate.latency_ms for candidate in in_time.candidates] == [4_000] * 3


@pytest.mark.parametrize("unknown", [None, a_fleet_entry("small-b"), a_fleet_entry("small-b", p95_ms=9_000, calls=2)])
def test_an_unknown_latency_is_no_reason_to_leave_a_model_out(unknown: FleetEntry | None) -> None:
    two = a_catalogue({"small": a_model()}, {"small-a": a_backend(), "small-b": a_backend()})
    entries = [a_fleet_entry("small-a", p95_ms=9_000), *([unknown] if unknown else [])]
    assert models(decided(two, fleet_of(*entries), time_left_ms=1_000)) == ["small"]


def test_the_bar_that_the_furthest_models_ran_into_names_the_failure() -> None:
    fleet = fleet_of(opened("medium-a", 90_000))
    decision = decided(fleet=fleet, features={"needs": ("tools",)}, budget_left_microusd=10)
    assert failed_for(decision) is Reason.OVER_BUDGET
    assert reasons(decision) == {
        "small": "lacks tools",
        "medium": "every circuit is open",
        "large": "may cost 21250 micro-USD, 10 are left",
    }


def test_an_empty_catalogue_says_what_to_do() -> None:
    decision = decide(some_features(), (), Limits(quality_min=0, time_left_ms=1))
    assert failed_for(decision) is Reason.NO_ABLE_MODEL
    assert "baton.yaml" in decision.rule


def test_the_wanted_quality_rises_with_complexity() -> None:
    policy = Policy(quality_min=0.2, quality_min_hard=0.8)
    assert [quality_min_of(policy, complexity) for complexity in (0, 0.5, 1)] == [0.2, 0.5, 0.8]


def test_an_escalation_asks_only_models_stronger_than_every_one_that_answered() -> None:
    decision = decided(stronger_than=("small", "medium"))
    assert models(decision) == ["large"]
    assert decision.rule == "cheapest of 1 able models stronger than small, medium with quality ≥ 0.00"
    assert reasons(decision)["medium"] == "not stronger than small, medium"


def test_where_none_is_stronger_a_failed_check_asks_any_other_model_and_a_doubt_none() -> None:
    failed = decided(stronger_than=("large",), others_will_do=True)
    assert set(models(failed)) == {"small", "medium"}
    assert failed.rule == "cheapest of 2 able models other than large with quality ≥ 0.00"
    assert reasons(failed)["large"] == "it has answered, and failed the checks"
    assert failed_for(decided(stronger_than=("large",))) is Reason.NO_STRONGER_MODEL
    assert models(decided(stronger_than=("small",), others_will_do=True)) == ["medium", "large"], "a stronger one is there"
    nobody = decided(stronger_than=("large", "small", "medium"), others_will_do=True)
    assert (failed_for(nobody), nobody.rule) == (
        Reason.NO_STRONGER_MODEL, "no model: no other model than those that have answered")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"stronger_than": ("large",)}, "no stronger model than those that have answered"),
        ({"stronger_than": ("small",), "budget_left_microusd": 10}, "no stronger model: every able model could cost more"),
    ],
)
def test_an_escalation_that_leads_nowhere_says_so(limits: dict[str, Any], says: str) -> None:
    decision = decided(**limits)
    assert failed_for(decision) is Reason.NO_STRONGER_MODEL
    assert says in decision.rule


CHAINED = a_catalogue(
    {
        "small": a_model(on_context_length=("large", "medium", "huge"), on_content_filtered=("medium", "large")),
        "medium": a_model(quality=0.7),
        "large": a_model(quality=0.9, context_tokens=128_000),
        "huge": a_model(quality=0.6, context_tokens=1_000_000, capabilities=("tools",)),
    }
)


def chains(decision: Decision) -> dict[FailureClass, list[str]]:
    assert {fallback.model for fallback in decision.fallbacks} <= {"small"}
    return {fallback.failure: [each.model for each in fallback.candidates] for fallback in decision.fallbacks}


def test_a_candidate_has_its_configured_fallbacks_in_their_order() -> None:
    decision = decided(CHAINED, candidates_max=1, pinned="small")
    assert models(decision) == ["small"]
    assert chains(decision) == {
        FailureClass.CONTEXT_LENGTH: ["large", "huge"],    # medium's context is no bigger
        FailureClass.CONTENT_FILTERED: ["medium", "large"],
    }
    assert decision.rule == (
        "small was pinned by the caller; after small, where its context is too small: large, huge; "
        "after small, where a content filter refuses: medium, large"
    )
    chained = {each.model: each for fallback in decision.fallbacks for each in fallback.candidates}
    assert chained["large"] == decided(CHAINED, pinned="large").candidates[0]


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ({"features": {"needs": ("tools",)}, "pinned": "huge"}, {}),
        ({"allowed": ("small", "large")}, {FailureClass.CONTEXT_LENGTH: ["large"], FailureClass.CONTENT_FILTERED: ["large"]}),
        ({"stronger_than": ("medium",)}, {}),
        (
            {"fleet": fleet_of(a_fleet_entry("large-a", Circuit.OPEN))},
            {FailureClass.CONTEXT_LENGTH: ["huge"], FailureClass.CONTENT_FILTERED: ["medium"]},
        ),
        ({"budget_left_microusd": 10}, {}),
    ],
    ids=("capability", "tenant", "stronger", "circuit", "budget"),
)
def test_fallbacks_pass_the_same_bars_as_candidates(question: dict[str, Any], left: dict[FailureClass, list[str]]) -> None:
    assert chains(decided(CHAINED, **question)) == left


def test_a_fallback_after_a_content_filter_must_hold_the_prompt() -> None:
    long = decided(CHAINED, features={"tokens_in": 7_000}, pinned="small")
    assert chains(long)[FailureClass.CONTENT_FILTERED] == ["medium", "large"]
    roomy = {**CHAINED.models, "small": a_model(context_tokens=50_000, on_content_filtered=("medium", "large"))}
    longer = decided(a_catalogue(roomy), features={"tokens_in": 20_000}, pinned="small")
    assert chains(longer) == {FailureClass.CONTENT_FILTERED: ["large"]}


def test_a_pinned_model_too_small_for_the_prompt_gives_way_to_its_fallbacks() -> None:
    decision = decided(CHAINED, features={"tokens_in": 20_000}, pinned="small")
    assert models(decision) == ["large", "huge"]
    assert decision.rule == "small was pinned by the caller, but its context is too small: its fallbacks as configured"
    assert reasons(decision) == {"small": "its context of 8192 tokens cannot hold 21000", "medium": "the caller pinned small"}
    assert failed_for(decided(CHAINED, features={"tokens_in": 20_000}, pinned="medium")) is Reason.CONTEXT_TOO_LONG


def test_a_task_becomes_a_plan_on_its_lane_and_keeps_its_request_id() -> None:
    out = planned(a_task(complexity=0.5), lane="batch")
    assert out.topic is PLANS[Lane.BATCH]
    assert isinstance(out.value, Envelope)
    assert (out.value.id, out.value.request_id) == (f"{REQUEST_ID}/plan/0", REQUEST_ID)
    plan = plan_of(out)
    assert (plan.number, plan.attempts_max, plan.attempt_timeout_ms, plan.failure) == (0, 3, 60_000, None)
    assert (plan.why.policy, plan.why.config_version, plan.why.quality_min) == ("default", 7, 0.425)
    assert [candidate.model for candidate in plan.candidates] == ["small", "medium", "large"]


def test_a_plan_follows_the_tenants_policy_models_and_budget() -> None:
    catalogue = a_catalogue(tenant=Tenant(models=("medium", "large")), candidates_max=1, attempts_max=5)
    plan = plan_of(planned(a_task(), catalogue=catalogue))
    assert (plan.attempts_max, [candidate.model for candidate in plan.candidates]) == (5, ["medium"])
    broke = plan_of(planned(a_task(), budget_microusd=10_000, spent_microusd=9_500))
    assert broke.failure is not None
    assert broke.failure.reason is Reason.OVER_BUDGET
    assert [each.model for each in plan_of(planned(a_task(), catalogue=CHAINED)).fallbacks] == ["small", "small"]
    pinned = plan_of(planned(a_task(a_chat(model="large"))))
    assert [candidate.model for candidate in pinned.candidates] == ["large"]


def test_an_escalation_becomes_the_next_plan_and_carries_what_was_tried_and_spent() -> None:
    asked = an_escalation("small", best=an_answer(), attempts=2, cost_microusd=70)
    out = planned(asked, id=f"{REQUEST_ID}/escalation/1")
    assert isinstance(out.value, Envelope)
    assert out.value.id == f"{REQUEST_ID}/plan/1"
    plan = plan_of(out)
    assert [candidate.model for candidate in plan.candidates] == ["medium", "large"]
    assert (plan.tried, plan.best) == (asked.tried, asked.best)
    assert (plan.attempts_before, plan.cost_before_microusd) == (2, 70)


def test_a_late_escalation_expires_with_its_best_answer() -> None:
    plan = plan_of(planned(an_escalation(best=an_answer()), deadline_ms=NOW_MS))
    assert plan.failure is not None
    assert plan.failure.reason is Reason.DEADLINE_PASSED
    assert plan.best == an_answer()


def test_a_failure_passes_on_as_a_plan_without_candidates() -> None:
    plan = plan_of(planned(Task(failure=a_failure())))
    assert (plan.failure, plan.candidates) == (a_failure(), ())


def test_a_crashed_escalation_is_not_mistaken_for_the_first_plan() -> None:
    router = Router(a_catalogue, dict, ManualClock())
    for id, plan_id in (("escalation/1", "plan/1"), ("task", "plan/0"), ("", "plan/0")):
        (out,) = router.failed(an_envelope(Task(), id=f"{REQUEST_ID}/{id}".rstrip("/")), a_failure())
        assert isinstance(out.value, Envelope)
        assert out.value.id == f"{REQUEST_ID}/{plan_id}"
        assert plan_of(out).failure == a_failure()


def test_an_apply_and_a_change_of_the_fleet_count_from_the_next_request_on() -> None:
    catalogue, fleet = a_catalogue(), dict[str, FleetEntry]()
    router = Router(lambda: catalogue, lambda: fleet, ManualClock())

    def first() -> str:
        (out,) = router.handle(an_envelope(a_task()), a_context()).outputs
        return plan_of(out).candidates[0].model

    assert first() == "small"
    fleet["small-a"] = a_fleet_entry("small-a", Circuit.OPEN)
    assert first() == "medium"
    fleet["small-a"] = a_fleet_entry("small-a")
    assert first() == "small"
    catalogue = a_catalogue({"large": a_model(quality=0.9)})
    assert first() == "large"
