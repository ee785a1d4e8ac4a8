"""The judge of the fault scenarios must catch what is planted: each test starts from evidence that passes."""

from dataclasses import replace

import pytest

from schemas.ledger import Attempt, AttemptPhase, FailureClass, Usage
from schemas.messages import Answer, Reason, Result, Status
from services.simulator.call import Call as SimulatorCall
from services.simulator.profiles import model_named
from services.simulator.text import answer
from tests.scenarios.evidence import Asked, Billed, Call, Evidence, LedgerLine, Score, Seen, score
from tests.scenarios.judge import GRACE_MS, judge
from tests.scenarios.table import BACK_MS, DOWN_MS, HASTY, QUESTION, SCENARIOS, Variant, catalogue, mix, variants

SENT_MS = 1_800_000_000_000
S08 = Variant(SCENARIOS["S08"], "openai", True)
S13 = Variant(SCENARIOS["S13"], "gemini", False)
S15 = Variant(SCENARIOS["S15"], "openai", False)


def lines(attempt: Attempt, failure: FailureClass | None, **finished: object) -> tuple[LedgerLine, LedgerLine]:
    done_ms = attempt.started_ms + 100
    update = {"phase": AttemptPhase.FINISHED, "finished_ms": done_ms, "failure": failure, **finished}
    return LedgerLine(attempt.started_ms, attempt), LedgerLine(done_ms, attempt.model_copy(update=update))


def an_attempt(variant: Variant, of_fallback: bool, request: str = "r0", at_ms: int = SENT_MS + 10) -> Attempt:
    side = variant.fallback if of_fallback else variant.primary
    return Attempt(
        attempt_id=f"{request}/{side.backend}/{at_ms}", plan_id=request, request_id=request, tenant=variant.name,
        phase=AttemptPhase.STARTED, model=side.backend, backend=side.backend, model_asked=side.model, started_ms=at_ms,
        cost_max_microusd=500,
    )


def a_result(variant: Variant, **fields: object) -> Result:
    """Delivered by the fallback, after one attempt that failed."""
    side = variant.fallback
    answered = Answer(
        text=side.whole, backend=side.backend, model=side.backend, model_served=side.model, usage=Usage(tokens_in=4, tokens_out=3)
    )
    defaults: dict[str, object] = {
        "request_id": "r0", "tenant": variant.name, "status": Status.DELIVERED, "answer": answered, "attempts": 2,
        "cost_microusd": 2, "accepted_ms": SENT_MS, "decided_ms": SENT_MS + 300,
    }
    return Result.model_validate(defaults | fields)


def failed_over() -> Evidence:
    """S08 as it should go: the primary's stream is cut at a cost that nobody knows, the fallback answers."""
    cut, good = an_attempt(S08, False), an_attempt(S08, True, at_ms=SENT_MS + 200)
    return replace(
        S08.evidence(),
        asked=(Asked(SENT_MS, (Seen(SENT_MS + 400, a_result(S08)),)),),
        calls=(
            Call(SENT_MS + 12, S08.primary.model, cut.attempt_id, 200, "cut_stream", streamed=True),
            Call(SENT_MS + 202, S08.fallback.model, good.attempt_id, streamed=True),
        ),
        billed=(
            Billed(cut.attempt_id, S08.primary.model, 4, 40, 25), Billed(good.attempt_id, S08.fallback.model, 4, 3, 2),
        ),
        ledger=(
            *lines(cut, FailureClass.TRUNCATED, cost_known=False),
            *lines(good, None, cost_microusd=2, usage=Usage(tokens_in=4, tokens_out=3)),
        ),
    )


def with_answer(seen: Evidence, text: str, backend: str = "", model_served: str = "") -> Evidence:
    result = seen.asked[0].seen[0].result
    assert result.answer is not None
    changes = {"text": text} | ({"backend": backend, "model_served": model_served} if backend else {})
    changed = result.model_copy(update={"answer": result.answer.model_copy(update=changes)})
    return replace(seen, asked=(Asked(SENT_MS, (Seen(SENT_MS + 400, changed),)),))


def with_result(seen: Evidence, **fields: object) -> Evidence:
    return replace(seen, asked=(Asked(SENT_MS, (Seen(SENT_MS + 400, a_result(S08, **fields)),)),))


def broken(seen: Evidence, variant: Variant = S08) -> set[str]:
    return {check.name for check in judge(seen, variant.rules) if not check.holds}


def scored(seen: Evidence, variant: Variant = S08) -> Score:
    return score(judge(seen, variant.rules))


def test_a_fail_over_with_books_that_agree_passes() -> None:
    assert broken(failed_over()) == set()
    assert scored(failed_over()) is Score.PASS


