"""The executor's decisions: what follows after which attempts, as tables."""

from typing import Any

import pytest

from schemas.ledger import Attempt, AttemptKind, FailureClass, Usage
from schemas.messages import Candidate, Fallback, Plan, Reason
from services.executor.books import cost_of, cost_upper_microusd, counts_for_circuit
from services.executor.decide import (
    Call,
    Finish,
    Limits,
    Option,
    Step,
    Wait,
    choose,
    fraction_of,
    hedge_step,
    next_step,
)
from services.executor.failures import FAILURES
from services.executor.reply import Reply
from tests.support.builders_executor import T0_MS, a_backend, a_candidate, a_plan, an_attempt, an_option

ALL = ("a", "b", "c")
OPTIONS = {name: an_option(name) for name in ALL}
RETRIABLE = [failure for failure, rules in FAILURES.items() if rules.retry_here]
PRICES = a_backend().prices


def step(
    *attempts: Attempt, plan: Plan | None = None, options: dict[str, Option] | None = None, draw: float = 0.0, **limits: Any
) -> Step:
    defaults = {"now_ms": T0_MS, "deadline_ms": T0_MS + 60_000, "budget_microusd": None, "spent_microusd": 0}
    return next_step(
        plan or a_plan(), attempts, OPTIONS if options is None else options, Limits(**(defaults | limits)), lambda: draw
    )


def called(step: Step) -> tuple[str, AttemptKind]:
    assert isinstance(step, Call), step
    return step.backend, step.kind


def reason(step: Step) -> Reason:
    assert isinstance(step, Finish), step
    assert step.failure.stage == "executor"
    return step.failure.reason


def test_every_failure_class_has_rules() -> None:
    assert set(FAILURES) == set(FailureClass)


def test_the_first_candidate_is_called_first() -> None:
    assert called(step()) == ("a", AttemptKind.PRIMARY)


def test_the_first_call_of_a_later_plan_is_an_escalation() -> None:
    assert called(step(plan=a_plan(number=1))) == ("a", AttemptKind.ESCALATION)


@pytest.mark.parametrize("failure", [failure for failure, rules in FAILURES.items() if rules.fail_over])
def test_another_backend_comes_before_the_same_one_again(failure: FailureClass) -> None:
    backend, kind = called(step(an_attempt("a", failure)))
    wants_more = FAILURES[failure].wants_bigger_window
    wants_more = wants_more or FAILURES[failure].wants_other_model
    if failure is FailureClass.ORPHANED:
        assert (backend, kind) == ("a", AttemptKind.RETRY)
    else:
        assert (backend, kind) == ("c" if wants_more else "b", AttemptKind.FAILOVER)


def test_the_next_candidate_follows_when_the_first_has_no_backend_left() -> None:
    assert called(step(an_attempt("a"), an_attempt("b", number=1))) == ("c", AttemptKind.FAILOVER)


@pytest.mark.parametrize("failure", [failure for failure in RETRIABLE if failure is not FailureClass.ORPHANED])
def test_a_lone_backend_is_asked_again_where_its_failure_may_pass(failure: FailureClass) -> None:
    lone = {"a": OPTIONS["a"]}
    assert called(step(an_attempt("a", failure), options=lone, now_ms=T0_MS + 8000)) == ("a", AttemptKind.RETRY)


@pytest.mark.parametrize(
    "failure", [failure for failure, rules in FAILURES.items() if not rules.retry_here and failure is not FailureClass.CANCELLED]
)
def test_a_lone_backend_is_not_asked_again_where_it_would_not_help(failure: FailureClass) -> None:
    lone = {"a": OPTIONS["a"]}
    assert reason(step(an_attempt("a", failure), options=lone, now_ms=T0_MS + 8000)) is FAILURES[failure].reason


def test_a_retry_waits_for_a_time_that_does_not_change() -> None:
    lone = {"a": OPTIONS["a"]}
    first = step(an_attempt("a"), options=lone)
    assert isinstance(first, Wait)
    assert T0_MS < first.until_ms <= T0_MS + 500
    assert step(an_attempt("a"), options=lone, draw=0.9) == first
    assert isinstance(step(an_attempt("a"), options=lone, now_ms=first.until_ms), Call)


