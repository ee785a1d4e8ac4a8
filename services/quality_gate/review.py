"""Decides which answers wait for a person, and what follows from what the person says, or does not say in time. Pure."""

from schemas.checks import ReviewRule, Sampling
from schemas.envelope import Envelope
from schemas.messages import (
    STATUS_OF,
    Answer,
    Completion,
    Failure,
    Reason,
    ReviewAction,
    Reviewed,
    Status,
    Verdict,
)
from schemas.quality import Feedback, Judge
from schemas.review import Review, ReviewDecision
from services.quality_gate.decide import STAGE
from services.quality_gate.sampling import is_sampled

MARGIN_MS = 1_000
"""A verdict must still reach its caller: the default applies this long before the request's deadline."""

WORTH = {ReviewAction.ACCEPT: 1.0, ReviewAction.EDIT: 0.5, ReviewAction.REJECT: 0.0}
"""What a person's decision says of the answer, as evidence on its model."""

_REJECTED = Failure(reason=Reason.QUALITY_NOT_MET, stage=STAGE, message="the review rejected the answer")
_LATE = Failure(reason=Reason.DEADLINE_PASSED, stage=STAGE, message="deadline_ms passed before the review had ended")


def parked(envelope: Envelope[Completion], verdict: Verdict, rule: ReviewRule, logged_ms: int) -> Review | None:
    """The review that the answer has to wait for; None: its verdict stands. `logged_ms`: when the completion was.

    A request with an ordering key never waits: the later ones of its key would wait for a person, too.
    """
    reason = "" if envelope.ordered else _reason(envelope.request_id, verdict, rule)
    until_ms = min(logged_ms + rule.deadline_ms, envelope.deadline_ms - MARGIN_MS)
    if not reason or until_ms <= logged_ms:
        return None
    default = ReviewAction(rule.default)
    return Review(verdict=verdict, chat=envelope.payload.task.chat, reason=reason, until_ms=until_ms, default=default)


def _reason(request_id: str, verdict: Verdict, rule: ReviewRule) -> str:
    failed = [check.name for check in verdict.checks if not check.passed]
    if verdict.answer is None or not (verdict.status is Status.DELIVERED or verdict.reason is Reason.QUALITY_NOT_MET):
        return ""
    wanted = rule.failed_checks if isinstance(rule.failed_checks, tuple) else failed if rule.failed_checks else ()
    if set(wanted) & set(failed):
        return f"fails {', '.join(failed)}"
    least = {str(name): value for name, value in rule.score_below.items()}
    for score in verdict.scores:
        if score.value is not None and score.value < least.get(score.name, 0.0):
            return f"{score.name} {score.value:g} is below {least[score.name]:g}"
    return "sampled" if is_sampled(request_id, verdict.answer.model, Sampling(share=rule.share), "review") else ""


def by_default(review: Review) -> ReviewDecision:
    """What applies when nobody decided in time."""
    return ReviewDecision(request_id="", action=review.default)


def reviewed(envelope: Envelope[Review], decision: ReviewDecision, now_ms: int) -> Verdict:
    """The verdict on a parked answer. A rejected answer goes nowhere: it may be what nobody should read."""
    verdict = envelope.payload.verdict
    assert verdict is not None, "a parked record has one"
    assert verdict.answer is not None, "only an answer is parked"
    said = Reviewed(action=decision.action, by=decision.by)
    if now_ms >= envelope.deadline_ms:
        return _ended(verdict, _LATE, said, now_ms)
    if decision.action is ReviewAction.REJECT:
        return _ended(verdict, _REJECTED, said, now_ms)
    answer = verdict.answer if decision.action is ReviewAction.ACCEPT else _edited(verdict.answer, decision.text or "")
    changes = {"status": Status.DELIVERED, "reason": None, "message": "", "stage": "", "answer": answer}
    return verdict.model_copy(update=changes | {"decided_ms": now_ms, "reviewed": said})


def _ended(verdict: Verdict, failure: Failure, said: Reviewed, now_ms: int) -> Verdict:
    return verdict.model_copy(update={
        "status": STATUS_OF[failure.reason], "reason": failure.reason, "message": failure.message, "stage": failure.stage,
        "answer": None, "decided_ms": now_ms, "reviewed": said,
    })  # fmt: skip


def _edited(answer: Answer, text: str) -> Answer:
    """The person's words, at the model's cost."""
    return answer.model_copy(update={"text": text, "tool_calls": (), "logprobs": (), "finish": "stop"})


def feedback_of(envelope: Envelope[Review], decision: ReviewDecision) -> Feedback:
    """What is learned from a person's decision."""
    return Feedback(
        request_id=envelope.request_id, tenant=envelope.tenant, score=WORTH[decision.action], judge=Judge.PERSON,
        at_ms=decision.at_ms, accepted_ms=envelope.accepted_ms,
    )
