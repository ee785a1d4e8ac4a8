"""What becomes of a record that is rejected: a dead letter with its cause, and an end to the stage when too many are."""

from collections import deque

from schemas.envelope import DeadHeader, Envelope, Fact, Header
from schemas.messages import Reason
from schemas.topology import DEAD_LETTERS, WRITTEN_OUTSIDE, Stage, payload_class, topic_named
from shared.broker import Output, Record
from shared.errors import DeadLetterCapError
from shared.outcome import Reject

REJECTS_WINDOW = 200
REJECTS_MIN = 20


class RejectCap:
    """The share of a stage's last records that were rejected. People's mistakes stop no stage: what they write is not counted."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rejects: deque[bool] = deque(maxlen=REJECTS_WINDOW)

    def note(self, topic: str, is_reject: bool) -> None:
        """Raises DeadLetterCapError when more were rejected than the stage's row allows."""
        if topic in WRITTEN_OUTSIDE:
            return
        self._rejects.append(is_reject)
        if not is_reject:
            return
        count = sum(self._rejects)
        if count >= REJECTS_MIN and count > self._stage.dead_letter_share_max * len(self._rejects):
            raise DeadLetterCapError(
                f"{self._stage.name}: {count} of the last {len(self._rejects)} records were rejected; "
                "stopping before the topic is drained. Fix the cause (baton redrive replays dead letters), restart"
            )


def identity_of(record: Record) -> Envelope[Fact] | None:
    """Who a record belongs to, from its headers alone; None for a record that no stage wrote."""
    request_id = record.header(Header.SUBJECT)
    accepted_ms, deadline_ms = record.header(Header.ACCEPTED_MS), record.header(Header.DEADLINE_MS)
    if not request_id or not accepted_ms or not deadline_ms or not accepted_ms.isdigit() or not deadline_ms.isdigit():
        return None
    return Envelope[Fact](
        id=record.header(Header.ID) or request_id,
        request_id=request_id,
        key=(record.key or request_id.encode()).decode("utf-8", "replace"),
        tenant=record.header(Header.TENANT) or "",
        accepted_ms=int(accepted_ms),
        deadline_ms=int(deadline_ms),
        reply=record.header(Header.REPLY),
        payload=Fact(),
    )


def dead_letter(stage: Stage, record: Record, reject: Reject, tries: int) -> Output:
    """The rejected record, byte for byte, with its cause in headers."""
    try:
        schema = payload_class(topic_named(record.topic)).__name__.lower()
    except KeyError:
        schema = ""
    cause = {
        DeadHeader.TOPIC: record.topic,
        DeadHeader.PARTITION: str(record.partition),
        DeadHeader.OFFSET: str(record.offset),
        DeadHeader.TIMESTAMP_MS: str(record.timestamp_ms),
        DeadHeader.STAGE: stage.name,
        DeadHeader.REASON: reject.reason.value,
        DeadHeader.ERROR: reject.error,
        DeadHeader.TRIES: str(tries if reject.reason is Reason.HANDLER_CRASHED else 1),
        DeadHeader.SCHEMA: schema,
    }
    # A reader takes the first of a name: what a user's client calls so must not stand for the cause.
    own = tuple(header for header in record.headers if header[0] not in cause)
    headers = own + tuple((name, text.encode()) for name, text in cause.items())
    return Output(DEAD_LETTERS.name, record.key, record.value, headers)


