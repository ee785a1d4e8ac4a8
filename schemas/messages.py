"""One class per fact on a topic. Readers ignore unknown fields; fields are only ever added, and are optional when added.

Money is integer micro-USD, times are epoch milliseconds, durations milliseconds, tokens are counted by the provider
(`usage`) or estimated (`features`).
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Fact
from schemas.ledger import FailureClass, Usage
from schemas.slips import Slip
from schemas.tasks import STATUS_OF as STATUS_OF
from schemas.tasks import Chat as Chat
from schemas.tasks import Check as Check
from schemas.tasks import Failure as Failure
from schemas.tasks import Features as Features
from schemas.tasks import Reason as Reason
from schemas.tasks import Status as Status
from schemas.tasks import Task as Task


class Lane(StrEnum):
    """Priority class of a request: each has its own plans topic, so that a flood in one cannot delay another."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class IntakeRecord(BaseModel):
    """What users produce to `intake`, leniently: `prompt` or an OpenAI chat body, plus options. Unknown fields are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    prompt: str | None = None
    system: str | None = None
    messages: list[dict[str, Any]] | None = None
    model: str | None = Field(None, description="pin a model of the catalogue; `auto` or nothing lets Baton choose")
    models: list[str] | None = Field(None, description="models that may answer, in the order to try them")
    deny: list[str] | None = Field(None, description="models that must not answer")
    sort: str | None = Field(None, description="price, latency or quality: what counts first among able models")
    max_price: dict[str, float] | None = Field(None, description="input and output: USD per million tokens, at the most")
    max_tokens: int | None = None
    temperature: float | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    tenant: str | None = None
    app: str | None = None
    priority: Lane | None = None
    deadline_ms: int | None = Field(None, description="milliseconds from acceptance within which an answer is of use")
    max_cost_usd: float | None = Field(None, description="the most the request may cost, in USD")
    pipeline: str | None = Field(None, description="a pipeline of the config to take; default: the one of the tenant's policy")
    ordering_key: str | None = Field(None, description="requests that share it are answered in the order accepted")
    session: str | None = Field(None, description="requests that share it go to one backend where possible: prompt caches")
    idempotency_key: str | None = Field(None, description="at most 255 characters; the same key is one request")
    metadata: dict[str, Any] | None = None


class Request(Fact):
    """An accepted request: the caller's body as it came, or why it was refused."""

    source: str = Field(description="http or topic")
    body: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = Field("", description="SHA-256 of the canonical body, where an idempotency key came with it")
    failure: Failure | None = None


class Candidate(Fact):
    """One model that may serve the task, with what the router believed of it when it planned."""

    model: str
    backends: tuple[str, ...]
    quality: float = Field(description="expected quality in [0, 1]")
    cost_microusd: int = Field(description="expected cost of one call")
    cost_max_microusd: int = Field(description="upper bound of one call: estimated input and every output token allowed")
    latency_ms: int = Field(0, description="p95 of its best backend in the fleet's window; 0: not yet known")


class Excluded(Fact):
    """A model that was not planned, and why."""

    model: str
    reason: str


class Why(Fact):
    """What made a plan: enough to replay the decision."""

    policy: str
    rule: str = Field(description="the sentence a human reads: why the first candidate is first")
    config_version: int = 0
    quality_min: float = 0.0
    domain: str = Field("chat", description="as preprocessing saw it: what a judgement of the answer is learned for")
    complexity: float = 0.0
    excluded: tuple[Excluded, ...] = ()
    mode: str = Field("", description="how the able models were ordered; empty: nothing was chosen")
    price: float = Field(0.0, description="the account's price of money λ")
    propensity: float = Field(1.0, description="chance that the first candidate was put first; below 1 where models are explored")
    explored: bool = Field(False, description="whether the first candidate is there to be learned about")
    split: str = Field("", description="arm of the policy's split this request belongs to: a model")
    shadow: str = Field("", description="model that is asked the same, unheard, once this is answered; none: empty")
    scores: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="the best able models: quality, cost in micro-USD, p95 ms (0: unknown), share failing, utility, judgements",
    )


class Tried(Fact):
    """A model that answered this request before, and what the gate held against it."""

    model: str
    backend: str
    failed_checks: tuple[str, ...] = ()
    confidence: float | None = Field(None, description="of a cascade: chance that its answer is right; too low, so it went on")


BETWEEN_MODELS = "+"
"""Of an answer that a pipeline merged. No name in the catalogue holds it."""


class Answer(Fact):
    """What a model answered."""

    text: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish: str = Field("stop", description="stop, length, tool_calls or content_filter")
    model: str = Field("", description="catalogue model that answered; a+b: several, merged by a pipeline")
    backend: str = ""
    model_served: str = Field("", description="the name the provider reported")
    logprobs: tuple[dict[str, Any], ...] = Field((), description="per token: token, logprob, and top where asked for")
    usage: Usage = Usage()
    provider_request_id: str = ""


class Fallback(Fact):
    """Where to go when a candidate fails in one particular way, in this order; configured per model."""

    model: str = Field(description="the candidate that failed")
    failure: FailureClass
    candidates: tuple[Candidate, ...]