def test_a_backend_is_retried_no_more_often_than_its_failure_allows() -> None:
    lone, now_ms = {"a": OPTIONS["a"]}, T0_MS + 20_000
    failures = [an_attempt("a", FailureClass.MALFORMED, number) for number in range(2)]
    assert called(step(*failures[:1], options=lone, now_ms=now_ms))[0] == "a"
    assert reason(step(*failures, options=lone, now_ms=now_ms)) is Reason.PROVIDERS_FAILED


def test_a_filtered_request_ends_at_once() -> None:
    assert reason(step(an_attempt("a", FailureClass.CONTENT_FILTERED))) is Reason.PROVIDER_REFUSED


REFUSED = an_attempt("a", FailureClass.INVALID)


def test_what_one_model_calls_invalid_is_put_to_one_other_model_and_to_no_other_backend_of_the_same() -> None:
    plan = a_plan(a_candidate("small", ("a", "b")), a_candidate("large", ("c",)), a_candidate("huge", ("d",)))
    options = OPTIONS | {"d": an_option("d")}
    assert called(step(REFUSED, plan=plan, options=options)) == ("c", AttemptKind.FAILOVER)
    both = (REFUSED, an_attempt("c", FailureClass.INVALID, 1, model="large"))
    assert reason(step(*both, plan=plan, options=options)) is Reason.PROVIDER_REFUSED
    passing = (REFUSED, an_attempt("c", FailureClass.SERVER_ERROR, 1, model="large"))
    assert called(step(*passing, plan=plan, options=options)) == ("d", AttemptKind.FAILOVER)


@pytest.mark.parametrize(
    ("other", "limits"),
    [
        ({}, {}),
        ({"c": an_option("c", full=True)}, {}),
        ({"c": an_option("c", ready_at_ms=T0_MS + 1000)}, {}),
        ({"c": an_option("c")}, {"budget_microusd": 10}),
        ({"c": an_option("c", p50_ms=2000)}, {"deadline_ms": T0_MS + 1000}),
    ],
    ids=["none", "full", "gated", "too dear", "too late"],
)
def test_an_invalid_request_neither_waits_for_another_model_nor_hides_why_it_failed(
    other: dict[str, Option], limits: dict[str, int]
) -> None:
    options = {name: OPTIONS[name] for name in ("a", "b")} | other
    assert reason(step(REFUSED, options=options, **limits)) is Reason.PROVIDER_REFUSED


def test_without_a_bigger_window_a_context_length_ends() -> None:
    only = {name: OPTIONS[name] for name in ("a", "b")}
    assert reason(step(an_attempt("a", FailureClass.CONTEXT_LENGTH), options=only)) is Reason.CONTEXT_TOO_LONG


def test_a_limit_of_one_account_fails_over_to_another_with_the_same_window() -> None:
    only = {name: OPTIONS[name] for name in ("a", "b")}
    assert called(step(an_attempt("a", FailureClass.TOO_LARGE), options=only)) == ("b", AttemptKind.FAILOVER)
    both = (an_attempt("a", FailureClass.TOO_LARGE), an_attempt("b", FailureClass.TOO_LARGE, 1))
    assert reason(step(*both, options=only)) is Reason.TOO_LARGE


def test_attempts_max_ends_the_plan_and_names_what_was_tried() -> None:
    ended = step(an_attempt("a"), an_attempt("b", FailureClass.TIMEOUT, 1), plan=a_plan(attempts_max=2))
    assert reason(ended) is Reason.PROVIDERS_FAILED
    assert isinstance(ended, Finish)
    assert ended.failure.message == "attempts: a server_error, b timeout"


def test_attempts_of_dead_executors_do_not_use_up_the_plan() -> None:
    orphans = [an_attempt("a", FailureClass.ORPHANED, number) for number in range(5)]
    assert called(step(*orphans, plan=a_plan(attempts_max=1))) == ("a", AttemptKind.RETRY)


def test_a_call_that_was_given_up_or_never_sent_is_not_held_against_the_plan() -> None:
    assert called(step(an_attempt("a", FailureClass.CANCELLED), plan=a_plan(attempts_max=1)))[0] == "a"


def test_a_plan_with_a_failure_ends_with_that_failure() -> None:
    ended = step(an_attempt("a"), an_attempt("b", FailureClass.CONTENT_FILTERED))
    assert isinstance(ended, Finish)
    assert step(plan=a_plan(failure=ended.failure)) == ended


# Time --------------------------------------------------------------------------------------------------------------


def test_after_the_deadline_nothing_is_called() -> None:
    assert reason(step(deadline_ms=T0_MS)) is Reason.DEADLINE_PASSED


