"""Keeps routing slips small: what is large stays in the log, and the slip says where. Whoever needs it reads it back.

A slip travels with every record of its request. The router, which has just read a record that holds everything in full, puts a
reference to that record in place of the largest texts until the rest is below `SLIP_BYTES_MAX`.
"""

from collections import OrderedDict
from collections.abc import Iterable

from schemas.messages import Escalation, Task
from schemas.slips import Reference, Slip, Yield
from schemas.topology import topic_named
from shared.broker import Broker, Record
from shared.codec import decode
from shared.errors import BrokerUnavailableError
from shared.tokens import texts_of

SLIP_BYTES_MAX = 200_000
"""Of the texts on a slip. With a prompt of half a megabyte and an answer an envelope stays below one megabyte."""

_REMEMBERED_BYTES = 16_000_000
"""Of the log. A record that is referred to has at least SLIP_BYTES_MAX, and at most what a topic takes, twenty times as much."""

_POLL_MS = 200


def folded(slip: Slip, record: Record) -> Slip:
    """The slip with references in place of what is too large; `record` is where all of it can be read."""
    here = Reference(topic=record.topic, partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp_ms)
    yields = [_without_text(each) if each.text_at is not None else each for each in slip.yields]
    asked = None if slip.asked_at is not None else slip.asked
    sizes = {number: len(each.text.encode("utf-8", "surrogatepass")) for number, each in enumerate(yields)}
    sizes[-1] = 0 if asked is None else _bytes_of(asked)
    asked_at = slip.asked_at
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        if sum(sizes.values()) <= SLIP_BYTES_MAX:
            break
        if number == -1:
            asked, asked_at = None, here
        else:
            at = here.model_copy(update={"path": yields[number].path})
            yields[number] = _without_text(yields[number].model_copy(update={"text_at": at}))
        sizes[number] = 0
    return slip.model_copy(update={"yields": tuple(yields), "asked": asked, "asked_at": asked_at})


def trimmed(yields: Iterable[Yield]) -> tuple[Yield, ...]:
    """Without the texts that stand in the log."""
    return tuple(_without_text(each) if each.text_at is not None else each for each in yields)


def is_whole(slip: Slip) -> bool:
    """Whether nothing needs to be read back."""
    return slip.asked is not None and all(each.text_at is None or each.text for each in slip.yields)


class Slips:
    """Reads back what slips refer to. Remembers the last records, as many as there is room for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._payloads: OrderedDict[tuple[str, int, int], tuple[Task | Escalation, int]] = OrderedDict()   # with their size
        self._bytes = 0

    async def whole(self, slip: Slip) -> Slip:
        """The slip with every text. Raises BrokerUnavailableError."""
        asked = slip.asked
        if asked is None and slip.asked_at is not None:
            payload = await self._payload(slip.asked_at)
            asked = payload if isinstance(payload, Task) else payload.slip.asked if payload.slip else None
        yields = [await self._filled(each) if each.text_at is not None and not each.text else each for each in slip.yields]
        return slip.model_copy(update={"asked": asked, "yields": tuple(yields)})

    async def _filled(self, yielded: Yield) -> Yield:
        assert yielded.text_at is not None
        payload = await self._payload(yielded.text_at)
        found = payload.slip.yields if isinstance(payload, Escalation) and payload.slip else ()
        text = next((each.text for each in found if each.path == yielded.text_at.path), "")
        return yielded.model_copy(update={"text": text})

    async def _payload(self, at: Reference) -> Task | Escalation:
        place = (at.topic, at.partition, at.offset)
        if place in self._payloads:
            return self._payloads[place][0]
        value = await self._value(at)
        payload: Task | Escalation = decode(topic_named(at.topic), value).payload
        if place not in self._payloads:   # others may have read it meanwhile
            size = len(value or b"")
            self._payloads[place] = payload, size
            self._bytes += size
        while self._bytes > _REMEMBERED_BYTES:
            _, (_, size) = self._payloads.popitem(last=False)
            self._bytes -= size
        return payload

    async def _value(self, at: Reference) -> bytes | None:
        reader = await self._broker.reader(at.topic, [at.partition], at.timestamp_ms)
        try:
            for source, end in (await reader.ends()).items():
                while await reader.position(source) < end:
                    for record in await reader.poll(_POLL_MS, 50):
                        if record.offset == at.offset:
                            return record.value
        finally:
            await reader.close()
        raise BrokerUnavailableError(f"{at.topic}/{at.partition}/{at.offset} is not to be read")


def _without_text(yielded: Yield) -> Yield:
    return yielded.model_copy(update={"text": ""})


def _bytes_of(task: Task) -> int:
    messages = task.chat.messages if task.chat else ()
    return sum(len(text.encode("utf-8", "surrogatepass")) for message in messages for text in texts_of(message))
