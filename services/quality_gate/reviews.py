"""reviews and review-decisions -> verdicts. Thin: `review.py` decides.

A parked answer is an open record on `reviews`; a decision is passed on to the same partition of that topic, behind it, so the
log says in which order they came. Before an answer is held the log is asked whether its request was judged already: then a
kill between a verdict and its commit makes no second one.
"""

from collections.abc import Awaitable
from typing import Any

from schemas.envelope import Envelope, Header
from schemas.messages import Verdict
from schemas.review import Review, ReviewDecision
from schemas.topology import FEEDBACK, REVIEWS, VERDICTS
from services.quality_gate.review import by_default, feedback_of, reviewed
from shared.broker import Broker
from shared.clock import Clock
from shared.handler import Context
from shared.ids import review_decision_id, verdict_id
from shared.logindex import SeenIds
from shared.outcome import Drop, Emit, Hold, Out, Outcome

_REVIEW = Envelope[Review]
_VERDICT = Envelope[Verdict]
_NONE: frozenset[int] = frozenset()

GRACE_MS = 1_000
"""A review that is read after its time, because this stage was down, waits so long for a decision that stands behind it."""

OPEN_MAX = 1_000
"""Reviews that one replica holds open; beyond it the default applies at once, so that the open ones can still be decided."""


class Reviews:
    """The gate's handler for both topics. `_until_ms` is of the records that are held open, by partition and offset."""

    def __init__(self, clock: Clock, broker: Broker, seen_max: int) -> None:
        self._clock = clock
        self._ended = SeenIds(broker, VERDICTS, lambda record: record.header(Header.SUBJECT), seen_max)
        self._until_ms: dict[tuple[int, int], int] = {}

    def forget(self, partitions: frozenset[int]) -> None:
        """Another owner may have decided more since."""
        self._ended.forget(partitions)
        self._until_ms = {place: until for place, until in self._until_ms.items() if place[0] not in partitions}

    def handle(self, envelope: Envelope[Review], context: Context) -> Outcome | Awaitable[Outcome]:
        decision = envelope.payload.decision
        return self._parked(envelope, context) if decision is None else self._decided(decision, context)

    def passed_on(self, decision: ReviewDecision, context: Context) -> Emit:
        """To the topic that holds the answer open, under the key that it came with."""
        record = context.record
        id = review_decision_id(decision.request_id, record.partition, record.offset)
        key = (record.key or b"").decode("utf-8", "replace") or decision.request_id
        envelope = _REVIEW(
            id=id, request_id=decision.request_id, key=key, tenant="", accepted_ms=record.timestamp_ms,
            deadline_ms=record.timestamp_ms, payload=Review(decision=decision),
        )  # fmt: skip
        return Emit((Out(REVIEWS, envelope),))

    async def _parked(self, envelope: Envelope[Review], context: Context) -> Outcome:
        place = (context.record.partition, context.record.offset)
        now_ms, until_ms = self._clock.now_ms(), self._until_ms.get(place)
        if until_ms is not None and (now_ms >= until_ms or context.crowded):
            return self._ends(envelope, by_default(envelope.payload), place)
        if any(held.payload.verdict is not None for held, _ in context.held):
            return Drop("under review already", _NONE)
        if await self._ended.lookup(place[0], envelope.request_id, envelope.accepted_ms):
            return Drop("already judged", _NONE)
        if until_ms is None and (context.crowded or len(self._until_ms) >= OPEN_MAX):
            return self._ends(envelope, by_default(envelope.payload), place)
        until_ms = self._until_ms.setdefault(place, max(envelope.payload.until_ms, now_ms + GRACE_MS))
        return Hold((), until_ms)

    def _decided(self, decision: ReviewDecision, context: Context) -> Outcome:
        if not context.held:
            return Drop("nothing is under review", _NONE)
        envelope, record = context.held[0]
        return self._ends(envelope, decision, (record.partition, record.offset), context.record.timestamp_ms)

    def _ends(
        self, envelope: Envelope[Review], decision: ReviewDecision, place: tuple[int, int], said_ms: int | None = None
    ) -> Emit:
        verdict = reviewed(envelope, decision, self._clock.now_ms())
        self._until_ms.pop(place, None)
        self._ended.add(place[0], envelope.request_id, self._clock.now_ms())
        outs: tuple[Out, ...] = (Out(VERDICTS, envelope.forward(_VERDICT, verdict_id(envelope.request_id), verdict)),)
        if said_ms is not None:
            outs += (Out(FEEDBACK, feedback_of(envelope, decision), key=envelope.request_id),)
        return Emit(outs)


def review_out(envelope: Envelope[Any], review: Review, id: str) -> Out:
    """The record that parks an answer."""
    return Out(REVIEWS, envelope.forward(_REVIEW, id, review))