def test_a_truncated_answer_shown_as_whole_fails() -> None:
    cut = S08.primary.whole[:160]
    assert scored(with_answer(failed_over(), cut, S08.primary.backend, S08.primary.model)) is Score.FAIL
    assert scored(with_answer(failed_over(), S08.fallback.whole[:-1])) is Score.FAIL
    assert scored(with_answer(failed_over(), cut + S08.fallback.whole)) is Score.FAIL


def test_an_answer_under_another_backends_name_fails() -> None:
    seen = with_answer(failed_over(), S08.fallback.whole, S08.primary.backend, S08.primary.model)
    assert "no answer that is cut or wrong, no error without a reason" in broken(seen)


def test_a_clean_error_where_an_answer_was_to_be_had_is_safe_and_no_more() -> None:
    error = {"status": Status.FAILED, "answer": None, "reason": Reason.PROVIDERS_FAILED, "message": "attempts: ..."}
    assert scored(with_result(failed_over(), **error)) is Score.SAFE
    assert scored(with_result(failed_over(), **error | {"reason": None})) is Score.FAIL
    assert scored(with_result(failed_over(), **error | {"message": ""})) is Score.FAIL


def test_a_hang_a_late_result_and_a_second_result_fail() -> None:
    name = "one result each, before the deadline"
    seen = failed_over()
    (first,) = seen.asked[0].seen
    late = Seen(SENT_MS + S08.scenario.deadline_ms + GRACE_MS + 1, first.result)
    for found in ((), (late,), (first, first)):
        assert name in broken(replace(seen, asked=(Asked(SENT_MS, found),)))


def test_a_call_without_a_ledger_line_fails() -> None:
    seen = failed_over()
    unbooked = replace(seen, calls=(*seen.calls, Call(SENT_MS + 300, S08.fallback.model, "")))
    assert "every call was on the ledger before it came" in broken(unbooked)
    assert scored(unbooked) is Score.FAIL


@pytest.mark.parametrize("late", ["logged", "started"])
def test_a_call_that_came_before_its_line_fails(late: str) -> None:
    seen = failed_over()
    line = seen.ledger[0]
    at_ms = seen.calls[0].at_ms + 1
    changed = LedgerLine(at_ms, line.attempt) if late == "logged" else LedgerLine(
        line.logged_ms, line.attempt.model_copy(update={"started_ms": at_ms})
    )
    assert "every call was on the ledger before it came" in broken(replace(seen, ledger=(changed, *seen.ledger[1:])))


def test_a_line_without_its_call_and_an_attempt_left_open_fail() -> None:
    name, seen = "every attempt on the ledger is one call, and closed", failed_over()
    assert name in broken(replace(seen, calls=seen.calls[1:]))
    assert name in broken(replace(seen, calls=(*seen.calls, seen.calls[0])))
    assert name in broken(replace(seen, ledger=(seen.ledger[0], *seen.ledger[2:])))
    assert name in broken(replace(seen, ledger=seen.ledger[1:]))


def test_a_cost_that_the_invoice_does_not_have_fails() -> None:
    name, seen = "the ledger agrees with the invoice", failed_over()
    cut, good = seen.billed
    assert name in broken(replace(seen, billed=(cut, replace(good, cost_microusd=3))))
    assert name in broken(replace(seen, billed=(cut,)))
    assert name in broken(replace(seen, billed=(replace(cut, cost_microusd=501), good)))
    assert name in broken(replace(seen, billed=(cut, good, good)))
    assert name in broken(replace(seen, billed=(cut, good, replace(good, attempt_id="nobody's"))))
    assert name not in broken(replace(seen, billed=(replace(cut, cost_microusd=500), good)))


def test_a_known_cost_beats_a_line_without_one_whichever_came_last() -> None:
    seen = failed_over()
    unknown = seen.ledger[3].attempt.model_copy(update={"cost_known": False, "failure": FailureClass.ORPHANED})
    assert broken(replace(seen, ledger=(*seen.ledger, LedgerLine(SENT_MS + 350, unknown)))) == set()


def test_a_result_that_counts_otherwise_than_the_ledger_fails() -> None:
    name = "a result's attempts and cost are the ledger's"
    assert name in broken(with_result(failed_over(), attempts=1))
    assert name in broken(with_result(failed_over(), cost_microusd=3))


def test_an_answer_with_a_usage_of_its_own_fails() -> None:
    seen = failed_over()
    (good,) = [line for line in seen.billed if line.model == S08.fallback.model]
    assert "an answer's usage is what its provider charged" in broken(replace(seen, billed=(replace(good, tokens_out=4),)))


def test_a_call_that_was_not_streamed_as_configured_fails() -> None:
    seen = failed_over()
    assert broken(replace(seen, calls=(seen.calls[0], replace(seen.calls[1], streamed=False)))) == {"streamed"}


