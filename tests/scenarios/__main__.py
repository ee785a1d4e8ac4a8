"""`make scenarios`: sixteen faults of a provider in three wire formats, through the whole of Baton, judged from outside.

Real broker, real processes. Prints a table, then what is wrong; exits 1 unless everything passes.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click
import uvloop
from rich.console import Console
from rich.table import Table

from services.cli.broker import choose
from tests.scenarios.evidence import Check, Evidence, Score, score
from tests.scenarios.judge import judge
from tests.scenarios.run import Say, run
from tests.scenarios.table import DEFAULT, DIALECTS, SCENARIOS, Dialect, Pace, Scenario, Variant, variants

COLOURS = {Score.PASS: "green", Score.PARTIAL: "yellow", Score.SAFE: "yellow", Score.FAIL: "red"}


@dataclass(frozen=True)
class Judgement:
    """One variant and all its checks. `attempts` and `took_ms` are of its slowest request."""

    variant: Variant
    checks: Sequence[Check]
    attempts: int
    took_ms: int
    trail: str

    @property
    def score(self) -> Score:
        return score(self.checks)

    def broken(self) -> list[str]:
        """A line per check that does not hold, and one that says how it went."""
        lines = [f"  {check.weight}: {check.name}: {check.figure}" for check in self.checks if not check.holds]
        return [f"{self.variant.name}: {self.score}", *lines, f"  {self.trail}"] if lines else []

    def notes(self) -> list[str]:
        """What is worth telling of a check that holds."""
        return [f"{self.variant.name}: {c.name}: {c.figure}" for c in self.checks if c.holds and c.is_notable]


def judged(wanted: Sequence[Variant], pace: Pace, bootstrap: str, say: Say) -> list[Judgement]:
    """Run the variants on this broker and judge each."""
    evidence = uvloop.run(run(wanted, pace, bootstrap, say))
    return [_judgement(variant, evidence[variant.name]) for variant in wanted]


def _judgement(variant: Variant, seen: Evidence) -> Judgement:
    slowest = max(seen.asked, key=lambda asked: asked.took_ms or 0)
    calls = seen.calls_by_request()
    attempts = len(calls.get(slowest.seen[0].result.request_id, ())) if slowest.seen else 0
    return Judgement(variant, judge(seen, variant.rules), attempts, slowest.took_ms or 0, seen.trail())


def report(judgements: Sequence[Judgement]) -> Table:
    """Scenarios by variants: the score, and of the slowest request its attempts and milliseconds."""
    ways = [(dialect, streamed) for dialect in DIALECTS for streamed in (True, False)]
    found = {(j.variant.scenario.id, j.variant.dialect, j.variant.streamed): j for j in judgements}
    shown = [way for way in ways if any((id, *way) in found for id in SCENARIOS)]
    table = Table(title="score, attempts and ms of the slowest request", title_justify="left")
    for heading in ("", "fault", *(_way(dialect, streamed) for dialect, streamed in shown)):
        table.add_column(heading)
    for scenario in SCENARIOS.values():
        cells = [found.get((scenario.id, *way)) for way in shown]
        if any(cells):
            table.add_row(scenario.id, _told(scenario), *(_cell(cell) if cell else "" for cell in cells))
    return table


def _way(dialect: str, streamed: bool) -> str:
    return f"{dialect} {'stream' if streamed else 'plain'}"


def _told(scenario: Scenario) -> str:
    return scenario.fault + (f", {scenario.requests} requests" if scenario.requests > 1 else "")


def _cell(judgement: Judgement) -> str:
    score = judgement.score
    return f"[{COLOURS[score]}]{score}[/] {judgement.attempts} × {judgement.took_ms:,}"


def totals(judgements: Sequence[Judgement]) -> list[str]:
    """One line per wire format: how many of its scenarios pass."""
    lines = []
    for dialect in DIALECTS:
        for streamed in (True, False):
            scores = [j.score for j in judgements if (j.variant.dialect, j.variant.streamed) == (dialect, streamed)]
            if scores:
                others = "".join(f", {scores.count(s)} {s}" for s in Score if s is not Score.PASS and s in scores)
                lines.append(f"pass {scores.count(Score.PASS)}/{len(scores)} ({_way(dialect, streamed)}){others}")
    return lines


@click.command()
@click.option("--only", default="", help="Scenarios, such as S08,S10. Default: all.")
@click.option("--dialect", type=click.Choice(DIALECTS), help="Of the primary. Default: each.")
def main(only: str, dialect: Dialect | None) -> None:
    """Sixteen provider faults in three wire formats: whole answers or true errors, on time, and the books agree."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)   # a topic's first second without a leader is normal
    names = [name.strip().upper() for name in only.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(SCENARIOS)):
        raise click.BadParameter(f"no scenario {', '.join(unknown)}; known: {', '.join(SCENARIOS)}", param_hint="--only")
    console, began_s = Console(width=160, highlight=False), time.monotonic()

    def say(line: str) -> None:
        console.print(line, markup=False)

    with choose(say=say) as chosen:
        judgements = judged(variants(names, (dialect,) if dialect else DIALECTS), DEFAULT, chosen.bootstrap, say)
    console.print(report(judgements))
    for judgement in judgements:
        for line in (*judgement.broken(), *judgement.notes()):
            say(line)
    say(f"{time.monotonic() - began_s:.0f} s; " + "; ".join(totals(judgements)))
    sys.exit(0 if all(judgement.score is Score.PASS for judgement in judgements) else 1)


if __name__ == "__main__":
    main()
