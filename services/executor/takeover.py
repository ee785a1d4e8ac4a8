"""What earlier owners of a partition already did: completed plans, and attempts of plans that were never completed.

Both are read back from the log on first need and kept up while the partition is ours, so a plan that comes twice makes no
second call, and an attempt whose executor died (or whose handler crashed here) is closed before a new one starts.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable

from schemas.envelope import Header
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from schemas.topology import ATTEMPTS, COMPLETIONS
from shared.broker import Broker, Record
from shared.codec import decode
from shared.errors import UndecodableError
from shared.ids import completion_id
from shared.logindex import LogIndex, SeenIds

log = logging.getLogger(__name__)

COMPLETIONS_MAX = 500_000
"""Of all partitions together, 7 to 12 MB; half of them are 3.5 minutes at 1,200 plans a second. Older requests are looked up in
the log."""

PLANS_MAX = 12_000
"""Open plans whose attempts are remembered, of all partitions together: each has the same share, at 2 KB a plan. A process takes
1,000 plans and parks 2,000 of each lane, so there is room for all that it may find open."""


class Takeover:
    """The log's memory of plans, per partition number."""

    def __init__(self, broker: Broker) -> None:
        self._completed = SeenIds(broker, COMPLETIONS, _id_of, COMPLETIONS_MAX)
        self._attempts = LogIndex(broker, ATTEMPTS, self._fold)
        self._open: dict[int, OrderedDict[str, dict[str, Attempt]]] = {}

    async def is_completed(self, partition: int, plan_id: str, since_ms: int) -> bool:
        """Whether the plan has a completion. Reads back to `since_ms` if needed: raises BrokerUnavailableError."""
        completion = completion_id(plan_id)
        if self._completed.covers(partition, since_ms) and self._attempts.covers(partition, since_ms):
            return self._completed.has(partition, completion)
        # Completions first: of a completed plan only attempts that were never closed are kept in memory.
        is_completed = await self._completed.lookup(partition, completion, since_ms)
        await self._attempts.cover(partition, since_ms)
        return is_completed

    async def has_appeared(self, partition: int, plan_id: str, since_ms: int) -> bool:
        """Whether the completion of a plan that a former owner began came after the log was read: its executor may only have
        slept, and handed in what it had; its closing line may already be known here. Raises BrokerUnavailableError."""
        return await self._completed.look_again(partition, completion_id(plan_id), since_ms)

    def has_completed(self, partition: int, plan_id: str) -> bool:
        """As far as is remembered, without looking into the log."""
        return self._completed.has(partition, completion_id(plan_id))

    def complete(self, partition: int, plan_id: str, now_ms: int) -> None:
        """The plan's completion is on its way into the log. If it does not arrive, the session ends and all is forgotten."""
        self._completed.add(partition, completion_id(plan_id), now_ms)
        if (plans := self._open.get(partition)) is not None:
            plans.pop(plan_id, None)

    def note(self, partition: int, attempt: Attempt) -> None:
        """Remember the newest line of an attempt; a late `started` never hides a `finished`."""
        plans = self._open.setdefault(partition, OrderedDict())
        attempts = plans.setdefault(attempt.plan_id, {})
        if attempt.phase is AttemptPhase.FINISHED or attempt.attempt_id not in attempts:
            attempts[attempt.attempt_id] = attempt
        while len(plans) > PLANS_MAX // len(self._open):
            plans.popitem(last=False)

    def attempts(self, partition: int, plan_id: str) -> list[Attempt]:
        """Newest line of each attempt of a plan that is not completed, oldest attempt first."""
        plans = self._open.get(partition)
        return list(plans[plan_id].values()) if plans and plan_id in plans else []

    def close(self, plan_id: str) -> list[Attempt]:
        """The attempts of a plan that ends without being walked, forgotten here. Its partition need not be known."""
        for plans in self._open.values():
            if plan_id in plans:
                return list(plans.pop(plan_id).values())
        return []

    def forget(self, partitions: Iterable[int]) -> None:
        """The partitions change hands: another owner may have written since."""
        partitions = list(partitions)
        self._completed.forget(partitions)
        self._attempts.forget(partitions)
        self._open.update({partition: OrderedDict() for partition in partitions})

    def _fold(self, record: Record) -> None:
        try:
            attempt: Attempt = decode(ATTEMPTS, record.value)
        except UndecodableError as error:
            log.warning("the ledger line at %s/%d/%d is skipped: %s", record.topic, record.partition, record.offset, error)
            return
        if attempt.phase is AttemptPhase.FINISHED and self._is_over(record, attempt):
            self._settle(record.partition, attempt)
        else:
            self.note(record.partition, attempt)

    def _is_over(self, record: Record, attempt: Attempt) -> bool:
        """Whether the plan of a closed attempt is completed. An answer's completion is written with its line, so of a time whose
        completions were given up it is taken for completed: else every call of a long backlog would count as open."""
        if self.has_completed(record.partition, attempt.plan_id):
            return True
        return attempt.failure is None and not self._completed.covers(record.partition, record.timestamp_ms)

    def _settle(self, partition: int, attempt: Attempt) -> None:
        """A closed attempt of a completed plan needs no memory. One without its closing line does: its executor died after
        the completion was in the log and before that line was."""
        plans = self._open.get(partition)
        attempts = plans.get(attempt.plan_id) if plans else None
        if plans and attempts:
            attempts.pop(attempt.attempt_id, None)
            if not attempts:
                del plans[attempt.plan_id]


def orphaned(attempt: Attempt, now_ms: int) -> Attempt:
    """The closing line of an attempt whose executor died: what it cost lies within 0 and its maximum."""
    return attempt.model_copy(
        update={
            "phase": AttemptPhase.FINISHED,
            "finished_ms": now_ms,
            "failure": FailureClass.ORPHANED,
            "cost_microusd": 0,
            "cost_known": False,
        }
    )


def _id_of(record: Record) -> str | None:
    return record.header(Header.ID)
