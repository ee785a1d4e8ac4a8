"""Decides which delivered answers a model judges, makes the request for it, and reads what came of it. Pure.

A judgement is a request of its own on the usual way: its calls are on the ledger as `judge`, its cost is bounded by itself, and
the user's answer waits for none of it. It ends as feedback; nobody asked for it, so it has no verdict and no result.
"""

from collections.abc import Iterable

from schemas.checks import JudgeRule, Sampling
from schemas.envelope import Envelope
from schemas.messages import Completion, Lane, Request, Status, Verdict
from schemas.quality import Feedback, Judge
from services.quality_gate.judge import Calibration, Material, grades_of, grading, judge_for
from services.quality_gate.sampling import is_sampled
from services.quality_gate.scores.given import given
from shared.ids import judging_id

DEADLINE_MS = 120_000
"""Within which a judgement is of use. Nobody waits for it; a backlog older than this is not worth its money."""

SOURCE = "quality-gate"
_REQUEST = Envelope[Request]
_ACCEPTED, _RUBRIC = "judged_accepted_ms", "rubric"


def asked(
    envelope: Envelope[Completion], verdict: Verdict, rule: JudgeRule | None, now_ms: int, helped: Iterable[str] = ()
) -> Envelope[Request] | None:
    """The request to a judge; None where this answer is not judged. `helped`: models that must not judge it either."""
    answer, chat = verdict.answer, envelope.payload.task.chat
    if rule is None or verdict.status is not Status.DELIVERED or answer is None or not answer.text or chat is None:
        return None
    if not is_sampled(envelope.request_id, answer.model, Sampling(share=rule.share), "judge"):
        return None
    judge = judge_for(rule.models, frozenset({answer.model, *helped, *(tried.model for tried in verdict.tried)}))
    if judge is None:
        return None
    found = given(envelope.payload.task)
    question = grading(Material(found.question, found.context, answer.text), rule.rubric)
    body = question.model_dump(mode="json", exclude_defaults=True) | {"model": judge, "temperature": 0}
    id = judging_id(envelope.request_id)
    return _REQUEST(
        id=id, request_id=id, key=id, tenant=envelope.tenant, app=envelope.app, lane=Lane.BATCH, accepted_ms=now_ms,
        deadline_ms=now_ms + DEADLINE_MS, budget_microusd=int(rule.max_cost_usd * 1_000_000),
        metadata={_ACCEPTED: envelope.accepted_ms, _RUBRIC: list(rule.rubric)},
        payload=Request(source=SOURCE, body=body),
    )  # fmt: skip


def judged(envelope: Envelope[Completion], request_id: str, rule: JudgeRule | None, now_ms: int) -> Feedback | None:
    """What a judge said of the answer to `request_id`: the mean of its grades, calibrated. None where it did not say."""
    answer, rubric = envelope.payload.answer, envelope.metadata.get(_RUBRIC, ())
    grades = grades_of(answer.text, rubric) if answer is not None and rubric else None
    if grades is None or answer is None:
        return None
    return Feedback(
        request_id=request_id,
        tenant=envelope.tenant,
        score=calibrated(sum(grades.values()) / len(grades), answer.model, rule),
        judge=Judge.MODEL,
        comment=f"{answer.model}: " + ", ".join(f"{name} {grade:g}" for name, grade in grades.items()),
        at_ms=now_ms,
        accepted_ms=envelope.metadata.get(_ACCEPTED),
    )


def calibrated(grade: float, judge: str, rule: JudgeRule | None) -> float:
    """The share of answers with this grade of this judge that are good; the grade itself where nobody has measured that."""
    pairs = rule.calibration.get(judge) if rule else None
    return Calibration(*zip(*pairs, strict=True)).of(grade) if pairs else grade
