"""OpenAI's chat completions: bytes in to a `Call`, an `Answer` out to bytes. Pure: no I/O, no clock.

Source: OpenAI's API reference, chat completions. Errors and headers are in `dialect_openai_errors.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson

from services.simulator.call import Answer, Call, Role, Tool, ToolCall, ToolChoice, Turn, Usage
from services.simulator.dialect import (
    EVENTS,
    PIECE,
    BadRequest,
    Failure,
    Read,
    checked,
    compact,
    model_of,
    need,
    number,
    object_of,
    texts,
    whole,
)
from services.simulator.dialect_openai_errors import ERROR_CLASSES, error, headers
from services.simulator.logprobs import Token, tokens_of
from services.simulator.profiles import MODELS, ModelProfile

__all__ = ["ERROR_CLASSES", "BadRequest", "Chunks", "chunks", "completion", "error", "headers", "models", "parse"]

_NOTHING: Mapping[str, str] = MappingProxyType({})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_STOPS_MAX = 4
_TOP_LOGPROBS_MAX = 20


# In: bytes -> Call


def parse(
    raw: bytes,
    path: Mapping[str, str] = _NOTHING,
    query: Mapping[str, str] = _NOTHING,
    headers: Mapping[str, str] = _NOTHING,
) -> Call:
    """Read a request body. Raises BadRequest naming the parameter."""
    body = object_of(raw)
    return call_of(body, model_of(body.get("model")))


def call_of(body: Mapping[str, Any], model: ModelProfile) -> Call:
    """The call a body makes to a model. Raises BadRequest."""
    read, role = _read(body.get("messages"))
    schema, wants_json = _response_format(model, body.get("response_format"))
    choice, named = _tool_choice(body.get("tool_choice"))
    streamed, stream_options = bool(body.get("stream")), body.get("stream_options")
    call = Call(
        model=model,
        prompt=read.texts[-1],
        system="\n".join(read.system),
        prefix="\n".join(read.texts[:-1]),
        role=role,
        tokens_in=read.tokens,
        turns=tuple(read.turns),
        seed=str(body.get("seed") or ""),
        max_tokens=_max_tokens(body),
        stop=texts(body["stop"], "stop", _STOPS_MAX) if "stop" in body else (),
        temperature=number(body["temperature"], "temperature", 2) if "temperature" in body else None,
        top_p=number(body["top_p"], "top_p", 1) if "top_p" in body else None,
        logprobs=_logprobs(body) if body.get("logprobs") else None,
        streamed=streamed,
        with_usage=not streamed or bool(isinstance(stream_options, dict) and stream_options.get("include_usage")),
        wants_json=wants_json,
        schema=schema,
        tools=_tools(model, body["tools"]) if "tools" in body else (),
        tool_choice=choice,
        tool_named=named,
    )
    return checked(call, "messages")


def _read(messages: object) -> tuple[Read, Role]:
    """The conversation, and who spoke last."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("invalid_request", "Invalid 'messages': expected a non-empty array.", "messages")
    said: list[str] = []
    system: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for at, message in enumerate(messages):
        role: Any = message.get("role", "") if isinstance(message, dict) else ""
        if role not in _ROLES:
            raise BadRequest("invalid_request", f"Invalid value for 'messages[{at}].role'.", f"messages[{at}].role")
        text, images = _content(message.get("content"), at)
        said.append(text)
        if role in ("system", "developer"):
            system.append(text)
        else:
            turns.append(_turn(role, text, images, message, names))
    spoke = turns[-1].role if turns and role not in ("system", "developer") else "user"
    return Read(turns, system, said), spoke


def _content(content: object, at: int) -> tuple[str, tuple[str, ...]]:
    if isinstance(content, str):
        return content, ()
    if content is None:
        return "", ()
    if not isinstance(content, list):
        name = f"messages[{at}].content"
        raise BadRequest("invalid_request", f"Invalid type for '{name}'.", name)
    text, images = "", []
    for part_at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            text += str(part.get(kind) or "")
        elif kind == "image_url":
            image = part.get("image_url")
            images.append(str(image.get("url", "")) if isinstance(image, dict) else "")
        else:
            name = f"messages[{at}].content[{part_at}].type"
            raise BadRequest("invalid_request", f"Invalid value for '{name}': use 'text' or 'image_url'.", name)
    return text, tuple(images)


def _turn(role: Role, text: str, images: tuple[str, ...], message: Mapping[str, Any], names: dict[str, str]) -> Turn:
    if role == "tool":
        call_id = str(message.get("tool_call_id") or "")
        return Turn(role, text, tool_name=names.get(call_id, ""), call_id=call_id)
    calls = []
    for called in message.get("tool_calls") or ():
        function = called.get("function") or {}
        calls.append(ToolCall(str(function.get("name")), compact(function.get("arguments")), str(called.get("id") or "")))
        names[calls[-1].call_id] = calls[-1].name
    return Turn(role, text, images, tuple(calls))


def _response_format(model: ModelProfile, wanted: object) -> tuple[Mapping[str, Any] | None, bool]:
    if not isinstance(wanted, dict) or wanted.get("type") in (None, "text"):
        return None, False
    if wanted["type"] == "json_object":
        return None, True
    if wanted["type"] != "json_schema":
        message = f"Invalid value: '{wanted['type']}'. Supported values are: 'json_object', 'json_schema' and 'text'."
        raise BadRequest("invalid_request", message, "response_format.type")
    need(model, "json_schema", "'response_format' of type 'json_schema'", "response_format")
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        name = "response_format.json_schema.schema"
        raise BadRequest("invalid_request", f"Missing required parameter: '{name}'.", name)
    return schema, True


