"""One class per fact on a topic. Readers ignore unknown fields; fields are only ever added, and are optional when added.

Money is integer micro-USD, times are epoch milliseconds, durations milliseconds, tokens are counted by the provider
(`usage`) or estimated (`features`).
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Fact


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
    max_tokens: int | None = None
    temperature: float | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    tenant: str | None = None
    app: str | None = None
    priority: Lane | None = None
    deadline_ms: int | None = Field(None, description="milliseconds from acceptance within which an answer is of use")
    max_cost_usd: float | None = Field(None, description="the most the request may cost, in USD")
    ordering_key: str | None = Field(None, description="requests that share it are answered in the order accepted")
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


class Features(Fact):
    """What preprocessing saw in a chat. `complexity` in [0, 1]; token counts are estimates."""

    tokens_in: int
    tokens_out: int = Field(description="expected output tokens, bounded by max_tokens when given")
    tokens_out_max: int
    needs: tuple[str, ...] = Field((), description="capabilities a model must have, sorted: json_schema, tools, vision …")
    language: str = "en"
    domain: str = "chat"
    complexity: float = 0.0


class Task(Fact):
    """A request after preprocessing; `chat` is null only when there is a failure."""

    chat: Chat | None = None
    features: Features | None = None
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
    excluded: tuple[Excluded, ...] = ()


class Tried(Fact):
    """A model that answered this request before, and what the gate held against it."""

    model: str
    backend: str
    failed_checks: tuple[str, ...] = ()


class Usage(Fact):
    """Tokens as the provider counted them; `estimated` when it did not say.

    `tokens_in` includes cached tokens, `tokens_out` reasoning tokens.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    estimated: bool = False


class Answer(Fact):
    """What a model answered."""

    text: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish: str = Field("stop", description="stop, length, tool_calls or content_filter")
    model: str = Field("", description="catalogue model that answered")
    backend: str = ""
    model_served: str = Field("", description="the name the provider reported")
    usage: Usage = Usage()
    provider_request_id: str = ""


class Plan(Fact):
    """Ordered candidates plus limits: a routing slip for the executor. Without candidates `failure` says why."""

    number: int = Field(description="0 for a request's first plan, one more for each escalation")
    task: Task
    candidates: tuple[Candidate, ...] = ()
    attempts_max: int = 3
    attempt_timeout_ms: int = 60_000
    why: Why
    tried: tuple[Tried, ...] = ()
    best: Answer | None = Field(None, description="best answer of earlier plans, kept in case nothing better comes")
    attempts_before: int = Field(0, description="attempts spent by earlier plans of this request")
    cost_before_microusd: int = 0
    failure: Failure | None = None


class AttemptKind(StrEnum):
    PRIMARY = "primary"
    RETRY = "retry"
    FAILOVER = "failover"
    ESCALATION = "escalation"
    PROBE = "probe"


class AttemptPhase(StrEnum):
    STARTED = "started"
    FINISHED = "finished"


class FailureClass(StrEnum):
    """What went wrong with one call of a provider; the executor's table says what each allows."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    CONTEXT_LENGTH = "context_length"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    CONTENT_FILTERED = "content_filtered"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    CONNECT_ERROR = "connect_error"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    CANCELLED = "cancelled"
    ORPHANED = "orphaned"
    UNKNOWN = "unknown"


class Attempt(Fact):
    """One line of the ledger. `started` is in the log before the provider is called, `finished` after it.

    `cost_microusd` is what the call cost (0 while started); `cost_known` is false where nobody can tell (the executor
    died, the call timed out): then the cost lies within 0 and `cost_max_microusd`. A later known line of the same
    attempt beats an unknown one.
    """

    attempt_id: str
    plan_id: str
    request_id: str
    tenant: str
    app: str = ""
    phase: AttemptPhase
    kind: AttemptKind = AttemptKind.PRIMARY
    model: str
    backend: str
    executor: str = Field("", description="the replica that made the call")
    started_ms: int
    finished_ms: int | None = None
    failure: FailureClass | None = None
    usage: Usage | None = None
    cost_microusd: int = 0
    cost_known: bool = True
    cost_max_microusd: int = 0
    price_version: str = ""
    model_served: str = ""
    provider_request_id: str = ""


class Observation(Fact):
    """What one executor saw of one backend since its last observation. `sketch` maps log-bucket index to count."""

    backend: str
    reporter: str = Field(description="executor instance; a new one per process start")
    sequence: int = Field(description="per reporter and backend, rising by one: a replay adds nothing twice")
    at_ms: int
    calls: int = 0
    failures: dict[FailureClass, int] = Field(default_factory=dict, description="failures that count for the circuit")
    other_failures: dict[FailureClass, int] = Field(default_factory=dict)
    consecutive_failures: int = Field(0, description="hard failures in a row at the end of this delta")
    probes_ok: int = 0
    probes_failed: int = 0
    probe_epoch: int = 0
    latency_sketch: dict[int, int] = Field(default_factory=dict, description="1 % log buckets of call milliseconds")
    tokens_in: int = 0
    tokens_out: int = 0
    cost_microusd: int = 0


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Window(Fact):
    """Figures of one rolling period of one backend; latencies in ms, of calls that succeeded."""

    seconds: int
    calls: int = 0
    failed: int = 0
    error_rate: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0


class FleetEntry(Fact):
    """The fleet's view of one backend: one entry per backend, replaced whole."""

    backend: str
    circuit: Circuit = Circuit.CLOSED
    reason: str = Field("", description="why the circuit is as it is")
    since_ms: int = 0
    trips: int = Field(0, description="openings in a row; the cooldown doubles with each")
    cooldown_until_ms: int = 0
    share: float = Field(1.0, description="part of its traffic a recovering backend may take, in [0, 1]")
    probe_epoch: int = Field(0, description="rises with every half-open period")
    probe_leases: dict[str, int] = Field(default_factory=dict, description="reporter → probes it may make in this epoch")
    windows: tuple[Window, ...] = ()
    updated_ms: int = 0


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


class Escalation(Fact):
    """The gate asks the router for a stronger model."""

    plan_number: int = Field(description="number of the plan that is wanted next")
    task: Task
    tried: tuple[Tried, ...]
    best: Answer | None = None
    attempts: int = 0
    cost_microusd: int = 0


class Check(Fact):
    """One check of the gate on one answer."""

    name: str
    version: int = 1
    passed: bool
    detail: str = Field("", description="never quotes the answer")


class Verdict(Fact):
    """The final judgement on a request."""

    status: Status
    reason: Reason | None = None
    message: str = ""
    stage: str = ""
    answer: Answer | None = None
    checks: tuple[Check, ...] = ()
    why: Why | None = None
    tried: tuple[Tried, ...] = ()
    attempts: int = 0
    cost_microusd: int = 0
    decided_ms: int


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
    why: Why | None = None
    tried: tuple[Tried, ...] = ()
    attempts: int = 0
    cost_microusd: int = 0
    accepted_ms: int
    decided_ms: int
    ordering_key: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class Claim(Fact):
    """An idempotency key as first used. The first claim in the log wins; later ones only prove that they lost."""

    request_id: str
    fingerprint: str
    claimed_ms: int


class DeadLetter(BaseModel):
    """A dead letter's value is the rejected record's own bytes, so it has no schema; its headers name the cause."""

    model_config = ConfigDict(extra="allow", frozen=True)
