"""What the sections of `make fleet` that run a real Baton make of results, ledger and the provider's log; and that they fail."""

from collections.abc import Iterable

from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Result, Status
from services.simulator.calls import CallLine
from tests.fleet import balance_live, gates, hedges, lanes, overload
from tests.fleet.gates import GATED, LIMITED, RPM, early_calls, herd, judge_limit, out_of_order_ms
from tests.support.findings import Finding
from tests.support.traffic import Asked


def call(
    at_ms: int, attempt_id: str = "", provider: str = "alpha", took_ms: int = 5, status: int = 200, wait_ms: int = 0,
    model: str = GATED,
) -> CallLine:
    return CallLine(at_ms, at_ms + took_ms, provider, model, "key", attempt_id, status, "", wait_ms, False)


def line(attempt_id: str, at_ms: int, executor: str = "e1", **fields: object) -> Attempt:
    return Attempt.model_validate({
        "attempt_id": attempt_id, "plan_id": attempt_id, "request_id": attempt_id, "tenant": "t", "phase": "started",
        "model": GATED, "backend": "alpha-small", "executor": executor, "started_ms": at_ms, **fields,
    })


def asked(name: str, due_ms: int, took_ms: int | None, deadline_ms: int | None = None, stream: str = "load") -> Asked:
    until_ms = None if deadline_ms is None else due_ms + deadline_ms
    if took_ms is None:
        return Asked(stream, name, due_ms, until_ms)
    result = Result(request_id=name, tenant="t", status=Status.DELIVERED, accepted_ms=due_ms, decided_ms=due_ms + took_ms)
    return Asked(stream, name, due_ms, until_ms, result, due_ms + took_ms)


def broken(findings: Iterable[Finding]) -> list[str]:
    return [finding.promise for finding in findings if not finding.holds]


# --- Gates -------------------------------------------------------------------------------------------------------


def test_a_call_is_early_from_the_first_word_in_force_until_that_wait_is_over() -> None:
    told = call(1_000, "a", status=429, wait_ms=2_000)                  # the word leaves at 1,005
    calls = [told, call(1_004, "b"), call(1_105, "c"), call(3_004, "d"), call(3_006, "e"), call(1_105, "f", provider="beta")]
    early = early_calls(calls, {"a": "e1", "c": "e1", "d": "e2"})
    assert [(one.call.attempt_id, one.after_ms, one.after_own_ms) for one in early] == [("c", 100, 100), ("d", 1_999, None)]


def test_early_calls_break_the_promise_once_the_fleet_must_have_heard() -> None:
    told = call(1_000, "a", status=429, wait_ms=2_000)
    in_time = [told, call(1_200, "b")]
    assert broken(gates.judge_early(in_time, [line("a", 990), line("b", 1_190, "e2")], [])) == []
    too_late = [told, call(1_300, "b")]
    assert broken(gates.judge_early(too_late, [line("a", 990), line("b", 1_290, "e2")], [{}])) == [
        "early calls, that long after the 429 left"
    ]


def test_an_executor_that_makes_a_call_with_a_429_on_its_books_is_found_however_late_the_call_comes() -> None:
    booked = {"phase": "finished", "finished_ms": 1_010, "failure": FailureClass.RATE_LIMITED, "wait_ms": 2_000}
    attempts = [line("a", 990), line("a", 990, **booked), line("b", 1_000), line("c", 1_020, "e2"), line("d", 3_100)]
    calls = [call(1_000, "a"), call(1_900, "b"), call(1_021, "c"), call(3_101, "d")]
    in_log_ms = {"a": 995, "b": 1_009, "c": 1_020, "d": 3_100, "e": 1_020}
    assert not gates.sent_though_told(calls, attempts, in_log_ms)
    called_off = [*attempts, line("e", 1_005)]
    assert not gates.sent_though_told(calls, called_off, in_log_ms)
    assert gates.sent_though_told([*calls, call(1_021, "e")], called_off, in_log_ms) == 1
    assert broken([gates.judge_told([*calls, call(1_021, "e")], called_off, in_log_ms)])


def test_a_herd_at_the_opening_is_what_is_under_way_at_once_not_what_came_one_after_the_other() -> None:
    calls = [call(at_ms, took_ms=60) for at_ms in (0, 90, 100, 149, 160, 400)]
    assert herd(calls, "alpha", 0, 1_000) == 3
    assert herd([call(at_ms, took_ms=10) for at_ms in range(0, 100, 10)], "alpha", 0, 1_000) == 1
    assert herd(calls, "beta", 0, 1_000) == 0


def test_plans_sent_out_of_order_are_found_per_executor() -> None:
    plans = [asked("old", 100, 10), asked("young", 900, 10)]
    assert out_of_order_ms(plans, [line("old", 2_000), line("young", 2_001)]) == 0
    assert out_of_order_ms(plans, [line("old", 2_001), line("young", 2_000, "e2")]) == 0
    assert out_of_order_ms(plans, [line("old", 2_001), line("young", 2_000)]) == 800


