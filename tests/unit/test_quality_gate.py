"""The gate: what the checks find, and what follows: deliver, escalate, or give up with the best answer."""

import asyncio
from typing import Any

import pytest

from schemas.checks import CheckSpec
from schemas.config import CHECKS_DEFAULT
from schemas.envelope import Envelope
from schemas.ledger import Usage
from schemas.messages import (
    Answer,
    Chat,
    Check,
    Completion,
    Escalation,
    Failure,
    Reason,
    Status,
    Tried,
    Verdict,
)
from schemas.topology import ESCALATIONS, VERDICTS, topic_spec
from services.quality_gate.checks import CHECKS, MENDED, judge
from services.quality_gate.main import QualityGate
from shared.broker import Output
from shared.codec import decode, encode, headers_for
from shared.local import LocalBroker
from shared.outcome import Drop, Emit, Hold, Out, Outcome
from tests.support.builders import (
    NOW_MS,
    REQUEST_ID,
    ManualClock,
    a_catalogue,
    a_chat,
    a_completion,
    a_context,
    a_failure,
    a_task,
    an_answer,
    an_envelope,
)

SCHEMA = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "offer", "schema": SCHEMA}}
CALL = ({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},)


def checked(name: str, answer: Answer, chat: Chat | None = None) -> Check:
    (found,) = judge(answer, a_task(chat), (CheckSpec(check=name),)).checks
    return found


async def outcome_of(
    completion: Completion, policy: dict[str, Any] | None = None, verdict_in_log: Verdict | None = None, **envelope: Any
) -> Outcome:
    broker = LocalBroker(ManualClock())
    await broker.create_topics([topic_spec(VERDICTS, 1)])
    if verdict_in_log:
        judged = an_envelope(verdict_in_log, **envelope)
        value, headers = encode(VERDICTS, judged), headers_for(VERDICTS, "quality-gate", judged)
        await (await broker.producer()).send(Output(VERDICTS.name, judged.key.encode(), value, headers))
    gate = QualityGate(lambda: a_catalogue(**(policy or {})), ManualClock(), broker, seen_max=100)
    found = gate.handle(an_envelope(completion, id=f"{completion.plan_id}/completion", **envelope), a_context())
    return found if isinstance(found, Emit | Hold | Drop) else await found  # type: ignore[misc]


def handled(completion: Completion, policy: dict[str, Any] | None = None, **envelope: Any) -> Emit | Hold:
    outcome = asyncio.run(outcome_of(completion, policy, **envelope))
    assert isinstance(outcome, Emit | Hold)
    return outcome


def out_of(outcome: Emit | Hold) -> Out:
    (out,) = outcome.outputs
    assert isinstance(out.value, Envelope)
    assert decode(out.topic, encode(out.topic, out.value)) == out.value
    return out


def verdict_of(completion: Completion, **kwargs: Any) -> Verdict:
    out = out_of(handled(completion, **kwargs))
    assert out.topic is VERDICTS
    assert isinstance(out.value, Envelope)
    assert isinstance(out.value.payload, Verdict)
    return out.value.payload


def escalation_of(completion: Completion, **kwargs: Any) -> Escalation:
    out = out_of(handled(completion, **kwargs))
    assert out.topic is ESCALATIONS
    assert isinstance(out.value, Envelope)
    assert isinstance(out.value.payload, Escalation)
    return out.value.payload


def test_text_or_a_tool_call_is_an_answer() -> None:
    assert checked("not_empty", an_answer()).passed
    assert checked("not_empty", an_answer("", tool_calls=CALL)).passed
    assert not checked("not_empty", an_answer(" \n")).passed


def test_an_answer_cut_at_the_callers_own_max_tokens_is_what_was_asked_for() -> None:
    cut = an_answer(finish="length", usage=Usage(tokens_in=9, tokens_out=50))
    assert not checked("not_truncated", cut).passed
    asked = checked("not_truncated", cut, a_chat(max_tokens=50))
    assert (asked.passed, asked.detail) == (True, "cut at the caller's max_tokens")
    assert not checked("not_truncated", cut, a_chat(max_tokens=400)).passed  # the model stopped long before
    assert checked("not_truncated", an_answer(), a_chat(max_tokens=400)).detail == ""


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that request.",
        "I’m sorry, but I cannot assist with that.",
        "I cannot provide instructions for this.",
        "Unfortunately, I am unable to fulfil this request.",
        "As an AI language model, I cannot have an opinion on that.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Dabei kann ich Ihnen leider nicht helfen.",
        "Lo siento, pero no puedo ayudar con esa petición.",
        "Je suis désolé, mais je ne peux pas répondre à cette demande.",
    ],
)
def test_a_refusal_is_recognised(text: str) -> None:
    assert not checked("not_refused", an_answer(text)).passed


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ann, I'm sorry, but I can't come to the meeting on Friday.",
        "Unfortunately, the train was late. Here is how to claim a refund.",
        "The speaker said: we cannot provide figures yet.",
        "Es tut mir leid, dass der Zug zu spät kam.",
        "I'm sorry, I cannot help but smile. " + "Here is the essay you asked for. " * 30,
        "",
    ],
)
def test_an_apology_is_not_taken_for_a_refusal(text: str) -> None:
    assert checked("not_refused", an_answer(text)).passed


