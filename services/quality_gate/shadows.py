"""Makes the request that asks another model the same, beside a request that has been answered, and judges what it says. Pure.

A shadow is a request of its own on the usual way, in the batch lane: its calls are on the ledger as `shadow`, and nobody gets
its answer. What the checks say of it is a lesson about its model; the router holds it to its share of the tenant's spend.
"""

from collections.abc import Sequence

from schemas.checks import CheckSpec
from schemas.config import ShadowRule
from schemas.envelope import Envelope
from schemas.messages import Completion, Lane, Reason, Request, Status, Verdict
from schemas.quality import Feedback, Judge
from services.quality_gate.checks import judge
from shared.ids import shadow_id

DEADLINE_MS = 120_000
"""Within which it is of use: windows and beliefs are of now, so a backlog older than this is not worth its money."""

SOURCE = "quality-gate"
_REQUEST = Envelope[Request]
_ACCEPTED = "shadowed_accepted_ms"
_NOT_ASKED = {"session", "models", "deny", "sort", "max_price", "logprobs"}
"""Wishes about who answers, and a session: it must not move to the shadow's model."""


def shadowed(envelope: Envelope[Completion], verdict: Verdict, rule: ShadowRule | None, now_ms: int) -> Envelope[Request] | None:
    """The request to the model that the plan names; None where there is none, or nothing to compare it with."""
    completion = envelope.payload
    model, chat = completion.why.shadow if completion.why else "", completion.task.chat
    is_judged = verdict.status is Status.DELIVERED or verdict.reason is Reason.QUALITY_NOT_MET
    if rule is None or not model or chat is None or not is_judged:
        return None
    if verdict.answer is None or model in {verdict.answer.model, *(tried.model for tried in verdict.tried)}:
        return None
    body = chat.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_ASKED) | {"model": model}
    id = shadow_id(envelope.request_id)
    return _REQUEST(
        id=id, request_id=id, key=id, tenant=envelope.tenant, app=envelope.app, lane=Lane.BATCH, accepted_ms=now_ms,
        deadline_ms=now_ms + DEADLINE_MS, budget_microusd=int(rule.max_cost_usd * 1_000_000),
        metadata={_ACCEPTED: envelope.accepted_ms}, payload=Request(source=SOURCE, body=body),
    )  # fmt: skip


def compared(envelope: Envelope[Completion], request_id: str, checks: Sequence[CheckSpec], now_ms: int) -> Feedback | None:
    """What the checks say of a shadow's answer to `request_id`; None where it gave none, which its backend's window knows."""
    completion, answer = envelope.payload, envelope.payload.answer
    if answer is None:
        return None
    wrong = [check.name for check in judge(answer, completion.task, checks).checks if not check.passed]
    return Feedback(
        request_id=request_id,
        tenant=envelope.tenant,
        score=float(not wrong),
        judge=Judge.GATE,
        model=answer.model,
        comment=f"a shadow, {completion.cost_microusd} micro-USD, fails {', '.join(wrong) or 'no check'}",
        at_ms=now_ms,
        accepted_ms=envelope.metadata.get(_ACCEPTED),
    )
