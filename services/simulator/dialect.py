"""What every wire format has in common: the protocol its module keeps, and what passes through it. Pure: no I/O, no clock.

A dialect is a module `dialect_*.py` with the functions of `Dialect`; `chat.py` is given one and knows none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from services.simulator.call import IMAGE_TOKENS, Answer, Call, Turn, Usage, count_tokens
from services.simulator.faults import ERROR_STATUS
from services.simulator.limits import Standing
from services.simulator.profiles import ModelProfile, model_named

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>"
PIECE = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")  # a word with the space before it, as tokenisers do
JSON = "application/json"
EVENTS = "text/event-stream"
_NO_PREFILL = "sim-noprefill"  # models of this name want the user to speak last


class BadRequest(Exception):
    """The request itself is wrong. Without a message the dialect's own for the class goes out, filled with the facts."""

    def __init__(
        self,
        error_class: str,
        message: str = "",
        param: str | None = None,
        code: str | None = None,
        *,
        model: str = "unknown",
        tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        super().__init__(message)
        self.error_class, self.message, self.param, self.code = error_class, message, param, code
        self.model, self.tokens, self.context_tokens = model, tokens, context_tokens


@dataclass(frozen=True, slots=True)
class Quota:
    """What a caller may still use of a backend, for the headers that say so. Only an `enforced` one is the whole truth."""

    requests: Standing
    tokens: Standing
    enforced: bool = False

    def exhausted(self) -> "Quota":
        """As it is if it is true or something is used up, else with no tokens left: what goes with a 429."""
        used_up = self.enforced or self.requests.remaining == 0 or self.tokens.remaining == 0
        return self if used_up else replace(self, tokens=replace(self.tokens, remaining=0))


NO_QUOTA = Quota(Standing(0, 0, 0.0), Standing(0, 0, 0.0))
_NOTHING = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that goes wrong on purpose, or is wrong (`bad`). Status 0 is the provider's own for the class."""

    error_class: str
    reply_id: str
    now_s: float
    status: int = 0
    retry_after_s: float | None = None
    bad: BadRequest | None = None
    call: Call | None = None  # None: it could not be read
    usage: Usage = _NOTHING  # what the prompt alone counts
    quota: Quota = NO_QUOTA

    @property
    def facts(self) -> dict[str, object]:
        """What an error message can name: model, tokens, context window in tokens."""
        if self.call is not None:
            return {"model": self.call.model.name, "tokens": self.call.tokens_in, "context": self.call.model.context_tokens}
        bad = self.bad or BadRequest(self.error_class)
        return {"model": bad.model, "tokens": bad.tokens, "context": bad.context_tokens}

    def status_of(self, own: Mapping[str, int]) -> int:
        """The status to send: one that was asked for explicitly, else the provider's own, else the common one."""
        common = ERROR_STATUS[self.error_class]
        return self.status if self.status not in (0, common) else own.get(self.error_class, common)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An HTTP error as it goes out. Some providers say no with a 200 that counts tokens: that one is `billed`."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    content_type: str = JSON
    billed: bool = False


class Chunks(Protocol):
    """The events of one stream: `first`, one per piece with the text it carries, `last`, the end marker."""

    content_type: str
    silent_tokens: int  # reasoning that is over before the first piece

    def first(self) -> bytes: ...
    def pieces(self) -> Iterator[tuple[str, bytes]]: ...
    def last(self, usage: Usage) -> bytes: ...
    def end(self) -> bytes: ...
    def broken(self) -> bytes: ...
    def error(self, failure: Failure) -> bytes: ...


class Dialect(Protocol):
    """One wire format. Raises BadRequest from `parse` only."""

    def parse(self, raw: bytes, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str]) -> Call: ...
    def completion(self, call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes: ...
    def chunks(self, call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> Chunks: ...
    def error(self, failure: Failure) -> ErrorReply: ...
    def headers(self, reply_id: str, quota: Quota, now_s: float) -> dict[str, str]: ...


@dataclass(slots=True)
class Read:
    """A conversation as a dialect has read it: turns, system texts, and all texts in the order the model sees them."""

    turns: Sequence[Turn]
    system: Sequence[str]
    texts: Sequence[str]

    @property
    def tokens(self) -> int:
        """What the conversation counts: every text for itself, tool calls and images included."""
        tokens = max(1, sum(map(count_tokens, self.texts)))
        for turn in self.turns:
            if turn.images or turn.tool_calls:
                tokens += sum(count_tokens(call.name + call.arguments) for call in turn.tool_calls)
                tokens += len(turn.images) * IMAGE_TOKENS
        return tokens


def object_of(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises BadRequest."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadRequest("invalid_request") from None
    if not isinstance(body, dict):
        raise BadRequest("invalid_request")
    return body


def model_of(name: object, param: str = "model") -> ModelProfile:
    """The model of this name. Raises BadRequest."""
    if not isinstance(name, str) or not name:
        raise BadRequest("invalid_request", "you must provide a model parameter", param)
    model = model_named(name)
    if model is None:
        raise BadRequest("not_found", code="model_not_found", model=name)
    return model


def need(model: ModelProfile, capability: str, what: str, param: str) -> None:
    """Nothing, if the model can do it. Raises BadRequest."""
    if capability not in model.capabilities:
        raise BadRequest("invalid_request", f"{model.name} does not support {what}.", param)


def checked(call: Call, param: str) -> Call:
    """The call, if its model can take the conversation; `param` is the dialect's name of it. Raises BadRequest."""
    for turn in call.turns:
        if turn.images:
            need(call.model, "vision", "image inputs", param)
    tokens, most = call.tokens_in + (call.max_tokens or 0), call.model.context_tokens
    if tokens > most:
        code = "context_length_exceeded"
        raise BadRequest("context_length", param=param, code=code, model=call.model.name, tokens=tokens, context_tokens=most)
    if call.tool_choice in ("any", "named") and not any(call.tool_named in ("", tool.name) for tool in call.tools):
        complaint = f"Tool choice '{call.tool_named}' not found in the tools." if call.tools else "A tool choice needs tools."
        raise BadRequest("invalid_request", complaint, "tool_choice")
    if call.role == "assistant" and call.model.name.startswith(_NO_PREFILL):
        message = "This model does not support assistant message prefill. The conversation must end with a user message."
        raise BadRequest("invalid_request", message, param)
    return call


def whole(value: object, param: str, least: int = 1) -> int | None:
    """A whole number or nothing. Raises BadRequest."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return value
    raise BadRequest("invalid_request", f"Invalid '{param}': expected an integer >= {least}.", param)


def number(value: object, param: str, most: float) -> float | None:
    """A number from 0 to `most`, or nothing. Raises BadRequest."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most):
        return None if value is None else float(value)
    raise BadRequest("invalid_request", f"Invalid '{param}': expected a number from 0 to {most:g}.", param)


def texts(value: object, param: str, most: int) -> tuple[str, ...]:
    """One text or some, as stop sequences come. Raises BadRequest."""
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or len(found) > most or not all(isinstance(one, str) and one for one in found):
        raise BadRequest("invalid_request", f"Invalid '{param}': expected up to {most} non-empty strings.", param)
    return tuple(found)


def compact(arguments: object) -> str:
    """A tool's arguments as compact JSON, whether they came as JSON text or as an object."""
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return str(arguments)
    return orjson.dumps(arguments if arguments is not None else {}).decode()
