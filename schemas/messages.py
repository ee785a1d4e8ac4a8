"""One class per fact on a topic. Readers ignore unknown fields; fields are only ever added, and are optional when added.

Money is integer micro-USD, times are epoch milliseconds, durations milliseconds, tokens are counted by the provider
(`usage`) or estimated (`features`).
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Fact
from schemas.ledger import FailureClass, Usage


class Status(StrEnum):
    """How a request ended. Every accepted request ends in exactly one."""

    DELIVERED = "delivered"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    OVER_BUDGET = "over_budget"


class Reason(StrEnum):
    """Why a request did not end `delivered`, or why a record was rejected: closed, so it can be a metric label."""

    MALFORMED_JSON = "malformed_json"
    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_MODEL = "unknown_model"
    UNDECODABLE = "undecodable"
    HANDLER_CRASHED = "handler_crashed"
    DEADLINE_PASSED = "deadline_passed"
    NO_TIME_LEFT = "no_time_left"
    NO_ABLE_MODEL = "no_able_model"
    CONTEXT_TOO_LONG = "context_too_long"
    NO_STRONGER_MODEL = "no_stronger_model"
    OVER_BUDGET = "over_budget"
    PROVIDERS_FAILED = "providers_failed"
    PROVIDER_REFUSED = "provider_refused"
    QUALITY_NOT_MET = "quality_not_met"
    PIPELINE_BROKEN = "pipeline_broken"
    CANCELLED = "cancelled"


STATUS_OF: dict[Reason, Status] = {
    Reason.MALFORMED_JSON: Status.REJECTED,
    Reason.INVALID_REQUEST: Status.REJECTED,
    Reason.TOO_LARGE: Status.REJECTED,
    Reason.UNKNOWN_TENANT: Status.REJECTED,
    Reason.UNKNOWN_MODEL: Status.REJECTED,
    Reason.UNDECODABLE: Status.FAILED,
    Reason.HANDLER_CRASHED: Status.FAILED,
    Reason.DEADLINE_PASSED: Status.EXPIRED,
    Reason.NO_TIME_LEFT: Status.EXPIRED,
    Reason.NO_ABLE_MODEL: Status.FAILED,
    Reason.CONTEXT_TOO_LONG: Status.REJECTED,
    Reason.NO_STRONGER_MODEL: Status.FAILED,
    Reason.OVER_BUDGET: Status.OVER_BUDGET,
    Reason.PROVIDERS_FAILED: Status.FAILED,
    Reason.PROVIDER_REFUSED: Status.FAILED,
    Reason.QUALITY_NOT_MET: Status.FAILED,
    Reason.PIPELINE_BROKEN: Status.FAILED,
    Reason.CANCELLED: Status.FAILED,
}


class Failure(Fact):
    """Why a request cannot be answered. It travels the same path as an answer would, so order per key is kept."""

    reason: Reason
    stage: str
    message: str = Field("", description="for the caller: names the field and the fix; never holds prompt text")


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
    fingerprint: str = Field("", description="SHA-256 of the canonical body, for idempotency")
    failure: Failure | None = None


class Chat(Fact):
    """The one normal form of what is asked: OpenAI's messages with the parameters every provider has."""

    messages: tuple[dict[str, Any], ...]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    logprobs: int | None = Field(None, description="log-probabilities of the answer's tokens, with so many alternatives each")
    session: str | None = None
    models: tuple[str, ...] = Field((), description="models that may answer, in the order to try them; empty: any")
    deny: tuple[str, ...] = ()
    sort: str | None = Field(None, description="price, latency or quality: what counts first")
    max_price: tuple[float, float] | None = Field(None, description="USD per million tokens, input and output, at the most")


class Features(Fact):
    """What preprocessing saw in a chat. `complexity` in [0, 1]; token counts are estimates."""

    tokens_in: int
    tokens_out: int = Field(description="expected output tokens, bounded by max_tokens when given")
    tokens_out_max: int
    needs: tuple[str, ...] = Field((), description="capabilities a model must have, sorted: json_schema, tools, vision …")
    language: str = "en"
    domain: str = "chat"
    complexity: float = 0.0
    tokens_earlier: int = Field(0, description="of tokens_in, those before the last user message: a cache may hold them")


class Task(Fact):
    """A request after preprocessing; `chat` is null only when there is a failure."""

    chat: Chat | None = None
    features: Features | None = None
    failure: Failure | None = None
    pipeline: str | None = Field(None, description="the pipeline that the caller named")


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
    asked: "Task | None" = Field(None, description="the request itself")
    asked_at: Reference | None = Field(None, description="where the request stands instead")
    yields: tuple[Yield, ...] = Field((), description="of what ended before this step and may still be asked for")
    until_ms: dict[str, int] = Field(default_factory=dict, description="parallel nodes with a limit: when it is over, epoch ms")
    deadline_ms: int = Field(description="the request's own; a step within a limit has an earlier one on its envelope")
    budget_microusd: int | None = Field(None, description="the request's own; a step of a branch has its share on its envelope")


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
    shadow: str = Field("", description="model that would be asked beside the first candidate, for comparison; it is not")
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


class Answer(Fact):
    """What a model answered."""

    text: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish: str = Field("stop", description="stop, length, tool_calls or content_filter")
    model: str = Field("", description="catalogue model that answered")
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


class Check(Fact):
    """One check of the gate on one answer."""

    name: str
    version: int = 1
    passed: bool
    detail: str = Field("", description="never quotes the answer")


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
