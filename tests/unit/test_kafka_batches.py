"""Gathering records into the client's batches: many waiters, one acknowledgement, and no future that never ends."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from shared.broker import Output
from shared.errors import BrokerUnavailableError
from shared.kafka.producer import BATCHES_WAITING_MAX, KafkaProducer


class Batch:
    """Holds three records."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def append(self, *, timestamp: Any, key: Any, value: bytes, headers: Any) -> object | None:
        if len(self.records) == 3:
            return None
        self.records.append(value)
        return object()

    def close(self) -> None:
        return


class Client:
    """The client's side: takes batches, acknowledges them when told, fails as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.batches: list[list[bytes]] = []
        self.acknowledgements: list[asyncio.Future[object]] = []
        self.takes = asyncio.Event()
        self.takes.set()

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[object]":
        await self.takes.wait()
        if self.error:
            raise self.error
        self.batches.append(batch.records)
        self.acknowledgements.append(asyncio.get_running_loop().create_future())
        return self.acknowledgements[-1]


async def turns() -> None:
    """As many as the producer needs to hand over what it has, whatever time they take."""
    for _ in range(50):
        await asyncio.sleep(0)


def output(number: int) -> Output:
    return Output("t", b"k", b"%d" % number, (), 0)


async def test_records_of_one_turn_share_a_batch_and_keep_their_order() -> None:
    client = Client()
    producer = KafkaProducer(client)
    futures = [await producer.send(output(number)) for number in range(7)]
    await turns()
    assert client.batches == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
    assert len(set(map(id, futures))) == 3
    for acknowledgement in client.acknowledgements:
        acknowledgement.set_result("there")
    assert await asyncio.gather(*map(asyncio.shield, futures)) == ["there"] * 7


@pytest.mark.parametrize("error", [KafkaTimeoutError(), AssertionError("Unrecognized partition"), OSError("reset")])
async def test_a_batch_that_cannot_be_handed_over_fails_its_records_and_the_next_one_goes_on(error: Exception) -> None:
    client = Client(error)
    producer = KafkaProducer(client)
    lost = await producer.send(output(1))
    with pytest.raises(BrokerUnavailableError):
        await lost
    client.error = None
    after = await producer.send(output(2))
    await turns()
    client.acknowledgements[0].set_result("there")
    assert await after == "there"


async def test_a_future_that_somebody_cancelled_does_not_stop_the_batches_behind_it() -> None:
    client = Client(KafkaTimeoutError())
    client.takes.clear()
    producer = KafkaProducer(client)
    (await producer.send(output(1))).cancel()
    await asyncio.sleep(0)
    behind = await producer.send(output(2))
    client.takes.set()
    with pytest.raises(BrokerUnavailableError):
        await behind


async def test_what_waits_for_an_absent_broker_is_bounded() -> None:
    client = Client()
    client.takes.clear()
    producer = KafkaProducer(client)
    for number in range(3 * (BATCHES_WAITING_MAX + 1)):
        await producer.send(output(number))
    with pytest.raises(BrokerUnavailableError, match="too much is waiting"):
        await producer.send(output(-1))
