"""A verdict becomes the result that users read. Pure; it copies, and changes nothing in an answer."""

from schemas.envelope import Envelope, Fact
from schemas.messages import STATUS_OF, Failure, Result, Verdict
from schemas.topology import REPLIES, RESULTS
from shared.ids import line_prefix
from shared.outcome import Out


def result_of(envelope: Envelope[Verdict]) -> Result:
    verdict = envelope.payload
    return Result(
        request_id=envelope.request_id,
        tenant=envelope.tenant,
        app=envelope.app,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message,
        stage=verdict.stage,
        answer=verdict.answer,
        checks=verdict.checks,
        scores=verdict.scores,
        why=verdict.why,
        tried=verdict.tried,
        attempts=verdict.attempts,
        cost_microusd=verdict.cost_microusd,
        accepted_ms=envelope.accepted_ms,
        decided_ms=verdict.decided_ms,
        ordering_key=envelope.key.removeprefix(line_prefix(envelope.tenant)) if envelope.ordered else None,
        metadata=envelope.metadata,
        reviewed=verdict.reviewed,
    )


def result_of_failure(envelope: Envelope[Fact], failure: Failure) -> Result:
    """Of a verdict that output itself could not deliver; decided when it was accepted, for nothing later is known."""
    return Result(
        request_id=envelope.request_id,
        tenant=envelope.tenant,
        app=envelope.app,
        status=STATUS_OF[failure.reason],
        reason=failure.reason,
        message=failure.message,
        stage=failure.stage,
        accepted_ms=envelope.accepted_ms,
        decided_ms=envelope.accepted_ms,
        metadata=envelope.metadata,
    )


def deliveries(envelope: Envelope[Verdict] | Envelope[Fact], result: Result) -> tuple[Out, ...]:
    """`results`, in the order of the request's key; and a reply when a caller waits."""
    outs = [Out(RESULTS, result, key=envelope.key)]
    partition = reply_partition(envelope.reply)
    if partition is not None:
        outs.append(Out(REPLIES, result, key=envelope.request_id, partition=partition))
    return tuple(outs)


def reply_partition(reply: str | None) -> int | None:
    """The partition a caller waits on; None when nobody does, or when the address is none of ours."""
    if reply is None or not (reply.isascii() and reply.isdigit()):
        return None
    return int(reply) if int(reply) < (REPLIES.partitions or 0) else None
