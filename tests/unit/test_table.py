"""A compacted topic in memory, when the broker was away and the topic is read again from its beginning."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from schemas.fleet import FleetEntry
from schemas.topology import FLEET, topic_spec
from shared.broker import Output
from shared.codec import encode
from shared.local import LocalBroker
from shared.table import RETRY_S, Table
from tests.support.virtual import LoopClock, VirtualLoop


@dataclass
class Told:
    """A table, and what whoever listens to it was told: the key, and what the whole table held then."""

    broker: LocalBroker
    changes: list[tuple[str, dict[str, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table: Table[FleetEntry] = Table(self.broker, FLEET, lambda key: self.changes.append((key, self.known())))

    def known(self) -> dict[str, int]:
        return {key: entry.updated_ms for key, entry in self.table.values.items()}

    def write(self, *entries: tuple[str, int | None]) -> None:
        """As the monitor does, also while the broker is away from here."""
        for key, updated_ms in entries:
            value = None if updated_ms is None else encode(FLEET, FleetEntry(backend=key, updated_ms=updated_ms))
            self.broker.append(Output(FLEET.name, key.encode(), value))

    async def outage(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Long enough for the table to notice it, and to have read everything again afterwards."""
        self.broker.unavailable = True
        await asyncio.sleep(5 * RETRY_S)
        if meanwhile is not None:
            meanwhile()
        self.broker.unavailable = False
        await asyncio.sleep(5 * RETRY_S)


def run(main: Callable[[Told], Awaitable[None]]) -> None:
    async def with_broker() -> None:
        broker = LocalBroker(LoopClock())
        await broker.create_topics([topic_spec(FLEET)])
        told = Told(broker)
        await main(told)
        await told.table.close()

    loop = VirtualLoop()
    try:
        loop.run_until_complete(with_broker())
    finally:
        loop.close()


def test_after_an_outage_nobody_is_told_a_value_that_was_replaced_long_ago() -> None:
    async def main(told: Told) -> None:
        told.write(("a", 1), ("b", 1), ("a", 2), ("a", 3))
        await told.table.start()
        await told.outage()
        assert told.changes == []
        told.write(("a", 4))
        await asyncio.sleep(RETRY_S)
        assert told.changes == [("a", {"a": 4, "b": 1})]

    run(main)


def test_after_an_outage_the_table_changes_at_once_and_not_before_it_is_complete() -> None:
    async def main(told: Told) -> None:
        def others_write() -> None:
            told.write(("a", 4), ("b", 5), ("c", 6), ("a", 7))

        told.write(("a", 1), ("a", 2), ("b", 2))
        await told.table.start()
        await told.outage(others_write)
        complete = {"a": 7, "b": 5, "c": 6}
        assert told.changes == [("a", complete), ("b", complete), ("c", complete)]

    run(main)


def test_what_was_deleted_during_an_outage_is_gone_though_the_log_no_longer_says_so() -> None:
    async def main(told: Told) -> None:
        def others_delete() -> None:
            (log,) = told.broker.logs[FLEET.name]
            log[:] = [record for record in log if record.key != b"b"]   # compacted, and the deletion's retention is over

        told.write(("a", 1), ("b", 2))
        await told.table.start()
        await told.outage(others_delete)
        assert told.known() == {"a": 1}
        assert told.changes == [("b", {"a": 1})]

    run(main)


def test_the_last_good_value_of_a_key_outlives_an_outage_where_the_log_holds_only_an_unreadable_one() -> None:
    async def main(told: Told) -> None:
        def others_write_rubbish() -> None:
            (log,) = told.broker.logs[FLEET.name]
            log[0] = log[0]._replace(value=b"{")

        told.write(("a", 1), ("b", 2))
        await told.table.start()
        await told.outage(others_write_rubbish)
        assert told.known() == {"a": 1, "b": 2}
        assert told.changes == []

    run(main)
