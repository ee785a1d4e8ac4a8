"""completions -> verdicts or escalations. Thin: `checks.py` judges an answer, `decide.py` what follows from it."""

from collections.abc import Callable
from typing import Any

from schemas.envelope import Envelope
from schemas.messages import Completion, Escalation, Failure, Verdict
from schemas.topology import ESCALATIONS, VERDICTS
from services.quality_gate.decide import Limits, decide, failed
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.handler import Context
from shared.ids import escalation_id, verdict_id
from shared.outcome import Emit, Hold, Out

_VERDICT = Envelope[Verdict]
_ESCALATION = Envelope[Escalation]


class QualityGate:
    """The stage's handler. Remembers nothing, so a replay judges the same again."""

    expires_itself = True  # a late completion has cost money: its verdict says how much, and what was answered

    def __init__(self, catalogue: Callable[[], Catalogue], clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def handle(self, envelope: Envelope[Completion], context: Context) -> Emit | Hold:
        policy = self._catalogue().policy_of(envelope.tenant)
        now_ms = self._clock.now_ms()
        limits = Limits(policy.checks, policy.escalations_max, now_ms >= envelope.deadline_ms, now_ms)
        decided = decide(envelope.payload, limits)
        if isinstance(decided, Verdict):
            return Emit(_verdict(envelope, decided))
        id = escalation_id(envelope.request_id, decided.plan_number)
        escalation = (Out(ESCALATIONS, envelope.forward(_ESCALATION, id, decided)),)
        # Later requests of an ordering key wait until this one's next completion is judged.
        return Hold(escalation) if envelope.ordered else Emit(escalation)

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        return _verdict(envelope, failed(failure, self._clock.now_ms()))

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Nothing is remembered of a partition."""


def _verdict(envelope: Envelope[Any], verdict: Verdict) -> tuple[Out, ...]:
    return (Out(VERDICTS, envelope.forward(_VERDICT, verdict_id(envelope.request_id), verdict)),)
