"""Decides what goes out where a request has its answer: the verdict, or the review that it waits for, and beside it the
question to a judge, and to another model. Pure. Plain requests and pipelines end here alike."""

from collections.abc import Iterable

from schemas.config import Policy
from schemas.envelope import Envelope
from schemas.messages import Completion, Verdict
from schemas.topology import REQUESTS, VERDICTS
from services.quality_gate.judging import asked
from services.quality_gate.review import parked
from services.quality_gate.reviews import review_out
from services.quality_gate.sampling import is_sampled
from services.quality_gate.shadows import shadowed
from shared.ids import review_id, verdict_id
from shared.outcome import Out

_VERDICT = Envelope[Verdict]


def verdict_out(envelope: Envelope[Completion], verdict: Verdict, spent_microusd: int | None = None) -> Out:
    return Out(VERDICTS, envelope.forward(_VERDICT, verdict_id(envelope.request_id), verdict, spent_microusd))


def ended_with(
    envelope: Envelope[Completion],
    verdict: Verdict,
    policy: Policy,
    logged_ms: int,
    now_ms: int,
    helped: Iterable[str] = (),
) -> tuple[Out, ...]:
    """`envelope` holds the request's own task and limits, `logged_ms` is when its completion was. `helped`: models that had a
    part in the answer beside the one that is named on it."""
    review = policy.review and parked(envelope, verdict, policy.review, logged_ms)
    if review:
        return (review_out(envelope, review, review_id(envelope.request_id)),)
    beside = asked(envelope, verdict, policy.judge, now_ms, helped), shadowed(envelope, verdict, policy.shadow, now_ms)
    return (verdict_out(envelope, verdict), *(Out(REQUESTS, each) for each in beside if each))


def is_scored(request_id: str, model: str, policy: Policy) -> bool:
    """Whether every score of this answer is computed: for the sample, or because a review may depend on one."""
    wants_scores = policy.review is not None and bool(policy.review.score_below)
    return wants_scores or is_sampled(request_id, model, policy.scoring, "scores")
