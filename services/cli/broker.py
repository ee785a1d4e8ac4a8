"""`baton broker`, and the choice of a Kafka for everything that needs one: given, in a container, or a child process.

The choice is always printed. Nothing here is a stand-in: every way leads to a real broker.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from services.cli.broker_config import HOST, container_environment, free_ports
from services.cli.broker_process import KafkaProcess
from services.cli.broker_state import BrokerState, read_state, write_state
from services.cli.jvm import KAFKA_VERSION, BrokerError, Say, run_dir

__all__ = ["BrokerError", "Chosen", "KafkaProcess", "broker", "choose"]

Kind = Literal["given", "docker", "jvm"]


@dataclass(frozen=True)
class Chosen:
    """A broker to talk to. `process` can be killed and restarted; only a child process of ours has one."""

    bootstrap: str
    kind: Kind
    process: KafkaProcess | None = None


@contextmanager
def choose(
    say: Say = click.echo, nodes: int = 1, data_dir: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[Chosen]:
    """KAFKA_BOOTSTRAP_SERVERS if set; else BATON_KAFKA, `docker` or `jvm` (the default). Raises BrokerError.

    `nodes` and `data_dir` (None: temporary data) are for the child process alone.
    """
    given = environment.get("KAFKA_BOOTSTRAP_SERVERS")
    wanted = environment.get("BATON_KAFKA", "jvm")
    if given:
        say(f"Kafka: {given} (KAFKA_BOOTSTRAP_SERVERS)")
        yield Chosen(given, "given")
    elif wanted == "docker":
        with container() as bootstrap:
            say(f"Kafka: {bootstrap} (container apache/kafka:{KAFKA_VERSION}; BATON_KAFKA=docker)")
            yield Chosen(bootstrap, "docker")
    elif wanted == "jvm":
        with KafkaProcess.start(nodes, data_dir, say=say) as process:
            say(f"Kafka: {process.bootstrap} (child process {KAFKA_VERSION}, {nodes} node(s); BATON_KAFKA=jvm)")
            yield Chosen(process.bootstrap, "jvm", process)
    else:
        raise BrokerError(f"BATON_KAFKA={wanted} is unknown: use jvm or docker, or set KAFKA_BOOTSTRAP_SERVERS.")


@contextmanager
def container() -> Iterator[str]:
    """One node in the official image, on a fixed port: clients are sent back to the address the broker advertises."""
    try:
        from docker.errors import DockerException
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy
    except ImportError as error:
        raise BrokerError(f"BATON_KAFKA=docker needs the Python package testcontainers ({error}).") from error
    (port,) = free_ports(1)
    with ExitStack() as started:
        try:
            kafka = DockerContainer(f"apache/kafka:{KAFKA_VERSION}").with_bind_ports(9092, port)
            kafka = kafka.with_envs(**container_environment(port))
            started.enter_context(kafka.waiting_for(LogMessageWaitStrategy("Kafka Server started")))
        except DockerException as error:
            raise BrokerError(f"Docker gave no Kafka ({error}). Is it running? BATON_KAFKA=jvm needs none.") from error
        yield f"{HOST}:{port}"


broker = click.Group("broker", help="A real Apache Kafka on this machine, in the background; Python is all it needs.")


def state_file() -> Path:
    return run_dir() / "broker.json"


@broker.command()
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Three survive a loss.")
@click.option("--port", type=click.IntRange(1, 65533), help="Of the first node, the others follow. Default: free ones.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Directory. Default: .run/kafka-NODES.")
def start(nodes: str, port: int | None, data: Path | None) -> None:
    """Start a broker that stays after this command. Its data stays, too.

    A broker that the environment names is used instead, as everywhere: KAFKA_BOOTSTRAP_SERVERS, then BATON_KAFKA=docker.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        click.echo(f"Kafka: {given} (KAFKA_BOOTSTRAP_SERVERS); nothing to start. Unset it for a broker of your own.")
        return
    if os.environ.get("BATON_KAFKA", "jvm") == "docker":
        raise BrokerError(
            "BATON_KAFKA=docker: such a container ends with the command that started it. "
            "`docker compose up -d kafka` starts one that stays; BATON_KAFKA=jvm needs no Docker."
        )
    if state := read_state(state_file()):
        click.echo(f"Kafka runs already: {describe(state)}")
        return
    ports = range(port, port + int(nodes)) if port else ()
    home = data or run_dir() / f"kafka-{nodes}"
    cluster = KafkaProcess.start(int(nodes), home, ports, tied=False)
    state = BrokerState.of(cluster)
    write_state(state_file(), state)
    click.echo(f"Kafka {KAFKA_VERSION} is ready, as a child process: {describe(state)}")
    click.echo(f"To use it: export KAFKA_BOOTSTRAP_SERVERS={state.bootstrap}")


@broker.command()
def stop() -> None:
    """Stop the broker of `baton broker start`; its data stays."""
    if state := read_state(state_file()):
        state.stop()
        click.echo(f"stopped; the data is in {state.data_dir}")
    else:
        click.echo("No Kafka of `baton broker start` runs.")
    state_file().unlink(missing_ok=True)


@broker.command()
@click.pass_context
def status(context: click.Context) -> None:
    """Say where the broker is; exit code 1 if none runs."""
    if state := read_state(state_file()):
        click.echo(f"Kafka runs: {describe(state)}")
        return
    click.echo("No Kafka of `baton broker start` runs.")
    context.exit(1)


def describe(state: BrokerState) -> str:
    running = ", ".join(map(str, state.running()))
    return f"{state.bootstrap} (pid {running}; data {state.data_dir}; since {state.started_at:%Y-%m-%d %H:%M:%S} UTC)"
