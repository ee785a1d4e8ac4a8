"""Every example message of every topic can be read on a terminal."""

from pathlib import Path

import orjson
import pytest

from schemas.envelope import DeadHeader, Header
from schemas.topology import DEAD_LETTERS, INTAKE, RESULTS, TOPICS, Topic, topic_named
from services.cli.describe import describe, request_of
from shared.broker import Record
from shared.ids import request_id_of_record

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "schemas" / "examples").glob("*/v1/*.json"))


TYPED = [topic for topic in TOPICS if topic not in (INTAKE, DEAD_LETTERS)]


def record(topic: str, value: bytes | None, *headers: tuple[str, str]) -> Record:
    return Record(topic, 3, 7, 1_000, None, value, tuple((name, text.encode()) for name, text in headers))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_a_record_is_one_line(path: Path) -> None:
    topic = topic_named(path.parts[-3])
    text = describe(topic, record(topic.name, path.read_bytes()))
    assert text
    assert "\n" not in text
    assert "cannot be read" not in text


def test_no_prompt_is_shown() -> None:
    for path in EXAMPLES:
        body = orjson.loads(path.read_bytes())
        shown = describe(topic_named(path.parts[-3]), record(path.parts[-3], path.read_bytes()))
        for message in (body.get("payload", {}).get("task") or {}).get("chat", {}).get("messages", ()):
            assert str(message["content"]) not in shown


@pytest.mark.parametrize("topic", TYPED, ids=lambda topic: topic.name)
def test_rubbish_and_tombstones_are_said_to_be_that(topic: Topic) -> None:
    assert describe(topic, record("x", None)) == "removed"
    assert describe(topic, record("x", b"\xff")).startswith("cannot be read")


def test_a_dead_letter_of_a_user_is_known_by_its_place_on_intake() -> None:
    cause = (
        (DeadHeader.TOPIC, "intake"), (DeadHeader.PARTITION, "1"), (DeadHeader.OFFSET, "2"), (DeadHeader.TIMESTAMP_MS, "3"),
        (DeadHeader.STAGE, "intake"), (DeadHeader.REASON, "malformed_json"), (DeadHeader.ERROR, "not JSON"),
    )
    letter = record(DEAD_LETTERS.name, b"{", *cause)
    assert request_of(DEAD_LETTERS, letter) == request_id_of_record(1, 2, 3)
    assert describe(DEAD_LETTERS, letter) == "malformed_json at intake, from intake/1/2: not JSON"


def test_a_request_is_known_by_its_place_then_by_its_header() -> None:
    assert request_of(INTAKE, record("intake", b"")) == request_id_of_record(3, 7, 1_000)
    assert request_of(RESULTS, record("results", b"", (Header.SUBJECT, "r"))) == "r"
