"""Reads a pipeline's tree against what has ended of it: which steps are wanted now, or how the whole ended. Pure.

Nothing is remembered between two readings. The same tree and the same yields give the same wants, so whoever reads again after
a crash wants the same steps under the same paths. A path names a node from the root, `p.0.2`: the third part of the first part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf
from typing import Any

from schemas.messages import BETWEEN_MODELS, Failure, Reason
from schemas.pipeline import Branch, Loop, Map, Node, Parallel, Step, Turn
from schemas.slips import Slip, Yield
from shared.pipeline_ends import STAGE, best_of, broken, criticism_of, merit, too_few, whole
from shared.pipeline_values import Output, holds, listed, looked_up, merged

ROOT = "p"

FUTILE = frozenset(
    {Reason.OVER_BUDGET, Reason.DEADLINE_PASSED, Reason.NO_TIME_LEFT, Reason.PIPELINE_BROKEN, Reason.CANCELLED}
)
"""Failures that another turn of a loop would only meet again."""

DECIDED = 0
"""In place of the time of a limit, for the reader of branches: they have been waited for, whatever a clock says."""

GRACE_MS = 50
"""After a limit, for ends that are in the log or on their way to it: a hop takes some 3 ms, behind a busy broker tens."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A yield and where its record stands: the order of the log decides who was first, its time who was within a limit."""

    yielded: Yield
    offset: int = -1
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What a node sees and may use. `carried` are the yields that it rests on, and all that a later step needs to know."""

    values: Mapping[str, Any]
    budget_microusd: int | None
    deadline_ms: int
    until_ms: Mapping[str, int] = field(default_factory=dict)
    carried: tuple[Yield, ...] = ()
    turn: Turn | None = None
    criticism: str = ""
    in_loop: bool = False

    @property
    def spent_microusd(self) -> int:
        """Upper bound of what led here."""
        return sum(each.spent_microusd for each in self.carried)

    def seeing(self, **values: Any) -> "Frame":
        return replace(self, values={**self.values, **values})

    def after(self, *yields: Yield) -> "Frame":
        return replace(self, carried=self.carried + yields)

    def in_turn(self, change: Turn | None, criticism: str) -> "Frame":
        """Of a loop. What it does not say itself stays as the loop around it has it."""
        turn = Turn(**{**dict(self.turn or ()), **(change.model_dump(exclude_none=True) if change else {})})
        return replace(self, turn=turn, criticism=criticism or self.criticism, in_loop=True)

    def share(self, parts: int) -> "Frame":
        """An equal part of the money that is left."""
        if self.budget_microusd is None:
            return self
        spent = self.spent_microusd
        return replace(self, budget_microusd=spent + max(0, self.budget_microusd - spent) // parts)


@dataclass(frozen=True, slots=True)
class Want:
    """A step that may run now."""

    path: str
    step: Step
    frame: Frame


@dataclass(frozen=True, slots=True)
class Reading:
    """How the whole ended, or what is wanted. `decided`: parallel and map nodes that wait no more, each with the paths of the
    parts that had not ended."""

    ended: Yield | None
    wants: tuple[Want, ...]
    decided: Mapping[str, tuple[str, ...]]

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset(want.path for want in self.wants)


_Found = tuple[Yield | None, tuple[Want, ...]]


@lru_cache(maxsize=256)
def tree_of(text: str) -> Node:
    """The tree on a slip."""
    return Node.model_validate_json(text)


def tree_text(tree: Node) -> str:
    return tree.model_dump_json(exclude_defaults=True)


def read(tree: Node, arrived: Mapping[str, Arrived | Yield], frame: Frame, now_ms: int | None) -> Reading:
    """What follows from what has arrived, by path. `frame` is the request's own: its values, budget and deadline.

    Without a time every step is wanted that could be: neither a limit that is over nor the width of a map holds one back. So
    reads who was told which steps to take.
    """
    reader = _Reader({path: Arrived(each) if isinstance(each, Yield) else each for path, each in arrived.items()}, now_ms)
    ended, wants = reader.node(tree, ROOT, frame)
    return Reading(ended, () if ended is not None else wants, reader.decided)


def frame_of(slip: Slip, values: Mapping[str, Any]) -> Frame:
    """The frame of a whole request."""
    return Frame(values, slip.budget_microusd, slip.deadline_ms, slip.until_ms)


def forks_above(tree: Node, path: str) -> list[tuple[str, str]]:
    """The parallel and map nodes around a path, outermost first, each with the part of it that the path belongs to."""
    forks, node, here = [], tree, ROOT
    for number in path.split(".")[1:]:
        part = f"{here}.{number}"
        is_fork = node.map is not None or (node.parallel is not None and int(number) < len(node.parallel.branches))
        if is_fork:
            forks.append((here, part))
        node, here = _part(node, int(number)), part
    return forks


def step_at(tree: Node, path: str) -> Step:
    """The step of a path. Raises LookupError."""
    node = tree
    for number in path.split(".")[1:]:
        node = _part(node, int(number))
    if node.step is None:
        raise LookupError(path)
    return node.step


def stands_alone(tree: Node, path: str) -> bool:
    """Whether a step's end is looked at once: nothing beside it waits for it, and no loop asks again."""
    return not forks_above(tree, path) and not is_in_loop(tree, path)


