import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.broker import BrokerError, broker, choose
from services.cli.broker_state import BrokerState, read_state, write_state


def state(pid: int) -> BrokerState:
    return BrokerState(
        bootstrap="127.0.0.1:9092",
        pids=[pid],
        ports=[9092],
        data_dir="/nowhere/kafka-1",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATON_RUN", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("pid", [2**22 + 1, os.getpid()], ids=["dead", "somebody else's"])
def test_a_stale_state_file_means_no_broker_and_hurts_nobody(run_dir: Path, pid: int) -> None:
    file = run_dir / "broker.json"
    write_state(file, state(pid))
    assert read_state(file) is None
    assert CliRunner().invoke(broker, ["status"]).exit_code == 1
    stopped = CliRunner().invoke(broker, ["stop"])
    assert stopped.exit_code == 0
    assert "No Kafka" in stopped.output
    assert not file.exists()


def test_a_garbled_state_file_means_no_broker(run_dir: Path) -> None:
    (run_dir / "broker.json").write_text('{"pids": 1}')
    assert CliRunner().invoke(broker, ["status"]).exit_code == 1


def test_a_given_broker_is_used_and_the_choice_is_printed() -> None:
    said: list[str] = []
    with choose(said.append, environment={"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "BATON_KAFKA": "docker"}) as chosen:
        assert (chosen.bootstrap, chosen.kind, chosen.process) == ("k:9092", "given", None)
    assert said == ["Kafka: k:9092 (KAFKA_BOOTSTRAP_SERVERS)"]


def test_start_uses_a_given_broker_and_starts_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "k:9092")
    started = CliRunner().invoke(broker, ["start"])
    assert started.exit_code == 0
    assert "k:9092 (KAFKA_BOOTSTRAP_SERVERS)" in started.output
    assert not (run_dir / "broker.json").exists()


def test_start_in_a_container_names_the_command_that_does_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("BATON_KAFKA", "docker")
    refused = CliRunner().invoke(broker, ["start"])
    assert refused.exit_code == 1
    assert "docker compose up -d kafka" in refused.output


def test_an_unknown_choice_names_the_known_ones() -> None:
    with (
        pytest.raises(BrokerError, match=r"BATON_KAFKA=mock.*jvm or docker"),
        choose(environment={"BATON_KAFKA": "mock"}),
    ):
        pass
