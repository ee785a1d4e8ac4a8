"""completions -> verdicts or escalations. Thin: `checks.py` judges an answer, `decide.py` what follows from it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from schemas.envelope import Envelope, Header
from schemas.messages import Completion, Escalation, Failure, Verdict
from schemas.quality import QualityEntry
from schemas.topology import ESCALATIONS, VERDICTS
from services.quality_gate.decide import Limits, decide, failed
from services.quality_gate.doubts import Doubts
from services.quality_gate.pipelines import Pipelines
from services.quality_gate.sampling import is_sampled
from shared.broker import Broker
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.handler import Context
from shared.ids import escalation_id, verdict_id
from shared.logindex import SeenIds
from shared.outcome import Drop, Emit, Hold, Out, Outcome

_VERDICT = Envelope[Verdict]
_ESCALATION = Envelope[Escalation]


class QualityGate:
    """The stage's handler. Judges a replay the same again; only before it holds an ordering key does it ask the log.

    A completion may come twice, the second time after the request's verdict: to hold its key then would hold it for ever.
    """

    expires_itself = True  # a late completion has cost money: its verdict says how much, and what was answered

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        clock: Clock,
        broker: Broker,
        seen_max: int,
        quality: Callable[[], Mapping[str, QualityEntry]] = dict,
    ) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._ended = SeenIds(broker, VERDICTS, lambda record: record.header(Header.SUBJECT), seen_max)
        self._doubts = Doubts(quality)
        self._pipelines = Pipelines(catalogue, clock, broker, self._ended, seen_max)

    def handle(self, envelope: Envelope[Completion], context: Context) -> Outcome | Awaitable[Outcome]:
        if envelope.payload.slip is not None:
            return self._pipelines.handle(envelope, context)
        policy = self._catalogue().policy_of(envelope.tenant)
        now_ms = self._clock.now_ms()
        answer = envelope.payload.answer
        sampled = answer is not None and is_sampled(envelope.request_id, answer.model, policy.scoring, "scores")
        doubt = self._doubts.of(envelope, now_ms)
        limits = Limits(policy.checks, policy.escalations_max, now_ms >= envelope.deadline_ms, now_ms, sampled, doubt)
        decided = decide(envelope.payload, limits)
        if isinstance(decided, Verdict):
            if envelope.ordered:
                self._ended.add(context.record.partition, envelope.request_id, context.record.timestamp_ms)
            return Emit(_verdict(envelope, decided))
        id = escalation_id(envelope.request_id, decided.plan_number)
        escalation = (Out(ESCALATIONS, envelope.forward(_ESCALATION, id, decided)),)
        return self._held(envelope, escalation, context.record.partition) if envelope.ordered else Emit(escalation)

    async def _held(self, envelope: Envelope[Completion], escalation: tuple[Out, ...], partition: int) -> Outcome:
        """Later requests of an ordering key wait until this one's next completion is judged."""
        if await self._ended.lookup(partition, envelope.request_id, envelope.accepted_ms):
            return Drop("already judged")
        return Hold(escalation)

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        return _verdict(envelope, failed(failure, self._clock.now_ms()))

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Another owner may have judged more since."""
        self._ended.forget(partitions)
        self._pipelines.forget(partitions)


def _verdict(envelope: Envelope[Any], verdict: Verdict) -> tuple[Out, ...]:
    return (Out(VERDICTS, envelope.forward(_VERDICT, verdict_id(envelope.request_id), verdict)),)