def test_no_call_starts_with_less_time_left_than_the_backend_usually_takes() -> None:
    options = {name: an_option(name, p50_ms=900) for name in ALL}
    assert reason(step(options=options, deadline_ms=T0_MS + 899)) is Reason.NO_TIME_LEFT
    assert called(step(options=options, deadline_ms=T0_MS + 900))[0] == "a"


def test_a_quicker_backend_is_called_when_time_is_short() -> None:
    options = {"a": an_option("a", p50_ms=900), "b": an_option("b", p50_ms=100), "c": an_option("c", p50_ms=900)}
    assert called(step(options=options, deadline_ms=T0_MS + 500))[0] == "b"


def test_a_backend_nobody_has_measured_needs_fifty_milliseconds() -> None:
    assert reason(step(deadline_ms=T0_MS + 49)) is Reason.NO_TIME_LEFT


@pytest.mark.parametrize(
    ("plan_ms", "backend_ms", "left_ms", "timeout_ms"), [(500, 900, 9000, 500), (900, 500, 9000, 500), (900, 900, 300, 300)]
)
def test_a_call_gets_the_least_of_plan_backend_and_time_left(
    plan_ms: int, backend_ms: int, left_ms: int, timeout_ms: int
) -> None:
    options = {"a": an_option("a", timeout_ms=backend_ms)}
    found = step(plan=a_plan(attempt_timeout_ms=plan_ms), options=options, deadline_ms=T0_MS + left_ms)
    assert isinstance(found, Call)
    assert found.timeout_ms == timeout_ms


@pytest.mark.parametrize(
    ("p50_ms", "left_ms", "is_fair"), [(100, 399, False), (100, 400, True), (None, 9_999, False), (None, 10_000, True)]
)
def test_an_impatient_caller_is_not_the_backends_fault(p50_ms: int | None, left_ms: int, is_fair: bool) -> None:
    call = step(options={"a": an_option("a", p50_ms=p50_ms)}, deadline_ms=T0_MS + left_ms)
    assert isinstance(call, Call)
    assert counts_for_circuit(Reply(failure=FailureClass.TIMEOUT), call) is is_fair
    assert counts_for_circuit(Reply(status=500, failure=FailureClass.SERVER_ERROR), call)
    assert not counts_for_circuit(Reply(status=429, failure=FailureClass.RATE_LIMITED), call)


# Parking -----------------------------------------------------------------------------------------------------------


def test_a_plan_waits_until_its_deadline_while_nothing_is_usable() -> None:
    options = {name: an_option(name, usable=False) for name in ALL}
    assert step(options=options) == Wait(ALL, T0_MS + 59_950)


def test_a_gated_backend_is_passed_over_and_waited_for_only_when_all_are() -> None:
    gated = {name: an_option(name, ready_at_ms=T0_MS + 5_000) for name in ALL}
    assert called(step(options=gated | {"b": an_option("b")}))[0] == "b"
    assert step(options=gated) == Wait(ALL, T0_MS + 59_950)
    assert called(step(options=gated, now_ms=T0_MS + 5_000))[0] == "a"


def test_a_gate_that_opens_too_late_is_not_waited_for() -> None:
    gated = {name: an_option(name, p50_ms=900, ready_at_ms=T0_MS + 5_000) for name in ALL}
    assert reason(step(options=gated, deadline_ms=T0_MS + 5_899)) is Reason.NO_TIME_LEFT
    assert isinstance(step(options=gated, deadline_ms=T0_MS + 5_900), Wait)


def test_a_crowded_model_is_waited_for_unless_time_is_dearer_than_money() -> None:
    crowded = {"a": an_option("a", full=True), "b": an_option("b", full=True), "c": an_option("c")}
    assert called(step(options=crowded, may_overflow=True))[0] == "c"
    assert step(options=crowded, may_overflow=False) == Wait(("a", "b"), T0_MS + 59_950)
    out = {"a": an_option("a", usable=False), "b": an_option("b", usable=False), "c": an_option("c")}
    assert called(step(options=out, may_overflow=False))[0] == "c"


def test_a_model_that_is_out_is_no_crowd_even_if_others_wait_for_it() -> None:
    options = {"a": an_option("a", usable=False, full=True), "c": an_option("c")}
    options["b"] = an_option("b", full=True, ready_at_ms=T0_MS + 9)
    assert called(step(options=options, may_overflow=False))[0] == "c"