class Cascade(Fact):
    """A cheap model is asked first. Where its answer passes, the gate asks the next one if that is expected to be worth it."""

    model: str = Field(description="the first one")
    believed: float = Field(description="chance that it answers well, before it has, in [0, 1]")
    following: str = Field(description="the next one")
    quality: float = Field(description="chance that the next one answers well")
    cost_microusd: int = Field(description="expected cost of asking the next one")
    latency_ms: int = Field(0, description="its p95; 0: not yet known")
    microusd_price: float = Field(description="quality that one micro-USD must buy")
    threshold: float | None = Field(None, description="ask on below this confidence; null: where the expected gain is above 0")


class Plan(Fact):
    """Ordered candidates plus limits: a routing slip for the executor. Without candidates `failure` says why."""

    number: int = Field(description="0 for a request's first plan, one more for each escalation")
    task: Task
    candidates: tuple[Candidate, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    attempts_max: int = 3
    attempt_timeout_ms: int = 60_000
    why: Why
    tried: tuple[Tried, ...] = ()
    best: Answer | None = Field(None, description="best answer of earlier plans, kept in case nothing better comes")
    attempts_before: int = Field(0, description="attempts spent by earlier plans of this request")
    cost_before_microusd: int = 0
    failure: Failure | None = None
    slip: Slip | None = Field(None, description="of a pipeline's step; null: a plain request")
    cancels: tuple[str, ...] = Field((), description="nothing to plan: steps below these paths are no longer wanted")
    cascade: Cascade | None = Field(None, description="when to ask on after the first candidate's answer; null: never")


class Completion(Fact):
    """What executing a plan yielded: an answer or a typed failure, and what it took."""

    plan_id: str
    plan_number: int
    task: Task
    answer: Answer | None = None
    failure: Failure | None = None
    failure_class: FailureClass | None = None
    attempts: int = 0
    cost_microusd: int = Field(0, description="known cost of all attempts of the request so far")
    why: Why | None = None
    quality_min: float = 0.0
    tried: tuple[Tried, ...] = ()
    best: Answer | None = None
    may_escalate: bool = True
    slip: Slip | None = Field(None, description="of a pipeline's step; null: a plain request")
    cascade: Cascade | None = Field(None, description="the plan's")


class Escalation(Fact):
    """The gate asks the router for a stronger model, or for a pipeline's next steps."""

    plan_number: int = Field(description="number of the plan that is wanted next")
    task: Task
    tried: tuple[Tried, ...]
    best: Answer | None = None
    attempts: int = 0
    cost_microusd: int = 0
    slip: Slip | None = Field(None, description="of a pipeline's step; null: a plain request")
    wants: tuple[str, ...] = Field((), description="paths of the steps that are wanted next")
    asks: str = Field("", description="of a cascade: the model that is wanted next, where it is able")
    cancels: tuple[str, ...] = Field((), description="paths below which no step is wanted any more")


class Score(Fact):
    """One score of the gate on one answer, computed without a model."""

    name: str
    version: int = 1
    value: float | None = Field(None, description="in [0, 1]; null: nothing can be known")
    detail: str = Field("", description="never quotes the answer")


class ReviewAction(StrEnum):
    """What a review may come to."""

    ACCEPT = "accept"
    REJECT = "reject"
    EDIT = "edit"


class Reviewed(Fact):
    """How an answer that waited for a person was decided."""

    action: ReviewAction
    by: str = Field("", description="who decided; empty: nobody in time, so the policy's default did")


class Verdict(Fact):
    """The final judgement on a request."""

    status: Status
    reason: Reason | None = None
    message: str = ""
    stage: str = ""
    answer: Answer | None = None
    checks: tuple[Check, ...] = ()
    scores: tuple[Score, ...] = Field((), description="of a sample of all answers; of all where a check asks for a least score")
    why: Why | None = None
    tried: tuple[Tried, ...] = ()
    attempts: int = 0
    cost_microusd: int = 0
    decided_ms: int
    reviewed: Reviewed | None = Field(None, description="of an answer that was parked for a person")


class Result(Fact):
    """The one final answer of a request, as users read it on `results` and as HTTP callers get it."""

    request_id: str
    tenant: str
    app: str = ""
    status: Status
    reason: Reason | None = None
    message: str = ""
    stage: str = Field("", description="the stage that ended the request, where it was not delivered")
    answer: Answer | None = None
    checks: tuple[Check, ...] = ()
    scores: tuple[Score, ...] = ()
    why: Why | None = None
    tried: tuple[Tried, ...] = ()
    attempts: int = 0
    cost_microusd: int = 0
    accepted_ms: int
    decided_ms: int
    ordering_key: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    reviewed: Reviewed | None = Field(None, description="of an answer that was parked for a person")


class Claim(Fact):
    """An idempotency key as first used. The first claim in the log wins; later ones only prove that they lost."""

    request_id: str
    fingerprint: str
    claimed_ms: int


class DeadLetter(BaseModel):
    """A dead letter's value is the rejected record's own bytes, so it has no schema; its headers name the cause."""

    model_config = ConfigDict(extra="allow", frozen=True)