def test_a_filtered_answer_counts_as_refused() -> None:
    assert not checked("not_refused", an_answer("Hello", finish="content_filter")).passed


@pytest.mark.parametrize(
    ("text", "wanted", "detail"),
    [
        ('{"price": 3}', AS_SCHEMA, None),
        ('{"price": "s3cret"}', AS_SCHEMA, "violates the schema at properties/price/type"),
        ('{"s3cret": 3}', AS_SCHEMA, "violates the schema at required"),
        ('```json\n{"price": 3}\n```', AS_SCHEMA, MENDED),
        ('The price is {"price": 3}', AS_SCHEMA, MENDED),
        ('```json\n{"price": "three"}\n```', AS_SCHEMA, "not JSON: wrapped in a code fence"),
        ('The price is {"price": 3', AS_SCHEMA, "not JSON"),
        ("", AS_SCHEMA, "not JSON"),
        ('{"any": 1}', {"type": "json_object"}, None),
        ("[1]", {"type": "json_object"}, "JSON, but not an object"),
        ("free text", None, None),
    ],
)
def test_an_answer_must_be_the_json_that_was_asked_for(text: str, wanted: dict[str, Any] | None, detail: str | None) -> None:
    found = checked("matches_schema", an_answer(text), a_chat(response_format=wanted))
    assert (found.passed, found.detail) == (detail in (None, MENDED), detail or "")


def test_a_tool_call_is_not_held_to_the_schema_of_an_answer() -> None:
    assert checked("matches_schema", an_answer("", tool_calls=CALL), a_chat(response_format=AS_SCHEMA)).passed


def test_checks_run_cheap_first_and_a_name_of_a_newer_release_stands_in_nobodys_way() -> None:
    asked = [CheckSpec.model_construct(check=name) for name in ("of_tomorrow", *reversed(CHECKS))]
    checks = judge(an_answer(), a_task(), asked).checks
    assert [found.name for found in checks] == [*CHECKS, "of_tomorrow"]
    assert checks[-1] == Check(name="of_tomorrow", version=0, passed=True, detail="not known to this release")


def test_an_answer_that_passes_is_delivered_with_what_led_to_it() -> None:
    completion = a_completion(attempts=2, cost_microusd=90)
    out = out_of(handled(completion))
    assert isinstance(out.value, Envelope)
    assert (out.value.id, out.value.request_id) == (f"{REQUEST_ID}/verdict", REQUEST_ID)
    verdict = verdict_of(completion)
    assert (verdict.status, verdict.reason, verdict.answer) == (Status.DELIVERED, None, an_answer())
    assert (verdict.attempts, verdict.cost_microusd, verdict.decided_ms) == (2, 90, NOW_MS)
    assert verdict.why == completion.why
    assert [found.name for found in verdict.checks] == [spec.check for spec in CHECKS_DEFAULT]


def test_only_the_checks_of_the_tenants_policy_run() -> None:
    verdict = verdict_of(a_completion(an_answer("")), policy={"checks": ("not_truncated",)})
    assert (verdict.status, [found.name for found in verdict.checks]) == (Status.DELIVERED, ["not_truncated"])


def test_an_answer_that_fails_asks_for_a_stronger_model() -> None:
    escalation = escalation_of(a_completion(an_answer(""), attempts=2, cost_microusd=90))
    assert escalation.plan_number == 1
    assert escalation.tried == (Tried(model="small", backend="small-a", failed_checks=("not_empty",)),)
    assert escalation.best == an_answer("")
    assert (escalation.attempts, escalation.cost_microusd) == (2, 90)
    out = out_of(handled(a_completion(an_answer(""))))
    assert isinstance(out.value, Envelope)
    assert out.value.id == f"{REQUEST_ID}/escalation/1"


