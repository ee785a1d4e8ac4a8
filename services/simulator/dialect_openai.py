"""OpenAI's chat dialect: bytes in to a `Call`, an `Answer` out to bytes, errors and headers as OpenAI sends them.

Pure: no I/O, no clock. Another dialect is another file with the same seven public names.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any

import orjson

from services.simulator.call import IMAGE_TOKENS, Answer, Call, Tool, Usage, count_tokens
from services.simulator.profiles import MODELS, ModelProfile

DONE = b"data: [DONE]\n\n"
NOT_JSON_EVENT = b'data: {"id":"chatcmpl-","object":"chat.comp\n\n'
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>"

_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")  # a word with the space before it, as tokenisers do
_REQUESTS_PER_MINUTE = 600_000
_TOKENS_PER_MINUTE = 600_000_000


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An HTTP error as it goes out."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class BadRequest(Exception):
    """The request itself is wrong; carries what OpenAI would say."""

    def __init__(self, error_class: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.error_class, self.message, self.param, self.code = error_class, message, param, code


# class -> (message, type, param, code); the status is in faults.ERROR_STATUS.
_ERRORS: Mapping[str, tuple[str, str, str | None, str | None]] = MappingProxyType(
    {
        "invalid_request": ("We could not parse the JSON body of your request.", "invalid_request_error", None, None),
        "context_length": (
            "This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "messages",
            "context_length_exceeded",
        ),
        "content_filtered": (
            "Your request was rejected as a result of our safety system. Your prompt may contain text that is not "
            "allowed by our safety system.",
            "invalid_request_error",
            None,
            "content_policy_violation",
        ),
        "auth": (
            "Incorrect API key provided: sk-sim****ulat. You can find your API key in your account settings.",
            "invalid_request_error",
            None,
            "invalid_api_key",
        ),
        "permission": (
            "Country, region, or territory not supported",
            "request_forbidden",
            None,
            "unsupported_country_region_territory",
        ),
        "not_found": (
            "The model `{model}` does not exist or you do not have access to it.",
            "invalid_request_error",
            None,
            "model_not_found",
        ),
        "rate_limited": (
            "Rate limit reached for {model} in organization org-simulator on tokens per min (TPM): "
            "Limit {limit}, Used {limit}, Requested {tokens}.{hint}",
            "tokens",
            None,
            "rate_limit_exceeded",
        ),
        "quota_exhausted": (
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            None,
            "insufficient_quota",
        ),
        "server_error": (
            "The server had an error while processing your request. Sorry about that!",
            "server_error",
            None,
            None,
        ),
        "overloaded": (
            "That model is currently overloaded with other requests. You can retry your request.",
            "service_unavailable_error",
            None,
            "server_is_overloaded",
        ),
    }
)
ERROR_CLASSES = frozenset(_ERRORS)


# In: bytes -> Call


def parse(raw: bytes) -> Call:
    """Read a request body. Raises BadRequest naming the parameter."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadRequest("invalid_request", _ERRORS["invalid_request"][0]) from None
    if not isinstance(body, dict):
        raise BadRequest("invalid_request", _ERRORS["invalid_request"][0])
    model = _model(body.get("model"))
    texts, images, role, system = _read_messages(body.get("messages"))
    if images and "vision" not in model.capabilities:
        raise BadRequest("invalid_request", f"{model.name} does not support image inputs.", "messages")
    prefix = "\n".join(texts[:-1])
    schema, wants_json = _response_format(model, body.get("response_format"))
    tools = () if body.get("tool_choice") == "none" else _tools(model, body.get("tools"))
    stream_options = body.get("stream_options")
    call = Call(
        model=model,
        prompt=texts[-1],
        system=system,
        prefix=prefix,
        role=role,
        tokens_in=max(1, sum(count_tokens(text) for text in texts)) + images * IMAGE_TOKENS,
        seed=str(body.get("seed") or ""),
        max_tokens=_max_tokens(body),
        streamed=bool(body.get("stream")),
        with_usage=bool(isinstance(stream_options, dict) and stream_options.get("include_usage")),
        wants_json=wants_json,
        schema=schema,
        tools=tools,
        tool_forced=_tool_forced(body.get("tool_choice")),
    )
    _check_context(call)
    return call


