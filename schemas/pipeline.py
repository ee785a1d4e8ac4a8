"""The language of `pipelines` in `baton.yaml`: a tree of steps. How it is read and run stands in `PIPELINES.md`.

Every node is a mapping with exactly one kind and, where later steps want its output, a name. Trees nest without limit but
their size: a tree travels with every record of its request, so a change of config never reaches a request on its way.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.checks import CheckSpec
from schemas.strict import Name, Strict

STEPS_MAX = 1_000
"""Steps that one request may take at the very most, loops and maps counted in full."""
TREE_BYTES_MAX = 65_536
DEPTH_MAX = 16

StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, Field(max_length=16_384)]
KINDS = ("step", "sequence", "parallel", "branch", "loop", "map", "pipeline")
TESTS = ("equals", "one_of", "contains", "matches", "at_least", "at_most", "exists")
Merge = Literal["first", "all", "vote", "best", "concatenate", "model"]


class Gate(Strict):
    """How a step's answer is judged; what is not said is as the tenant's policy has it."""

    checks: tuple[CheckSpec, ...] | None = Field(None, description="give the checks the answer must pass")
    escalations_max: int | None = Field(
        None, ge=0, le=5, description="how often a stronger model is asked; default: the policy's, within a loop 0"
    )


class Step(Strict):
    """One question to one model. Templates see the request, its features and every earlier step that has a name."""

    prompt: Text | None = Field(None, description="template of the question; default: the request's own messages")
    system: Text | None = Field(None, description="template of the system text")
    model: Name | None = Field(None, description="a fixed model; default: the router chooses")
    policy: Name | None = Field(None, description="policy by which the router chooses; default: the tenant's")
    max_tokens: int | None = Field(None, gt=0, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    reasoning_effort: str | None = None
    output: dict[str, Any] | None = Field(None, description="JSON Schema that the answer must have")
    gate: Gate = Gate()


class Condition(Strict):
    """A test of one value; exactly one test is given."""

    value: str = Field(description="give what is tested, such as request.text, features.domain or NAME.json.field")
    equals: bool | float | str | None = Field(None, description="case and space around it do not count")
    one_of: tuple[str, ...] = ()
    contains: tuple[str, ...] = Field((), description="one of these stands in it; case does not count")
    matches: str | None = Field(None, description="a pattern somewhere in it; RE2 syntax, linear in time")
    at_least: float | None = None
    at_most: float | None = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _one_test(self) -> "Condition":
        given = [name for name in TESTS if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            raise ValueError(f"value: needs exactly one test beside it: {', '.join(TESTS)}")
        return self


class Case(Strict):
    """What to do where a condition holds."""

    when: Condition
    then: "Node"


class Branch(Strict):
    """The first case whose condition holds, else the default."""

    cases: tuple[Case, ...] = Field(min_length=1, max_length=32, description="give a list of when and then")
    default: "Node" = Field(description="give the node for when no case holds")


class Parallel(Strict):
    """Branches side by side. Each has an equal share of the budget that is left."""

    branches: tuple["Node", ...] = Field(min_length=2, max_length=16, description="give a list of two nodes or more")
    merge: Merge = Field(description="give first, all, vote, best, concatenate or model")
    quorum: int | None = Field(
        None, ge=1, description="branches that must succeed; default: one for first, else all"
    )
    limit_ms: int | None = Field(
        None, gt=0, description="how long to wait for every branch; then the quorum is enough"
    )
    reader: Step | None = Field(None, description="merge: model: the step that reads the `branches`")

    @property
    def needed(self) -> int:
        """Branches that must succeed."""
        return self.quorum or (1 if self.merge == "first" else len(self.branches))

    @model_validator(mode="after")
    def _makes_sense(self) -> "Parallel":
        if self.quorum is not None and self.quorum > len(self.branches):
            raise ValueError(f"quorum: is above the number of branches, {len(self.branches)}; nothing could reach it")
        if self.merge == "first" and self.needed != 1:
            raise ValueError("quorum: the first answer is one; leave it out, or use another merge")
        if (self.merge == "model") != (self.reader is not None):
            raise ValueError("reader: stands with merge: model, and only there; add a step, or leave it out")
        return self


class Turn(Strict):
    """What one turn of a loop does otherwise than its steps say."""

    model: Name | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, gt=0, le=1_000_000)
    reasoning_effort: str | None = None


class Loop(Strict):
    """The body again and again until the gate passes and the condition, if any, holds."""

    body: "Node" = Field(description="give the node to repeat")
    at_most: int = Field(ge=1, le=10, description="give the most turns it may take, 1 to 10")
    until: Condition | None = Field(None, description="of `output`; default: that the gate passes")
    turns: tuple[Turn, ...] = Field((), max_length=10, description="changes of the first turn, the second …; the last one stays")
    criticism: bool = Field(False, description="whether the next turn is told what the gate held against the last answer")


class Map(Strict):
    """The body once per item of a list; the output is a JSON list in the same order."""

    over: str = Field(description="give the list, such as NAME.json.field")
    body: "Node" = Field(description="give the node for one `item`")
    width: int = Field(4, ge=1, le=32, description="items on their way at a time")
    items_max: int = Field(32, ge=1, le=100, description="a longer list fails the request")


class Node(Strict):
    """Exactly one kind; `pipeline` stands for another pipeline's whole tree."""

    name: StepName | None = Field(None, description="by which later steps find its output")
    step: Step | None = None
    sequence: tuple["Node", ...] | None = Field(None, min_length=1, max_length=64)
    parallel: Parallel | None = None
    branch: Branch | None = None
    loop: Loop | None = None
    map: Map | None = None
    pipeline: Name | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Node":
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"a node needs exactly one of {', '.join(KINDS)}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def parts(self) -> Iterator[tuple[tuple[str | int, ...], "Node"]]:
        """The nodes right below, each with its location relative to this one. Their order is that of paths."""
        if self.sequence is not None:
            yield from ((("sequence", number), part) for number, part in enumerate(self.sequence))
        if self.parallel is not None:
            yield from ((("parallel", "branches", number), part) for number, part in enumerate(self.parallel.branches))
            if self.parallel.reader is not None:
                yield ("parallel", "reader"), Node(step=self.parallel.reader)
        if self.branch is not None:
            yield from ((("branch", "cases", number, "then"), case.then) for number, case in enumerate(self.branch.cases))
            yield ("branch", "default"), self.branch.default
        if self.loop is not None:
            yield ("loop", "body"), self.loop.body
        if self.map is not None:
            yield ("map", "body"), self.map.body