def test_a_process_that_died_fails() -> None:
    assert broken(replace(failed_over(), restarted=("executor-0",))) == {"every process stayed up"}


def test_a_refusal_without_the_providers_reason_fails() -> None:
    filtered = an_attempt(S13, False)
    refusal = {"status": Status.FAILED, "answer": None, "reason": Reason.PROVIDER_REFUSED, "attempts": 1, "cost_microusd": 1}
    seen = replace(
        S13.evidence(),
        calls=(Call(SENT_MS + 12, S13.primary.model, filtered.attempt_id, 200, "content_filtered"),),
        billed=(Billed(filtered.attempt_id, S13.primary.model, 4, 0, 1),),
        ledger=lines(filtered, FailureClass.CONTENT_FILTERED, cost_microusd=1, usage=Usage(tokens_in=4)),
    )

    def told(message: str) -> Evidence:
        return replace(seen, asked=(Asked(SENT_MS, (Seen(SENT_MS + 400, a_result(S13, message=message, **refusal)),)),))

    assert scored(told("the provider says: SAFETY"), S13) is Score.PASS
    assert scored(told("attempts: content_filtered"), S13) is Score.FAIL


def an_outage(*calls_s: int) -> Evidence:
    """S15 with a primary that was called so many seconds after its first call. Books and results are left out but one."""
    calls = tuple(
        Call(SENT_MS + 1000 * at_s, S15.primary.model, str(at_s), error_class="" if 1000 * at_s >= DOWN_MS else "overloaded")
        for at_s in calls_s
    )
    side = S15.primary
    by_primary = Answer(text=side.whole, backend=side.backend, model_served=side.model)
    result = a_result(S15, answer=by_primary)
    return replace(S15.evidence(), asked=(Asked(SENT_MS, (Seen(SENT_MS + 1, result),)),) * 23, calls=calls)


def test_a_primary_that_comes_back_late_or_never_is_noticed() -> None:
    name = f"answers again within {BACK_MS} ms of its recovery"
    assert name not in broken(an_outage(0, 4, 8, 88), S15)
    assert name in broken(an_outage(0, 4, 8, 91), S15)
    assert name in broken(an_outage(0, 4, 8), S15)
    assert name in broken(an_outage(), S15)


def test_a_primary_that_is_hammered_while_down_is_a_blemish() -> None:
    assert "while down it is spared" in broken(an_outage(*range(27), 70), S15)
    assert "while down it is spared" not in broken(an_outage(*range(26), 70), S15)


def test_limits_count_each_request_for_itself_and_from_its_first_call() -> None:
    s02 = Variant(SCENARIOS["S02"], "openai", True)

    def tried(*after_ms: int) -> set[str]:
        attempts = [an_attempt(s02, False, at_ms=SENT_MS + each) for each in after_ms]
        calls = tuple(Call(a.started_ms, s02.primary.model, a.attempt_id, 429, "rate_limited") for a in attempts)
        ledger = tuple(line for a in attempts for line in lines(a, FailureClass.RATE_LIMITED))
        return broken(replace(s02.evidence(), calls=calls, ledger=ledger), s02)

    assert "at most 4 attempts in 3000 ms" not in tried(500, 1000, 2000, 3400, 3600)
    assert "at most 4 attempts in 3000 ms" in tried(500, 1000, 2000, 3400, 3500)
    assert "at most 6 attempts" in tried(0, 1, 2, 3, 4, 5, 6)


def test_a_second_call_within_the_wait_fails() -> None:
    s01, name = Variant(SCENARIOS["S01"], "openai", True), "the primary is left alone for 1800 ms"

    def called(*after_ms: int) -> set[str]:
        return broken(replace(s01.evidence(), calls=tuple(Call(each, s01.primary.model, str(each)) for each in after_ms)), s01)

    assert name in called(0, 1_799)
    assert name not in called(0, 1_800)
    assert name not in called(0)


@pytest.mark.parametrize("variant", mix(), ids=lambda variant: variant.name)
def test_the_whole_texts_are_what_the_simulated_models_say(variant: Variant) -> None:
    for side in (variant.primary, variant.fallback):
        model = model_named(side.model)
        assert model is not None
        call = SimulatorCall(model=model, prompt=QUESTION, system="", prefix="", role="user", tokens_in=4, max_tokens=300)
        assert answer(call).text == side.whole


def test_every_variant_has_a_catalogue_of_its_own() -> None:
    wanted = variants()
    assert len(wanted) == 78
    config = catalogue(wanted, "http://127.0.0.1:1", HASTY)
    assert len(config.models) == len(config.backends) == 2 * len(wanted)
    assert len({backend.model_name for backend in config.backends.values()}) == 2 * len(wanted)
