"""`baton up --demo` as a newcomer runs it: a real broker, every stage, the simulator, and every example with its outcome."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from services.cli.__main__ import main
from services.cli.broker_state import command_line
from services.cli.processes import service_ports

PROVIDER_KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY")


def environment(run_dir: Path) -> dict[str, str]:
    """No key of a provider, whatever the machine has: a test must not spend money. Nor one of a tenant's own."""
    kept = {name: value for name, value in os.environ.items() if name not in (*PROVIDER_KEYS, "BATON_DEMO_KEY")}
    return kept | {"BATON_RUN": str(run_dir)}


def baton(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, env=environment(run_dir), capture_output=True, text=True, timeout=240, check=False)


@contextmanager
def running_up(run_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """`baton up`, which is killed when a test leaves it running: a claim that fails must not wait for ever."""
    (port,) = service_ports(1)
    with subprocess.Popen(
        [sys.executable, "-m", "services.cli", "up", "--http-port", str(port)], env=environment(run_dir), text=True,
        stdout=subprocess.PIPE, preexec_fn=_heeds_interrupts,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _heeds_interrupts() -> None:
    """A shell has whatever it starts in the background ignore them, and so would our children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def descendants(pid: int) -> list[int]:
    """Everything below a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(tuple(map(int, line.split())) for line in listed.splitlines())
    found: list[int] = []
    for child in (child for child, parent in parents.items() if parent == pid):
        found += [child, *descendants(child)]
    return found


def models_named(run_dir: Path, key: str) -> list[str]:
    """What OpenAI's client would list with a key."""
    url = json.loads((run_dir / "up.json").read_text("utf-8"))["http_url"]
    with urlopen(Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}), timeout=10) as response:
        return [model["id"] for model in json.load(response)["data"]]


def test_every_example_ends_as_it_says_and_nothing_is_left_running(tmp_path: Path) -> None:
    (port,) = service_ports(1)
    done = baton(tmp_path, "up", "--demo", "--http-port", str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "28 of 28 answered, all as expected" in done.stdout
    assert re.search(r"0\.\d+ USD on Baton's books, 0\.\d+ on the simulator's own invoice", done.stdout)
    assert not (tmp_path / "up.json").exists()
    assert {file.name for file in (tmp_path / "logs").iterdir()} >= {"intake-0.log", "executor-0.log", "simulator.log"}


def test_other_commands_find_the_running_baton_and_it_stops_clean(tmp_path: Path) -> None:
    with running_up(tmp_path) as running:
        assert running.stdout
        assert any("Baton runs until Ctrl-C" in line for line in running.stdout)
        sent = baton(tmp_path, "send", "What is 12 * 12?")
        assert sent.returncode == 0, sent.stderr
        assert "144" in sent.stdout
        request_id = sent.stdout.split()[-1]
        traced = baton(tmp_path, "trace", request_id).stdout
        path = ("intake", "requests", "tasks", "plans.standard", "verdicts", "results")
        places = [traced.index(f"  {topic} ") for topic in path]
        assert places == sorted(places)
        assert "runs already" in baton(tmp_path, "up").stderr
        assert models_named(tmp_path, "baton-demo")[0] == "auto", "the known key is a key of the open tenant"
        below = descendants(running.pid)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    assert not [pid for pid in below if command_line(pid)]


def test_a_kill_of_the_command_leaves_no_process(tmp_path: Path) -> None:
    with running_up(tmp_path) as running:
        assert running.stdout
        assert any("starting the stages" in line for line in running.stdout)
        below = descendants(running.pid)
        assert len(below) > 2
        running.kill()
    deadline_s = time.monotonic() + 15
    while left := [pid for pid in below if command_line(pid)]:
        assert time.monotonic() < deadline_s, [command_line(pid) for pid in left]
        time.sleep(0.05)


def test_a_port_that_is_taken_is_said_with_the_option_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_RUN", str(tmp_path))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = CliRunner().invoke(main, ["up", "--http-port", str(port)])
    assert told.exit_code == 1
    assert f"port {port}" in told.output
    assert "--http-port" in told.output
    assert not (tmp_path / "logs").exists()
