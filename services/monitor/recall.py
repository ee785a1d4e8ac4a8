"""Looks one request up in the log: its verdict, where feedback comes late, and its texts, so that words can be learned.

A look-up opens a reader at one moment of the log, so there are few of them: beyond LOOKUPS_PER_S a verdict waits for its turn,
and feedback teaches no words.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from schemas.envelope import Header
from schemas.quality import Feedback
from schemas.topology import TASKS, VERDICTS, Topic
from services.monitor.accounts import Place
from services.monitor.lessons import UNKNOWN, Answered, Sketches, answered_of
from shared.broker import Broker, Record
from shared.cascade import answer_sketch
from shared.clock import Clock
from shared.logindex import CLOCK_SKEW_MAX_MS
from shared.words import sketch, text_asked

LOOKUPS_PER_S = 4
RECORDS_MAX = 20_000
"""Read at most by one look-up; a verdict that stands further from its request's acceptance is not found."""


class Recall:
    """Of one keeper."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._next_s = 0.0

    async def answered(self, said: Feedback) -> Answered | None:
        """The verdict on the request of a feedback, found by its time. Raises BrokerUnavailableError."""
        if said.accepted_ms is None:
            return None
        await asyncio.sleep(self._wait_s())
        record = await self._find(VERDICTS, None, said.accepted_ms, said.request_id)
        if record is None or record.value is None:
            return None
        place = Place(f"{VERDICTS.name}/{record.partition}", record.offset, record.timestamp_ms)
        return answered_of(place, orjson.loads(record.value))

    async def sketches_of(self, request_id: str, answered: Answered, with_answer: bool) -> Sketches:
        """Of what was asked, and what was answered; nothing when it is not found, or not looked for. Raises
        BrokerUnavailableError."""
        if self._wait_s() > 0:
            return UNKNOWN
        chat = (await self._payload(TASKS, request_id, answered)).get("chat")
        answer = (await self._payload(VERDICTS, request_id, answered)).get("answer") if with_answer else None
        return Sketches(
            sketch(text_asked(chat["messages"])) if chat else (),
            answer_sketch(answer["text"], answer.get("logprobs", ())) if answer else (),
        )

    async def _payload(self, topic: Topic, request_id: str, answered: Answered) -> Mapping[str, Any]:
        record = await self._find(topic, [answered.partition], answered.accepted_ms, request_id)
        payload: Mapping[str, Any] = orjson.loads(record.value or b"{}")["payload"] if record else {}
        return payload

    def _wait_s(self) -> float:
        return max(self._next_s - self._clock.monotonic_s(), 0.0)

    async def _find(self, topic: Topic, partitions: Sequence[int] | None, since_ms: int, request_id: str) -> Record | None:
        self._next_s = self._clock.monotonic_s() + 1 / LOOKUPS_PER_S
        reader = await self._broker.reader(topic.name, partitions, since_ms=max(since_ms - CLOCK_SKEW_MAX_MS, 0))
        read = 0
        try:
            ends = await reader.ends()
            while read < RECORDS_MAX and any([await reader.position(partition) < end for partition, end in ends.items()]):
                records = await reader.poll(200)
                read += len(records)
                for record in records:
                    if record.header(Header.SUBJECT) == request_id:
                        return record
        finally:
            await reader.close()
        return None
