"""Finds what is wrong with the pipelines of a config before any request takes one: each problem with its place and its fix. Pure.

The schema has said what a node may hold; here stands what only the whole tree tells: rings, names that are not there yet,
templates and patterns that cannot be read, trees that are too large.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from schemas.config import Policy
from schemas.pipeline import (
    DEPTH_MAX,
    STEPS_MAX,
    TREE_BYTES_MAX,
    Condition,
    CycleError,
    Node,
    Step,
    depth,
    expanded,
    steps_max,
)
from shared.json_schema import compiled
from shared.pipeline import tree_text
from shared.pipeline_values import pattern_of
from shared.template import BrokenTemplateError, names_of

Place = tuple[str | int, ...]
ALWAYS = frozenset({"request", "features"})
RESERVED = ALWAYS | {"item", "index", "turn", "output", "branches"}
_FIELDS = {"request": ("text", "system"), "features": ("language", "domain", "complexity", "tokens_in"),
           "turn": ("number", "criticism", "last")}
_TEXTS = frozenset({"request.text", "request.system", "features.language", "features.domain", "turn.criticism", "turn.last"})


class Problem(NamedTuple):
    """What is wrong, where. `place` leads from the pipelines' mapping to the value: ("name", "sequence", 0, …)."""

    place: Place
    text: str


@dataclass(frozen=True)
class _Around:
    """What a pipeline may name: models, policies, other pipelines."""

    models: Collection[str]
    policies: Mapping[str, Policy]
    pipelines: Mapping[str, Node]


@dataclass(frozen=True)
class _Scope:
    """The values that are there where a node stands. `here` are names of the same sequence, which must differ."""

    seen: frozenset[str] = ALWAYS

    def plus(self, *names: str | None) -> "_Scope":
        return replace(self, seen=self.seen.union(name for name in names if name))


def problems_of(pipelines: Mapping[str, Node], models: Collection[str], policies: Mapping[str, Policy]) -> list[Problem]:
    """Everything that is wrong with these pipelines."""
    around = _Around(models, policies, pipelines)
    found: list[Problem] = []
    for name, tree in pipelines.items():
        found += _node(tree, (name,), _Scope(), around)
        found += _whole(name, pipelines)
    return found


def _whole(name: str, pipelines: Mapping[str, Node]) -> Iterator[Problem]:
    try:
        tree = expanded(name, pipelines)
    except CycleError as error:
        yield Problem((name,), f"stands for itself: {error}; take one of the references out")
        return
    except KeyError:
        return   # said where the reference stands
    if depth(tree) > DEPTH_MAX:
        yield Problem((name,), f"nested deeper than {DEPTH_MAX} nodes; flatten it")
    if (steps := steps_max(tree)) > STEPS_MAX:
        yield Problem((name,), f"may take {steps} steps, at most {STEPS_MAX} are allowed; lower at_most or items_max")
    if (size := len(tree_text(tree).encode())) > TREE_BYTES_MAX:
        yield Problem((name,), f"has {size} bytes, at most {TREE_BYTES_MAX} are allowed: it travels with each record; shorten it")


def _node(node: Node, place: Place, scope: _Scope, around: _Around) -> Iterator[Problem]:
    if node.name in RESERVED:
        yield Problem((*place, "name"), f"{node.name} means something already; use another name")
    if node.step is not None:
        yield from _step(node.step, (*place, "step"), scope, around)
    elif node.sequence is not None:
        yield from _sequence(node.sequence, (*place, "sequence"), scope, around)
    elif node.pipeline is not None:
        if node.pipeline not in around.pipelines:
            yield Problem((*place, "pipeline"), f"no pipeline {node.pipeline!r}; define it under pipelines")
    elif node.map is not None:
        yield from _reference(node.map.over, (*place, "map", "over"), scope)
        yield from _node(node.map.body, (*place, "map", "body"), scope.plus("item", "index"), around)
    elif node.loop is not None:
        if node.loop.until is not None:
            yield from _condition(node.loop.until, (*place, "loop", "until"), scope.plus("output"))
        for number, turn in enumerate(node.loop.turns):
            yield from _known(turn.model, (*place, "loop", "turns", number, "model"), "model", around.models)
        yield from _node(node.loop.body, (*place, "loop", "body"), scope.plus("turn"), around)
    else:
        yield from _fan(node, place, scope, around)


