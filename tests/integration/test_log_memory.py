"""What is read back from the log: ids already there, and tables. On memory and on Kafka."""

import asyncio

from schemas.envelope import Header
from schemas.fleet import Circuit, FleetEntry
from schemas.topology import FLEET, Cleanup, Key, Topic, topic_spec
from shared.broker import Output
from shared.codec import encode
from shared.local import LocalBroker
from shared.logindex import CLOCK_SKEW_MAX_MS, SeenIds
from shared.table import Table
from tests.conftest import RunLab
from tests.support.lab import Lab, LabHandler


def a_table_of(lab: Lab) -> Topic:
    """A compacted topic of its own: `fleet` on the shared broker is what the monitor's tests go by."""
    return Topic(f"table-{lab.id}", Key.BACKEND, FleetEntry, "", partitions=1, cleanup=Cleanup.COMPACT)


def _seen(lab: Lab, ids_max: int) -> SeenIds:
    return SeenIds(lab.broker, lab.sink, lambda record: record.header(Header.SUBJECT), ids_max)


def test_an_id_in_the_log_is_found_however_it_got_there(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        since_ms = lab.clock.now_ms()
        await lab.feed_requests("one", "two")
        async with lab.running(LabHandler(lab)):
            await lab.until_sunk(2)
        placed = {record.header(Header.SUBJECT): record.partition for record in await lab.all_of(lab.sink)}
        seen = _seen(lab, ids_max=100)
        assert not seen.covers(placed["one"], since_ms)
        assert await seen.lookup(placed["one"], "one", since_ms)
        assert seen.covers(placed["one"], since_ms)
        assert not await seen.lookup(placed["one"], "three", since_ms)
        seen.forget([placed["one"]])
        assert not seen.covers(placed["one"], since_ms)
        assert not seen.has(placed["one"], "one")

    run_lab(main)


def test_an_id_that_memory_gave_up_is_looked_up_in_the_log(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        since_ms = lab.clock.now_ms()
        ids = [f"r{n:02}" for n in range(30)]
        for id in ids:
            await lab.feed_requests(id)
        async with lab.running(LabHandler(lab)):
            await lab.until_sunk(30)
        placed = {record.header(Header.SUBJECT): record.partition for record in await lab.all_of(lab.sink)}
        seen = _seen(lab, ids_max=3)
        for id in ids:
            assert await seen.lookup(placed[id], id, since_ms), id
        assert not await seen.lookup(0, "never", since_ms)
        assert not seen.covers(placed[ids[-1]], since_ms - 2 * CLOCK_SKEW_MAX_MS)

    run_lab(main)


def test_a_table_is_ready_when_read_to_its_end_follows_changes_and_deletes(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        topic = a_table_of(lab)
        await lab.broker.create_topics([topic_spec(topic)])
        changed: list[str] = []

        def entry(name: str, circuit: Circuit) -> Output:
            value = FleetEntry(backend=name, circuit=circuit)
            return Output(topic.name, f"{name}-{lab.id}".encode(), encode(topic, value))

        await lab.feed(entry("a", Circuit.CLOSED), entry("a", Circuit.OPEN), entry("b", Circuit.CLOSED))
        table: Table[FleetEntry] = Table(lab.broker, topic, changed.append)
        await table.start()
        assert table.ready
        assert table.values[f"a-{lab.id}"].circuit is Circuit.OPEN
        assert changed == []
        await lab.feed(
            entry("b", Circuit.HALF_OPEN),
            Output(topic.name, f"rubbish-{lab.id}".encode(), b"{"),
            Output(topic.name, f"a-{lab.id}".encode(), None),
        )
        await lab.until(lambda: f"a-{lab.id}" not in table.values)
        assert table.values[f"b-{lab.id}"].circuit is Circuit.HALF_OPEN
        assert f"rubbish-{lab.id}" not in table.values
        assert [key for key in changed if key.endswith(lab.id)] == [f"b-{lab.id}", f"a-{lab.id}"]
        await table.close()

    run_lab(main)


def test_a_table_keeps_its_last_known_values_while_the_broker_is_away_and_catches_up(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        if not isinstance(lab.broker, LocalBroker):
            return   # a real broker is killed and restarted in tests/integration/test_broker_outage.py
        await lab.broker.create_topics([topic_spec(FLEET)])
        table: Table[FleetEntry] = Table(lab.broker, FLEET)
        await lab.feed(Output(FLEET.name, b"a", encode(FLEET, FleetEntry(backend="a"))))
        await table.start()
        lab.broker.unavailable = True
        await asyncio.sleep(5)
        assert "a" in table.values
        lab.broker.unavailable = False
        await lab.feed(Output(FLEET.name, b"b", encode(FLEET, FleetEntry(backend="b"))))
        await lab.until(lambda: "b" in table.values)
        await table.close()

    run_lab(main)
