"""Samples become percentiles, figures become tables, targets and `build/bench.json`. Pure but for the write at the end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson

OUT = Path("build/bench.json")

Row = Sequence[str | float | int | None]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed: nearest rank, nothing interpolated."""
    if not samples:
        raise ValueError("no samples: nothing was measured")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def latencies(name: str, samples_ms: Sequence[float]) -> dict[str, float]:
    """`relay` and its samples: `relay_p50_ms` and `relay_p99_ms`."""
    return {f"{name}_p{share}_ms": rounded(percentile(samples_ms, share / 100)) for share in (50, 99)}


def rounded(value: float) -> float:
    """Three significant digits: what a measurement is worth, and what a reader takes in."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, 2 - math.floor(math.log10(abs(value))))


def rounded_all(figures: Any) -> Any:
    """The same figures, each float with three significant digits."""
    if isinstance(figures, Mapping):
        return {name: rounded_all(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [rounded_all(value) for value in figures]
    return rounded(figures) if isinstance(figures, float) else figures


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's median over the rounds of a run."""
    return {name: rounded(median(figures[name] for figures in rounds)) for name in rounds[0]}


@dataclass(frozen=True)
class Target:
    """What a figure should be at most, or at least where `is_floor`."""

    name: str
    figure: float
    limit: float
    unit: str
    is_floor: bool = False

    @property
    def is_met(self) -> bool:
        return self.figure >= self.limit if self.is_floor else self.figure <= self.limit

    def row(self) -> Row:
        bound = f"{'≥' if self.is_floor else '≤'} {shown(self.limit)}"
        return (self.name, self.figure, bound, self.unit, "" if self.is_met else "MISSED")

    def as_json(self) -> dict[str, Any]:
        kind = "at_least" if self.is_floor else "at_most"
        return {"name": self.name.strip(), "figure": self.figure, kind: self.limit, "unit": self.unit, "met": self.is_met}


def shown(value: str | float | int | None) -> str:
    """A cell: counts as they are, figures with three significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    short = rounded(value)
    return f"{short:,.0f}" if abs(short) >= 100 or short == int(short) else f"{short:g}"


def table(title: str, headers: Sequence[str], rows: Sequence[Row]) -> str:
    """Aligned text: names to the left, numbers to the right, a blank line before and the title above."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[place]) for line in [list(headers), *cells]) for place in range(len(headers))]
    numeric = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(headers))]

    def line(texts: Sequence[str]) -> str:
        columns = zip(texts, widths, numeric, strict=True)
        return "  " + "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in columns).rstrip()

    rule = "  " + "  ".join("─" * width for width in widths)
    return "\n".join(["", title, line(headers), rule, *map(line, cells)])


def targets_table(targets: Sequence[Target]) -> str:
    return table("Targets", ("figure", "measured", "target", "unit", ""), [target.row() for target in targets])


def write_section(path: Path, section: str, figures: Mapping[str, Any]) -> None:
    """Put one bench's figures into the file; those of the other bench stay."""
    try:
        known = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        known = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    written = (known if isinstance(known, dict) else {}) | {section: figures}
    path.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")
