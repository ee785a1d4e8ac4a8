"""What the broker in memory promises beyond the suite that it shares with Kafka."""

import asyncio

import pytest

from schemas.topology import ATTEMPTS, topic_spec
from shared.broker import Output
from shared.local import LocalBroker


async def test_a_reader_that_is_cancelled_as_a_record_arrives_is_cancelled():
    broker = LocalBroker()
    await broker.create_topics([topic_spec(ATTEMPTS)])
    reader, producer = await broker.reader(ATTEMPTS.name), await broker.producer()
    for turns in range(4):
        reading = asyncio.create_task(reader.poll(60_000))
        await asyncio.sleep(0)
        await producer.send(Output(ATTEMPTS.name, b"key", b"value"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not reading.done():
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await reader.poll(1)
