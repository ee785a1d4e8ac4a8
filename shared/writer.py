"""From `Out` to bytes on a topic, in a stage's name: a stage cannot write what is not in its row of the topology."""

import asyncio

from schemas.envelope import Envelope, Header
from schemas.topology import DEAD_LETTERS, WRITTEN_OUTSIDE, Key, Stage
from shared import metrics
from shared.broker import Broker, Headers, Output, Producer, Record
from shared.codec import encode, headers_for
from shared.errors import ForeignTopicError, RecordTooLargeError
from shared.outcome import Out

RECORD_OVERHEAD_BYTES = 4_096   # headers and framing


class Writer:
    """Turns `Out` into bytes for this stage, and refuses topics that are not in its row."""

    def __init__(self, stage: Stage, producer: Producer) -> None:
        self._stage = stage
        self._producer = producer
        self._allowed = {topic.name: topic for topic in (*stage.writes, DEAD_LETTERS)}
        self._written = dict.fromkeys(self._allowed, 0)
        self._alike: dict[str, frozenset[str]] = {}   # by topic read: those written on which a key has the same partition

    async def compare(self, broker: Broker) -> None:
        """Learn which topics a key has the same partition of as what the stage reads: to find it anew, record by record in
        Python, took up to 8 % of a stage's CPU. Where others write, another partitioner may have placed the key."""
        keyed = {topic.name for topic in (*self._stage.reads, *self._stage.writes) if topic.key is Key.REQUEST}
        counts = await broker.partition_counts(keyed)
        for topic in self._stage.reads:
            if topic.name in counts and topic.name not in WRITTEN_OUTSIDE:
                alike = (name for name, count in counts.items() if count == counts[topic.name])
                self._alike[topic.name] = frozenset(alike)

    def output(self, out: Out, trace: Headers, record: Record | None = None) -> Output:
        """`record` is what it follows from. Raises ForeignTopicError for a topic outside the row, RecordTooLargeError before
        the broker would."""
        topic = out.topic
        if topic.name not in self._allowed:
            raise ForeignTopicError(f"{self._stage.name} may not write {topic.name}; see schemas/topology.py")
        value = encode(topic, out.value)
        if len(value) > topic.bytes_max - RECORD_OVERHEAD_BYTES:
            raise RecordTooLargeError(f"{topic.name}: {len(value)} bytes, limit {topic.bytes_max}")
        self._written[topic.name] += 1
        if isinstance(out.value, Envelope):
            key = out.value.key
            headers = headers_for(topic, self._stage.name, out.value, trace)
        else:
            key = out.key
            headers = headers_for(topic, self._stage.name, None, trace)
            request_id = getattr(out.value, "request_id", None)
            if request_id:
                headers += ((Header.SUBJECT, request_id.encode()),)
        key_bytes, partition = key.encode(), out.partition
        if (partition is None and record is not None and record.key == key_bytes
                and topic.name in self._alike.get(record.topic, ())):
            partition = record.partition
        return Output(topic.name, key_bytes, value, headers, partition)

    def publish_counts(self) -> None:
        """Counted in plain integers per record, published as metrics several times a second."""
        for name, count in self._written.items():
            if count:
                metrics.RECORDS_OUT.labels(stage=self._stage.name, topic=name).inc(count)
                self._written[name] = 0

    async def send(self, out: Out, trace: Headers = (), record: Record | None = None) -> "asyncio.Future[object]":
        return await self._producer.send(self.output(out, trace, record))

    async def write(self, out: Out, trace: Headers = (), record: Record | None = None) -> None:
        await asyncio.shield(await self.send(out, trace, record))   # a batch's future has many waiters: none may cancel it

    async def send_raw(self, output: Output) -> "asyncio.Future[object]":
        return await self._producer.send(output)
