"""A second reading of the language, for tests: plain recursion with time as a number, and nothing shared with the engine.

A node is run from a start time to an end, whole and at once; nodes side by side are run one after the other, and what the
clock would have cut off is sorted out afterwards by their end times.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from schemas.pipeline import Node
from tests.pipelines.trees import World

LATE, OVER = "deadline_passed", "over_budget"


@dataclass(frozen=True)
class End:
    """How a node ended: when, with what, at what price; `calls` are the paths of its steps in the order they ended."""

    ms: int
    text: str = ""
    cost: int = 0
    score: float = 1.0
    failure: str | None = None
    calls: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class At:
    """Where the interpreter stands."""

    ms: int
    deadline: int
    spent: int
    budget: int | None
    names: dict[str, Any] = field(default_factory=dict)


@dataclass
class Interpreter:
    """`price_max` is what a step must be able to pay before it is begun."""

    world: World
    price_max: int = 50

    def run(self, tree: dict[str, Any], question: str, deadline: int, budget: int | None) -> End:
        at = At(0, deadline, 0, budget, {"request": {"text": question}})
        return self._run(tree, "p", at)

    def _run(self, node: dict[str, Any], path: str, at: At) -> End:
        (kind,) = node.keys() - {"name"}
        method: Callable[[Any, str, At], End] = getattr(self, f"_{kind}")
        return method(node[kind], path, at)

    def _step(self, step: dict[str, Any], path: str, at: At) -> End:
        if at.ms >= at.deadline:
            return End(at.ms, failure=LATE)
        if at.budget is not None and at.spent + self.price_max > at.budget:
            return End(at.ms, failure=OVER)
        said = self.world.says(path, _fill(step["prompt"], at.names))
        if at.ms + said.ms > at.deadline:
            return End(at.deadline, failure=LATE)
        end = at.ms + said.ms
        failure = said.failure.value if said.failure else None
        return End(end, said.text, said.cost_microusd, said.score, failure, ((end, path),))

    def _sequence(self, parts: list[dict[str, Any]], path: str, at: At) -> End:
        ends: list[End] = []
        for place, part in enumerate(parts):
            end = self._run(part, f"{path}.{place}", at)
            ends.append(end)
            if end.failure:
                break
            names = at.names | ({part["name"]: end.text} if "name" in part else {})
            at = replace(at, ms=end.ms, spent=at.spent + end.cost, names=names)
        return _sum(ends[-1], ends)

    def _branch(self, spec: dict[str, Any], path: str, at: At) -> End:
        for place, case in enumerate(spec["cases"]):
            if _true(case["when"], at.names):
                return self._run(case["then"], f"{path}.{place}", at)
        return self._run(spec["default"], f"{path}.{len(spec['cases'])}", at)

    def _loop(self, spec: dict[str, Any], path: str, at: At) -> End:
        turns: list[End] = []
        last = ""
        while len(turns) < spec["at_most"]:
            end = self._run(spec["body"], f"{path}.{len(turns)}", replace(at, names=at.names | {"turn": {"last": last}}))
            turns.append(end)
            if end.failure in (LATE, OVER, "pipeline_broken"):
                return _sum(end, turns)
            if not end.failure and ("until" not in spec or _true(spec["until"], at.names | {"output": end.text})):
                return _sum(end, turns)
            last = end.text
            at = replace(at, ms=end.ms, spent=at.spent + end.cost)
        tops = [turn for turn in turns if not turn.failure] or turns
        best = next(turn for turn in tops if turn.score == max(each.score for each in tops))
        return _sum(replace(best, ms=turns[-1].ms, failure="quality_not_met"), turns)

    def _map(self, spec: dict[str, Any], path: str, at: At) -> End:
        name, _, rest = spec["over"].partition(".json.")
        try:
            items = orjson.loads(at.names[name])[rest]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return End(at.ms, failure="pipeline_broken")
        if not items:
            return End(at.ms, text="[]")
        share = _share(at, len(items))
        free, ends = [at.ms] * spec["width"], list[End]()
        for place, item in enumerate(items):
            begin = min(free)   # the next item starts when one of those before it has ended
            end = self._run(spec["body"], f"{path}.{place}", replace(share, ms=begin, names=at.names | {"item": item}))
            free[free.index(begin)] = end.ms
            ends.append(end)
        came = sorted((end.ms, place) for place, end in enumerate(ends))
        failed = next((place for _, place in came if ends[place].failure), None)
        if failed is not None:
            return _sum(ends[failed], [ends[place] for moment, place in came if (moment, place) <= (ends[failed].ms, failed)])
        text = _json_list([end.text for end in ends])
        return _sum(End(came[-1][0], text, score=min(end.score for end in ends)), ends)

    def _parallel(self, spec: dict[str, Any], path: str, at: At) -> End:
        branches, merge, limit = spec["branches"], spec["merge"], spec.get("limit_ms")
        need = spec.get("quorum") or (1 if merge == "first" else len(branches))
        inner = _share(at, len(branches) + (merge == "model"))
        until = at.ms + limit if limit else None
        if until is not None:
            inner = replace(inner, deadline=min(at.deadline, until))
        ends = {n: self._run(branch, f"{path}.{n}", inner) for n, branch in enumerate(branches)}
        came, counted, failure = _race(ends, need, patient=limit is not None and merge != "first")
        done, stop = [ends[n] for n in sorted(came)], ends[came[-1]].ms
        if failure:
            best = max(done, key=lambda end: (not end.failure, end.score), default=End(stop))
            return _sum(replace(best, ms=stop, failure=failure), done)
        if merge != "model":
            return _sum(_merge(merge, [ends[n] for n in counted], stop), done)
        names = at.names | {"branches": [ends[n].text for n in counted]}
        spent = at.spent + sum(end.cost for end in done)
        read = self._step(spec["reader"], f"{path}.{len(branches)}", replace(at, ms=stop, spent=spent, names=names))
        return _sum(read, [*done, read])


def _race(ends: dict[int, End], need: int, patient: bool) -> tuple[list[int], list[int], str | None]:
    """Who has come when it is decided, who counts, or why it fails: one after the other comes in, as the clock says."""
    came: list[int] = []
    for n in sorted(ends, key=lambda n: (ends[n].ms, n)):
        came.append(n)
        passed = [m for m in came if not ends[m].failure]
        failed = [m for m in came if ends[m].failure]
        if len(passed) >= need and (not patient or len(came) == len(ends)):
            return came, sorted(passed), None
        if len(ends) - len(failed) < need:
            return came, [], ends[min(failed)].failure
    raise AssertionError("a race always ends")


def _merge(merge: str, counted: list[End], stop: int) -> End:
    if merge == "vote":
        ballots = [end.text.strip().lower() for end in counted]
        chosen = counted[max(range(len(ballots)), key=lambda n: (ballots.count(ballots[n]), -n))]
    elif merge == "best":
        chosen = sorted(counted, key=lambda end: -end.score)[0]
    elif merge == "first":
        chosen = counted[0]
    elif merge == "concatenate":
        chosen = replace(counted[0], text="\n\n".join(end.text for end in counted))
    else:
        chosen = replace(counted[0], text=_json_list([end.text for end in counted]))
    return replace(chosen, ms=stop)


def _json_list(texts: list[str]) -> str:
    def item(text: str) -> Any:
        return orjson.loads(text) if text.startswith(("{", "[")) else text

    return orjson.dumps([item(text) for text in texts]).decode()


def _share(at: At, parts: int) -> At:
    if at.budget is None:
        return at
    return replace(at, budget=at.spent + (at.budget - at.spent) // parts if at.budget > at.spent else at.spent)


def _sum(end: End, parts: list[End]) -> End:
    calls = tuple(sorted(call for part in parts for call in part.calls))
    return replace(end, cost=sum(part.cost for part in parts), calls=calls)


def _value(reference: str, names: dict[str, Any]) -> str:
    head, _, rest = reference.partition(".")
    value = names[head]
    return str(value[rest]) if isinstance(value, dict) else str(value)


def _true(condition: dict[str, Any], names: dict[str, Any]) -> bool:
    text = _value(condition["value"], names)
    wanted = condition.get("equals")
    return text.strip().lower() == wanted if wanted else re.search(condition["matches"], text) is not None


def _fill(template: str, names: dict[str, Any]) -> str:
    if "branches" in template:
        return "".join(f"[{each}]" for each in names["branches"])
    return re.sub(r"\{\{ (\S+) \}\}", lambda found: _value(found[1], names), template)


def plain(tree: Node) -> dict[str, Any]:
    """The tree as data: what the interpreter reads."""
    data: dict[str, Any] = orjson.loads(tree.model_dump_json(exclude_defaults=True))
    return data
