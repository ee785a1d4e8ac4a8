"""The executor's decisions: what follows after which attempts, as tables."""

from typing import Any

import pytest

from schemas.ledger import Attempt, AttemptKind, FailureClass, Usage
from schemas.messages import Plan, Reason
from services.executor.decide import (
    Call,
    Finish,
    Limits,
    Option,
    Step,
    Wait,
    choose,
    cost_of,
    cost_upper_microusd,
    counts_for_circuit,
    fraction_of,
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


@pytest.mark.parametrize("failure", [failure for failure, rules in FAILURES.items() if not rules.retry_here])
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


@pytest.mark.parametrize("failure", [FailureClass.INVALID, FailureClass.CONTENT_FILTERED])
def test_a_refused_request_ends_at_once(failure: FailureClass) -> None:
    assert reason(step(an_attempt("a", failure))) is Reason.PROVIDER_REFUSED


def test_without_a_bigger_window_a_context_length_ends() -> None:
    only = {name: OPTIONS[name] for name in ("a", "b")}
    assert reason(step(an_attempt("a", FailureClass.CONTEXT_LENGTH), options=only)) is Reason.CONTEXT_TOO_LONG


def test_attempts_max_ends_the_plan_and_names_what_was_tried() -> None:
    ended = step(an_attempt("a"), an_attempt("b", FailureClass.TIMEOUT, 1), plan=a_plan(attempts_max=2))
    assert reason(ended) is Reason.PROVIDERS_FAILED
    assert isinstance(ended, Finish)
    assert ended.failure.message == "attempts: a server_error, b timeout"


def test_attempts_of_dead_executors_do_not_use_up_the_plan() -> None:
    orphans = [an_attempt("a", FailureClass.ORPHANED, number) for number in range(5)]
    assert called(step(*orphans, plan=a_plan(attempts_max=1))) == ("a", AttemptKind.RETRY)


def test_a_plan_with_a_failure_ends_with_that_failure() -> None:
    ended = step(an_attempt("a"), an_attempt("b", FailureClass.INVALID))
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
    assert step(options=options) == Wait(T0_MS + 60_000)


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
    draws = iter([0.0, 0.0])
    assert choose(options, lambda: next(draws)).backend == "b"
    draws = iter([0.0, 0.9])
    assert choose(options, lambda: next(draws)).backend == "c"


def test_a_due_probe_comes_first() -> None:
    options = [an_option("a", load=0.1), an_option("b", load=99.0, probe=True)]
    assert choose(options, lambda: 0.0).backend == "b"
    assert called(step(options={option.backend: option for option in options})) == ("b", AttemptKind.PROBE)


def test_fractions_are_spread_evenly() -> None:
    fractions = [fraction_of(f"request-{number}/plan/0/0-feedc0de") for number in range(4000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    for quarter in range(4):
        assert 900 < sum(quarter / 4 <= fraction < (quarter + 1) / 4 for fraction in fractions) < 1100
