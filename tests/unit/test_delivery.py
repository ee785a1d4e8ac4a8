"""Transactional producers, one per owned partition: whatever becomes of the others, each that was opened is closed."""

import asyncio

import pytest

from shared.broker import Partition
from shared.delivery import TransactionalDelivery
from shared.errors import BrokerUnavailableError
from shared.local import LocalBroker, LocalTransactionalProducer

PARTITIONS = frozenset(Partition("verdicts", number) for number in range(3))


class Coordinators(LocalBroker):
    """A broker whose coordinator of one transactional id is away, at once or after the others have answered."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self.after_s = after_s
        self.opened: set[str] = set()

    async def transactional_producer(self, transactional_id: str) -> LocalTransactionalProducer:
        if transactional_id.endswith(".0"):
            await asyncio.sleep(self.after_s)
            raise BrokerUnavailableError("the coordinator is away")
        await asyncio.sleep(0.02)
        return Closing(self, transactional_id)


class Closing(LocalTransactionalProducer):
    def __init__(self, broker: Coordinators, transactional_id: str) -> None:
        super().__init__(broker, transactional_id, 1)
        self._places, self._place = broker.opened, transactional_id
        self._places.add(transactional_id)

    async def close(self) -> None:
        self._places.remove(self._place)


@pytest.mark.parametrize("after_s", [0, 0.04])
async def test_where_one_partition_cannot_be_fenced_the_producers_of_the_others_are_closed(after_s: float) -> None:
    broker = Coordinators(after_s)
    delivery = TransactionalDelivery(broker, "baton.output", lambda work: None, lambda error: None, 0.01)
    with pytest.raises(BrokerUnavailableError):
        await delivery.opened(PARTITIONS)
    assert len(broker.opened) == 2
    await delivery.close()
    assert broker.opened == set()