def test_after_a_wait_in_a_crowd_even_a_slow_call_must_fit() -> None:
    options = {"a": an_option("a", p50_ms=100, p95_ms=900)}
    assert called(step(options=options, deadline_ms=T0_MS + 500))[0] == "a"
    assert reason(step(options=options, deadline_ms=T0_MS + 500, has_queued=True)) is Reason.NO_TIME_LEFT


def test_a_silent_call_leaves_time_for_another_backend() -> None:
    found = step(deadline_ms=T0_MS + 30_000)
    assert isinstance(found, Call)
    assert found.timeout_ms == 20_000
    lone = step(options={"a": OPTIONS["a"]}, deadline_ms=T0_MS + 30_000)
    assert isinstance(lone, Call)
    assert lone.timeout_ms == 30_000


def test_without_retry_tokens_nothing_is_asked_twice_but_fail_over_is_free() -> None:
    poor = {name: an_option(name, retryable=False) for name in ALL}
    assert called(step(an_attempt("a"), options=poor)) == ("b", AttemptKind.FAILOVER)
    assert reason(step(an_attempt("a"), options={"a": poor["a"]}, now_ms=T0_MS + 9_000)) is Reason.PROVIDERS_FAILED


def test_a_provider_that_asked_for_time_gets_it() -> None:
    asked = an_attempt("a", FailureClass.RATE_LIMITED, wait_ms=7_000)
    assert step(asked, options={"a": OPTIONS["a"]}) == Wait((), T0_MS + 7_000)


# Configured fallbacks ----------------------------------------------------------------------------------------------


def with_fallback(failure: FailureClass, to: Candidate) -> Plan:
    fallback = Fallback(model="small", failure=failure, candidates=(to,))
    return a_plan(a_candidate("small", ("a", "b")), fallbacks=(fallback,))


def test_a_filtered_request_goes_to_the_configured_model_and_nowhere_else() -> None:
    plan = with_fallback(FailureClass.CONTENT_FILTERED, a_candidate("large", ("c",)))
    filtered = an_attempt("a", FailureClass.CONTENT_FILTERED)
    assert called(step(filtered, plan=plan)) == ("c", AttemptKind.FAILOVER)
    both = (filtered, an_attempt("c", FailureClass.CONTENT_FILTERED, 1, model="large"))
    assert reason(step(*both, plan=plan)) is Reason.PROVIDER_REFUSED


def test_the_model_configured_for_long_contexts_comes_before_the_next_candidate() -> None:
    fallback = Fallback(
        model="small", failure=FailureClass.CONTEXT_LENGTH, candidates=(a_candidate("huge", ("d",)),)
    )
    options = OPTIONS | {"d": an_option("d", context_tokens=1_000_000)}
    plan = a_plan(fallbacks=(fallback,))
    assert called(step(an_attempt("a", FailureClass.CONTEXT_LENGTH), plan=plan, options=options))[0] == "d"
    assert called(step(an_attempt("a", FailureClass.SERVER_ERROR), plan=plan, options=options))[0] == "b"


# Hedges ------------------------------------------------------------------------------------------------------------


def hedged(plan: Plan | None = None, options: dict[str, Option] | None = None, **limits: Any) -> Call | None:
    running = Call(a_candidate(), "a", AttemptKind.PRIMARY, 1000, is_fair=True)
    defaults = {"now_ms": T0_MS, "deadline_ms": T0_MS + 60_000, "budget_microusd": None, "spent_microusd": 0}
    return hedge_step(
        plan or a_plan(), (), running, OPTIONS if options is None else options, Limits(**(defaults | limits)), lambda: 0.0
    )


def test_a_hedge_goes_to_another_backend() -> None:
    call = hedged()
    assert call is not None
    assert (call.backend, call.kind) == ("b", AttemptKind.HEDGE)
    assert hedged(options={"a": OPTIONS["a"]}) is None


@pytest.mark.parametrize(
    "barred", [{"usable": False}, {"full": True}, {"probe": True}, {"ready_at_ms": T0_MS + 1}, {"p50_ms": 60_001}]
)
def test_a_hedge_waits_for_nobody_and_probes_nothing(barred: dict[str, Any]) -> None:
    assert hedged(options={"a": OPTIONS["a"], "b": an_option("b", **barred)}) is None


def test_a_hedge_counts_as_an_attempt_and_must_fit_the_budget() -> None:
    assert hedged(plan=a_plan(attempts_max=1)) is None
    assert hedged(budget_microusd=2000, spent_microusd=1001) is None
    assert hedged(budget_microusd=2000, spent_microusd=1000) is not None


