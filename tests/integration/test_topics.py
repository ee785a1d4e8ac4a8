"""Topics become what the table says, and what an operator has set on them stays: on a broker in memory and on a real one."""

import re

import pytest
import uvloop
from click.testing import CliRunner

from schemas.topology import RESULTS, TOPICS, TopicSpec, topic_spec
from services.cli.__main__ import main
from services.cli.broker import Chosen
from services.cli.topics import create_all
from shared.errors import TopicRefusedError
from shared.kafka import KafkaBroker, KafkaOptions
from shared.kafka.topics import differing, in_sync_min
from tests.conftest import RunLab
from tests.support.lab import Lab
from tests.support.operators import overrides_of, set_override, until_seen


def test_what_an_operator_has_set_on_a_topic_survives_an_apply_that_changes_something_else(run_lab: RunLab) -> None:
    async def body(lab: Lab) -> None:
        name = lab.source.name
        await set_override(lab.broker, name, "min.insync.replicas", "2")
        await set_override(lab.broker, name, "retention.ms", "1")
        before = await overrides_of(lab.broker, name)
        spec = topic_spec(lab.source)
        assert await lab.broker.create_topics([spec]) == []
        after = await until_seen(lab.broker, name, "retention.ms", spec.configs["retention.ms"])
        assert after == before | spec.configs
        assert after["min.insync.replicas"] == "2"

    run_lab(body)


def test_an_apply_grows_a_topic_and_never_shrinks_it(run_lab: RunLab) -> None:
    async def body(lab: Lab) -> None:
        name = lab.source.name
        await lab.broker.create_topics([TopicSpec(name, lab.partitions + 2)])

        async def is_grown() -> bool:
            return (await lab.broker.partition_counts([name]))[name] == lab.partitions + 2

        await lab.until(is_grown)
        await lab.broker.create_topics([TopicSpec(name, 1)])
        assert await is_grown()

    run_lab(body)


async def test_what_the_broker_refuses_is_said_with_the_name_of_the_topic(kafka_options: KafkaOptions) -> None:
    broker = KafkaBroker(kafka_options)
    await broker.create_topics([TopicSpec("refusals", 2)])
    with pytest.raises(TopicRefusedError, match=r"topic refusals: .*retention\.ms"):
        await broker.create_topics([TopicSpec("refusals", 2, {"retention.ms": "soon"})])
    with pytest.raises(TopicRefusedError, match=r"topic wishes: .*retention\.ms"):
        await broker.create_topics([TopicSpec("wishes", 2, {"retention.ms": "soon"})])


async def test_more_copies_than_there_are_brokers_are_refused_in_words(kafka: Chosen) -> None:
    broker = KafkaBroker(KafkaOptions(kafka.bootstrap, replication_factor=9))
    with pytest.raises(TopicRefusedError, match=r"topic nine: .*[Rr]eplication factor"):
        await broker.create_topics([TopicSpec("nine", 1)])


@pytest.mark.parametrize(("copies", "needed"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_record_needs_as_many_copies_as_are_left_when_one_broker_is_lost(copies: int, needed: int) -> None:
    assert in_sync_min(copies) == needed


async def test_a_new_topic_says_by_itself_how_many_copies_a_record_needs(kafka_options: KafkaOptions) -> None:
    broker = KafkaBroker(kafka_options)
    await broker.create_topics([TopicSpec("copies", 1)])
    assert await overrides_of(broker, "copies") == {"min.insync.replicas": "1"}


async def test_a_second_apply_finds_nothing_to_set(kafka_options: KafkaOptions) -> None:
    """Kafka gives each setting back as it was written, or topics would be altered for ever."""
    broker = KafkaBroker(kafka_options)
    await create_all(broker, 6)
    specs = [topic_spec(topic) for topic in TOPICS]
    assert differing(specs, {spec.name: await overrides_of(broker, spec.name) for spec in specs}) == {}


def test_the_list_shows_partitions_and_copies_of_every_topic(kafka: Chosen) -> None:
    uvloop.run(create_all(KafkaBroker(KafkaOptions(kafka.bootstrap)), 6))
    shown = CliRunner().invoke(main, ["topics", "list", "--bootstrap", kafka.bootstrap])
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) == len(TOPICS)
    (line,) = (line for line in shown.output.splitlines() if line.startswith(RESULTS.name))
    assert re.search(r" \d+ partitions x 1 ", line)
