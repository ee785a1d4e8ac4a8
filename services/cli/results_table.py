"""Turns example requests and the results that come back into rows to read, and into a list of what was not as expected.

Pure, but for printing: what counts as right is decided here and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.messages import Lane, Result, Status


@dataclass(frozen=True)
class Example:
    """One line of an examples file, ready to send. `mark` is what its result is known by; the same for a repeat."""

    number: int
    body: bytes
    mark: str
    title: str
    expect: str
    lane: str
    ordering_key: str | None = None
    is_json: bool = True


def examples_of(lines: Iterable[bytes], run: str) -> list[Example]:
    """Mark every line that is a JSON object with `run` and its number, in its metadata, which results return untouched.

    Lines with the same idempotency key are one request: they share their mark and, being new in this run, a new key.
    """
    first_with: dict[str, int] = {}
    return [_example(number, line, run, first_with) for number, line in enumerate(lines, start=1) if line.strip()]


def _example(number: int, line: bytes, run: str, first_with: dict[str, int]) -> Example:
    try:
        body = orjson.loads(line)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        title = "a line that was cut off: not JSON"
        return Example(number, line, f"{run}/{number}", title, Status.REJECTED, Lane.STANDARD, is_json=False)
    key = body.get("idempotency_key")
    asked = number if key is None else first_with.setdefault(key, number)
    given: dict[str, Any] = body.get("metadata") or {}
    body["metadata"] = given | {"run": run, "line": asked}
    if key is not None:
        body["idempotency_key"] = f"{key}/{run}"
    return Example(
        number=number,
        body=orjson.dumps(body),
        mark=f"{run}/{asked}",
        title=str(given.get("title", f"line {number}")),
        expect=str(given.get("expect", Status.DELIVERED)),
        lane=str(body.get("priority", Lane.STANDARD)),
        ordering_key=body.get("ordering_key"),
    )


@dataclass
class Tally:
    """What was sent and what came back. `aliases` maps request ids to marks, for those that carry no metadata."""

    examples: list[Example]
    aliases: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    order: dict[str, list[int]] = field(default_factory=dict)

    def take(self, result: Result) -> Example | None:
        """The example a result answers, or None if it is somebody else's."""
        mark = self.aliases.get(result.request_id) or "{}/{}".format(*map(result.metadata.get, ("run", "line")))
        example = next((each for each in self.examples if each.mark == mark), None)
        if example is None:
            return None
        if mark in self.results:
            self.repeated.append(mark)
        self.results[mark] = result
        if example.ordering_key:
            self.order.setdefault(example.ordering_key, []).append(example.number)
        return example

    @property
    def is_complete(self) -> bool:
        return all(example.mark in self.results for example in self.examples)

    @property
    def answered(self) -> int:
        """Lines that have their result; both of a pair with one key."""
        return sum(example.mark in self.results for example in self.examples)

    def wrong(self) -> list[str]:
        """One sentence for each thing that is not as expected; empty: all is right."""
        return [
            *(problem for example in self.examples if (problem := self._problem(example))),
            *(f"{mark}: more than one result" for mark in self.repeated),
            *(
                f"ordering key {key}: results came in the order {numbers}"
                for key, numbers in self.order.items()
                if numbers != sorted(numbers)
            ),
        ]

    def _problem(self, example: Example) -> str | None:
        result = self.results.get(example.mark)
        where = f"line {example.number} ({example.title})"
        if result is None:
            return f"{where}: no result"
        if result.status != example.expect:
            return f"{where}: expected {example.expect}, got {explained(result)}; request {result.request_id}"
        return None


def explained(result: Result) -> str:
    """Status, and the reason where there is one."""
    return f"{result.status.value} ({result.reason}: {result.message})" if result.reason else result.status.value


def usd(microusd: int) -> str:
    """Micro-USD as USD with all their digits."""
    return f"{microusd / 1_000_000:.6f}"


def models(result: Result) -> str:
    """Who answered; before it those whose answers were not good enough."""
    names = [tried.model for tried in result.tried]
    if result.answer and result.answer.model not in names[-1:]:
        names.append(result.answer.model)
    return " → ".join(names)


# The table ----------------------------------------------------------------------------------------------------------

WIDTH_MIN = 100
_COLUMNS = (
    ("", 1), ("request", 38), ("lane", 11), ("model", 21), ("why", 0), ("calls", 5), ("ms", 6), ("USD", 8), ("result", 11),
)   # names and widths; 0 takes what is left
_RIGHT = ("calls", "ms", "USD")


class Rows:
    """A table whose rows are printed one by one, as results arrive."""

    def __init__(self, console: Console) -> None:
        self._console = console
        fixed = sum(width + 1 for _, width in _COLUMNS)
        self._why_width = max(console.width - fixed, 12)

    def head(self) -> None:
        self._print([Text(name, style="bold") for name, _ in _COLUMNS])

    def row(self, example: Example, result: Result, ms: int) -> None:
        right = result.status == example.expect
        why = result.why.rule if result.answer and result.why else result.message
        self._print([
            Text("✓" if right else "✗", style="green" if right else "bold red"),
            Text(example.title),
            Text(example.lane),
            Text(models(result)),
            Text(why, style="dim"),
            Text(str(result.attempts)),
            Text(str(ms)),
            Text(usd(result.cost_microusd)),
            Text(result.status.value, style="green" if result.status is Status.DELIVERED else "yellow"),
        ])

    def _print(self, cells: list[Text]) -> None:
        grid = Table.grid(padding=(0, 1, 0, 0))
        for name, width in _COLUMNS:
            grid.add_column(
                width=width or self._why_width, no_wrap=True, overflow="ellipsis",
                justify="right" if name in _RIGHT else "left",
            )
        grid.add_row(*cells)
        self._console.print(grid)
