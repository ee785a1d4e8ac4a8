"""Random trees, and a world that says what each step answers, how long it takes and what it costs: all from the step's prompt.

Every prompt holds the path by which a reader of the tree knows the step, so a world needs no memory, and two readers that go
different ways to the same step meet the same answer.
"""

import zlib
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from schemas.messages import Reason
from schemas.pipeline import Node

WORDS = ("alpha", "beta", "gamma")
LIST_SCHEMA = {"type": "object", "properties": {"items": {"type": "array"}}}


@dataclass(frozen=True)
class Said:
    """What a step does in this world: after `ms` it answers, or fails."""

    text: str
    ms: int
    cost_microusd: int
    score: float
    failure: Reason | None = None


@dataclass(frozen=True)
class World:
    """The same seed and prompt always give the same answer. `share` of the steps fail."""

    seed: int
    failing: float = 0.0

    def says(self, path: str, prompt: str) -> Said:
        random = Random(zlib.crc32(f"{self.seed}|{path}|{prompt}".encode()))
        items = [random.choice(WORDS) for _ in range(random.randint(0, 4))]
        text = orjson.dumps({"items": items}).decode() if "LIST" in prompt else f"{random.choice(WORDS)}"
        ms = 1_000 * random.randint(1, 400) + zlib.crc32(path.encode()) % 997   # hardly ever do two steps end at once
        failure = Reason.QUALITY_NOT_MET if random.random() < self.failing else None
        return Said(text, ms, random.randint(1, 50), random.randint(0, 4) / 4, failure)


def a_tree(random: Random, depth: int = 4) -> Node:
    """A tree of at most this depth; every kind of node may be anywhere."""
    return Node.model_validate(_node(random, depth, ("request.text",), ()))


def _node(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    kinds = ["step"] * 2 + ["sequence", "sequence", "parallel", "parallel", "branch", "loop"] + ["map"] * bool(lists) * 3
    kind = random.choice(kinds) if depth else "step"
    return {kind: _MAKERS[kind](random, depth - 1, seen, lists)}


def _step(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    used = random.sample(seen, min(len(seen), 2))
    return {"prompt": " ".join(f"{{{{ {name} }}}}" for name in used)}


def _sequence(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any] | list[Any]:
    parts = []
    for number in range(random.randint(1, 3)):
        name = f"d{depth}n{number}"
        if random.random() < 0.4:
            parts.append({"name": name, "step": {"prompt": "LIST", "output": LIST_SCHEMA}})
            lists = (*lists, f"{name}.json.items")
        else:
            parts.append({"name": name, **_node(random, depth, seen, lists)})
        seen = (*seen, name)
    return parts


def _parallel(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    count = random.randint(2, 4)
    merge = random.choice(("first", "all", "vote", "best", "concatenate", "model"))
    spec: dict[str, Any] = {"merge": merge, "branches": [_node(random, depth, seen, lists) for _ in range(count)]}
    if merge != "first" and random.random() < 0.5:
        spec["quorum"] = random.randint(1, count)
    if random.random() < 0.4:
        spec["limit_ms"] = random.randint(50, 600) * 1_000 + 500
    if merge == "model":
        spec["reader"] = {"prompt": "{% for each in branches %}[{{ each }}]{% endfor %}"}
    return spec


def _condition(random: Random, value: str) -> dict[str, Any]:
    return {"value": value, random.choice(("equals", "matches")): random.choice(WORDS)}


def _branch(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    cases = [{"when": _condition(random, random.choice(seen)), "then": _node(random, depth, seen, lists)}
             for _ in range(random.randint(1, 2))]
    return {"cases": cases, "default": _node(random, depth, seen, lists)}


def _loop(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    spec: dict[str, Any] = {"at_most": random.randint(1, 4), "body": _node(random, depth, (*seen, "turn.last"), lists)}
    return spec | ({"until": _condition(random, "output.text")} if random.random() < 0.6 else {})


def _map(random: Random, depth: int, seen: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    body = _node(random, depth, (*seen, "item"), lists)
    return {"over": random.choice(lists), "body": body, "width": random.randint(1, 3), "items_max": 8}


_MAKERS: dict[str, Any] = {
    "step": _step, "sequence": _sequence, "parallel": _parallel, "branch": _branch, "loop": _loop, "map": _map
}