def test_an_ordered_request_stays_open_while_it_is_escalated() -> None:
    assert isinstance(handled(a_completion(an_answer("")), ordered=True), Hold)
    assert isinstance(handled(a_completion(an_answer(""))), Emit)
    assert isinstance(handled(a_completion(), ordered=True), Emit)


def test_a_completion_that_comes_again_after_its_verdict_does_not_hold_the_key() -> None:
    verdict = Verdict(status=Status.DELIVERED, decided_ms=NOW_MS)
    again = asyncio.run(outcome_of(a_completion(an_answer("")), verdict_in_log=verdict, ordered=True))
    assert again == Drop("already judged")


@pytest.mark.parametrize(
    ("fields", "policy"),
    [({"plan_number": 1}, {}), ({"may_escalate": False}, {}), ({}, {"escalations_max": 0})],
)
def test_where_no_escalation_is_left_the_best_answer_goes_out_as_failed(fields: dict[str, Any], policy: dict[str, Any]) -> None:
    verdict = verdict_of(a_completion(an_answer("", model="m", backend="m-a"), **fields), policy=policy)
    assert (verdict.status, verdict.reason, verdict.stage) == (Status.FAILED, Reason.QUALITY_NOT_MET, "quality-gate")
    assert verdict.message == "no answer passed every check; the best one fails not_empty"
    assert verdict.tried[-1] == Tried(model="m", backend="m-a", failed_checks=("not_empty",))


@pytest.mark.parametrize(
    ("earlier", "later", "kept"),
    [
        (an_answer("", finish="length"), an_answer(""), "later"),
        (an_answer(""), an_answer("", finish="length"), "earlier"),
        (an_answer("", model="a"), an_answer("", model="b"), "earlier"),
    ],
)
def test_the_best_answer_fails_the_fewest_checks_and_the_earlier_wins_a_tie(earlier: Answer, later: Answer, kept: str) -> None:
    verdict = verdict_of(a_completion(later, plan_number=1, best=earlier))
    assert verdict.answer == (later if kept == "later" else earlier)
    assert [found.name for found in verdict.checks if not found.passed] == ["not_empty"]


@pytest.mark.parametrize("reason", list(Reason))
def test_a_failure_without_an_answer_keeps_its_reason(reason: Reason) -> None:
    verdict = verdict_of(a_completion(failure=a_failure(reason, "executor"), attempts=3, cost_microusd=5))
    assert (verdict.reason, verdict.stage, verdict.answer) == (reason, "executor", None)
    assert (verdict.attempts, verdict.cost_microusd) == (3, 5)
    assert verdict.status is not Status.DELIVERED


@pytest.mark.parametrize("reason", [Reason.NO_STRONGER_MODEL, Reason.OVER_BUDGET, Reason.NO_ABLE_MODEL])
def test_where_nothing_better_can_be_had_the_earlier_answers_quality_is_the_reason(reason: Reason) -> None:
    verdict = verdict_of(a_completion(failure=a_failure(reason, "router"), plan_number=1, best=an_answer("")))
    assert (verdict.status, verdict.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert verdict.answer == an_answer("")
    assert verdict.checks


@pytest.mark.parametrize("reason", [Reason.PROVIDERS_FAILED, Reason.DEADLINE_PASSED])
def test_a_provider_failure_or_expiry_after_an_escalation_keeps_its_reason_and_attaches_the_best_answer(
    reason: Reason,
) -> None:
    failure = a_failure(reason, "executor")
    verdict = verdict_of(a_completion(failure=failure, plan_number=1, best=an_answer("")))
    assert (verdict.reason, verdict.stage, verdict.answer) == (reason, "executor", an_answer(""))


def test_an_answer_after_the_deadline_is_expired_and_says_what_it_cost() -> None:
    assert QualityGate.expires_itself, "else the runner would end it by its identity alone"
    verdict = verdict_of(a_completion(cost_microusd=90, attempts=1), deadline_ms=NOW_MS)
    assert (verdict.status, verdict.reason) == (Status.EXPIRED, Reason.DEADLINE_PASSED)
    assert (verdict.cost_microusd, verdict.answer) == (90, an_answer())


def test_identity_alone_makes_a_verdict() -> None:
    failure = Failure(reason=Reason.UNDECODABLE, stage="quality-gate", message="see dead letters")
    (out,) = QualityGate(a_catalogue, ManualClock(), LocalBroker(), 100).failed(an_envelope(a_completion()), failure)
    assert isinstance(out.value, Envelope)
    assert out.value.payload == Verdict(
        status=Status.FAILED,
        reason=Reason.UNDECODABLE,
        message="see dead letters",
        stage="quality-gate",
        decided_ms=NOW_MS,
    )