def _model(name: object) -> ModelProfile:
    if not isinstance(name, str) or not name:
        raise BadRequest("invalid_request", "you must provide a model parameter", "model")
    model = MODELS.get(name)
    if model is None:
        raise BadRequest("not_found", _ERRORS["not_found"][0].format(model=name), None, "model_not_found")
    return model


def _read_messages(messages: object) -> tuple[list[str], int, str, str]:
    """Texts of all messages, number of images, role of the last message, system text."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("invalid_request", "Invalid 'messages': expected a non-empty array.", "messages")
    texts: list[str] = []
    images, system, role = 0, "", ""
    for at, message in enumerate(messages):
        role = message.get("role", "") if isinstance(message, dict) else ""
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise BadRequest("invalid_request", f"Invalid value for 'messages[{at}].role'.", f"messages[{at}].role")
        content = message.get("content")
        if isinstance(content, list):
            images += sum(isinstance(part, dict) and part.get("type") == "image_url" for part in content)
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        elif content is not None and not isinstance(content, str):
            name = f"messages[{at}].content"
            raise BadRequest("invalid_request", f"Invalid type for '{name}'.", name)
        texts.append(content or "")
        if role in ("system", "developer"):
            system = f"{system}\n{content}" if system else content or ""
    return texts, images, role, system


def _response_format(model: ModelProfile, wanted: object) -> tuple[Mapping[str, Any] | None, bool]:
    if not isinstance(wanted, dict) or wanted.get("type") in (None, "text"):
        return None, False
    if wanted["type"] == "json_object":
        return None, True
    if wanted["type"] != "json_schema" or "json_schema" not in model.capabilities:
        message = f"Invalid parameter: 'response_format' of type '{wanted['type']}' is not supported with this model."
        raise BadRequest("invalid_request", message, "response_format")
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        name = "response_format.json_schema.schema"
        raise BadRequest("invalid_request", f"Missing required parameter: '{name}'.", name)
    return schema, True


def _tools(model: ModelProfile, wanted: object) -> tuple[Tool, ...]:
    if not wanted:
        return ()
    if "tools" not in model.capabilities:
        raise BadRequest("invalid_request", f"tools is not supported in this model: {model.name}.", "tools")
    if not isinstance(wanted, list):
        raise BadRequest("invalid_request", "Invalid type for 'tools': expected an array.", "tools")
    tools = []
    for at, tool in enumerate(wanted):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            name = f"tools[{at}].function.name"
            raise BadRequest("invalid_request", f"Missing required parameter: '{name}'.", name)
        parameters = function.get("parameters")
        description = str(function.get("description") or "")
        tools.append(Tool(function["name"], description, parameters if isinstance(parameters, dict) else {}))
    return tuple(tools)


def _tool_forced(choice: object) -> str:
    if choice == "required":
        return "*"
    function = choice.get("function") if isinstance(choice, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadRequest("invalid_request", f"Invalid '{name}': expected an integer >= 1.", name)
            return value
    return None


def _check_context(call: Call) -> None:
    wanted = call.tokens_in + (call.max_tokens or 0)
    if wanted > call.model.context_tokens:
        message, _, param, code = _ERRORS["context_length"]
        raise BadRequest("context_length", message.format(context=call.model.context_tokens, tokens=wanted), param, code)


# Out: Answer -> bytes


def completion(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes:
    """A plain `chat.completion`."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    if said.tool_name:
        function = {"name": said.tool_name, "arguments": said.text}
        message["content"] = None
        message["tool_calls"] = [{"id": f"call_{reply_id[:24]}", "type": "function", "function": function}]
    return orjson.dumps(
        {
            "id": f"chatcmpl-{reply_id}",
            "object": "chat.completion",
            "created": created_s,
            "model": call.model.name,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}],
            "usage": _usage(usage),
            "system_fingerprint": "fp_simulator",
        }
    )


