"""Turns a data directory into a running Apache Kafka: one JVM per node, on loopback, without a container.

An embedded broker and its temporary data must never outlive the process that started it, not even if that one is killed.
"""

import base64
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import click

from services.cli.broker_config import LOG4J2_PROPERTIES, Node, free_ports, render, require_free, server_properties
from services.cli.guard import Guard
from services.cli.jvm import BrokerError, Say, cache_dir, classpath, java
from shared.scheduling import gather_turns

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
POLL_S = 0.05
LOG_LINES_SHOWN = 15
ADDRESS_IN_USE = "Address already in use"

JVM_OPTIONS = (
    *("-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"),
    *("-XX:+IgnoreUnrecognizedVMOptions", "--sun-misc-unsafe-memory-access=allow"),  # quiet on Java 24 and newer
    "--enable-native-access=ALL-UNNAMED",
)


class KafkaProcess:
    """A cluster of one or more nodes, numbered from 1. Use it as a context manager, or call stop()."""

    def __init__(
        self, nodes: Sequence[Node], home: Path, jars: str, overrides: Mapping[str, str], tied: bool, temporary: bool
    ):
        self.nodes = {node.id: node for node in nodes}
        self.home = home
        self._jars = jars
        self._overrides = overrides
        self._guard = Guard() if tied else None
        self._temporary = temporary
        if self._guard and temporary:
            self._guard.delete_at_end(home)
        self._jvms: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def start(
        cls,
        nodes: int = 1,
        data_dir: Path | None = None,
        ports: Sequence[int] = (),
        config_overrides: Mapping[str, str] | None = None,
        say: Say = click.echo,
        tied: bool = True,
    ) -> Self:
        """Ready to serve on return. Without `data_dir` the data is temporary; without `ports` (one per node) they are
        free ones. `tied=False` lets the broker outlive this process. Raises BrokerError.
        """
        for port in ports:
            require_free(port)
        jars = classpath(say)
        home = (data_dir or Path(tempfile.mkdtemp(prefix="baton-kafka-"))).absolute()
        cluster = cls(place(home, nodes, ports), home, jars, config_overrides or {}, tied, temporary=data_dir is None)
        try:
            cluster._prepare()
            cluster._launch_all(retry=not ports)
        except BaseException:  # an interrupt as well must leave no JVM
            cluster.stop()
            raise
        return cluster

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes.values())

    @property
    def pids(self) -> list[int]:
        """Process ids of the JVMs that run."""
        return [jvm.pid for jvm in self._jvms.values() if jvm.poll() is None]

    def pid(self, node: int = 1) -> int:
        return self._jvms[node].pid

    def kill(self, node: int = 1) -> None:
        """SIGKILL; the data stays."""
        self._kill(self._jvms.pop(node))

    def pause(self, node: int = 1) -> None:
        """SIGSTOP: to its peers and clients the node hangs, from this call's return on."""
        jvm = self._jvms[node]
        jvm.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, jvm.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)   # signals take a while where the CPU is busy

    def resume(self, node: int = 1) -> None:
        self._jvms[node].send_signal(signal.SIGCONT)

    def restart(self, node: int = 1) -> None:
        """On the same data and the same ports; ends the node first if it still runs."""
        if node in self._jvms:
            self._end([self._jvms.pop(node)])
        self._launch(self.nodes[node])
        self._await_ready([self.nodes[node]], brokers=1)

    def stop(self) -> None:
        """No process of the cluster is left on return. Temporary data is deleted, so its nodes need not flush it."""
        jvms = list(self._jvms.values())
        self._jvms.clear()
        if self._temporary:
            for jvm in jvms:
                self._kill(jvm)
        else:
            self._end(jvms)
        if self._guard:
            self._guard.close()
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare(self) -> None:
        cluster_id = new_cluster_id()
        for node in self.nodes.values():
            write_surroundings(node)
            node.log_file.unlink(missing_ok=True)  # a restart of the same cluster appends
            if not node.data.exists():
                copy_formatted(node, cluster_id, self._jars)

    def _launch_all(self, retry: bool) -> None:
        for node in self.nodes.values():
            self._launch(node)
        try:
            self._await_ready(list(self.nodes.values()), brokers=len(self.nodes))
        except BrokerError as error:
            if not retry or ADDRESS_IN_USE not in error.message:
                raise
            self._end([self._jvms.pop(node) for node in list(self._jvms)])
            self.nodes = {node.id: node for node in place(self.home, len(self.nodes), ())}
            self._launch_all(retry=False)

    def _launch(self, node: Node) -> None:
        settings = server_properties(node, list(self.nodes.values()), self._overrides)
        node.config_file.write_text(render(settings))
        command = jvm_command(node, self._jars, "kafka.Kafka", str(node.config_file))
        with node.log_file.open("ab") as log:
            self._jvms[node.id] = subprocess.Popen(
                command,
                cwd=node.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt in the terminal is ours to handle
                preexec_fn=self._in_child,
            )

    def _in_child(self) -> None:
        if self._guard:
            self._guard.watch_me()
        gather_turns()

    def _await_ready(self, nodes: Sequence[Node], brokers: int) -> None:
        """Until each of `nodes` answers clients and knows a controller and that many brokers."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        for node in nodes:
            while brokers_known(node) < brokers:
                self._raise_if_dead()
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"Kafka node {node.id} gave no answer in {READY_TIMEOUT_S} s.\n{last_lines(node)}"
                    )
                time.sleep(POLL_S)

    def _raise_if_dead(self) -> None:
        for id, jvm in self._jvms.items():
            if (code := jvm.poll()) is not None:
                raise BrokerError(f"Kafka node {id} ended with code {code} at start.\n{last_lines(self.nodes[id])}")

    def _end(self, jvms: Sequence["subprocess.Popen[bytes]"]) -> None:
        """SIGTERM to all at once, SIGKILL to what is left after STOP_TIMEOUT_S."""
        for jvm in jvms:
            jvm.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for jvm in jvms:
            with suppress(subprocess.TimeoutExpired):
                jvm.wait(max(0.0, deadline - time.monotonic()))
            self._kill(jvm)

    def _kill(self, jvm: "subprocess.Popen[bytes]") -> None:
        jvm.kill()   # does nothing to one that has ended
        jvm.wait()
        if self._guard:
            self._guard.forget(jvm.pid)


def place(home: Path, count: int, ports: Sequence[int]) -> list[Node]:
    """Gives `count` nodes their directories and ports. Raises BrokerError if `home` holds another number of nodes."""
    if ports and len(ports) != count:
        raise BrokerError(f"{count} nodes need {count} ports, {len(ports)} were given: {list(ports)}.")
    found = len(list(home.glob("node-*/data")))
    if found not in (0, count):
        raise BrokerError(
            f"{home} holds the data of {found} node(s), {count} asked for: use --nodes {found}, another --data,\n"
            "or delete that directory."
        )
    free = [port for port in free_ports(3 * count) if port not in ports]
    return [
        Node(id, port, controller_port, home / f"node-{id}")
        for id, port, controller_port in zip(
            range(1, count + 1), ports or free[:count], free[count : 2 * count], strict=True
        )
    ]


def copy_formatted(node: Node, cluster_id: str, jars: str) -> None:
    """Gives `node` an empty formatted data directory: a copy of the template, under a cluster id of its own."""
    template = cache_dir() / "formatted" / f"node-{node.id}"
    if not template.exists():
        format_template(template, node.id, jars)
    shutil.copytree(template, node.data)
    meta = node.data / "meta.properties"
    # Two local clusters must refuse each other even when one is given a port the other has just left.
    meta.write_text(re.sub(r"(?m)^cluster\.id=.*$", f"cluster.id={cluster_id}", meta.read_text()))


def format_template(template: Path, node_id: int, jars: str) -> None:
    template.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="formatting-", dir=template.parent) as scratch:
        node = Node(node_id, port=1, controller_port=2, directory=Path(scratch))  # format opens no port
        write_surroundings(node)
        node.config_file.write_text(render(server_properties(node, [node], {})))
        arguments = ("format", "-t", new_cluster_id(), "-c", str(node.config_file), "--ignore-formatted")
        command = jvm_command(node, jars, "kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"Kafka could not format a data directory:\n{done.stdout}{done.stderr}")
        if not template.exists():  # another process may have been faster
            node.data.replace(template)


def write_surroundings(node: Node) -> None:
    (node.directory / "tmp").mkdir(parents=True, exist_ok=True)
    (node.directory / "log4j2.properties").write_text(LOG4J2_PROPERTIES)


def jvm_command(node: Node, jars: str, main_class: str, *arguments: str) -> list[str]:
    """Native libraries unpack into the node's own directory, or each killed broker would leave them in /tmp."""
    scratch = f"-Djava.io.tmpdir={node.directory / 'tmp'}"
    logging = f"-Dlog4j2.configurationFile={node.directory / 'log4j2.properties'}"
    return [str(java()), *JVM_OPTIONS, scratch, logging, "-cp", jars, main_class, *arguments]


