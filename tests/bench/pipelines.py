"""`make bench-pipelines`: what each further step of a pipeline adds, beside a bare relay of the hops that it takes.

Then the lag of a gate under load (`gate_lag.py`).

A step goes through `escalations`, `plans` and `completions`: three hops. Between them its call is written to the ledger, and made
once that is acknowledged: a round trip to the broker, which a bare producer measures. The call's own time is taken off.
"""

import asyncio
import itertools
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

import click
from aiohttp import ClientSession

from schemas.config import ConfigFile
from schemas.pipeline import Node
from schemas.topology import REQUEST_PARTITIONS_DEFAULT, TopicSpec
from services.cli.config_file import load, offered
from shared.broker import Broker, Output
from tests.bench import gate_lag, relay
from tests.bench.load import HttpLoad, Taken, open_loop
from tests.bench.report import OUT, Target, rounded_all, targets_table, write_section
from tests.bench.system import chat_body
from tests.support.system import ROOT, Setup, System, evidence, running
from tests.support.traffic import Stream, latencies_ms

STEPS = (1, 6)
HOPS_PER_STEP = 3
SHARE_MAX = 1.5
RATE_S = 5.0
SECONDS = 5.0
ROUNDS = 2
ACK_TOPIC = "bench-acknowledged"


def config(url: str) -> ConfigFile:
    """Sequences of one and of six steps, on the simulator."""
    providers = {"BATON_SIMULATOR_ALPHA_URL": f"{url}/alpha/v1", "BATON_SIMULATOR_BETA_URL": f"{url}/beta/v1"}
    base = offered(load(ROOT / "baton.yaml"), providers).config
    step = {"step": {"prompt": "Say in a sentence: {{ request.text }}", "max_tokens": 30, "gate": {"checks": ["not_empty"]}}}
    trees = {f"steps-{count}": Node.model_validate({"sequence": [step] * count}) for count in STEPS}
    return base.model_copy(update={"pipelines": trees})


async def measure(rounds_count: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """p50 in ms: of requests with one and with six steps, of the relay chain, of an acknowledged write, of the provider alone;
    and what follows. A first round warms up and is left out."""
    rounds: list[dict[str, float]] = []
    async with running(Setup(config, latency_scale=0.0), click.echo) as system:
        await relay.create_topics(system.broker)
        await system.broker.create_topics([TopicSpec(ACK_TOPIC, REQUEST_PARTITIONS_DEFAULT)])
        await asyncio.to_thread(relay.start, system.processes, system.bootstrap)
        async with relay.load(system.broker) as chain, ClientSession() as session:
            provider = HttpLoad(session, f"{system.simulator.url}/alpha/v1/chat/completions", {}, chat_body())
            for _ in range(rounds_count + 1):
                figures = {f"steps_{count}": await _request_ms(system, count, seconds) for count in STEPS}
                figures["relay"] = median((await chain.open(RATE_S * 6, seconds)).latencies_ms)
                figures["acknowledged"] = await _acknowledged_ms(system.broker, seconds)
                figures["provider"] = median((await provider.open(RATE_S * 6, seconds)).latencies_ms)
                rounds.append(figures)
    found = {f"{name}_p50_ms": median(each[name] for each in rounds[1:]) for name in rounds[0]}
    fewest, most = STEPS
    extra = (found[f"steps_{most}_p50_ms"] - found[f"steps_{fewest}_p50_ms"]) / (most - fewest) - found["provider_p50_ms"]
    bare = found["relay_p50_ms"] * HOPS_PER_STEP / relay.HOPS + found["acknowledged_p50_ms"]
    return found | {"extra_step_ms": extra, "relay_of_its_hops_ms": bare}


async def _request_ms(system: System, count: int, seconds: float) -> float:
    stream = Stream(f"steps-{count}", RATE_S, seconds, {"pipeline": f"steps-{count}", "deadline_ms": 30_000})
    taken = latencies_ms(await system.answered(await system.send(stream)))
    if len(taken) < RATE_S * seconds * 0.9:
        raise click.ClickException(f"only {len(taken)} of {RATE_S * seconds:.0f} were delivered: these figures mean nothing")
    return float(median(taken))


async def _acknowledged_ms(broker: Broker, seconds: float) -> float:
    """From a record's sending to its acknowledgement, at the rate at which steps write theirs."""
    taken, numbers = Taken(), itertools.count()
    producer = await broker.producer(linger_ms=0)

    async def write(due_s: float) -> None:
        await (await producer.send(Output(ACK_TOPIC, str(next(numbers)).encode(), relay.VALUE)))
        taken.answered(due_s)

    try:
        await open_loop(RATE_S * 6, seconds, write)
    finally:
        await producer.close()
    return float(median(taken.latencies_ms))


def target_of(figures: Mapping[str, Any]) -> Target:
    name = f"a further step ({SHARE_MAX} × a relay of its {HOPS_PER_STEP} hops and its write-ahead)"
    return Target(name, figures["extra_step_ms"], SHARE_MAX * figures["relay_of_its_hops_ms"], "ms")


@click.command()
@click.option("--only", type=click.Choice(["steps", "gate"]), help="One part: what a step adds, or the gate's lag.")
def main(only: str | None) -> None:
    """Measure, tell, and write sections `pipelines` and `gate_lag` of build/bench.json."""
    targets: list[Target] = []
    if only != "gate":
        figures = rounded_all(evidence(measure()))
        targets += _told("pipelines", figures, [target_of(figures)])
    if only != "steps":
        figures = rounded_all(gate_lag.measure(click.echo))
        targets += _told("gate_lag", figures, gate_lag.targets_of(figures))
    click.echo(targets_table(targets))
    sys.exit(0 if all(target.is_met for target in targets) else 1)


def _told(section: str, figures: Mapping[str, Any], targets: list[Target]) -> list[Target]:
    for name, figure in figures.items():
        click.echo(f"{name:24} {figure}")
    write_section(OUT, section, {**figures, "targets": [target.as_json() for target in targets]})
    return targets


if __name__ == "__main__":
    main()
