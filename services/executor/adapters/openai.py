"""OpenAI's chat completions, as OpenAI, Azure, vLLM, Ollama and most gateways speak them: the request. Pure.

A chat is in OpenAI's form already, so what the caller sent goes out as it came, but for what a flavour is known to refuse.
Source: OpenAI API reference, chat completions.
"""

import hashlib
import re
from typing import Any

import orjson

from schemas.messages import Chat
from services.executor.adapters.flavours import EFFORT_NONE, MESSAGE_NAMES, Flavour, key_headers, located
from services.executor.adapters.openai_reply import reply, stream

__all__ = ["body", "headers", "path", "reply", "stream"]

_PATH = "/chat/completions"
_OPTIONAL = (
    "temperature",
    "top_p",
    "seed",
    "tool_choice",
    "response_format",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
)
_PLAIN_HEADERS = (("content-type", "application/json"), ("accept", "application/json"), ("accept-encoding", "identity"))


def path(model_name: str, streamed: bool, flavour: Flavour) -> str:
    """What stands after base_url; Azure's names the deployment."""
    return located(flavour.path or _PATH, model_name, flavour.query)


def headers(key: str | None, flavour: Flavour) -> tuple[tuple[str, str], ...]:
    """Bearer key unless the flavour has a header of its own, and no compression: answers are small and CPU time is not."""
    return (*_PLAIN_HEADERS, *key_headers(key, flavour, ""))


def body(chat: Chat, model_name: str, tokens_out_max: int | None, streamed: bool, flavour: Flavour) -> bytes:
    """The request's body; what the caller left out is left out, but for the bound of the output."""
    wanted: dict[str, Any] = {"model": model_name, "messages": chat.messages}
    if tokens_out_max is not None:
        wanted[flavour.max_tokens_field] = tokens_out_max
    if chat.stop:
        wanted["stop"] = chat.stop
    if chat.tools:
        wanted["tools"] = chat.tools
    for name in _OPTIONAL:
        value = getattr(chat, name)
        if value is not None:
            wanted[name] = value
    if chat.logprobs is not None:
        wanted["logprobs"] = True
        if chat.logprobs:
            wanted["top_logprobs"] = chat.logprobs
    if flavour.session_field and chat.session:
        wanted[flavour.session_field] = chat.session
    if streamed:
        wanted["stream"] = True
        if flavour.stream_usage:
            wanted["stream_options"] = {"include_usage": True}
    _adapt(wanted, flavour)
    return orjson.dumps(wanted)


def _adapt(wanted: dict[str, Any], flavour: Flavour) -> None:
    """Leaves out, renames and rewrites what the flavour has otherwise."""
    for name in flavour.drop:
        wanted.pop(name, None)
    if "logprobs" in flavour.drop:
        wanted.pop("top_logprobs", None)
    if EFFORT_NONE in flavour.drop and wanted.get("reasoning_effort") == "none":
        del wanted["reasoning_effort"]
    if MESSAGE_NAMES in flavour.drop:
        wanted["messages"] = [{k: v for k, v in message.items() if k != "name"} for message in wanted["messages"]]
    for name, theirs in flavour.rename:
        if name in wanted:
            wanted[theirs] = wanted.pop(name)
    if wanted.get("tool_choice") == "required":
        wanted["tool_choice"] = flavour.tool_required
    if flavour.tool_id_chars is not None:
        wanted["messages"] = [_with_ids(message, flavour.tool_id_chars) for message in wanted["messages"]]


def _with_ids(message: dict[str, Any], chars: int) -> dict[str, Any]:
    """The message with ids of the length that is asked for; equal ids stay equal."""
    changed = dict(message)
    if "tool_call_id" in message:
        changed["tool_call_id"] = _id(message["tool_call_id"], chars)
    if message.get("tool_calls"):
        changed["tool_calls"] = [{**call, "id": _id(call["id"], chars)} for call in message["tool_calls"]]
    return changed


def _id(id: str, chars: int) -> str:
    return id if re.fullmatch(f"[a-zA-Z0-9]{{{chars}}}", id) else hashlib.sha256(id.encode()).hexdigest()[:chars]
