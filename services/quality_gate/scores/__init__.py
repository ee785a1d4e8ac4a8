"""Scores without a model: numbers in [0, 1] about an answer, or unknown where nothing can be known. Pure, within 2 ms.

A score is named and versioned as a check is. It finds what words show; what needs understanding is a judge's.
"""

from collections.abc import Callable, Iterable

from schemas.messages import Answer, Score, Task
from services.quality_gate.scores.coherence import VERSION as COHERENCE_VERSION
from services.quality_gate.scores.coherence import coherence
from services.quality_gate.scores.factuality import VERSION as FACTUALITY_VERSION
from services.quality_gate.scores.factuality import factuality
from services.quality_gate.scores.given import Given, given
from services.quality_gate.scores.relevance import VERSION as RELEVANCE_VERSION
from services.quality_gate.scores.relevance import relevance

Scorer = Callable[[str, Given], tuple[float | None, str]]

SCORERS: dict[str, tuple[int, Scorer]] = {
    "relevance": (RELEVANCE_VERSION, relevance),
    "coherence": (COHERENCE_VERSION, coherence),
    "factuality": (FACTUALITY_VERSION, factuality),
}


def scores(answer: Answer, task: Task, names: Iterable[str] = tuple(SCORERS)) -> tuple[Score, ...]:
    """The named scores of an answer, in the order of the table. An answer without text has no score."""
    wanted, prompt = frozenset(names), given(task)
    return tuple(_score(name, answer, prompt) for name in SCORERS if name in wanted)


def score(name: str, answer: Answer, task: Task) -> Score:
    """One score of an answer."""
    return _score(name, answer, given(task))


def _score(name: str, answer: Answer, prompt: Given) -> Score:
    version, scorer = SCORERS[name]
    value, detail = scorer(answer.text, prompt) if answer.text.strip() else (None, "no text")
    return Score(name=name, version=version, value=value, detail=detail)
