"""What is asked, in one normal form, and how a request may end: what the facts of every later stage rest on."""

from enum import StrEnum
from typing import Any

from pydantic import Field

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
    PIPELINE_BROKEN = "pipeline_broken"
    CANCELLED = "cancelled"
    TOO_MANY_OPEN = "too_many_open"


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
    Reason.TOO_MANY_OPEN: Status.FAILED,
}


class Failure(Fact):
    """Why a request cannot be answered. It travels the same path as an answer would, so order per key is kept."""

    reason: Reason
    stage: str
    message: str = Field("", description="for the caller: names the field and the fix; never holds prompt text")


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


class Check(Fact):
    """One check of the gate on one answer."""

    name: str
    version: int = 1
    passed: bool
    detail: str = Field("", description="never quotes the answer")