def new_cluster_id() -> str:
    """A random identity. One that begins with a dash would look like an option to Kafka's own tools."""
    return next(text for text in iter(_random_id, "") if not text.startswith("-"))


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def last_lines(node: Node) -> str:
    lines = node.log_file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return f"The last lines of {node.log_file}:\n" + "\n".join(f"  {line}" for line in lines)


def brokers_known(node: Node, timeout_s: float = 5.0) -> int:
    """Brokers in the node's answer to a Metadata request; 0 if it gives none or knows no controller yet.

    By hand (protocol: Metadata v1, no topics asked), so that a synchronous start needs no Kafka client.
    """
    request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((node.address.split(":")[0], node.port), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            (size,) = struct.unpack(">i", stream.read(4))
            return count_brokers(stream.read(size))
    except (OSError, struct.error):  # refused, reset, or closed before the whole answer
        return 0


def count_brokers(answer: bytes) -> int:
    """Metadata v1: correlation id, brokers (id, host, port, nullable rack), controller id, topics."""
    (brokers,) = struct.unpack_from(">i", answer, 4)
    at = 8
    for _ in range(brokers):
        (host_length,) = struct.unpack_from(">h", answer, at + 4)
        at += 4 + 2 + host_length + 4
        (rack_length,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(0, rack_length)
    (controller,) = struct.unpack_from(">i", answer, at)
    return brokers if controller >= 0 else 0
