"""`make gate`: how often each check is right about the labelled answers, and where it is wrong. Exits 1 when a bar is missed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from schemas.checks import SCORES
from services.quality_gate.checks import judge
from tests.bench.report import Row, table
from tests.gate.labelled_set import Labelled, labelled
from tests.gate.ranking import rankings
from tests.gate.recorded import FILE, judged

PRECISION_MIN, RECALL_MIN = 0.97, 0.90


@dataclass(frozen=True)
class Tally:
    """Of one check: `found` are bad answers that failed it, `wronged` good ones that did."""

    check: str
    good: int
    bad: int
    found: int
    wronged: int

    @property
    def precision(self) -> float:
        flagged = self.found + self.wronged
        return self.found / flagged if flagged else 1.0

    @property
    def recall(self) -> float:
        return self.found / self.bad if self.bad else 1.0

    @property
    def is_met(self) -> bool:
        return self.precision >= PRECISION_MIN and self.recall >= RECALL_MIN

    def row(self) -> Row:
        return (self.check, self.good, self.bad, self.precision, self.recall, "" if self.is_met else "MISSED")


def passes(case: Labelled) -> bool:
    """Whether the check passes the answer; and, where the label says that it must be mended, whether it was."""
    answer, (checked,), _ = judge(case.answer, case.task, (case.spec,))
    return checked.passed and (answer.text != case.answer.text) >= case.is_mended


def tally(check: str, cases: Sequence[Labelled]) -> Tally:
    good, bad = [case for case in cases if case.is_good], [case for case in cases if not case.is_good]
    failed = sum(not passes(case) for case in bad)
    return Tally(check, len(good), len(bad), failed, sum(not passes(case) for case in good))


@click.command()
@click.option("--dev", is_flag=True, help="Only the part that may be tuned by.")
@click.option("--data", envvar="DATA", type=click.Path(path_type=Path), help="Folder with recorded answers.")
def main(dev: bool, data: Path | None) -> None:
    """Precision and recall per check, AUC per score: of the part that was held out, and of all. The bars are for all."""
    cases = labelled()
    tuned = [case for case in cases if not case.is_held_out]
    if dev:
        _show("Tuned by", tuned)
        return
    _show("Held out", [case for case in cases if case.is_held_out])
    met = [*_show("All", cases), _recorded_met(data)]
    sys.exit(0 if all(met) else 1)


def _show(title: str, part: Sequence[Labelled]) -> list[bool]:
    """Print the tables of a part; whether each bar is met."""
    checks = _checks(title, [case for case in part if case.check not in SCORES])
    return checks + _scores(title, [case for case in part if case.check in SCORES])


def _checks(title: str, part: Sequence[Labelled]) -> list[bool]:
    names = dict.fromkeys(case.check for case in part)
    found = [tally(name, [case for case in part if case.check == name]) for name in names]
    headers = ("check", "good", "bad", "precision", "recall", "")
    click.echo(table(f"{title}: checks", headers, [each.row() for each in found]))
    for case in part:
        if passes(case) != case.is_good:
            click.echo(f"  wrong: {case.place} {case.why or repr(case.answer.text[:70])}")
    return [each.is_met for each in found]


def _scores(title: str, part: Sequence[Labelled]) -> list[bool]:
    names = dict.fromkeys(case.check for case in part)
    found = [ranking for name in names for ranking in rankings(name, [case for case in part if case.check == name])]
    headers = ("score", "against", "good", "bad", "unknown", "AUC", "")
    click.echo(table(f"{title}: scores", headers, [each.row() for each in found]))
    return [each.is_met for each in found]


def _recorded_met(data: Path | None) -> bool:
    if data is None or not (data / FILE).exists():
        click.echo(f"\nrecorded answers: skipped; name the folder that holds {FILE}: make gate DATA=folder")
        return True
    recorded = judged(data)
    click.echo("\n" + "\n".join(recorded.lines()) + ("" if recorded.is_met else "\n  MISSED"))
    return recorded.is_met


if __name__ == "__main__":
    main()
