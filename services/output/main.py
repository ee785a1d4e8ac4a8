"""verdicts -> results, once per request however often its verdict comes. Decides nothing by the clock.

The runner writes results and offsets in one transaction per partition, and replies at once, outside of it.
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from schemas.envelope import Envelope, Fact, Header
from schemas.messages import Failure, Reason, Verdict
from schemas.topology import REPLIES, RESULTS
from services.output.decide import deliveries, result_of, result_of_failure
from shared.broker import Broker
from shared.handler import Context
from shared.logindex import SeenIds
from shared.outcome import Drop, Emit, Out, Outcome

if TYPE_CHECKING:
    from shared.service import World

ALREADY_DELIVERED = Drop("already delivered")


class Output:
    """The stage's handler. A verdict's partition has the same number as its result's: same key, same partitioner."""

    transactional = True
    immediate = (REPLIES,)

    def __init__(self, broker: Broker, seen_max: int) -> None:
        self._owned: frozenset[int] = frozenset()
        self._failed: set[str] = set()
        self._seen = SeenIds(broker, RESULTS, lambda record: record.header(Header.SUBJECT), seen_max)

    def handle(self, envelope: Envelope[Verdict], context: Context) -> Outcome | Awaitable[Outcome]:
        partition = context.record.partition
        if envelope.request_id in self._failed or self._seen.has(partition, envelope.request_id):
            return ALREADY_DELIVERED
        if self._seen.covers(partition, envelope.accepted_ms):
            return self._deliver(envelope, context)
        return self._look_up(envelope, context)

    async def _look_up(self, envelope: Envelope[Verdict], context: Context) -> Outcome:
        """A request older than what is remembered: the log knows."""
        if await self._seen.lookup(context.record.partition, envelope.request_id, envelope.accepted_ms):
            return ALREADY_DELIVERED
        return self._deliver(envelope, context)

    def _deliver(self, envelope: Envelope[Verdict], context: Context) -> Outcome:
        """Remembered before it is in the log, so that a repeat in flight beside it is dropped too.

        If the transaction fails the runner begins anew and calls `assigned`, which forgets it again.
        """
        outcome = Emit(deliveries(envelope, result_of(envelope)))
        self._seen.add(context.record.partition, envelope.request_id, context.record.timestamp_ms)
        return outcome

    def failed(self, envelope: Envelope[Fact], failure: Failure) -> tuple[Out, ...]:
        """A verdict that cannot be delivered is the request's one result too, unless a sound copy of it was."""
        id = envelope.request_id
        is_replaced = failure.reason is Reason.TOO_LARGE   # what `handle` made of it did not fit: this goes out instead
        if not is_replaced and (id in self._failed or any(self._seen.has(number, id) for number in self._owned)):
            return ()
        self._failed.add(id)
        return deliveries(envelope, result_of_failure(envelope, failure))

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Also after a transaction that failed: from here on the log alone says what was delivered."""
        self._owned = partitions
        self._failed.clear()
        self._seen.forget(partitions)


def output(world: "World") -> Output:
    """The stage in this process's world."""
    return Output(world.broker, world.settings.seen_max)
