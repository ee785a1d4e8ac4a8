"""The lines an executor writes: a started and a finished line per attempt, and a plan's one completion. Pure."""

from collections.abc import Sequence

from schemas.config import Backend, Prices
from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Answer, Completion, Failure, Plan, Task
from schemas.topology import COMPLETIONS
from services.executor.decide import Call
from services.executor.failures import FAILURES
from services.executor.reply import Reply
from shared import ids
from shared.outcome import Out
from shared.prices import cost_microusd

_COMPLETION = Envelope[Completion]


def started(
    call: Call, attempt_id: str, envelope: Envelope[Plan], backend: Backend, prices: Prices, executor: str, now_ms: int
) -> Attempt:
    """The line that stands in the ledger before the call is made."""
    return Attempt(
        attempt_id=attempt_id,
        plan_id=envelope.id,
        request_id=envelope.request_id,
        tenant=envelope.tenant,
        app=envelope.app,
        phase=AttemptPhase.STARTED,
        kind=_kind_beside(envelope.request_id) or call.kind,
        model=call.candidate.model,
        backend=call.backend,
        model_asked=backend.model_name or backend.model,
        executor=executor,
        started_ms=now_ms,
        cost_max_microusd=call.candidate.cost_max_microusd,
        price_version=prices.version,
    )


def finished(line: Attempt, reply: Reply, prices: Prices, now_ms: int) -> Attempt:
    """The closing line of a started attempt."""
    cost = cost_of(reply, prices)
    first_token_ms = None if reply.first_token_ms is None else round(reply.first_token_ms)
    return line.model_copy(
        update={
            "phase": AttemptPhase.FINISHED,
            "finished_ms": now_ms,
            "failure": reply.failure,
            "usage": reply.usage,
            "cost_microusd": cost or 0,
            "cost_known": cost is not None,
            "model_served": reply.model_served,
            "provider_request_id": reply.provider_request_id,
            "streamed": reply.streamed,
            "first_token_ms": first_token_ms,
            "status": reply.status,
            "wait_ms": reply.wait_ms,
        }
    )


def never_sent(line: Attempt, now_ms: int) -> Attempt:
    """The closing line of an attempt whose call was not made."""
    closed = {"phase": AttemptPhase.FINISHED, "finished_ms": now_ms, "failure": FailureClass.CANCELLED, "cost_known": True}
    return line.model_copy(update=closed)


def _kind_beside(request_id: str) -> AttemptKind | None:
    """Of a call for which nobody waits."""
    if not ids.is_beside(request_id):
        return None
    return AttemptKind.JUDGE if ids.judged_by(request_id) is not None else AttemptKind.SHADOW


def cost_of(reply: Reply, prices: Prices) -> int | None:
    """Micro-USD of a call, rounded once; None when nobody can tell: then it lies within 0 and the candidate's maximum.

    Without a usage only what surely made no tokens is free: no request sent, or an error that providers do not bill.
    """
    if reply.usage is not None and not reply.usage.estimated:
        return cost_microusd(prices, reply.usage)
    if not reply.sent:
        return 0
    if reply.failure is None or reply.status in (0, 200) or FAILURES[reply.failure].maybe_billed:
        return None
    return 0


def cost_upper_microusd(attempt: Attempt) -> int:
    """The most this attempt may have cost."""
    return attempt.cost_microusd if attempt.cost_known else max(attempt.cost_microusd, attempt.cost_max_microusd)


def spent_microusd(envelope: Envelope[Plan], attempts: Sequence[Attempt]) -> int:
    """Upper bound of what the request has cost, this plan's attempts included; a running one counts with its maximum."""
    upper = (cost_upper_microusd(a) if a.phase is AttemptPhase.FINISHED else a.cost_max_microusd for a in attempts)
    return envelope.spent_microusd + sum(upper)


def counts_for_circuit(reply: Reply, call: Call) -> bool:
    """Whether the backend is to blame. A caller who had no patience never trips a circuit."""
    if reply.failure is None or (reply.failure is FailureClass.TIMEOUT and not call.is_fair):
        return False
    return FAILURES[reply.failure].counts_for_circuit


def completion(
    envelope: Envelope[Plan], attempts: Sequence[Attempt], answer: Answer | None = None, failure: Failure | None = None
) -> Out:
    """What executing the plan yielded."""
    plan = envelope.payload if isinstance(envelope.payload, Plan) else None   # an undecodable record has only identity
    last = attempts[-1].failure if attempts and failure is not None else None
    known_microusd = sum(attempt.cost_microusd for attempt in attempts if attempt.cost_known)
    payload = Completion(
        plan_id=envelope.id,
        plan_number=plan.number if plan else _number_of(envelope.id),
        task=plan.task if plan else Task(failure=failure),
        answer=answer,
        failure=failure,
        failure_class=last,
        attempts=len(attempts) + (plan.attempts_before if plan else 0),
        cost_microusd=known_microusd + (plan.cost_before_microusd if plan else 0),
        why=plan.why if plan else None,
        quality_min=plan.why.quality_min if plan else 0.0,
        tried=plan.tried if plan else (),
        best=plan.best if plan else None,
        slip=plan.slip if plan else None,
        cascade=plan.cascade if plan else None,
    )
    id, spent = ids.completion_id(envelope.id), spent_microusd(envelope, attempts)
    return Out(COMPLETIONS, envelope.forward(_COMPLETION, id, payload, spent))


def _number_of(plan_id: str) -> int:
    number = plan_id.rpartition("/")[2]
    return int(number) if number.isdigit() else 0
