"""What is known of backends: what executors saw, the windows and circuits the monitor makes of it, and its alerts."""

from enum import StrEnum

from pydantic import Field

from schemas.envelope import Fact
from schemas.ledger import FailureClass


class GateReason(StrEnum):
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    CREDENTIAL = "credential"


class Gate(Fact):
    """Nobody may call the backend before `until_ms`; the provider said so, or its answer left no doubt."""

    until_ms: int
    reason: GateReason


class RateLimits(Fact):
    """What a provider's headers say it allows per minute, in all and for now. None: it does not say."""

    rpm: int | None = None
    tpm: int | None = None


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
    first_token_sketch: dict[int, int] = Field(default_factory=dict, description="the same of milliseconds to the first token")
    pace_sketch: dict[int, int] = Field(default_factory=dict, description="the same of milliseconds per unit of answer")
    refused: int = Field(0, description="calls refused for their credential in a row at the end of this delta")
    gate: Gate | None = None
    limits: RateLimits | None = None
    in_flight: int = Field(0, description="calls on their way when this was reported")
    hedges: int = 0
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
    first_token_p50_ms: float = 0.0
    first_token_p95_ms: float = 0.0
    pace_p50_ms: float = Field(0.0, description="milliseconds per unit of answer: an output token, or a start worth 40 of them")
    pace_p95_ms: float = 0.0


class Transition(Fact):
    """One change of a circuit or a gate."""

    at_ms: int
    circuit: Circuit
    reason: str


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
    gate: Gate | None = None
    limits: RateLimits | None = Field(None, description="as learned from the provider's answers")
    executors: int = Field(0, description="replicas heard of lately: each takes its part of a rate limit")
    history: tuple[Transition, ...] = Field((), description="the last changes, oldest first")
    windows: tuple[Window, ...] = ()
    updated_ms: int = 0


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertKind(StrEnum):
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    CIRCUIT_CLOSED = "circuit_closed"
    CIRCUIT_HELD = "circuit_held"          # bad, but too many others are out already
    ALL_OUT = "all_out"                    # no backend is closed
    QUOTA_EXHAUSTED = "quota_exhausted"
    CREDENTIAL_REFUSED = "credential_refused"
    BUDGET_NEAR = "budget_near"            # 80 % of an account's budget is spent
    BUDGET_SPENT = "budget_spent"          # all of it


class Alert(Fact):
    """Something an operator may want to know, once per change. `alert_id` follows from the change."""

    alert_id: str
    kind: AlertKind
    severity: Severity
    subject: str = Field(description="what it is about: a backend, or an account")
    message: str
    at_ms: int
