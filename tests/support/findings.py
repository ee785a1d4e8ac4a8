"""What a run of evidence has found: promises, figures, bounds, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

WIDTH = 132


@dataclass(frozen=True)
class Finding:
    """One promise, the figure, its bound, and whether it holds."""

    promise: str
    figure: str
    bound: str
    holds: bool


def say(line: str) -> None:
    """A line on the terminal, as it is."""
    Console(width=WIDTH).print(line, highlight=False, markup=False)


def report(title: str, findings: Iterable[Finding]) -> int:
    """Print the table. Returns the exit code: 1 when a promise is broken."""
    table = Table(title=title)
    for heading in ("what", "figure", "bound", ""):
        table.add_column(heading)
    all_hold = True
    for finding in findings:
        all_hold = all_hold and finding.holds
        table.add_row(finding.promise, finding.figure, finding.bound, "ok" if finding.holds else "[red]MISSED[/red]")
    Console(width=WIDTH).print(table)
    return 0 if all_hold else 1
