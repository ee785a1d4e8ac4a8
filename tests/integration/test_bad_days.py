"""What somebody sees who gets the outside wrong: settings, an absent broker, missing topics, a taken port."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.cli.broker import Chosen
from services.cli.broker_config import free_ports


@contextmanager
def service(module: str, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A stage as its own process; killed at the end if it still runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BATON_", "KAFKA_"))}
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", module], env=clean | env, stderr=stderr, stdout=stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def until_logged(log: Path, text: str, within_s: float = 20.0) -> str:
    until_s = time.monotonic() + within_s
    while text not in (said := log.read_text("utf-8")):
        assert time.monotonic() < until_s, f"{text!r} not in:\n{said}"
        time.sleep(0.05)
    return said


def test_missing_and_garbled_settings_are_all_named_at_once(tmp_path: Path) -> None:
    with service("services.router", tmp_path / "log", BATON_IN_FLIGHT_MAX="many", BATON_PARTITIONS="0") as process:
        assert process.wait(20) == 64
    said = (tmp_path / "log").read_text("utf-8")
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "BATON_IN_FLIGHT_MAX", "BATON_PARTITIONS"):
        assert name in said


@pytest.mark.parametrize("module", ["services.router", "services.monitor"])
def test_an_address_and_a_ca_file_that_cannot_be_used_end_a_stage_in_words(module: str, tmp_path: Path) -> None:
    env = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/nope.pem", "KAFKA_BOOTSTRAP_SERVERS": "localhost:abc"}
    with service(module, tmp_path / "log", **env) as process:
        assert process.wait(20) == 64
    said = (tmp_path / "log").read_text("utf-8")
    assert "Traceback" not in said
    for text in ('"localhost:abc" is no address', "/nope.pem: no such file"):
        assert text in said


@pytest.mark.parametrize("module", ["services.router", "services.executor", "services.intake", "services.monitor"])
def test_a_stage_without_a_broker_says_so_waits_and_ends_when_told(module: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with service(module, tmp_path / "log", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}", BATON_HTTP_PORT="0") as process:
        said = until_logged(tmp_path / "log", f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}")
        assert "trying again" in said
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_stage_on_a_broker_without_topics_says_how_to_create_them(kafka: Chosen, tmp_path: Path) -> None:
    if kafka.kind == "given":
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS may well have the topics")
    with service("services.preprocessing", tmp_path / "log", KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap) as process:
        said = until_logged(tmp_path / "log", "baton topics apply")
        assert "requests" in said
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_taken_health_port_ends_the_stage_with_the_port_in_its_message(kafka: Chosen, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "BATON_HEALTH_PORT": port}
        with service("services.router", tmp_path / "log", **env) as process:
            assert process.wait(20) == 64
    assert port in (tmp_path / "log").read_text("utf-8")
