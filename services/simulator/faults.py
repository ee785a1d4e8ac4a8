"""What can go wrong on purpose: the kinds of fault, their parameters and the provider's error classes."""

from enum import StrEnum
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FaultKind(StrEnum):
    """Everything before CUT_STREAM happens before any output and is never billed (SLOW excepted: it is an answer)."""

    ERROR = "error"  # an HTTP error with the provider's real body
    HANG = "hang"  # accepts the request, never answers
    RESET = "reset"  # TCP reset before the headers
    SLOW = "slow"  # a good answer, late
    CUT_STREAM = "cut_stream"  # the connection ends in the middle of the answer
    STALL_STREAM = "stall_stream"  # silence in the middle of the answer, then the end of the connection
    MALFORMED = "malformed"  # an event that is not JSON in a stream; HTML with status 200 otherwise
    NO_DONE = "no_done"  # a whole stream without `[DONE]`
    EMPTY = "empty"  # 200 with an empty answer
    TRUNCATE = "truncate"  # half the answer, finish reason `length`
    REFUSE = "refuse"  # a polite refusal instead of the answer
    WRONG_JSON = "wrong_json"  # JSON that breaks off or lacks a required field
    STREAM_ERROR = "stream_error"  # an error event in the middle of a stream
    ERROR_IN_200 = "error_in_200"  # status 200 with the body of an error
    WRONG_USAGE = "wrong_usage"  # a good answer that reports other tokens than it is billed for
    DUPLICATE = "duplicate"  # a stream that sends one of its pieces twice
    DRIP = "drip"  # one token per `stall_s` from the middle of the answer on


# Class -> HTTP status. The bodies are the dialect's business; both tables have the same keys (a test says so).
ERROR_STATUS = MappingProxyType(
    {
        "invalid_request": 400,
        "context_length": 400,
        "content_filtered": 400,
        "auth": 401,
        "permission": 403,
        "not_found": 404,
        "rate_limited": 429,
        "quota_exhausted": 429,
        "server_error": 500,
        "overloaded": 503,
        "timeout": 504,
        "too_large": 413,
        "billing": 402,
        "conflict": 409,
        "spend_limit": 429,
    }
)
_CLASS_OF_STATUS = MappingProxyType(
    {
        400: "invalid_request",
        401: "auth",
        402: "billing",
        403: "permission",
        404: "not_found",
        409: "conflict",
        413: "too_large",
        429: "rate_limited",
        503: "overloaded",
        504: "timeout",
        529: "overloaded",
    }
)
_WITH_ERROR = frozenset({FaultKind.ERROR, FaultKind.STREAM_ERROR, FaultKind.ERROR_IN_200})


class Fault(BaseModel):
    """One fault as `POST /control` takes it. `share` of the calls are hit; after `times` hits it is gone (0: never).

    An error, in a stream or under a status 200 too, needs only a status or an error class; each implies the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    share: float = Field(default=1.0, gt=0, le=1)
    times: int = Field(default=0, ge=0)
    status: int = Field(default=0, ge=0, le=599)
    error_class: str = ""
    retry_after_s: float | None = Field(default=None, ge=0)
    factor: float = Field(default=8.0, gt=0)  # SLOW: time to first token and time per token are multiplied
    delay_ms: int = Field(default=0, ge=0)  # SLOW: added before the first token, not scaled
    after_tokens: int = Field(default=40, ge=0)  # CUT_STREAM, STALL_STREAM, STREAM_ERROR, DRIP: tokens sent before it happens
    stall_s: float = Field(default=30.0, ge=0)  # STALL_STREAM: silence; DRIP: time per token. Not scaled
    hang_s: float = Field(default=120.0, ge=0)  # HANG: silence, then a reset. Not scaled

    @model_validator(mode="before")
    @classmethod
    def _status_and_class_imply_each_other(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("kind") not in list(_WITH_ERROR):
            return data
        status, error_class = data.get("status", 0), data.get("error_class", "")
        if not error_class and isinstance(status, int):
            error_class = _CLASS_OF_STATUS.get(status, "server_error")
        if not status and isinstance(error_class, str):
            status = ERROR_STATUS.get(error_class, 500)
        return {**data, "status": status, "error_class": error_class}

    @model_validator(mode="after")
    def _an_error_is_one_the_dialect_knows(self) -> "Fault":
        if self.kind not in _WITH_ERROR:
            return self
        if self.error_class not in ERROR_STATUS:
            raise ValueError(f"error_class {self.error_class!r} is unknown; use one of {', '.join(ERROR_STATUS)}")
        if self.status < 400:
            raise ValueError(f"status {self.status} is no error; use 400 to 599 or leave it out")
        return self
