"""`make chaos`: break a running Baton for minutes and audit what is left, then plant known faults and see that each is caught."""

import asyncio
import logging
import sys
import time
from pathlib import Path

import click
import orjson

from tests.chaos.mutants import MUTANTS, run_all
from tests.chaos.scenario import ROOT, Outcome, Plan, run

REPORT = ROOT / "build" / "chaos.json"


@click.command()
@click.option("--requests", default=20_000, show_default=True, type=click.IntRange(1))
@click.option("--rate", default=60.0, show_default=True, help="Requests a second.")
@click.option("--faults", default=42, show_default=True, help="Processes killed or frozen.")
@click.option("--bounces", default=2, show_default=True, help="Times the broker is killed and restarted.")
@click.option("--seed", default=None, type=int, help="Of load, faults and provider. Default: a new one, printed.")
@click.option("--pipelines", is_flag=True, help="Every request takes a pipeline of six calls, with a map inside a join.")
@click.option("--mutants/--no-mutants", default=True, show_default=True, help="Plant known faults afterwards.")
def main(requests: int, rate: float, faults: int, bounces: int, seed: int | None, pipelines: bool, mutants: bool) -> None:
    """Kill, freeze and bounce; every accepted request must get its one result, and the books must be right."""
    seed = int(time.time()) % 1_000_000 if seed is None else seed
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)   # an outage of the broker is what is wanted
    plan = Plan("pipelines" if pipelines else "main", requests, rate, faults, bounces, seed, pipelines=pipelines)
    click.echo(f"{requests} requests at {rate:g} a second, {faults} faults, {bounces} broker restarts; --seed {seed}")
    outcome = asyncio.run(run(plan, click.echo))
    tell(outcome)
    report: dict[str, object] = {plan.name: outcome.as_json()}
    write(REPORT, report)
    missed = []
    if mutants:
        click.echo(f"{len(MUTANTS)} known faults, one after the other; each must be caught")
        found = run_all(seed, click.echo)
        missed = [name for name, each in found.items() if not each["caught"]]
        write(REPORT, report | {"mutants": found})
    click.echo(f"the report is in {REPORT.relative_to(ROOT)}")
    sys.exit(0 if outcome.holds and not missed else 1)


def tell(outcome: Outcome) -> None:
    click.echo("\n".join(outcome.report.lines()))
    for name, figure in {**outcome.report.figures, **outcome.figures}.items():
        click.echo(f"      {name}: {figure}")
    click.echo(f"{'PASS' if outcome.holds else 'FAIL'} after {outcome.seconds:.0f} s, {len(outcome.fired)} faults hit, "
               f"seed {outcome.plan.seed}")


def write(path: Path, report: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