class Chunks:
    """The events of one stream: `first`, then one per piece with the text it carries, then `last`, then DONE."""

    def __init__(self, call: Call, said: Answer, reply_id: str, created_s: int) -> None:
        self._said = said
        self._call_id = f"call_{reply_id[:24]}"
        self._with_usage = call.with_usage
        self._head = orjson.dumps(
            {
                "id": f"chatcmpl-{reply_id}",
                "object": "chat.completion.chunk",
                "created": created_s,
                "model": call.model.name,
                "system_fingerprint": "fp_simulator",
            }
        )[:-1]

    def first(self) -> bytes:
        """The role, and for a tool call its name."""
        delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if self._said.tool_name:
            function = {"name": self._said.tool_name, "arguments": ""}
            delta["content"] = None
            delta["tool_calls"] = [{"index": 0, "id": self._call_id, "type": "function", "function": function}]
        return self._event(orjson.dumps(delta), b"null")

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Content deltas a word at a time; argument fragments for a tool call."""
        for piece in _PIECE.findall(self._said.text):
            quoted = orjson.dumps(piece)
            if self._said.tool_name:
                delta = b'{"tool_calls":[{"index":0,"function":{"arguments":' + quoted + b"}}]}"
            else:
                delta = b'{"content":' + quoted + b"}"
            yield piece, self._event(delta, b"null")

    def last(self, usage: Usage) -> bytes:
        """The finish reason and, if asked for, the usage."""
        event = self._event(b"{}", orjson.dumps(self._said.finish))
        if self._with_usage:
            event += b"data: " + self._head + b',"choices":[],"usage":' + orjson.dumps(_usage(usage)) + b"}\n\n"
        return event

    def _event(self, delta: bytes, finish: bytes) -> bytes:
        tail = b',"usage":null}\n\n' if self._with_usage else b"}\n\n"
        choice = b',"choices":[{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish + b"}]"
        return b"data: " + self._head + choice + tail


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def error(error_class: str, status: int, model: str, tokens: int, retry_after_s: float | None) -> ErrorReply:
    """The error of a class as OpenAI words it. Without `retry_after_s` there is no hint, in header or message."""
    message, kind, param, code = _ERRORS[error_class]
    hint = "" if retry_after_s is None else f" Please try again in {retry_after_s:g}s."
    profile = MODELS.get(model)
    context = profile.context_tokens if profile else 0
    message = message.format(model=model, tokens=tokens, limit=_TOKENS_PER_MINUTE, context=context, hint=hint)
    headers: dict[str, str] = {}
    if retry_after_s is not None:
        headers = {"retry-after": str(ceil(retry_after_s)), "retry-after-ms": str(ceil(retry_after_s * 1000))}
    if error_class == "rate_limited":
        headers |= {**limit_headers(0, _TOKENS_PER_MINUTE, 0.0), "x-should-retry": "true"}
    return ErrorReply(status, _error_body(message, kind, param, code), headers)


def refusal_of(bad: BadRequest, status: int) -> ErrorReply:
    """The error reply for a request that is itself wrong."""
    return ErrorReply(status, _error_body(bad.message, "invalid_request_error", bad.param, bad.code), {})


def _error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def limit_headers(requests: int, tokens: int, elapsed_s: float) -> dict[str, str]:
    """OpenAI's six rate-limit headers for what was used in this minute. `reset` is the time until the bucket is full.

    The limits are shown, not enforced: a storm of 429s is a fault, so that a bench has no ceiling but the machine's.
    """
    left_s = max(0.0, 60.0 - elapsed_s)
    reset = f"{left_s * 1000:.0f}ms" if left_s < 1 else f"{left_s:.3f}s"
    return {
        "x-ratelimit-limit-requests": str(_REQUESTS_PER_MINUTE),
        "x-ratelimit-limit-tokens": str(_TOKENS_PER_MINUTE),
        "x-ratelimit-remaining-requests": str(max(0, _REQUESTS_PER_MINUTE - requests)),
        "x-ratelimit-remaining-tokens": str(max(0, _TOKENS_PER_MINUTE - tokens)),
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-reset-tokens": reset,
    }


def models() -> bytes:
    """`GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": "simulator"} for name in MODELS]
    return orjson.dumps({"object": "list", "data": data})
