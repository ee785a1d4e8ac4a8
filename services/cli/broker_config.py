"""Turns the layout of a local Kafka cluster into its configuration files. Pure, except for the choice of free ports.

The only place that names a Kafka setting: the child process, three nodes and the container all read it.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from services.cli.jvm import BrokerError

HOST = "127.0.0.1"

# The console is the broker's log file. Kafka's own .yaml form would need one more jar.
LOG4J2_PROPERTIES = """\
status = error
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = OUT
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
"""


@dataclass(frozen=True)
class Node:
    """One broker that is also a controller. `directory` holds its data, configuration and log."""

    id: int
    port: int
    controller_port: int
    directory: Path

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.directory / "server.properties"

    @property
    def log_file(self) -> Path:
        return self.directory / "broker.log"

    @property
    def data(self) -> Path:
        return self.directory / "data"


def server_properties(node: Node, cluster: Sequence[Node], overrides: Mapping[str, str]) -> dict[str, str]:
    """Settings of one node, tuned for a small machine: few threads, small buffers, fast elections."""
    return {
        **quorum(node, cluster),
        **replication(len(cluster)),
        "auto.create.topics.enable": "false",  # a typo in a topic name must fail
        "num.partitions": "3",
        "log.segment.bytes": "16777216",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # lets a test see a dead member within a second or two
        "group.coordinator.threads": "1",
        "share.coordinator.threads": "1",
        "num.network.threads": "2",
        "num.io.threads": "2",
        "background.threads": "2",
        "log.cleaner.dedupe.buffer.size": "4194304",  # the default takes 128 MiB of a 320 MiB heap
        **overrides,
    }


def quorum(node: Node, cluster: Sequence[Node]) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{peer.id}@{HOST}:{peer.controller_port}" for peer in cluster),
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.election.timeout.ms": "500",
        "controller.quorum.fetch.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",  # with the heartbeat: fail-over in seconds (defaults 2 s and 9 s)
        "listeners": f"PLAINTEXT://{node.address},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{node.address}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": node.data.as_posix(),
    }


def replication(nodes: int) -> dict[str, str]:
    copies = str(min(3, nodes))
    in_sync_min = "2" if nodes >= 3 else "1"
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync_min,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync_min,
    }


def render(settings: Mapping[str, str]) -> str:
    """Java properties. The format has no comment after a value: a `#` there would be part of it."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def container_environment(port: int) -> dict[str, str]:
    """The same settings for the Kafka image: KAFKA_ and the name in capitals. `port` is the one on this machine."""
    inside = Node(id=1, port=9092, controller_port=9093, directory=Path("/tmp/kafka"))
    here = {
        "listeners": f"PLAINTEXT://0.0.0.0:9092,CONTROLLER://{HOST}:9093",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
    }
    settings = server_properties(inside, [inside], here)
    return {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}


def free_ports(count: int) -> list[int]:
    """Ports free at this moment: all are held until the last is known, so that no two are the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def require_free(port: int) -> None:
    """Raises BrokerError if something listens on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerError(
                f"Port {port} on {HOST} cannot be used ({error.strerror}): another Kafka or a service may hold it.\n"
                f"See `baton broker status`, or `lsof -i :{port}` for the holder; stop it, choose another --port,\n"
                "or leave --port out to get a free one."
            ) from error
