"""`make failover`: a backend fails under load, two routers and two executors leave it, probe it and come back to it.

Real broker, real processes; judged on the ledger alone. Prints a table, exits 1 when a promise is broken.
"""

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from schemas.ledger import Attempt
from schemas.topology import ATTEMPTS, INTAKE, RESULTS, STAGES, Topic
from services.cli.apply import apply_config
from services.cli.broker import KafkaProcess
from services.cli.broker_config import HOST, free_ports
from services.cli.config_file import load, offered
from services.cli.processes import Processes
from services.cli.topics import create_all
from shared.broker import Broker, Output
from shared.codec import decode
from shared.kafka import KafkaBroker, KafkaOptions
from tests.failover.judge import Finding, judge, shares

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "alpha-small"
PROVIDER, MODEL = "alpha", "sim-small"
REPLICAS = {"router": 2, "executor": 2}
RATE_S = 100
WARM_S, BROKEN_S, BACK_S = 5.0, 6.0, 22.0
CIRCUIT = {"BATON_CIRCUIT_COOLDOWN_MS": "3000", "BATON_CIRCUIT_RAMP_MS": "6000"}
"""Shorter than in production, so that one run sees the whole cycle: the rules are the same."""


async def run(say: Callable[[str], None]) -> list[Finding]:
    """One cycle: healthy, broken, healed."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baton-failover-")))
        kafka = stack.enter_context(await asyncio.to_thread(KafkaProcess.start, say=say))
        broker = KafkaBroker(KafkaOptions(kafka.bootstrap, client_id="failover"))
        env = {**os.environ, **CIRCUIT, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "PYTHONPATH": str(ROOT)}
        processes = stack.enter_context(Processes(env, directory, say=say))
        simulator = await _start(processes, broker, directory)
        say(f"{len(processes.names())} processes are up; {RATE_S} requests/s, {BACKEND} fails after {WARM_S:.0f} s")
        sending = asyncio.create_task(_send(broker, int(RATE_S * (WARM_S + BROKEN_S + BACK_S))))
        await asyncio.sleep(WARM_S)
        broke_ms = await _control(simulator, {"kind": "error", "status": 503})
        say(f"{BACKEND} answers 503 to everything")
        await asyncio.sleep(BROKEN_S)
        healed_ms = await _control(simulator, None)
        say(f"{BACKEND} is well again")
        sent = await sending
        end_ms = time.time_ns() // 1_000_000
        results = [decode(RESULTS, value) for value in await _settled(broker, sent)]
        attempts: list[Attempt] = [decode(ATTEMPTS, value) for value in await _values(broker, ATTEMPTS)]
        await asyncio.to_thread(processes.stop)
    say("share of calls per second: " + " ".join(f"{share:.0%}" for share in shares(attempts, BACKEND, broke_ms - 3000, end_ms)))
    return judge(attempts, results, sent, BACKEND, broke_ms, healed_ms, end_ms)


async def _start(processes: Processes, broker: Broker, directory: Path) -> str:
    """Topics, provider, config, stages. Returns the simulator's address."""
    (port,) = free_ports(1)
    invoice = str(directory / "invoice.jsonl")
    arguments = ["--port", str(port), "--invoice", invoice, "--profile", "steady", "--latency-scale", "0.2"]
    processes.run("simulator", ["services.simulator", *arguments], (port, "/livez"))
    await create_all(broker, 6)
    url = f"http://{HOST}:{port}"
    providers = {"BATON_SIMULATOR_ALPHA_URL": f"{url}/alpha/v1", "BATON_SIMULATOR_BETA_URL": f"{url}/beta/v1"}
    await apply_config(broker, offered(load(ROOT / "baton.yaml"), providers).config, time.time_ns() // 1_000_000)
    for stage in STAGES:
        for replica in range(REPLICAS.get(stage.name, 1)):
            processes.start(stage.name, stage.module, replica)
    await asyncio.to_thread(processes.wait_ready)
    return url


async def _control(simulator: str, fault: dict[str, object] | None) -> int:
    body = {"provider": PROVIDER, "model": MODEL, "fault": fault}
    async with aiohttp.ClientSession() as session, session.post(f"{simulator}/control", json=body) as answer:
        answer.raise_for_status()
    return time.time_ns() // 1_000_000


async def _send(broker: Broker, count: int) -> int:
    """Open loop: each request at its due time."""
    producer = await broker.producer()
    began_s = time.monotonic()
    acknowledged = []
    for number in range(count):
        await asyncio.sleep(max(began_s + number / RATE_S - time.monotonic(), 0))
        body = {"prompt": f"Say in a sentence what the number {number} means to you.", "model": MODEL, "max_tokens": 40,
                "priority": "interactive", "tenant": "demo"}
        acknowledged.append(await producer.send(Output(INTAKE.name, None, orjson.dumps(body))))
    await asyncio.gather(*acknowledged)
    await producer.close()
    return count


async def _settled(broker: Broker, sent: int) -> list[bytes]:
    until_s = time.monotonic() + 60
    while len(values := await _values(broker, RESULTS)) < sent and time.monotonic() < until_s:
        await asyncio.sleep(0.5)
    return values


async def _values(broker: Broker, topic: Topic) -> list[bytes]:
    """Everything on a topic now."""
    reader = await broker.reader(topic.name)
    values: list[bytes] = []
    for partition, end in (await reader.ends()).items():
        while await reader.position(partition) < end:
            values += [record.value for record in await reader.poll(200) if record.value is not None]
    await reader.close()
    return values


def report(findings: list[Finding]) -> Table:
    table = Table(title=f"{BACKEND} fails under {RATE_S} requests/s: 2 routers, 2 executors")
    for heading in ("what", "figure", "bound", ""):
        table.add_column(heading)
    for finding in findings:
        table.add_row(finding.promise, finding.figure, finding.bound, "ok" if finding.holds else "[red]MISSED[/red]")
    return table


def main() -> int:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)   # a topic's first second without a leader is normal
    console = Console(width=120)
    findings = uvloop.run(run(lambda line: console.print(line, highlight=False, markup=False)))
    console.print(report(findings))
    return 0 if all(finding.holds for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