def _fan(node: Node, place: Place, scope: _Scope, around: _Around) -> Iterator[Problem]:
    if node.branch is not None:
        for number, case in enumerate(node.branch.cases):
            yield from _condition(case.when, (*place, "branch", "cases", number, "when"), scope)
    reader = ("parallel", "reader")
    for location, part in node.parts():
        if location != reader:
            yield from _node(part, (*place, *location), scope, around)
    if node.parallel is not None and node.parallel.reader is not None:
        yield from _step(node.parallel.reader, (*place, *reader), scope.plus("branches"), around)


def _sequence(parts: tuple[Node, ...], place: Place, scope: _Scope, around: _Around) -> Iterator[Problem]:
    names: set[str] = set()
    for number, part in enumerate(parts):
        yield from _node(part, (*place, number), scope, around)
        if part.name in names:
            yield Problem((*place, number, "name"), f"{part.name} is taken by an earlier part of this sequence; use another name")
        names.add(part.name or "")
        scope = scope.plus(part.name)


def _step(step: Step, place: Place, scope: _Scope, around: _Around) -> Iterator[Problem]:
    for field, source in (("prompt", step.prompt), ("system", step.system)):
        if source is not None:
            yield from _template(source, (*place, field), scope)
    yield from _known(step.model, (*place, "model"), "model", around.models)
    yield from _known(step.policy, (*place, "policy"), "policy", around.policies)
    yield from _for_a_step(step.policy, (*place, "policy"), around.policies)
    if step.output is not None and (problem := compiled(step.output).problem):
        yield Problem((*place, "output"), problem)


def _known(name: str | None, place: Place, kind: str, known: Collection[str]) -> Iterator[Problem]:
    if name is not None and name not in known:
        plural = "policies" if kind == "policy" else "models"
        yield Problem(place, f"no {kind} {name!r}; define it under {plural}")


def _for_a_step(name: str | None, place: Place, policies: Mapping[str, Policy]) -> Iterator[Problem]:
    """Nobody waits for a person, or asks a judge, in the middle of a tree: a rule that would not hold is refused."""
    policy = policies.get(name or "")
    rules = [rule for rule in ("review", "judge") if policy is not None and getattr(policy, rule) is not None]
    if rules:
        said = " and ".join(rules)
        yield Problem(place, f"{name} has {said}, held to a request's answer and not to a step's; name a policy without, "
                             f"and set {said} on the tenant's")


def _template(source: str, place: Place, scope: _Scope) -> Iterator[Problem]:
    try:
        names = names_of(source)
    except BrokenTemplateError as error:
        yield Problem(place, str(error))
        return
    for name in sorted(names - scope.seen):
        yield Problem(place, _not_there(name, scope))


def _condition(condition: Condition, place: Place, scope: _Scope) -> Iterator[Problem]:
    yield from _reference(condition.value, (*place, "value"), scope)
    if isinstance(condition.equals, bool) and _is_text(condition.value):
        word, read = ("yes", "true") if condition.equals else ("no", "false")
        said = f"{condition.value} is a text, and YAML reads a bare {word} as {read}; write '{word}' in quotes"
        yield Problem((*place, "equals"), said)
    if condition.matches is not None:
        try:
            pattern_of(condition.matches)
        except ValueError as error:
            yield Problem((*place, "matches"), str(error))


def _is_text(reference: str) -> bool:
    """Whether this is a text whatever a model answers; a field of JSON, or an item of a list, may be anything."""
    name, *fields = reference.split(".")
    return reference in _TEXTS or (name not in RESERVED - {"output"} and fields in ([], ["text"]))


def _reference(reference: str, place: Place, scope: _Scope) -> Iterator[Problem]:
    name, *fields = reference.split(".")
    if name not in scope.seen:
        yield Problem(place, _not_there(name, scope))
    elif name in _FIELDS and (not fields or fields[0] not in _FIELDS[name]):
        yield Problem(place, f"{name} has {', '.join(_FIELDS[name])}; name one of them")
    elif name not in RESERVED - {"output"} and fields and fields[0] not in ("text", "json"):
        yield Problem(place, f"an output has text and json; write {name}.json.{'.'.join(fields)}")


def _not_there(name: str, scope: _Scope) -> str:
    return f"{name!r} has not run before this node, or has no name; there are {', '.join(sorted(scope.seen))}"
