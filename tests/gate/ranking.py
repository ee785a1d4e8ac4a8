"""How well a score ranks good answers above bad ones: AUC, the chance that it does so for a pair drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.quality_gate.scores import score
from tests.bench.report import Row
from tests.gate.labelled_set import Labelled

AUC_MIN = {"factuality": 0.80}
"""Bars; the other scores are shown without one."""


@dataclass(frozen=True)
class Ranking:
    """Of one score over one part of the labelled answers; `flaw` where it is against one kind of planted error only."""

    check: str
    flaw: str
    good: Sequence[float]
    bad: Sequence[float]
    unknown: int

    @property
    def auc(self) -> float:
        wins = sum((good > bad) + 0.5 * (good == bad) for good in self.good for bad in self.bad)
        return wins / (len(self.good) * len(self.bad)) if self.good and self.bad else 0.5

    def row(self) -> Row:
        against = self.flaw or "all bad"
        return (self.check, against, len(self.good), len(self.bad), self.unknown, self.auc, "" if self.is_met else "MISSED")

    @property
    def is_met(self) -> bool:
        return bool(self.flaw) or self.auc >= AUC_MIN.get(self.check, 0.0)


def value_of(case: Labelled) -> float | None:
    return score(case.check, case.answer, case.task).value


def rankings(check: str, cases: Sequence[Labelled]) -> list[Ranking]:
    """Against all bad answers, then against each kind of planted error."""
    flaws = sorted({case.flaw for case in cases if case.flaw})
    return [_ranking(check, flaw, cases) for flaw in ("", *flaws)]


def _ranking(check: str, flaw: str, cases: Sequence[Labelled]) -> Ranking:
    part = [case for case in cases if case.is_good or flaw in ("", case.flaw)]
    values = [(case.is_good, value_of(case)) for case in part]
    return Ranking(
        check,
        flaw,
        [value for is_good, value in values if is_good and value is not None],
        [value for is_good, value in values if not is_good and value is not None],
        sum(value is None for _, value in values),
    )