def _tools(model: ModelProfile, wanted: object) -> tuple[Tool, ...]:
    if not wanted:
        return ()
    need(model, "tools", "tools", "tools")
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


def _tool_choice(choice: object) -> tuple[ToolChoice, str]:
    if choice == "none":
        return "none", ""
    if choice == "required":
        return "any", ""
    function = choice.get("function") if isinstance(choice, dict) else None
    return ("named", str(function.get("name", ""))) if isinstance(function, dict) else ("auto", "")


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    newer = whole(body.get("max_completion_tokens"), "max_completion_tokens")
    return newer if newer is not None else whole(body.get("max_tokens"), "max_tokens")


def _logprobs(body: Mapping[str, Any]) -> int:
    wanted = whole(body.get("top_logprobs"), "top_logprobs", least=0) or 0
    if wanted > _TOP_LOGPROBS_MAX:
        message = f"Invalid 'top_logprobs': expected an integer <= {_TOP_LOGPROBS_MAX}."
        raise BadRequest("invalid_request", message, "top_logprobs")
    return wanted


# Out: Answer -> bytes


def completion(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes:
    """A plain `chat.completion`."""
    return orjson.dumps(completion_of(call, said, usage, reply_id, created_s))


def completion_of(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> dict[str, Any]:
    """The object of a plain answer."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    logprobs = None
    if said.tool_name:
        function = {"name": said.tool_name, "arguments": said.text}
        message["content"] = None
        message["tool_calls"] = [{"id": f"call_{reply_id[:24]}", "type": "function", "function": function}]
    elif call.logprobs is not None:
        logprobs = _logprobs_of(tokens_of(call, said, PIECE.findall(said.text)))
    return {
        "id": f"chatcmpl-{reply_id}",
        "object": "chat.completion",
        "created": created_s,
        "model": call.model.name,
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": said.finish}],
        "usage": _usage(usage),
        "system_fingerprint": "fp_simulator",
    }


class Chunks:
    """The events of one stream, as `dialect.Chunks` describes them."""

    content_type = EVENTS
    annotation = b""  # what a descendant of the dialect adds to every choice

    def __init__(self, call: Call, said: Answer, reply_id: str, created_s: int) -> None:
        self.silent_tokens = said.reasoning_tokens
        self._call, self._said = call, said
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
        return self._event(orjson.dumps(delta))

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Content deltas a word at a time; argument fragments for a tool call."""
        pieces = PIECE.findall(self._said.text)
        if self._said.tool_name:
            for piece in pieces:
                delta = b'{"tool_calls":[{"index":0,"function":{"arguments":' + orjson.dumps(piece) + b"}}]}"
                yield piece, self._event(delta)
        elif self._call.logprobs is None:
            for piece in pieces:
                yield piece, self._event(b'{"content":' + orjson.dumps(piece) + b"}")
        else:
            for token in tokens_of(self._call, self._said, pieces):
                delta, logprobs = b'{"content":' + orjson.dumps(token.text) + b"}", orjson.dumps(_logprobs_of([token]))
                yield token.text, self._event(delta, logprobs=logprobs)

    def last(self, usage: Usage) -> bytes:
        """The finish reason and, if asked for, the usage."""
        event = self._event(b"{}", orjson.dumps(self._said.finish))
        if self._with_usage:
            event += b"data: " + self._head + b',"choices":[],"usage":' + orjson.dumps(_usage(usage)) + b"}\n\n"
        return event

    def end(self) -> bytes:
        """The end marker."""
        return b"data: [DONE]\n\n"

    def broken(self) -> bytes:
        """An event that is not JSON."""
        return b'data: {"id":"chatcmpl-","object":"chat.comp\n\n'

    def error(self, failure: Failure) -> bytes:
        """An error chunk and then the end marker, as vLLM and several gateways do it: the marker alone proves nothing.

        What is filtered in the middle of an answer is no error but a finish reason.
        """
        if failure.error_class == "content_filtered":
            self._said = replace(self._said, finish="content_filter")
            return self.last(failure.usage) + self.end()
        return b"data: " + self.error_chunk(failure) + b"\n\n" + self.end()

    def error_chunk(self, failure: Failure) -> bytes:
        """The error as OpenAI words it."""
        return error(failure).body

    def _event(self, delta: bytes, finish: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        tail = b',"usage":null}\n\n' if self._with_usage else b"}\n\n"
        choice = b',"choices":[{"index":0,"delta":' + delta + b',"logprobs":' + logprobs + b',"finish_reason":' + finish
        return b"data: " + self._head + choice + self.annotation + b"}]" + tail


def chunks(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> Chunks:
    """The events of a stream."""
    return Chunks(call, said, reply_id, created_s)


def _logprobs_of(tokens: list[Token]) -> dict[str, Any]:
    def one(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

    content = [one(token.text, token.logprob) | {"top_logprobs": [one(*other) for other in token.others]} for token in tokens]
    return {"content": content, "refusal": None}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def models() -> bytes:
    """`GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": "simulator"} for name in MODELS]
    return orjson.dumps({"object": "list", "data": data})
