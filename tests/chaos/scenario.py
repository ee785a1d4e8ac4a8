"""One run: a real broker, the simulator, every stage as processes of its own; load, faults, settling; then the audit.

Nothing here knows what a stage does, and nothing of it runs in this process: only topics, HTTP and signals are used.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from schemas.topology import COMPLETIONS, RESULTS, STAGES, stage_named
from services.cli.apply import apply_config
from services.cli.broker import KafkaProcess
from services.cli.broker_config import HOST, free_ports
from services.cli.config_file import load as load_config
from services.cli.config_file import offered
from services.cli.processes import Processes, Say
from services.cli.topics import create_all
from shared.broker import Broker
from shared.config import Settings
from shared.errors import BrokerUnavailableError
from shared.kafka import KafkaBroker, KafkaOptions
from shared.service import runner_options
from tests.chaos import evidence, pipelines
from tests.chaos.auditor import Evidence, Report, audit
from tests.chaos.evidence import Watcher
from tests.chaos.faults import BROKER, Fault, Fired, Injector, Kind, schedule, stage_of
from tests.chaos.load import Load

ROOT = Path(__file__).resolve().parents[2]
REPLICAS = {"router": 2, "executor": 2, "output": 2}
SESSION_TIMEOUT_MS = 3_000
QUIET_START_S = 3.0
SETTLE_S = 150.0
SILENCE_S = 20.0          # how far behind a fault its longest silence is looked for
OUTAGE_ECHO_MS = 5_000    # after the broker is back, clients take so long to find it
PARTITIONS = 6

TIMING = {
    "BATON_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
    "BATON_HEARTBEAT_INTERVAL_MS": "300",
    "BATON_REBALANCE_TIMEOUT_MS": "10000",
    "BATON_TRANSACTION_TIMEOUT_MS": "10000",
}


@dataclass(frozen=True)
class Plan:
    """What one run consists of. `faults` are processes killed or frozen, `bounces` restarts of the broker. `aimed` replaces
    the seeded schedule. `mutant` is planted in the stage it names (see mutants.py)."""

    name: str
    requests: int
    rate_s: float
    faults: int
    bounces: int
    seed: int
    replicas: Mapping[str, int] = field(default_factory=lambda: REPLICAS)
    latency_scale: float = 1.0
    aimed: Sequence[Fault] | None = None
    mutant: str = ""
    mutant_stage: str = ""
    mutant_env: Mapping[str, str] = field(default_factory=dict)
    settle_s: float = SETTLE_S
    pipelines: bool = False    # every request takes the pipeline of `pipelines.py`

    @property
    def load_s(self) -> float:
        return self.requests / self.rate_s


@dataclass(frozen=True)
class Outcome:
    """What a run showed."""

    plan: Plan
    report: Report
    fired: Sequence[Fired]
    seconds: float
    figures: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        return self.report.holds and self.figures["settled"]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.plan.name,
            "holds": self.holds,
            "seed": self.plan.seed,
            "requests": self.plan.requests,
            "seconds": round(self.seconds, 1),
            "invariants": {f.id: {"checked": f.checked, "broken": f.broken, "examples": f.examples}
                           for f in self.report.findings},
            "figures": {**self.report.figures, **self.figures},
            "faults": [{"at_s": f.fault.at_s, "kind": f.fault.kind.value, "victim": f.fault.victim} for f in self.fired],
        }


async def run(plan: Plan, say: Say) -> Outcome:
    """Start everything, break it, let it settle, stop it, audit what is left."""
    began_s = time.monotonic()
    directory = ROOT / "build" / "chaos" / plan.name
    directory.mkdir(parents=True, exist_ok=True)
    invoice = directory / "invoice.jsonl"
    invoice.unlink(missing_ok=True)
    async with AsyncExitStack() as stack:
        kafka = stack.enter_context(await asyncio.to_thread(KafkaProcess.start, say=lambda _: None))
        broker = KafkaBroker(KafkaOptions(kafka.bootstrap, client_id="chaos", request_timeout_ms=60_000))
        processes = stack.enter_context(Processes(_environment(kafka.bootstrap), directory, say=lambda _: None))
        http_port = await _start(plan, processes, broker, invoice)
        say(f"  {len(processes.names())} processes are up after {time.monotonic() - began_s:.0f} s; logs in {directory}")
        watcher = Watcher(broker)
        watching = asyncio.create_task(watcher.run())
        load = Load(broker, f"http://{HOST}:{http_port}", plan.seed, pipelines.NAME if plan.pipelines else None)
        injector = Injector(processes, kafka, SESSION_TIMEOUT_MS / 1000, say)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(plan.requests, plan.rate_s))
            group.create_task(injector.run(_faults(plan)))
        say(f"  {time.monotonic() - began_s:6.1f} s  load and faults are over: {len(watcher.answered)} of {load.sent} answered")
        settled, lag = await _settled(broker, kafka.bootstrap, load, watcher, plan.settle_s)
        say(f"  {time.monotonic() - began_s:6.1f} s  {'settled' if settled else 'NOT SETTLED'}; lag {lag}")
        await asyncio.to_thread(processes.stop)
        seen = await _evidence(broker, load, watcher, invoice, injector.fired, plan, lag)
        report = audit(seen)
        if plan.pipelines:
            report = await _with_pipelines(report, broker, seen)
        if not report.holds:
            lost = load.acknowledged - watcher.answered
            lines = {each.ordering_key for each in seen.accepted if each.request_id in lost and each.ordering_key}
            beside = {each.request_id for each in seen.accepted if each.ordering_key in lines}
            evidence.dump(seen, await evidence.trails(broker, lost | beside), directory / "evidence.jsonl")
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    figures = {"settled": settled, "retried_by_http": load.retried, "reader_reopened": watcher.reopened,
               **_latencies(watcher), **_silences(watcher, injector.fired)}
    return Outcome(plan, report, injector.fired, time.monotonic() - began_s, figures)


def _environment(bootstrap: str) -> dict[str, str]:
    own = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(ROOT), "BATON_PARTITIONS": str(PARTITIONS)}
    return {**os.environ, **own, **TIMING}


async def _start(plan: Plan, processes: Processes, broker: Broker, invoice: Path) -> int:
    """Topics, provider, config, stages. Returns the port that intake listens on."""
    (simulator_port,) = free_ports(1)
    arguments = ["--port", str(simulator_port), "--invoice", str(invoice), "--profile", "typical",
                 "--latency-scale", str(plan.latency_scale), "--seed", str(plan.seed)]
    processes.run("simulator", ["services.simulator", *arguments], (simulator_port, "/livez"))
    await create_all(broker, PARTITIONS)
    url = f"http://{HOST}:{simulator_port}"
    providers = {"BATON_SIMULATOR_ALPHA_URL": f"{url}/alpha/v1", "BATON_SIMULATOR_BETA_URL": f"{url}/beta/v1"}
    config = offered(load_config(ROOT / "baton.yaml"), providers).config
    if plan.pipelines:
        config = config.model_copy(update={"pipelines": {**config.pipelines, pipelines.NAME: pipelines.TREE}})
    await apply_config(broker, config, time.time_ns() // 1_000_000)
    for stage in STAGES:
        for replica in range(plan.replicas.get(stage.name, 1)):
            if stage.name == plan.mutant_stage:
                planted = {"CHAOS_MUTANT": plan.mutant, "CHAOS_MODULE": stage.module, **plan.mutant_env}
                processes.start(stage.name, "tests.chaos.mutant", replica, **planted)
            else:
                processes.start(stage.name, stage.module, replica)
    await asyncio.to_thread(processes.wait_ready)
    return processes.http_port("intake-0")


def _faults(plan: Plan) -> Sequence[Fault]:
    if plan.aimed is not None:
        return plan.aimed
    victims = [f"{stage.name}-{replica}" for stage in STAGES for replica in range(plan.replicas.get(stage.name, 1))]
    return schedule(plan.seed, victims, plan.faults, plan.bounces, QUIET_START_S, plan.load_s)


async def _settled(
    broker: Broker, bootstrap: str, load: Load, watcher: Watcher, limit_s: float
) -> tuple[bool, dict[str, int]]:
    """Wait until everything acknowledged is answered and every group has finished; whether that came to be."""
    until_s, lag = time.monotonic() + limit_s, {"unknown": -1}
    while time.monotonic() < until_s:
        await asyncio.sleep(0.5)
        if load.acknowledged - watcher.answered:
            continue
        with suppress(BrokerUnavailableError, KafkaError):
            lag = await evidence.lag(broker, bootstrap)
            if not any(lag.values()):
                return True, lag
    with suppress(BrokerUnavailableError, KafkaError):
        lag = await evidence.lag(broker, bootstrap)
    return False, lag


async def _evidence(
    broker: Broker, load: Load, watcher: Watcher, invoice: Path, fired: Sequence[Fired], plan: Plan, lag: Mapping[str, int]
) -> Evidence:
    """After every stage has ended: nothing can be added any more."""
    late = await evidence.results(broker)
    places = {(result.partition, result.offset) for result in late}
    until_s = time.monotonic() + 10
    while places - watcher.seen.keys() and time.monotonic() < until_s:
        await asyncio.sleep(0.1)
    cut_offs = sum(
        plan.replicas.get("executor", 1) if each.fault.victim == BROKER else stage_of(each.fault.victim) == "executor"
        for each in fired
    )
    return Evidence(
        accepted=await evidence.accepted(broker, load.http),
        acknowledged=frozenset(load.acknowledged),
        live=list(watcher.seen.values()),
        late=late,
        ledger=await evidence.ledger(broker),
        invoice=evidence.invoice(invoice),
        cut_offs=cut_offs,
        drain_ms=runner_options(Settings.from_environment(TIMING, needs_broker=False), stage_named("executor")).revoke_drain_ms,
        pipelines=plan.pipelines,
        freezes=_freezes(fired),
        lag=lag,
    )


async def _with_pipelines(report: Report, broker: Broker, seen: Evidence) -> Report:
    steps = pipelines.landed(await evidence.read_all(broker, COMPLETIONS))
    results = await evidence.read_all(broker, RESULTS)
    calls = round(len({line.attempt.attempt_id for line in seen.ledger}) / max(len(seen.accepted), 1), 2)
    figures = {**report.figures, "steps_landed": len(steps), "calls_per_request_x100": int(calls * 100)}
    return Report((*report.findings, *pipelines.findings(steps, seen.ledger, results)), figures)


def _freezes(fired: Sequence[Fired]) -> list[tuple[int, int]]:
    """Of executors, while the broker was there: else nobody begins a call, and silence tells nothing."""
    outages = [(each.at_ms, each.until_ms + OUTAGE_ECHO_MS) for each in fired if each.fault.victim == BROKER]
    freezes = [(each.at_ms, each.until_ms) for each in fired
               if each.fault.kind is Kind.FREEZE and stage_of(each.fault.victim) == "executor"]
    return [freeze for freeze in freezes if not any(freeze[0] < until and start < freeze[1] for start, until in outages)]


def _latencies(watcher: Watcher) -> dict[str, int]:
    ordered = sorted(watcher.latencies_ms) or [0]
    return {f"latency_ms_p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}


def _silences(watcher: Watcher, fired: Sequence[Fired]) -> dict[str, Any]:
    """Longest time without any result after a fault, in seconds, by kind and stage of the victim."""
    arrivals = sorted(watcher.arrivals_ms)
    longest: dict[str, float] = {}
    for each in fired:
        after = [at for at in arrivals if at >= each.at_ms]
        inside = [each.at_ms, *after[:1], *(at for at in after[1:] if at <= each.at_ms + SILENCE_S * 1000)]
        gap_ms = max((second - first for first, second in pairwise(inside)), default=0)
        stage = BROKER if each.fault.victim == BROKER else stage_of(each.fault.victim)
        name = f"{stage} {each.fault.kind.name.lower()}"
        longest[name] = max(longest.get(name, 0.0), round(gap_ms / 1000, 1))
    return {"silence_s": dict(sorted(longest.items()))}



