"""Recorded answers of real models: those that were cut, gave up or cannot be read must be found from their texts alone.

The folder is named by DATA and holds `mmlu_pro_responses.dev.jsonl.gz`: one JSON object per line, with a text per model under
`responses`. The questions asked for a letter, so that "unreadable" has a definition: no option is named as the answer. What is
unreadable must have a reason among the checks' findings.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from schemas.checks import CheckSpec
from schemas.messages import Answer, Task
from services.quality_gate.checks import judge

FILE = "mmlu_pro_responses.dev.jsonl.gz"
READABLE = r"(?is).*answer is:? \(?\*{0,2}\(?[A-J]\b.*"
SPECS = (
    CheckSpec(check="not_empty"),
    CheckSpec(check="format", regex=READABLE),
    CheckSpec(check="ends_whole"),
    CheckSpec(check="not_refused"),
    CheckSpec(check="not_repetitive"),
)
FOUND_MIN = 0.85
"""Of the unreadable answers: the share for which a check beside the format says why. Most of the others are whole answers
that say that none of the options is right."""
WRONGED_MAX = 0.002
"""Of the readable ones: the share that one of these checks fails although the letter is there."""

_LETTER = re.compile(r"answer is:? \(?\*{0,2}\(?[A-J]\b", re.IGNORECASE)
_BY_TEXT = ("ends_whole", "not_refused", "not_repetitive", "not_empty")


@dataclass
class Recorded:
    """How many answers there were, and what was said of the unreadable and of the readable ones."""

    readable: int = 0
    unreadable: int = 0
    format_missed: int = 0
    unexplained: list[str] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    wronged: Counter[str] = field(default_factory=Counter)
    wronged_answers: int = 0

    @property
    def is_met(self) -> bool:
        explained = self.unreadable - len(self.unexplained)
        kept = self.wronged_answers <= WRONGED_MAX * self.readable
        return kept and not self.format_missed and explained >= FOUND_MIN * self.unreadable

    def lines(self) -> list[str]:
        explained = self.unreadable - len(self.unexplained)
        return [
            f"{self.readable + self.unreadable:,} recorded answers, judged by their texts alone",
            f"  {self.unreadable:,} name no option: `format` finds {self.unreadable - self.format_missed:,},"
            f" other checks say why of {explained:,} (at least {FOUND_MIN:.0%}): {_counts(self.found)}",
            f"  {self.readable:,} name one: {self.wronged_answers:,} fail another check (at most {WRONGED_MAX:.1%}):"
            f" {_counts(self.wronged)}",
        ]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def answers(folder: Path) -> Iterator[str]:
    """Every recorded text. Raises FileNotFoundError."""
    with gzip.open(folder / FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from orjson.loads(line)["responses"].values()


def judged(folder: Path) -> Recorded:
    """All recorded answers, judged by their texts alone."""
    recorded, task = Recorded(), Task()
    for text in answers(folder):
        failed = {check.name for check in judge(Answer(text=text), task, SPECS).checks if not check.passed}
        reasons = failed & set(_BY_TEXT)
        if _LETTER.search(text):
            recorded.readable += 1
            recorded.wronged.update(reasons)
            recorded.wronged_answers += bool(reasons)
        else:
            recorded.unreadable += 1
            recorded.format_missed += "format" not in failed
            recorded.found.update(reasons)
            recorded.unexplained += [] if reasons else [text]
    return recorded
