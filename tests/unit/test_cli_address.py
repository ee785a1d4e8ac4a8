import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.__main__ import main
from services.cli.address import BOOTSTRAP, UpState, known_environment, known_settings, read_up, up_file
from shared.errors import SettingsError

URL = "BATON_SIMULATOR_ALPHA_URL"


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_RUN", str(tmp_path))
    for name in (BOOTSTRAP, URL):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def running() -> Iterator[int]:
    """A process that looks like `baton up`."""
    command = [sys.executable, "-c", "print(flush=True); input()", "up"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()   # until then its command line is still ours
        yield process.pid
        process.kill()


def announce(pid: int) -> None:
    environment = {BOOTSTRAP: "up:1", URL: "http://127.0.0.1:9/alpha/v1"}
    state = UpState(pid=pid, http_url="http://127.0.0.1:8080", environment=environment, started_at=datetime.now(UTC))
    up_file().write_text(state.model_dump_json())


def test_the_option_comes_before_the_environment_and_both_before_a_running_baton(
    running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(running)
    assert known_environment()[BOOTSTRAP] == "up:1"
    assert known_environment()[URL]
    monkeypatch.setenv(BOOTSTRAP, "shell:1")
    assert known_environment()[BOOTSTRAP] == "shell:1"
    assert known_settings("option:1").kafka_bootstrap_servers == "option:1"


def test_a_baton_on_another_broker_lends_nothing_of_its_environment(running: int) -> None:
    announce(running)
    assert URL not in known_environment("other:1")
    assert URL in known_environment("up:1")


@pytest.mark.parametrize("pid", [2**22 + 1, os.getpid()], ids=["dead", "somebody else's"])
def test_a_stale_file_is_not_believed(pid: int) -> None:
    announce(pid)
    assert read_up() is None
    assert BOOTSTRAP not in known_environment()


def test_a_garbled_file_is_not_believed() -> None:
    up_file().write_text("{")
    assert read_up() is None


def test_without_any_broker_the_error_says_how_to_get_one() -> None:
    with pytest.raises(SettingsError, match=r"baton up.*KAFKA_BOOTSTRAP_SERVERS.*--bootstrap"):
        known_settings()
    told = CliRunner().invoke(main, ["topics", "list"])
    assert told.exit_code == 1
    assert "baton up" in told.output


def test_a_broker_that_does_not_answer_is_one_line() -> None:
    told = CliRunner().invoke(main, ["topics", "apply", "--bootstrap", "127.0.0.1:1"])
    assert told.exit_code == 1
    assert told.output.startswith("Error: ")


def test_an_address_that_is_none_is_no_traceback() -> None:
    told = CliRunner().invoke(main, ["topics", "list", "--bootstrap", "localhost:abc"])
    assert told.exit_code == 1
    assert '"localhost:abc" is no address' in told.output