class CycleError(ValueError):
    """Pipelines that stand for each other in a ring, by name."""


def expanded(name: str, pipelines: Mapping[str, Node], above: tuple[str, ...] = ()) -> Node:
    """The tree of a pipeline with every reference written out. Raises CycleError, and KeyError for an unknown name."""
    if name in above:
        raise CycleError(" -> ".join((*above[above.index(name):], name)))
    return _expanded(pipelines[name], pipelines, (*above, name))


def _expanded(node: Node, pipelines: Mapping[str, Node], above: tuple[str, ...]) -> Node:
    if node.pipeline is not None:
        tree = expanded(node.pipeline, pipelines, above)
        return tree.model_copy(update={"name": node.name or tree.name})

    def inner(part: Node) -> Node:
        return _expanded(part, pipelines, above)

    update: dict[str, Any] = {}
    if node.sequence is not None:
        update["sequence"] = tuple(map(inner, node.sequence))
    if node.parallel is not None:
        update["parallel"] = node.parallel.model_copy(update={"branches": tuple(map(inner, node.parallel.branches))})
    if node.branch is not None:
        cases = tuple(case.model_copy(update={"then": inner(case.then)}) for case in node.branch.cases)
        update["branch"] = node.branch.model_copy(update={"cases": cases, "default": inner(node.branch.default)})
    if node.loop is not None:
        update["loop"] = node.loop.model_copy(update={"body": inner(node.loop.body)})
    if node.map is not None:
        update["map"] = node.map.model_copy(update={"body": inner(node.map.body)})
    return node.model_copy(update=update) if update else node


def steps_max(node: Node) -> int:
    """The most steps an expanded tree can take."""
    below = [steps_max(part) for _, part in node.parts()]
    if node.step is not None:
        return 1
    if node.branch is not None:
        return max(below)
    if node.loop is not None:
        return below[0] * node.loop.at_most
    return below[0] * node.map.items_max if node.map is not None else sum(below)


def depth(node: Node) -> int:
    return 1 + max((depth(part) for _, part in node.parts()), default=0)
