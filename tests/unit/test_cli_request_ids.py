"""The beginning of a request's id is enough for every command that takes one, and never leads to the wrong request."""

import click
import pytest
from click.testing import CliRunner

from schemas.topology import RESULTS, TASKS, topic_spec
from services.cli.__main__ import main
from services.cli.request_ids import whole_id
from services.cli.trace import PATH, steps_of
from shared.broker import Output
from shared.ids import judging_id, shadow_id
from shared.local import LocalBroker

MINE = "abcdef12" + "3" * 24
LIKE_MINE = "abcdef12" + "4" * 24
OTHER = "ffffffff" + "0" * 24


def test_a_beginning_that_only_one_has_is_enough() -> None:
    assert whole_id("abcdef123", [MINE, LIKE_MINE, OTHER]) == MINE
    assert whole_id("ffffffff", [MINE, LIKE_MINE, OTHER, OTHER]) == OTHER
    assert whole_id("00000000", [MINE, LIKE_MINE, OTHER]) is None


def test_a_beginning_of_two_is_refused_with_both_of_them() -> None:
    with pytest.raises(click.ClickException, match=f"2 requests begin with abcdef12: {MINE}, {LIKE_MINE}; give more"):
        whole_id("abcdef12", [LIKE_MINE, MINE, OTHER])


def test_of_many_candidates_a_few_are_named() -> None:
    with pytest.raises(click.ClickException, match="and 4 more; give more"):
        whole_id("abcdef12", [f"abcdef12{number}" for number in range(9)])


def test_a_request_comes_before_its_judgement_and_its_shadow() -> None:
    beside = [judging_id(MINE), shadow_id(MINE)]
    assert whole_id("abcdef12", [*beside, MINE]) == MINE
    assert whole_id(MINE, [*beside, MINE]) == MINE
    assert whole_id(shadow_id(MINE), [*beside, MINE]) == shadow_id(MINE)
    assert whole_id("abcdef12", [judging_id(MINE)]) == judging_id(MINE)


async def test_a_trace_of_twelve_characters_is_that_of_the_whole_id() -> None:
    broker = LocalBroker()
    await broker.create_topics([topic_spec(topic) for topic in PATH])
    producer = await broker.producer()
    for topic in (TASKS, RESULTS):
        for id in (MINE, OTHER, judging_id(MINE)):
            await producer.send(Output(topic.name, b"k", b"{}", (("ce_subject", id.encode()),)))
    steps = await steps_of(broker, MINE[:12])
    assert [step.request_id for step in steps] == [MINE, MINE]
    assert steps == await steps_of(broker, MINE)


@pytest.mark.parametrize("command", [["trace"], ["explain"], ["review", "list"], ["review", "accept"], ["review", "reject"]])
def test_too_little_of_an_id_is_refused_before_anything_is_read(command: list[str]) -> None:
    told = CliRunner().invoke(main, [*command, "abc", "--bootstrap", "127.0.0.1:1"])
    assert told.exit_code == 2
    assert "first 8 characters" in told.output
