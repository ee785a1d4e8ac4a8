"""`make bench-pipelines`: what each further step of a pipeline adds, beside a bare relay of the hops that it takes.

A step goes through `escalations`, `plans` and `completions`: three hops. Between them stand the ledger's write-ahead and the
call, whose own time is taken off; the write-ahead is not.
"""

import asyncio
import sys
from statistics import median
from typing import Any

import click
from aiohttp import ClientSession

from schemas.config import ConfigFile
from schemas.pipeline import Node
from services.cli.config_file import load, offered
from tests.bench import relay
from tests.bench.load import HttpLoad
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


def config(url: str) -> ConfigFile:
    """Sequences of one and of six steps, on the simulator."""
    providers = {"BATON_SIMULATOR_ALPHA_URL": f"{url}/alpha/v1", "BATON_SIMULATOR_BETA_URL": f"{url}/beta/v1"}
    base = offered(load(ROOT / "baton.yaml"), providers).config
    step = {"step": {"prompt": "Say in a sentence: {{ request.text }}", "max_tokens": 30, "gate": {"checks": ["not_empty"]}}}
    trees = {f"steps-{count}": Node.model_validate({"sequence": [step] * count}) for count in STEPS}
    return base.model_copy(update={"pipelines": trees})


async def measure() -> dict[str, Any]:
    """p50 in ms: of requests with one and with six steps, of the relay chain, of the provider alone; and what follows."""
    rounds: list[dict[str, float]] = []
    async with running(Setup(config, latency_scale=0.0), click.echo) as system:
        await relay.create_topics(system.broker)
        await asyncio.to_thread(relay.start, system.processes, system.bootstrap)
        async with relay.load(system.broker) as chain, ClientSession() as session:
            provider = HttpLoad(session, f"{system.simulator.url}/alpha/v1/chat/completions", {}, chat_body())
            for _ in range(ROUNDS + 1):   # the first one warms up
                figures = {f"steps_{count}": await _request_ms(system, count) for count in STEPS}
                figures["relay"] = median((await chain.open(RATE_S * 6, SECONDS)).latencies_ms)
                figures["provider"] = median((await provider.open(RATE_S * 6, SECONDS)).latencies_ms)
                rounds.append(figures)
    found = {f"{name}_p50_ms": median(each[name] for each in rounds[1:]) for name in rounds[0]}
    fewest, most = STEPS
    extra = (found[f"steps_{most}_p50_ms"] - found[f"steps_{fewest}_p50_ms"]) / (most - fewest) - found["provider_p50_ms"]
    return found | {"extra_step_ms": extra, "relay_of_its_hops_ms": found["relay_p50_ms"] * HOPS_PER_STEP / relay.HOPS}


async def _request_ms(system: System, count: int) -> float:
    stream = Stream(f"steps-{count}", RATE_S, SECONDS, {"pipeline": f"steps-{count}", "deadline_ms": 30_000})
    taken = latencies_ms(await system.answered(await system.send(stream)))
    if len(taken) < RATE_S * SECONDS * 0.9:
        raise click.ClickException(f"only {len(taken)} of {RATE_S * SECONDS:.0f} were delivered: these figures mean nothing")
    return float(median(taken))


def main() -> None:
    """Measure, tell, and write section `pipelines` of build/bench.json."""
    figures = rounded_all(evidence(measure()))
    limit = SHARE_MAX * figures["relay_of_its_hops_ms"]
    target = Target(f"a further step ({SHARE_MAX} × a relay of its {HOPS_PER_STEP} hops)", figures["extra_step_ms"], limit, "ms")
    for name, figure in figures.items():
        click.echo(f"{name:24} {figure}")
    click.echo(targets_table([target]))
    write_section(OUT, "pipelines", figures | {"targets": [target.as_json()]})
    sys.exit(0 if target.is_met else 1)


if __name__ == "__main__":
    main()