def test_more_calls_in_a_minute_than_the_limit_are_found_and_so_are_far_fewer() -> None:
    def calls(per_minute: int) -> list[CallLine]:
        return [call(at * 60_000 // per_minute, model=LIMITED) for at in range(per_minute * 2)]

    assert broken(judge_limit(calls(RPM))) == []
    assert len(broken(judge_limit(calls(RPM + 20)))) == 1
    assert len(broken(judge_limit(calls(RPM // 2)))) == 1


# --- Balance -----------------------------------------------------------------------------------------------------


def test_the_shift_ends_with_the_first_second_that_has_gone_nine_tenths_of_the_way() -> None:
    before = [call(at, provider=("alpha", "beta")[at // 10 % 2]) for at in range(0, 5_000, 10)]
    after = [call(at, provider="beta" if at // 10 % 20 == 0 and at >= 7_000 else ("alpha" if at >= 7_000 else "beta"))
             for at in range(5_000, 20_000, 10)]
    assert balance_live.share(before, 0, 5_000) == 0.5
    assert balance_live.shifted_ms([*before, *after], 5_000, 20_000, 0.5, 0.05) == 3_000
    assert balance_live.shifted_ms(before, 0, 5_000, 0.5, 0.05) is None


def test_blind_calls_are_split_in_halves_and_take_what_each_backend_took() -> None:
    calls = [call(at, provider="alpha", took_ms=100) for at in range(900)]
    calls += [call(at, provider="beta", took_ms=500) for at in range(100)]
    blind = balance_live.blind_ms(calls)
    assert 0.45 < blind.count(500) / len(blind) < 0.55


# --- Overload and lanes ------------------------------------------------------------------------------------------


def phase(factor: float, good_s: int, late_s: int = 0, turned_away: int = 0) -> overload.Phase:
    """Twenty seconds: so many a second in time, so many too late, each with a call of its own."""
    load = [asked(f"{second}/{n}", second * 1_000, 500, 1_000) for second in range(20) for n in range(good_s)]
    load += [asked(f"{second}/late{n}", second * 1_000, 1_500, 1_000) for second in range(20) for n in range(late_s)]
    calls = [call(one.due_ms) for one in load] + [call(0, status=503) for _ in range(turned_away)]
    return overload.Phase(factor, good_s + late_s, sorted(load, key=lambda one: one.due_ms), calls)


def test_goodput_counts_what_is_delivered_within_its_deadline() -> None:
    assert 9.5 < phase(1, 10).goodput_s() < 10.5
    assert 9.5 < phase(1, 10, late_s=30).goodput_s() < 10.5
    assert phase(1, 10).wasted() == 0
    assert phase(1, 10, late_s=10).wasted() == 0.5
    assert phase(1, 9, turned_away=20).turned_away() == 0.1


def test_goodput_that_falls_under_load_is_found() -> None:
    assert broken(overload.judge([phase(1, 10), phase(2, 10)], 10)) == []
    assert broken(overload.judge([phase(1, 10), phase(5, 8)], 10)) == ["the same at 5 times that load"]
    assert broken(overload.judge([phase(1, 10), phase(2, 10, late_s=5)], 10)) == [
        "at 2 x: answers that came too late, of all answers"
    ]


def test_interactive_requests_that_a_flood_slows_down_are_found() -> None:
    def load(stream: str, took_ms: int, per_s: int) -> list[Asked]:
        return [asked(f"{stream}{n}", n * 1_000 // per_s, took_ms, 12_000, stream) for n in range(int(lanes.FLOODED_S) * per_s)]

    batch = load("batch", 5_000, 80)
    assert broken(lanes.judge(load("alone", 1_000, 20), load("interactive", 1_150, 20), batch, 100, 0)) == []
    slowed = broken(lanes.judge(load("alone", 1_000, 20), load("interactive", 1_250, 20), batch, 100, 0))
    assert len(slowed) == 2
    starved = [asked(f"b{n}", n * 12, None, 12_000, "batch") for n in range(int(lanes.FLOODED_S * 80))]
    assert len(broken(lanes.judge(load("alone", 1_000, 20), load("interactive", 1_150, 20), starved, 100, 0))) == 2


# --- Hedges ------------------------------------------------------------------------------------------------------


def finished(attempt_id: str, kind: AttemptKind, failure: FailureClass | None, cost: int | None, plan: str = "p") -> Attempt:
    return line(
        attempt_id, 0, plan_id=plan, phase=AttemptPhase.FINISHED, finished_ms=5, kind=kind, failure=failure,
        cost_microusd=cost or 0, cost_known=cost is not None, cost_max_microusd=100,
    )


def test_a_hedged_plan_is_settled_when_one_call_answered_and_the_other_was_cut() -> None:
    answered = finished("a", AttemptKind.PRIMARY, None, 10)
    cut = finished("b", AttemptKind.HEDGE, FailureClass.CANCELLED, None)
    assert hedges.is_settled([answered, cut])
    assert not hedges.is_settled([answered])
    assert not hedges.is_settled([cut, cut])
    assert not hedges.is_settled([answered, finished("b", AttemptKind.HEDGE, FailureClass.TIMEOUT, None)])


def test_books_that_differ_from_the_invoice_are_found() -> None:
    attempts = [finished("a", AttemptKind.PRIMARY, None, 10), finished("b", AttemptKind.HEDGE, FailureClass.CANCELLED, None)]

    def invoice(**costs: int) -> list[dict[str, object]]:
        return [{"attempt_id": name, "cost_microusd": cost} for name, cost in costs.items()]

    assert broken(hedges.books(attempts, invoice(a=10, b=90))) == []
    assert broken(hedges.books(attempts, invoice(a=11, b=0))) == ["calls whose known cost is not what the provider billed"]
    assert broken(hedges.books(attempts, invoice(a=10, b=101))) == ["calls of unknown cost that were billed above their bound"]
    assert broken(hedges.books(attempts, invoice(a=10, c=1))) == ["billed calls that the ledger does not have"]
