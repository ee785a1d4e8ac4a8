"""completions -> verdicts, escalations, reviews and requests beside. Thin: `checks/` judges an answer, `decide.py` says what
follows from it, `endings.py` whether a person is waited for and a model is asked beside."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from schemas.envelope import Envelope, Header
from schemas.messages import Completion, Escalation, Failure, Verdict
from schemas.quality import QualityEntry
from schemas.review import Review, ReviewDecision
from schemas.topology import ESCALATIONS, FEEDBACK, VERDICTS
from services.quality_gate.decide import Limits, decide, failed
from services.quality_gate.doubts import Doubts
from services.quality_gate.endings import ended_with, is_scored, verdict_out
from services.quality_gate.judging import judged
from services.quality_gate.pipelines import Pipelines
from services.quality_gate.reviews import Reviews
from services.quality_gate.shadows import compared
from shared.broker import Broker
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.handler import Context
from shared.ids import escalation_id, is_beside, judged_by, shadowed_by
from shared.logindex import SeenIds
from shared.outcome import Drop, Emit, Hold, Out, Outcome

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
        self._pipelines = Pipelines(catalogue, clock, broker, self._ended, self._doubts, seen_max)
        self._reviews = Reviews(clock, broker, seen_max)

    def handle(self, subject: Envelope[Any] | ReviewDecision, context: Context) -> Outcome | Awaitable[Outcome]:
        if isinstance(subject, ReviewDecision):
            return self._reviews.passed_on(subject, context)
        if isinstance(subject.payload, Review):
            return self._reviews.handle(subject, context)
        if subject.payload.slip is not None:
            return self._pipelines.handle(subject, context)
        return self._learn(subject) if is_beside(subject.request_id) else self._judge(subject, context)

    def _judge(self, envelope: Envelope[Completion], context: Context) -> Outcome | Awaitable[Outcome]:
        policy = self._catalogue().policy_of(envelope.tenant)
        now_ms = self._clock.now_ms()
        answer = envelope.payload.answer
        sampled = answer is not None and is_scored(envelope.request_id, answer.model, policy)
        doubt = self._doubts.of(envelope, now_ms)
        limits = Limits(policy.checks, policy.escalations_max, now_ms >= envelope.deadline_ms, now_ms, sampled, doubt)
        decided = decide(envelope.payload, limits)
        if isinstance(decided, Verdict):
            if envelope.ordered:
                self._ended.add(context.record.partition, envelope.request_id, context.record.timestamp_ms)
            return Emit(ended_with(envelope, decided, policy, context.record.timestamp_ms, now_ms))
        id = escalation_id(envelope.request_id, decided.plan_number)
        escalation = (Out(ESCALATIONS, envelope.forward(_ESCALATION, id, decided)),)
        return self._held(envelope, escalation, context.record.partition) if envelope.ordered else Emit(escalation)

    def _learn(self, envelope: Envelope[Completion]) -> Outcome:
        """What a judge or a shadow answers is nobody's result; it may be a lesson."""
        now_ms, id, policy = self._clock.now_ms(), envelope.request_id, self._catalogue().policy_of(envelope.tenant)
        if (request_id := judged_by(id)) is not None:
            said = judged(envelope, request_id, policy.judge, now_ms)
        else:
            request_id = shadowed_by(id) or ""
            said = compared(envelope, request_id, policy.checks, now_ms)
        return Emit((Out(FEEDBACK, said, key=request_id),)) if said else Drop("no judgement")

    async def _held(self, envelope: Envelope[Completion], escalation: tuple[Out, ...], partition: int) -> Outcome:
        """Later requests of an ordering key wait until this one's next completion is judged."""
        if await self._ended.lookup(partition, envelope.request_id, envelope.accepted_ms):
            return Drop("already judged")
        return Hold(escalation)

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        """Nothing of a request that nobody waits for, and of a decision on a review: neither has a verdict of its own."""
        payload = envelope.payload
        if is_beside(envelope.request_id) or (isinstance(payload, Review) and payload.decision is not None):
            return ()
        return (verdict_out(envelope, failed(failure, self._clock.now_ms())),)

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Another owner may have judged more since."""
        self._ended.forget(partitions)
        self._pipelines.forget(partitions)
        self._reviews.forget(partitions)
