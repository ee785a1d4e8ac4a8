"""Where records go, and how they come back: the same on a broker in memory and on a real one."""

from schemas.envelope import Envelope
from schemas.messages import Task
from schemas.topology import Key, Stage, Topic, topic_spec
from shared.broker import Output, Record
from shared.outcome import Out
from shared.writer import Writer
from tests.conftest import RunLab
from tests.support.lab import Lab, LabHandler


def test_what_follows_from_a_record_stays_on_its_partition(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        await lab.feed_requests(*(f"r{n}" for n in range(60)))
        fed = {record.key: record.partition for record in await lab.all_of(lab.source)}
        async with lab.running(LabHandler(lab)):
            await lab.until_sunk(60)
        assert {record.key: record.partition for record in await lab.all_of(lab.sink)} == fed
        assert len(set(fed.values())) == lab.partitions

    run_lab(main)


def test_the_partition_carried_over_is_the_one_that_the_key_has(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        envelopes = [lab.envelope(f"r{n}") for n in range(40)]
        await lab.feed(*map(lab.record, envelopes))
        await lab.feed(*(Output(lab.sink.name, each.key.encode(), b"{}") for each in envelopes))
        by_source = {record.key: record.partition for record in await lab.all_of(lab.source)}
        assert {record.key: record.partition for record in await lab.all_of(lab.sink)} == by_source

    run_lab(main)


def test_where_partitions_differ_in_number_or_the_key_is_another_the_key_decides(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        narrow = Topic(f"narrow-{lab.id}", Key.REQUEST, Envelope[Task], "", partitions=2)
        await lab.broker.create_topics([topic_spec(narrow)])
        stage = Stage("lab", (lab.source,), (lab.sink, narrow))
        writer = Writer(stage, await lab.broker.producer())
        await writer.compare(lab.broker)
        envelope = lab.envelope("r")
        record = Record(lab.source.name, 2, 0, 0, b"r", b"")
        assert writer.output(Out(lab.sink, envelope), (), record).partition == 2
        assert writer.output(Out(lab.sink, envelope, partition=1), (), record).partition == 1
        assert writer.output(Out(lab.sink, envelope), ()).partition is None
        assert writer.output(Out(narrow, envelope), (), record).partition is None
        assert writer.output(Out(lab.sink, envelope), (), record._replace(key=b"another")).partition is None

    run_lab(main)


def test_a_reader_that_lets_the_broker_gather_brings_every_record_without_one_more_to_come(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        reader = await lab.broker.reader(lab.source.name, gather_ms=300)
        found: list[Record] = []

        async def all_came() -> bool:
            found.extend(await reader.poll(timeout_ms=100))
            return len(found) >= 5

        try:
            for n in range(5):
                await lab.feed_requests(f"r{n}")
            await lab.until(all_came)
        finally:
            await reader.close()
        assert sorted(record.key or b"" for record in found) == [b"r%d" % n for n in range(5)]

    run_lab(main)
