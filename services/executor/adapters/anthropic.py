"""Anthropic's Messages: the request. Pure.

What has no place there is left out: seed, penalties, log-probabilities, names of speakers, the detail of an image; of
temperature and top_p one, as the API takes no two; what a model refuses, see `flavours.py`. A temperature above 1, which only
OpenAI's scale has, is sent as 1. Any JSON object, which the API cannot enforce, is asked for by a sentence at the end of the
system prompt. Sources: Anthropic API reference, create a message; structured outputs.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from schemas.messages import Chat
from services.executor.adapters import parts
from services.executor.adapters.anthropic_reply import reply, stream
from services.executor.adapters.flavours import CLAUDES_EFFORT, Flavour, key_headers, located

__all__ = ["body", "headers", "path", "reply", "stream"]

_PATH = "/messages"
_VERSION = "2023-06-01"
_PLAIN_HEADERS = (
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("anthropic-version", _VERSION),
)
_TOKENS_OUT_MAX = 4096   # where nobody bounds the output: the API wants a bound
_ASK_FOR_OBJECT = "Answer with one JSON object and nothing else."
_EFFORT = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_CHOICE = {"auto": "auto", "none": "none", "required": "any"}


def path(model_name: str, streamed: bool, flavour: Flavour) -> str:
    """What stands after base_url."""
    return located(flavour.path or _PATH, model_name, flavour.query)


def headers(key: str | None, flavour: Flavour) -> tuple[tuple[str, str], ...]:
    """The key in `x-api-key`, and the version of the API that this module speaks."""
    return (*_PLAIN_HEADERS, *key_headers(key, flavour, "x-api-key"))


def body(chat: Chat, model_name: str, tokens_out_max: int | None, streamed: bool, flavour: Flavour) -> bytes:
    """The request's body. A trailing message of the assistant goes out as the caller sent it, for the model to continue."""
    wanted: dict[str, Any] = {
        "model": model_name,
        "max_tokens": tokens_out_max or chat.max_tokens or _TOKENS_OUT_MAX,
        "messages": _messages(chat.messages),
    }
    system = _system(chat)
    if system:
        wanted["system"] = system
    if chat.temperature is not None:
        wanted["temperature"] = min(chat.temperature, 1.0)
    if chat.top_p is not None:
        wanted["top_p"] = chat.top_p
    if chat.stop:
        wanted["stop_sequences"] = chat.stop
    if chat.tools:
        wanted["tools"] = [_tool(function) for function in parts.functions(chat.tools)]
        choice = _tool_choice(chat)
        if choice is not None:
            wanted["tool_choice"] = choice
    output = _output_config(chat, flavour)
    if output:
        wanted["output_config"] = output
    if streamed:
        wanted["stream"] = True
    for name in flavour.drop:
        wanted.pop(name, None)
    if "temperature" in wanted and "top_p" in wanted:
        del wanted["temperature" if wanted["temperature"] == 1 else "top_p"]   # 1 is the default, so it says less
    return orjson.dumps(wanted)


def _system(chat: Chat) -> str | list[dict[str, str]]:
    """All system messages, wherever they stood: the API takes them at the top alone. One is a text, several are blocks."""
    found = [text for message in chat.messages if message["role"] == "system" for text in parts.texts(message.get("content"))]
    if parts.wants_object(chat.response_format):
        found.append(_ASK_FOR_OBJECT)
    if len(found) == 1:
        return found[0]
    return [{"type": "text", "text": text} for text in found]


def _messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns in alternation: the results of all tools of a turn must stand together in the one that follows it."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        content = _content(message)
        if role == "assistant" and not content:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = [*_blocks(turns[-1]["content"]), *_blocks(content)]
        else:
            turns.append({"role": role, "content": content})
    return turns


def _content(message: dict[str, Any]) -> str | list[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        result = content if isinstance(content, str) else _user_blocks(content)
        return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": result}]
    if message["role"] == "user":
        return content if isinstance(content, str) else _user_blocks(content)
    calls = message.get("tool_calls")
    if not calls and isinstance(content, str):
        return content
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text} for text in parts.said_by(message)]
    return blocks + [_tool_use(call) for call in calls or ()]


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _user_blocks(content: Any) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part["text"]} if part["type"] == "text" else _image(part["image_url"]["url"])
        for part in content or ()
    ]


def _image(url: str) -> dict[str, Any]:
    data = parts.data_url(url)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": parts.arguments_of(call)}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": {"type": "object", **(function.get("parameters") or {})}}
    return tool | {name: function[name] for name in ("description", "strict") if function.get(name) is not None}


def _tool_choice(chat: Chat) -> dict[str, Any] | None:
    """The choice; that only one tool may be called is part of it."""
    if chat.tool_choice is None and chat.parallel_tool_calls is not False:
        return None
    name = parts.named(chat.tool_choice)
    choice: dict[str, Any] = {"type": "tool", "name": name} if name else {"type": _CHOICE.get(chat.tool_choice, "auto")}
    if chat.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _output_config(chat: Chat, flavour: Flavour) -> dict[str, Any]:
    config: dict[str, Any] = {}
    schema = parts.schema_of(chat.response_format)
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": parts.closed(schema)}
    effort = _EFFORT.get(chat.reasoning_effort or "")
    if effort is not None and CLAUDES_EFFORT not in flavour.drop:
        config["effort"] = effort
    return config