def is_in_loop(tree: Node, path: str) -> bool:
    node = tree
    for number in path.split(".")[1:]:
        if node.loop is not None:
            return True
        node = _part(node, int(number))
    return False


def _part(node: Node, number: int) -> Node:
    if node.sequence is not None:
        return node.sequence[number]
    parts = [part for _, part in node.parts()]
    return parts[0] if node.loop is not None or node.map is not None else parts[number]


def is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}.")


@dataclass(frozen=True, slots=True)
class _Race:
    """Branches by number: who came until it was decided, and who of them succeeded; or why too few did."""

    came: list[int]
    passed: list[int]
    failure: Failure | None = None


class _Reader:
    """One reading. Each method returns how its node ended, or the steps that it wants."""

    def __init__(self, arrived: Mapping[str, Arrived], now_ms: int | None) -> None:
        self._arrived = arrived
        self._now_ms = now_ms or 0
        self._takes_all = now_ms is None
        self._timed: dict[str, float] = {}
        self.decided: dict[str, tuple[str, ...]] = {}

    def node(self, node: Node, path: str, frame: Frame) -> _Found:
        known = self._arrived.get(path)
        if known is not None:
            return known.yielded, ()
        if node.step is not None:
            return None, (Want(path, node.step, frame),)
        if node.sequence is not None:
            return self._sequence(node.sequence, path, frame)
        if node.parallel is not None:
            return self._parallel(node.parallel, path, frame)
        if node.branch is not None:
            return self._branch(node.branch, path, frame)
        if node.loop is not None:
            return self._loop(node.loop, path, frame)
        if node.map is not None:
            return self._map(node.map, path, frame)
        return broken(path, f"pipeline {node.pipeline!r} is not written out; apply the config again"), ()

    def _sequence(self, parts: Sequence[Node], path: str, frame: Frame) -> _Found:
        ended: list[Yield] = []
        named: dict[str, Output] = {}
        for number, part in enumerate(parts):
            known = self._arrived.get(f"{path}.{number}")   # most are, in a long sequence: no frame is made for them
            found: _Found = (known.yielded, ()) if known is not None else self.node(
                part, f"{path}.{number}", frame.after(*ended).seeing(**named)
            )
            yielded, wants = found
            if yielded is None:
                return None, wants
            ended.append(yielded)
            if yielded.failure is not None:
                break
            if part.name is not None:
                named[part.name] = Output(yielded.text)
        return whole(path, ended[-1], ended), ()

    def _branch(self, branch: Branch, path: str, frame: Frame) -> _Found:
        chosen = next((n for n, case in enumerate(branch.cases) if holds(case.when, frame.values)), len(branch.cases))
        node = branch.cases[chosen].then if chosen < len(branch.cases) else branch.default
        yielded, wants = self.node(node, f"{path}.{chosen}", frame)
        return (None if yielded is None else whole(path, yielded, [yielded])), wants

    def _loop(self, loop: Loop, path: str, frame: Frame) -> _Found:
        turns: list[Yield] = []
        criticism, last = "", Output("")
        for number in range(loop.at_most):
            change = loop.turns[min(number, len(loop.turns) - 1)] if loop.turns else None
            about = {"number": number + 1, "criticism": criticism, "last": last}
            inner = frame.in_turn(change, criticism if loop.criticism else "").seeing(turn=about)
            yielded, wants = self.node(loop.body, f"{path}.{number}", inner)
            if yielded is None:
                return None, wants
            turns.append(yielded)
            if yielded.failure is not None and yielded.failure.reason in FUTILE:
                return whole(path, yielded, turns), ()
            output = Output(yielded.text)
            if yielded.failure is None and (loop.until is None or holds(loop.until, {**frame.values, "output": output})):
                return whole(path, yielded, turns), ()
            criticism, last, frame = criticism_of(loop, yielded), output, frame.after(yielded)
        best = max(turns, key=merit)
        failure = Failure(reason=Reason.QUALITY_NOT_MET, stage=STAGE, message=f"none of {loop.at_most} turns of the loop passed")
        return whole(path, best.model_copy(update={"failure": failure}), turns), ()

    # Forks: parts side by side, and when to wait no more ------------------------------------------------------------

    def _parallel(self, parallel: Parallel, path: str, frame: Frame) -> _Found:
        count = len(parallel.branches)
        until_ms = frame.until_ms.get(path, None if parallel.limit_ms is None else self._now_ms + parallel.limit_ms)
        inner = frame.share(count + (parallel.reader is not None))
        if until_ms is not None:
            limits = {**frame.until_ms, path: until_ms}
            inner = replace(inner, until_ms=limits, deadline_ms=min(frame.deadline_ms, until_ms))
        found = [self.node(branch, f"{path}.{n}", inner) for n, branch in enumerate(parallel.branches)]
        ended = {n: yielded for n, (yielded, _) in enumerate(found) if yielded is not None}
        race = self._race(parallel, path, ended, until_ms)
        if race is None:
            return None, tuple(want for yielded, wants in found if yielded is None for want in wants)
        self.decided[path] = tuple(f"{path}.{n}" for n in range(count) if n not in race.came)
        parts = [ended[n] for n in sorted(race.came)]
        if race.failure is not None:
            return whole(path, best_of(parts, path).model_copy(update={"failure": race.failure}), parts), ()
        chosen = [ended[n] for n in sorted(race.passed)]
        if parallel.reader is None:
            return whole(path, merged(parallel.merge, chosen), parts), ()
        reading = frame.after(*parts).seeing(branches=[Output(each.text) for each in chosen])
        reading = replace(reading, until_ms={**frame.until_ms, path: DECIDED})
        yielded, wants = self.node(Node(step=parallel.reader), f"{path}.{count}", reading)
        return (None if yielded is None else whole(path, yielded, [*parts, yielded])), wants

    def _race(
        self, parallel: Parallel, path: str, ended: Mapping[int, Yield], until_ms: int | None
    ) -> "_Race | None":
        """Who has come when it is decided, and what is decided; None to wait.

        One branch after the other comes in, as the log says. Without a limit the first ones that make the quorum count;
        within a limit every branch may still come.
        """
        if until_ms == DECIDED:
            return _Race(list(ended), [n for n in ended if ended[n].failure is None])
        last_ms = self._last_ms(path, until_ms)
        arrivals = {n: self._arrival(f"{path}.{n}") for n in ended}
        count, needed, patient = len(parallel.branches), parallel.needed, until_ms is not None and parallel.merge != "first"
        came: list[int] = []
        passed: list[int] = []
        for n in sorted(ended, key=lambda n: (*arrivals[n], n)):
            if arrivals[n][0] > last_ms:
                break
            came.append(n)
            if ended[n].failure is None:
                passed.append(n)
            if len(passed) >= needed and (not patient or len(came) == count):
                return _Race(came, passed)
            if count - (len(came) - len(passed)) < needed:
                return _Race(came, passed, too_few(ended, came, passed, needed))
        if self._now_ms <= last_ms:
            return None
        self._timed[path] = last_ms
        return _Race(came, passed, too_few(ended, came, passed, needed) if len(passed) < needed else None)

    def _last_ms(self, path: str, until_ms: int | None) -> float:
        """After which no branch counts. Time alone decides only where something of the branches is at hand: else they may be
        over long since."""
        has_any = any(path != at and is_below(at, path) for at in self._arrived)
        return until_ms + GRACE_MS if until_ms is not None and has_any else inf

    def _map(self, spec: Map, path: str, frame: Frame) -> _Found:
        items = _items(spec, frame.values)
        if isinstance(items, str):
            return broken(path, items), ()
        if not items:
            return Yield(path=path, text="[]"), ()
        inner = frame.share(len(items))
        found = [self.node(spec.body, f"{path}.{n}", inner.seeing(item=item, index=n)) for n, item in enumerate(items)]
        ended = {n: yielded for n, (yielded, _) in enumerate(found) if yielded is not None}
        came = sorted(ended, key=lambda n: (*self._arrival(f"{path}.{n}"), n))
        failed = next((n for n in came if ended[n].failure is not None), None)
        if failed is None and len(came) < len(items):
            on_their_way = [wants for yielded, wants in found if yielded is None]
            on_their_way = on_their_way if self._takes_all else on_their_way[: spec.width]
            return None, tuple(want for wants in on_their_way for want in wants)
        self.decided[path] = tuple(f"{path}.{n}" for n in range(len(items)) if n not in ended)
        if failed is not None:
            return whole(path, ended[failed], [ended[n] for n in came[: came.index(failed) + 1]]), ()
        parts = list(ended.values())
        models = BETWEEN_MODELS.join(dict.fromkeys(part.model for part in parts if part.model))
        text = listed([part.text for part in parts])
        return whole(path, Yield(path=path, text=text, model=models, score=min(part.score for part in parts)), parts), ()

    def _arrival(self, part: str) -> tuple[float, int]:
        """Time and offset of the record with which a part ended, or the time that ended it."""
        records: list[tuple[float, int]] = [(each.at_ms, each.offset) for at, each in self._arrived.items() if is_below(at, part)]
        records += [(last_ms, 0) for at, last_ms in self._timed.items() if is_below(at, part)]
        return max(records, default=(0, -1))


def _items(spec: Map, values: Mapping[str, Any]) -> list[Any] | str:
    """The items to map over, or what is wrong with them."""
    try:
        items = looked_up(spec.over, values)
    except LookupError:
        return f"map: there is no {spec.over}; give its step an output schema that requires it"
    if not isinstance(items, list):
        return f"map: {spec.over} is not a list; give its step an output schema that says so"
    if len(items) > spec.items_max:
        return f"map: {spec.over} has {len(items)} items, over items_max {spec.items_max}; raise it, or ask for fewer"
    return items
