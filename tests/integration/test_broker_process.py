"""The child process is a real broker, keeps its data over a kill -9, and never outlives who started it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner

from services.cli.broker import BrokerError, KafkaProcess, broker, choose
from services.cli.broker_process import brokers_known
from services.cli.broker_state import command_line
from services.cli.jvm import cache_dir

CHECKOUT = Path(__file__).resolve().parents[2]
PARENT = """
import sys, time
from services.cli.broker import KafkaProcess
with KafkaProcess.start() as kafka:
    print(*kafka.pids, kafka.home, flush=True)
    time.sleep(600)
"""


def wait_until(claim: Callable[[], bool], what: str, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.02)


async def create_topic(bootstrap: str, copies: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("letters", num_partitions=1, replication_factor=copies)])
    finally:
        await admin.close()


async def produce(bootstrap: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait("letters", value)
    finally:
        await producer.stop()


async def consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition("letters", 0)])
        async with asyncio.timeout(20):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaProcess]:
    with ThreadPoolExecutor(1) as short_lived:  # the broker must outlive the thread that started it
        process = short_lived.submit(KafkaProcess.start).result()
    yield process
    process.stop()


async def test_records_survive_a_kill_and_a_restart_on_the_same_port(kafka: KafkaProcess) -> None:
    bootstrap = kafka.bootstrap
    await create_topic(bootstrap, copies=1)
    await produce(bootstrap, b"before")
    first = kafka.pid()
    kafka.kill()
    assert kafka.pids == []
    assert brokers_known(kafka.nodes[1]) == 0
    kafka.restart()
    assert kafka.bootstrap == bootstrap
    assert kafka.pid() != first
    await produce(bootstrap, b"after")
    assert await consume(bootstrap, 2) == [b"before", b"after"]


def test_a_paused_node_hangs_until_it_resumes(kafka: KafkaProcess) -> None:
    kafka.pause()
    assert brokers_known(kafka.nodes[1], timeout_s=0.3) == 0
    kafka.resume()
    wait_until(lambda: brokers_known(kafka.nodes[1]) == 1, "an answer")


def test_a_stopped_broker_leaves_no_process_and_no_data() -> None:
    with choose(lambda _: None, environment={}) as chosen:
        assert chosen.kind == "jvm"
        assert chosen.process is not None
        (pid,), home = chosen.process.pids, chosen.process.home
        assert command_line(pid)
    assert not command_line(pid)
    assert not home.exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_parent_leaves_no_broker_and_no_data_and_python_is_all_it_needs(ending: signal.Signals, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": "/nonexistent",  # no java, no mvn, no go
        "HOME": str(home),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(CHECKOUT),
        "BATON_CACHE": str(cache_dir().parents[1]),
    }
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        try:
            pid_text, data = parent.stdout.readline().split()
            assert "kafka.Kafka" in command_line(int(pid_text))
            assert list(Path(data).glob("node-1/data/*"))
        finally:
            parent.send_signal(ending)
    wait_until(lambda: not command_line(int(pid_text)), "the end of the broker")
    assert Path(data).is_relative_to(tmp_path)
    wait_until(lambda: not Path(data).exists(), "the end of its data")
    assert list(home.iterdir()) == []


def test_data_in_a_folder_that_was_given_outlives_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("records")
    KafkaProcess([], tmp_path, jars="", overrides={}, tied=True, temporary=False).stop()
    assert (tmp_path / "kept").read_text() == "records"


def test_a_broker_that_dies_at_start_shows_the_end_of_its_log() -> None:
    with pytest.raises(
        BrokerError, match=r"node 1 ended with code 1 at start(.|\n)*broker\.log(.|\n)*num\.io\.threads"
    ):
        KafkaProcess.start(config_overrides={"num.io.threads": "none"})


def test_a_started_broker_stays_until_it_is_stopped_and_keeps_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_RUN", str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", "from services.cli.broker import broker; broker()", "start"]
    started = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    try:
        assert "export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:" in started.stdout
        assert CliRunner().invoke(broker, ["status"]).exit_code == 0
        assert "runs already" in CliRunner().invoke(broker, ["start"]).output
    finally:
        stopped = CliRunner().invoke(broker, ["stop"])
    assert f"stopped; the data is in {tmp_path}" in stopped.output
    assert (tmp_path / "kafka-1" / "node-1" / "data" / "meta.properties").exists()
    assert CliRunner().invoke(broker, ["status"]).exit_code == 1


async def test_three_nodes_lose_nothing_when_one_is_killed_and_comes_back() -> None:
    with KafkaProcess.start(nodes=3) as cluster:
        assert len(cluster.pids) == 3
        await create_topic(cluster.bootstrap, copies=3)
        await produce(cluster.bootstrap, b"one")
        cluster.kill(2)
        await produce(cluster.bootstrap, b"two")
        cluster.restart(2)
        await produce(cluster.bootstrap, b"three")
        assert await consume(cluster.bootstrap, 3) == [b"one", b"two", b"three"]
