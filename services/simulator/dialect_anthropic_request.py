"""Reads Anthropic's Messages requests, with the complaints the API has about wrong ones. Pure.

Source: Anthropic's API reference, create a message.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from services.simulator.call import Call, Tool, ToolCall, ToolChoice, Turn
from services.simulator.dialect import BadRequest, Read, checked, compact, model_of, need, object_of, texts
from services.simulator.profiles import ModelProfile

# fmt: off
_KNOWN = frozenset({
    "model", "messages", "system", "max_tokens", "metadata", "stop_sequences", "stream", "temperature", "top_p", "top_k",
    "tools", "tool_choice", "thinking", "service_tier", "container", "mcp_servers", "context_management", "output_config",
    "output_format", "cache_control", "inference_geo", "speed",
})
# fmt: on
_STOPS_MAX = 8192
_EMPTY = "all messages must have non-empty content except for the optional final assistant message"
_UNANSWERED = (
    "`tool_use` ids were found without `tool_result` blocks immediately after: {ids}. Each `tool_use` block must have a "
    "corresponding `tool_result` block in the next message."
)
_UNSEEN = ("thinking", "redacted_thinking")  # earlier thoughts come back with their turn and count for nothing


def parse(raw: bytes, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    """Read a request. Raises BadRequest naming the field."""
    if "anthropic-version" not in headers:
        raise BadRequest("invalid_request", "anthropic-version: header is required", "anthropic-version")
    body = object_of(raw)
    for name in body:
        if name not in _KNOWN:
            raise _wrong(name, "Extra inputs are not permitted")
    if not body.get("model"):
        raise _wrong("model", "Field required")
    model = model_of(body["model"])
    read = _read(body)
    schema = _schema(model, body)
    choice, named = _tool_choice(body.get("tool_choice"))
    marked = _is_marked(body)
    call = Call(
        model=model,
        prompt=read.texts[-1],
        system="\n".join(read.system),
        prefix="\n".join(read.texts[:-1]),
        role=read.turns[-1].role,
        tokens_in=read.tokens,
        turns=tuple(read.turns),
        max_tokens=_max_tokens(body),
        stop=texts(body.get("stop_sequences"), "stop_sequences", _STOPS_MAX),
        temperature=_unit(body, "temperature"),
        top_p=_unit(body, "top_p"),
        streamed=bool(body.get("stream")),
        wants_json=schema is not None,
        schema=schema,
        tools=_tools(model, body.get("tools")),
        tool_choice=choice,
        tool_named=named,
        cacheable=marked,
        pays_cache_writes=marked,
    )
    return checked(call, "messages")


def _wrong(param: str, complaint: str) -> BadRequest:
    return BadRequest("invalid_request", f"{param}: {complaint}", param)


def _tag(found: object, expected: str) -> str:
    return f"Input tag '{found}' found using 'type' does not match any of the expected tags: {expected}"


def _read(body: Mapping[str, Any]) -> Read:
    messages = body.get("messages")
    if messages is None:
        raise _wrong("messages", "Field required")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "at least one message is required")
    system = _system(body.get("system"))
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system":
            complaint = 'Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as '
            raise _wrong("messages", f"{complaint}an input message role.")
        if role not in ("user", "assistant"):
            raise _wrong(f"messages.{at}.role", "Input should be 'user' or 'assistant'")
        content = message.get("content")
        if not content and (role == "user" or at < len(messages) - 1):
            raise _wrong(f"messages.{at}", _EMPTY)
        if at and (unanswered := _unanswered(messages[at - 1], content)):
            raise _wrong(f"messages.{at - 1}", _UNANSWERED.format(ids=", ".join(unanswered)))
        turns.extend(_turns(role, content, f"messages.{at}.content", names))
    return Read(turns, system, [*system, *(turn.text for turn in turns)])


def _unanswered(message: Mapping[str, Any], content: object) -> list[str]:
    """Tool calls of the message before that this content has no result for."""
    results = {block.get("tool_use_id") for block in content if isinstance(block, dict)} if isinstance(content, list) else set()
    blocks = message.get("content")
    called = [block for block in blocks if block.get("type") == "tool_use"] if isinstance(blocks, list) else []
    return [str(block.get("id")) for block in called if block.get("id") not in results]


def _system(system: object) -> list[str]:
    if system is None or isinstance(system, str):
        return [system] if system else []
    if not isinstance(system, list) or not all(isinstance(part, dict) and part.get("type") == "text" for part in system):
        raise _wrong("system", "Input should be a valid string or a list of text blocks")
    return [str(part.get("text", "")) for part in system]


def _turns(role: str, content: object, param: str, names: dict[str, str]) -> Iterable[Turn]:
    """The turns of one message: each tool result is one, what else the message holds is another."""
    if isinstance(content, str):
        return [_turn(role, content, (), ())]
    if not isinstance(content, list):
        raise _wrong(param, "Input should be a valid string or a list of content blocks")
    text, images, calls, turns = "", [], [], []
    for at, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and not block.get("text"):
            raise _wrong("messages", "text content blocks must be non-empty")
        if kind == "text":
            text += str(block["text"])
        elif kind == "image" and role == "user":
            images.append(_image(block.get("source"), f"{param}.{at}.image.source"))
        elif kind == "tool_use" and role == "assistant":
            calls.append(ToolCall(str(block.get("name")), compact(block.get("input")), str(block.get("id"))))
            names[calls[-1].call_id] = calls[-1].name
        elif kind == "tool_result" and role == "user":
            turns.append(_result(block, f"{param}.{at}", names))
        elif kind not in _UNSEEN:
            tags = "'text', 'image', 'tool_result'" if role == "user" else "'text', 'tool_use', 'thinking'"
            raise _wrong(f"{param}.{at}", _tag(kind, tags))
    if text or images or calls or not turns:
        turns.append(_turn(role, text, tuple(images), tuple(calls)))
    return turns


def _turn(role: str, text: str, images: tuple[str, ...], calls: tuple[ToolCall, ...]) -> Turn:
    return Turn("assistant" if role == "assistant" else "user", text, images, calls)


def _result(block: Mapping[str, Any], param: str, names: Mapping[str, str]) -> Turn:
    call_id, content = str(block.get("tool_use_id")), block.get("content")
    if call_id not in names:
        complaint = f"unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each `tool_result` block must have a "
        raise _wrong(param, f"{complaint}corresponding `tool_use` block in the previous message.")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return Turn("tool", str(content or ""), tool_name=names[call_id], call_id=call_id)


def _image(source: object, param: str) -> str:
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(source, dict) and kind == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    if isinstance(source, dict) and kind == "url":
        return str(source.get("url"))
    raise _wrong(param, _tag(kind, "'base64', 'url'"))


def _schema(model: ModelProfile, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    config = body.get("output_config")
    wanted, param = body.get("output_format"), "output_format"
    if isinstance(config, dict) and config.get("format") is not None:
        wanted, param = config["format"], "output_config.format"
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise _wrong(f"{param}.type", "Input should be 'json_schema'")
    need(model, "json_schema", "structured outputs", param)
    schema = wanted.get("schema")
    if not isinstance(schema, dict):
        raise _wrong(f"{param}.schema", "Field required")
    return schema


def _tools(model: ModelProfile, wanted: object) -> tuple[Tool, ...]:
    if not wanted:
        return ()
    need(model, "tools", "tool use", "tools")
    if not isinstance(wanted, list):
        raise _wrong("tools", "Input should be a valid list")
    tools = []
    for at, tool in enumerate(wanted):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise _wrong(f"tools.{at}.custom.name", "Field required")
        if not isinstance(tool.get("input_schema"), dict):
            raise _wrong(f"tools.{at}.custom.input_schema", "Field required")
        tools.append(Tool(tool["name"], str(tool.get("description") or ""), tool["input_schema"]))
    return tuple(tools)


def _tool_choice(choice: object) -> tuple[ToolChoice, str]:
    if choice is None:
        return "auto", ""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and kind == "tool":
        return "named", str(choice.get("name", ""))
    if kind == "auto":
        return "auto", ""
    if kind == "any":
        return "any", ""
    if kind == "none":
        return "none", ""
    raise _wrong("tool_choice", _tag(kind, "'auto', 'any', 'tool', 'none'"))


def _max_tokens(body: Mapping[str, Any]) -> int:
    value = body.get("max_tokens")
    if value is None:
        raise _wrong("max_tokens", "Field required")
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("max_tokens", "Input should be a valid integer")
    if value < 1:
        raise _wrong("max_tokens", "Input should be greater than or equal to 1")
    return value


def _unit(body: Mapping[str, Any], name: str) -> float | None:
    """A number from 0 to 1: the API takes no higher temperature."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(name, "Input should be a valid number")
    if not 0 <= value <= 1:
        raise _wrong(name, "range: 0..1")
    return float(value)


def _is_marked(value: object) -> bool:
    """Whether a cache breakpoint stands anywhere: on the request, a system block, a tool, a content block."""
    if isinstance(value, dict):
        return bool(value.get("cache_control")) or any(_is_marked(part) for part in value.values())
    return isinstance(value, list) and any(_is_marked(part) for part in value)
