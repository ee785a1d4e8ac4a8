"""What a run measures: a Kafka of one node, the simulator answering at once, and Baton with its production defaults.

Started as `baton up` starts them, on free ports, with an environment that takes nothing from the shell's own Baton.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop

from schemas.config import Backend, ConfigFile, Model, Policy, Prices, Tenant
from schemas.topology import INTAKE, REQUEST_PARTITIONS_DEFAULT, STAGES
from services.cli.apply import apply_config
from services.cli.broker import KafkaProcess
from services.cli.broker_config import HOST
from services.cli.processes import Processes, service_ports
from services.cli.topics import create_all
from shared.broker import Broker, Output, Record
from shared.clock import SystemClock
from shared.kafka import KafkaBroker, KafkaOptions
from tests.bench import relay

Say = Callable[[str], None]

LOG_DIR = Path("build/bench")
KEY_NAME = "BATON_BENCH_KEY"
KEY = "sk-of-a-bench-that-listens-on-loopback-only"
TENANT = "bench"
MODEL = "sim-nano"
SYSTEM_TEXT = 9 * "Baton holds the request in the log and its health view in a topic, so nothing waits in silence. "
QUESTION = "What is 17 * 23? Give the number alone."
"""With the system text a prompt of 1 KB, and one that the simulator answers in a few microseconds."""

DEADLINE_MS = 600_000
HEADERS = {"authorization": f"Bearer {KEY}"}
CPU_OF_OTHERS = ("broker", "simulator")

# name: (quality, USD per million tokens in, out); two backends each, as a small real fleet has.
MODELS = {
    MODEL: (0.55, "0.05", "0.20"),
    "sim-small": (0.70, "0.15", "0.60"),
    "sim-large": (0.90, "2.50", "10"),
    "sim-reason": (0.95, "5", "20"),
}


def teller() -> Say:
    """Prints what is being done, with the seconds since the start."""
    began_s = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - began_s:6.1f} s  {text}")


def config(simulator_url: str) -> ConfigFile:
    """Four models, of which the cheapest may answer everything: one call per request, no escalation."""
    return ConfigFile(
        models={name: Model(quality=quality, context_tokens=16_000) for name, (quality, _, _) in MODELS.items()},
        backends={
            f"{provider}-{name}": Backend(
                model=name,
                provider=provider,
                base_url=f"{simulator_url}/{provider}/v1",
                prices=Prices(input=Decimal(price_in), output=Decimal(price_out)),
            )
            for name, (_, price_in, price_out) in MODELS.items()
            for provider in ("alpha", "beta")
        },
        tenants={TENANT: Tenant(keys=(f"env:{KEY_NAME}",))},
        policies={"default": Policy(quality_min_hard=0.0, escalations_max=0)},
    )


def body(number: int, deadline_ms: int = DEADLINE_MS) -> dict[str, Any]:
    """A request in Baton's own form."""
    return {"system": SYSTEM_TEXT, "prompt": QUESTION, "deadline_ms": deadline_ms, "metadata": {"n": number}}


def chat_body() -> bytes:
    """The same as a chat of OpenAI's form, its model named: what any gateway takes."""
    messages = [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": QUESTION}]
    return orjson.dumps({"model": MODEL, "messages": messages})


def to_intake(number: int, deadline_ms: int = DEADLINE_MS) -> Output:
    request = body(number, deadline_ms) | {"tenant": TENANT}
    return Output(INTAKE.name, str(number).encode(), orjson.dumps(request))


def from_results(record: Record) -> tuple[int | None, str]:
    """The number of a result's request, and why it was not delivered, if so."""
    result = orjson.loads(record.value or b"{}")
    return result.get("metadata", {}).get("n"), problem_of(result)


def problem_of(result: dict[str, Any]) -> str:
    """Why a result was not delivered; empty: it was."""
    return "" if result.get("status") == "delivered" else f"{result.get('status')} {result.get('reason')}"


@contextmanager
def supervised(say: Say) -> Iterator[Processes]:
    """Nothing is left of what is started in it. Logs are in `build/bench`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATON_", "KAFKA_"))}
    with Processes(kept | {KEY_NAME: KEY}, LOG_DIR, say) as processes:
        yield processes


def start_simulator(processes: Processes) -> tuple[str, str]:
    """A provider that answers at once and never fails. Name of its process, and its URL."""
    (port,) = service_ports(1)
    arguments = ("services.simulator", "--port", str(port), "--profile", "steady", "--latency-scale", "0")
    name = processes.run("simulator", arguments, (port, "/livez"))
    processes.wait_ready(name)
    return name, f"http://{HOST}:{port}"


@dataclass(frozen=True)
class Baton:
    """Baton as it runs. `ready_s` is how long each service took from its start to ready, one after the other."""

    processes: Processes
    bootstrap: str
    broker_pid: int
    simulator: str
    stages: dict[str, str]
    ready_s: dict[str, float]

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.processes.http_port(self.stages['intake'])}"

    def broker(self) -> Broker:
        return KafkaBroker(KafkaOptions(self.bootstrap, client_id="bench"))

    def pids(self) -> dict[str, int]:
        """By stage; broker and simulator are there too, though nobody counts them as Baton's."""
        own = {stage: self.processes.pid(name) for stage, name in self.stages.items()}
        return own | {"broker": self.broker_pid, "simulator": self.processes.pid(self.simulator)}

    def restarts(self) -> int:
        """Of any service: a figure from a run with one is worthless."""
        return sum(self.processes.restarts(name) for name in self.stages.values())


def own(spent: dict[str, float]) -> dict[str, float]:
    """What Baton itself spent."""
    return {name: value for name, value in spent.items() if name not in CPU_OF_OTHERS}


@contextmanager
def baton(processes: Processes, simulator: str, simulator_url: str, say: Say) -> Iterator[Baton]:
    """A broker with temporary data, topics, config and one replica of every stage, ready."""
    with KafkaProcess.start(say=say) as kafka:
        say(f"Kafka on {kafka.bootstrap}; topics and config")
        uvloop.run(_prepare(kafka.bootstrap, simulator_url))
        stages: dict[str, str] = {}
        ready_s: dict[str, float] = {}
        try:
            for stage in STAGES:
                began_s = time.perf_counter()
                name = processes.start(stage.name, stage.module, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap)
                stages[stage.name] = name
                processes.wait_ready(name)
                ready_s[stage.name] = time.perf_counter() - began_s
            say("ready: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ready_s.items()))
            yield Baton(processes, kafka.bootstrap, kafka.pid(), simulator, stages, ready_s)
        finally:
            processes.stop(*stages.values())


async def _prepare(bootstrap: str, simulator_url: str) -> None:
    broker = KafkaBroker(KafkaOptions(bootstrap, client_id="bench"))
    await create_all(broker, REQUEST_PARTITIONS_DEFAULT)
    await relay.create_topics(broker)
    await apply_config(broker, config(simulator_url), SystemClock().now_ms())
