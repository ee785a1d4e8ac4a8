"""A pipeline's facts: the slip that travels with each record of its request, and what its steps have yielded.

The language of its tree is `pipeline.py`, how it runs `PIPELINES.md`.
"""

from pydantic import Field

from schemas.envelope import Fact
from schemas.tasks import Check, Failure, Task


class Reference(Fact):
    """Where in the log something stands that is too large to travel along."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    path: str = Field("", description="of the yield in that record; empty: the request")


class Yield(Fact):
    """How a step of a pipeline, or a whole part of one, ended: its output or its failure, and what it took."""

    path: str = Field(description="which node of the tree, from the root: p.0.2")
    text: str = Field("", description="the output; of a failed one its best attempt")
    text_at: Reference | None = Field(None, description="where the output stands instead")
    failure: Failure | None = None
    score: float = Field(1.0, description="what the gate thought of it, in [0, 1]")
    failed: tuple[Check, ...] = Field((), description="the checks that its answer did not pass")
    criticism: str = Field("", description="what the gate held against it; never quotes the answer")
    model: str = ""
    backend: str = ""
    attempts: int = 0
    cost_microusd: int = Field(0, description="known cost of its attempts")
    spent_microusd: int = Field(0, description="upper bound of what they cost")
    tokens_in: int = 0
    tokens_out: int = 0


class Slip(Fact):
    """A pipeline request's routing slip: its tree as it was when the request began, and what earlier steps yielded."""

    pipeline: str = Field(description="name@version of the config that it came from")
    tree: str = Field(description="the tree, as JSON; references written out")
    step: str = Field("", description="path of the step that this record is about")
    asked: Task | None = Field(None, description="the request itself")
    asked_at: Reference | None = Field(None, description="where the request stands instead")
    yields: tuple[Yield, ...] = Field((), description="of what ended before this step and may still be asked for")
    until_ms: dict[str, int] = Field(default_factory=dict, description="parallel nodes with a limit: when it is over, epoch ms")
    deadline_ms: int = Field(description="the request's own; a step within a limit has an earlier one on its envelope")
    budget_microusd: int | None = Field(None, description="the request's own; a step of a branch has its share on its envelope")