def test_an_open_backend_is_passed_over() -> None:
    assert called(step(options=OPTIONS | {"a": an_option("a", usable=False)}))[0] == "b"


def test_backends_that_left_the_catalogue_are_not_waited_for() -> None:
    assert reason(step(options={})) is Reason.PROVIDERS_FAILED


# Budget ------------------------------------------------------------------------------------------------------------


def test_a_call_that_could_exceed_the_budget_is_not_made() -> None:
    assert called(step(budget_microusd=1500, spent_microusd=500))[0] == "a"
    assert reason(step(budget_microusd=1500, spent_microusd=501)) is Reason.OVER_BUDGET


def test_a_cheaper_candidate_is_called_where_the_first_is_too_dear() -> None:
    plan = a_plan(a_candidate("large", ("c",), 5000), a_candidate("small", ("a",), 1000))
    assert called(step(plan=plan, budget_microusd=2000))[0] == "a"


# Money -------------------------------------------------------------------------------------------------------------


def test_a_cost_is_rounded_once_half_up() -> None:
    assert cost_of(Reply(200, usage=Usage(tokens_in=10, tokens_out=0)), PRICES) == 2
    assert cost_of(Reply(200, usage=Usage(tokens_in=3, tokens_out=1)), PRICES) == 1


@pytest.mark.parametrize(("failure", "rules"), FAILURES.items())
def test_an_error_costs_nothing_or_nobody_can_tell(failure: FailureClass, rules: Any) -> None:
    assert cost_of(Reply(400, failure=failure), PRICES) == (None if rules.maybe_billed else 0)
    assert cost_of(Reply(200, failure=failure), PRICES) is None
    assert cost_of(Reply(0, failure=failure), PRICES) is None
    assert cost_of(Reply(0, failure=failure, sent=False), PRICES) == 0


def test_an_answer_without_usage_has_no_known_cost() -> None:
    assert cost_of(Reply(200), PRICES) is None
    assert cost_of(Reply(200, usage=Usage(estimated=True, tokens_in=5)), PRICES) is None


def test_an_unknown_cost_counts_as_its_maximum() -> None:
    assert cost_upper_microusd(an_attempt(cost_known=False, cost_max_microusd=900)) == 900
    assert cost_upper_microusd(an_attempt(cost_microusd=5, cost_max_microusd=900)) == 5


# Choice ------------------------------------------------------------------------------------------------------------


def test_the_less_loaded_of_two_is_chosen() -> None:
    options = [an_option("a", load=3.0), an_option("b", load=2.0), an_option("c", load=1.0)]
    draws = iter([0.0, 0.5, 0.0])
    assert choose(options, "", lambda: next(draws)).backend == "b"
    draws = iter([0.0, 0.5, 0.9])
    assert choose(options, "", lambda: next(draws)).backend == "c"


def test_a_session_keeps_its_backend_until_that_is_far_more_loaded() -> None:
    options = [an_option(name) for name in ALL]
    kept = {choose(options, "s1", lambda draw=draw: draw).backend for draw in (0.0, 0.4, 0.9)}
    assert len(kept) == 1
    assert {choose(options, f"s{n}", lambda: 0.0).backend for n in range(50)} == set(ALL)
    busy = [an_option(name, load=2.1 if name in kept else 1.0) for name in ALL]
    assert choose(busy, "s1", lambda: 0.0).backend not in kept


def test_backends_of_the_preferred_region_come_first_while_they_have_a_place() -> None:
    options = [an_option("a", load=0.1, is_near=False), an_option("b", load=9.0)]
    assert {choose(options, "", lambda draw=draw: draw).backend for draw in (0.0, 0.5, 0.9)} == {"b"}
    assert choose(options[:1], "", lambda: 0.5).backend == "a"


def test_a_due_probe_comes_first() -> None:
    options = [an_option("a", load=0.1), an_option("b", load=99.0, probe=True)]
    assert choose(options, "", lambda: 0.0).backend == "b"
    assert called(step(options={option.backend: option for option in options})) == ("b", AttemptKind.PROBE)


def test_fractions_are_spread_evenly() -> None:
    fractions = [fraction_of(f"request-{number}/plan/0/0-feedc0de") for number in range(4000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    for quarter in range(4):
        assert 900 < sum(quarter / 4 <= fraction < (quarter + 1) / 4 for fraction in fractions) < 1100
