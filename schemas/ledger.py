"""The ledger: one line before a provider is called, one after it, and the closed lists of what may happen between them.

Money is integer micro-USD, times are epoch milliseconds, durations milliseconds, tokens are counted by the provider.
"""

from enum import StrEnum

from pydantic import Field

from schemas.envelope import Fact


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
    STALLED = "stalled"
    STREAM_ERROR = "stream_error"
    MALFORMED = "malformed"
    CANCELLED = "cancelled"
    ORPHANED = "orphaned"
    UNKNOWN = "unknown"


class AttemptKind(StrEnum):
    PRIMARY = "primary"
    RETRY = "retry"
    FAILOVER = "failover"
    HEDGE = "hedge"
    ESCALATION = "escalation"
    PROBE = "probe"
    JUDGE = "judge"
    SHADOW = "shadow"


class AttemptPhase(StrEnum):
    STARTED = "started"
    FINISHED = "finished"


class Usage(Fact):
    """Tokens as the provider counted them; `estimated` when it did not say.

    `tokens_in` includes tokens read from and written to the provider's cache, `tokens_out` reasoning tokens.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_cache_write: int = 0
    tokens_reasoning: int = 0
    estimated: bool = False


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
    model_asked: str = Field("", description="the provider's name of the model, as sent")
    executor: str = Field("", description="the replica that made the call")
    started_ms: int
    finished_ms: int | None = None
    streamed: bool = False
    first_token_ms: int | None = Field(None, description="milliseconds from the call to the first token; streams only")
    status: int = Field(0, description="the provider's HTTP status; 0: none came")
    wait_ms: int | None = Field(None, description="how long the provider asked to be left alone")
    failure: FailureClass | None = None
    usage: Usage | None = None
    cost_microusd: int = 0
    cost_known: bool = True
    cost_max_microusd: int = 0
    price_version: str = ""
    model_served: str = ""
    provider_request_id: str = ""
