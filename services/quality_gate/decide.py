"""Decides what follows from a completion: deliver the answer, ask for a stronger model, or give up with the best answer.

Pure. Every completion ends in exactly one of the three; a request never leaves without a verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.checks import CheckSpec
from schemas.messages import (
    STATUS_OF,
    Answer,
    Check,
    Completion,
    Escalation,
    Failure,
    Reason,
    Score,
    Status,
    Tried,
    Verdict,
)
from services.quality_gate.checks import judge

STAGE = "quality-gate"

OUT_OF_MODELS = frozenset({Reason.NO_STRONGER_MODEL, Reason.NO_ABLE_MODEL, Reason.CONTEXT_TOO_LONG, Reason.OVER_BUDGET})
"""Failures of a later plan that say: nothing better can be had. The earlier answer's quality is then the reason."""

_NO_ANSWER = Answer(text="")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a judgement. `is_late`: the request's deadline has passed; `is_sampled`: every score is computed.

    `doubt`: how likely the answer is right, where the plan's cascade asks its next model because of that.
    """

    checks: tuple[CheckSpec, ...]
    escalations_max: int
    is_late: bool
    now_ms: int
    is_sampled: bool = False
    doubt: float | None = None


@dataclass(frozen=True, slots=True)
class _Judged:
    """An answer with the checks that ran on it."""

    answer: Answer
    checks: tuple[Check, ...]
    scores: tuple[Score, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if not check.passed)


def decide(completion: Completion, limits: Limits) -> Verdict | Escalation:
    """The verdict on a completion, or the escalation that it needs first."""
    if completion.failure is not None:
        return _without_answer(completion, completion.failure, limits)
    judged = _judge(completion, completion.answer or _NO_ANSWER, limits)
    if limits.is_late:
        late = Failure(reason=Reason.DEADLINE_PASSED, stage=STAGE, message="the answer came after deadline_ms")
        return _ended(completion, late, _best(completion, judged, limits), limits, completion.tried)
    is_doubted = not judged.failed and limits.doubt is not None and completion.may_escalate
    if not judged.failed and not is_doubted:
        return _delivered(completion, judged, limits, completion.tried)
    tried = (*completion.tried, _tried(judged, limits.doubt if is_doubted else None))
    best = _best(completion, judged, limits)
    if is_doubted:
        return _escalated(completion, best, tried)
    if not best.failed:
        return _delivered(completion, best, limits, tried)
    if completion.may_escalate and completion.plan_number < limits.escalations_max:
        return _escalated(completion, best, tried)
    return _ended(completion, _not_met(best), best, limits, tried)


def failed(failure: Failure, now_ms: int) -> Verdict:
    """The verdict on a request of which nothing but its identity is known."""
    return Verdict(
        status=STATUS_OF[failure.reason],
        reason=failure.reason,
        message=failure.message,
        stage=failure.stage,
        decided_ms=now_ms,
    )


def _without_answer(completion: Completion, failure: Failure, limits: Limits) -> Verdict:
    """A failed plan. An answer of an earlier plan goes along; where no better one can be had, its quality is the reason."""
    if completion.best is None:
        return _ended(completion, failure, None, limits, completion.tried)
    best = _judge(completion, completion.best, limits)
    if not best.failed and not limits.is_late:
        return _delivered(completion, best, limits, completion.tried)
    reason = _not_met(best) if failure.reason in OUT_OF_MODELS else failure
    return _ended(completion, reason, best, limits, completion.tried)


def _judge(completion: Completion, answer: Answer, limits: Limits) -> _Judged:
    return _Judged(*judge(answer, completion.task, limits.checks, limits.is_sampled))


def _best(completion: Completion, judged: _Judged, limits: Limits) -> _Judged:
    """The answer that fails the fewest checks; the earlier one on a tie, but the stronger model's of two that pass."""
    if completion.best is None:
        return judged
    earlier = _judge(completion, completion.best, limits)
    return judged if not judged.failed or len(judged.failed) < len(earlier.failed) else earlier


def _tried(judged: _Judged, doubt: float | None) -> Tried:
    return Tried(model=judged.answer.model, backend=judged.answer.backend, failed_checks=judged.failed, confidence=doubt)


def _not_met(best: _Judged) -> Failure:
    message = f"no answer passed every check; the best one fails {', '.join(best.failed)}"
    return Failure(reason=Reason.QUALITY_NOT_MET, stage=STAGE, message=message)


def _delivered(completion: Completion, judged: _Judged, limits: Limits, tried: Sequence[Tried]) -> Verdict:
    return Verdict(
        status=Status.DELIVERED,
        answer=judged.answer,
        checks=judged.checks,
        scores=judged.scores,
        why=completion.why,
        tried=tuple(tried),
        attempts=completion.attempts,
        cost_microusd=completion.cost_microusd,
        decided_ms=limits.now_ms,
    )


def _ended(completion: Completion, failure: Failure, best: _Judged | None, limits: Limits, tried: Sequence[Tried]) -> Verdict:
    return Verdict(
        status=STATUS_OF[failure.reason],
        reason=failure.reason,
        message=failure.message,
        stage=failure.stage,
        answer=best.answer if best else None,
        checks=best.checks if best else (),
        scores=best.scores if best else (),
        why=completion.why,
        tried=tuple(tried),
        attempts=completion.attempts,
        cost_microusd=completion.cost_microusd,
        decided_ms=limits.now_ms,
    )


def _escalated(completion: Completion, best: _Judged, tried: Sequence[Tried]) -> Escalation:
    return Escalation(
        plan_number=completion.plan_number + 1,
        task=completion.task,
        tried=tuple(tried),
        best=best.answer,
        asks=completion.cascade.following if completion.cascade and tried[-1].confidence is not None else "",
        attempts=completion.attempts,
        cost_microusd=completion.cost_microusd,
    )
