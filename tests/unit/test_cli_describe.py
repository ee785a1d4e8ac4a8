"""Every example message of every topic can be read on a terminal."""

from pathlib import Path

import orjson
import pytest

from schemas.envelope import DeadHeader, Header
from schemas.fleet import Alert, AlertKind, FleetEntry, Gate, GateReason, Severity
from schemas.messages import Lane
from schemas.topology import ALERTS, ATTEMPTS, DEAD_LETTERS, FLEET, INTAKE, PLANS, RESULTS, TOPICS, Topic, topic_named
from services.cli.describe import describe, request_of
from shared.broker import Record
from shared.codec import encode
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
            assert str(message.get("content")) not in shown


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


def test_a_dead_letter_that_no_stage_wrote_belongs_to_nobody_and_stops_no_command() -> None:
    letter = record(DEAD_LETTERS.name, b"{", (DeadHeader.TOPIC, "intake"), (DeadHeader.PARTITION, "x"))
    assert request_of(DEAD_LETTERS, letter) is None
    assert describe(DEAD_LETTERS, letter)


def test_a_terminal_gets_no_control_characters_from_a_record() -> None:
    letter = record(DEAD_LETTERS.name, b"{", (DeadHeader.REASON, "\x1b]0;owned\x07\x1b[2J"), (DeadHeader.STAGE, "r\u202eouter"))
    assert describe(DEAD_LETTERS, letter).isprintable()


def test_a_request_is_known_by_its_place_then_by_its_header() -> None:
    assert request_of(INTAKE, record("intake", b"")) == request_id_of_record(3, 7, 1_000)
    assert request_of(RESULTS, record("results", b"", (Header.SUBJECT, "r"))) == "r"


def test_an_attempt_says_all_of_its_call_in_one_line() -> None:
    path = next(path for path in EXAMPLES if path.stem == "hedged_and_streamed_with_every_class_of_token")
    assert describe(ATTEMPTS, record(ATTEMPTS.name, path.read_bytes())) == (
        "hedge call of anthropic-sonnet (claude-sonnet-4-5 → claude-sonnet-4-5-20250929) stream_error (200) in 7512 ms, "
        "first token 1840 ms, asked to wait 20000 ms, "
        "about 201344 tokens in (198000 cached, 3100 written), 412 out (350 reasoning), 0 to 3.201570 USD"
    )


def test_an_ordinary_attempt_says_no_more_than_there_is() -> None:
    path = next(path for path in EXAMPLES if path.parts[-3] == ATTEMPTS.name and path.stem == "finished")
    assert describe(ATTEMPTS, record(ATTEMPTS.name, path.read_bytes())) == (
        "primary call of alpha-small (sim-small → sim-small-2025-10) ok in 548 ms, 27 tokens in (16 cached), 61 out, 0.000039 USD"
    )


def test_a_plan_says_where_its_fallbacks_lead() -> None:
    path = next(path for path in EXAMPLES if path.stem == "pinned_with_fallbacks_and_waiting_for_a_probe")
    shown = describe(PLANS[Lane.STANDARD], record("plans.standard", path.read_bytes()))
    assert shown.endswith("after sim-nano, where a content filter refuses: sim-large")


def test_a_gate_and_an_alert_are_told() -> None:
    entry = FleetEntry(backend="alpha", gate=Gate(until_ms=5, reason=GateReason.CREDENTIAL))
    assert describe(FLEET, record("fleet", encode(FLEET, entry))) == "alpha closed; gated for credential until 5"
    alert = Alert(
        alert_id="a", kind=AlertKind.ALL_OUT, severity=Severity.CRITICAL, subject="fleet", message="no backend is closed", at_ms=1
    )
    assert describe(ALERTS, record("alerts", encode(ALERTS, alert))) == "critical: fleet all_out, no backend is closed"
