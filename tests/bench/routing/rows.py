"""Recorded outcomes as the router would meet them: features and sketch of each prompt, beside what every model made of it.

A file is JSON lines, gzipped: `{dataset, prompt, models: {name: {score, cost, out_tok?}}, …}`; score in [0, 1], cost in USD.
The folder is a setting; nothing of it is part of the project.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.messages import Chat, Features
from services.preprocessing.features import features
from shared.words import sketch

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt. `scores`, `costs_microusd` and `tokens_out` by model; `answers` only where the texts were recorded."""

    seen: Features
    buckets: tuple[int, ...]
    scores: dict[str, float]
    costs_microusd: dict[str, float]
    tokens_out: dict[str, int]
    answers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens of one model, as published at the time of the record."""

    input: float
    output: float


def prices(folder: Path) -> dict[str, Prices]:
    """By the names the rows use."""
    listed = json.loads((folder / "prices.json").read_text())
    return {name: Prices(each["usd_per_m_input"], each["usd_per_m_output"]) for name, each in listed.items()}


def rows(folder: Path, file: str, dataset: str, listed: dict[str, Prices], answers: str = "") -> list[Row]:
    """The rows of one data set in a file. `answers`: file of the models' texts, joined by prompt_id."""
    texts = {each["prompt_id"]: each["responses"] for each in _lines(_path(folder, answers))} if answers else {}
    return [
        _row(each, listed, texts.get(each["prompt_id"], {})) for each in _lines(_path(folder, file)) if each["dataset"] == dataset
    ]


def _path(folder: Path, name: str) -> Path:
    """The file of that name, whatever half of the data the folder holds. Raises FileNotFoundError."""
    found = sorted(folder.glob(f"{name}.*jsonl.gz"))
    if not found:
        raise FileNotFoundError(f"{folder}: no {name}.*jsonl.gz")
    return found[0]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _row(record: dict[str, Any], listed: dict[str, Prices], answers: dict[str, str]) -> Row:
    prompt, models = record["prompt"], record["models"]
    seen = features(Chat(messages=({"role": "user", "content": prompt},)))
    return Row(
        seen=seen,
        buckets=sketch(prompt),
        scores={name: each["score"] for name, each in models.items()},
        costs_microusd={name: 1e6 * each["cost"] for name, each in models.items()},
        tokens_out={name: _tokens_out(seen, each, listed[_short(name, listed)]) for name, each in models.items()},
        answers=answers,
    )


def _tokens_out(seen: Features, outcome: dict[str, Any], rates: Prices) -> int:
    """As recorded; else what the recorded cost leaves for output at the published price, reasoning included."""
    if "out_tok" in outcome:
        return int(outcome["out_tok"])
    return max(0, round((1e6 * outcome["cost"] - rates.input * seen.tokens_in) / rates.output))


def _short(name: str, listed: dict[str, Prices]) -> str:
    return name if name in listed else name.rpartition("/")[2]


def folds(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """(train, test) indices of FOLDS-fold cross-validation, shuffled."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    parts = [order[start::FOLDS] for start in range(FOLDS)]
    return [([at for part in parts if part is not tested for at in part], tested) for tested in parts]


def cross_validated(count: int, predict: Callable[[Sequence[int], Sequence[int]], Sequence[Any]]) -> list[Any]:
    """What `predict(train, test)` says of each row, learned from the other folds only."""
    found: list[Any] = [None] * count
    for train, test in folds(count):
        for at, value in zip(test, predict(train, test), strict=True):
            found[at] = value
    return found
