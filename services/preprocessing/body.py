"""Reads a caller's body, a bare prompt or an OpenAI chat body, into a `Chat`, or collects what is wrong with it.

Written out by hand instead of as pydantic models: half the time, and the messages can say what to do. Fields that Baton
does not know are left out, so that bodies written for other endpoints work.
"""

from typing import Any

import orjson

from schemas.messages import Chat
from shared.json_schema import compiled

PROBLEMS_MAX = 5
MESSAGES_MAX = 2_000
TOKENS_MAX = 1_000_000
STOP_MAX = 4
LOGPROBS_MAX = 20
NAMES_MAX = 32
SORTS = ("price", "latency", "quality")
PRICE_UNBOUNDED = 1e9
SESSION_CHARS_MAX = 255
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class Problems(list[str]):
    """What is wrong with a body, one sentence each; `bytes_beside` sums up what was read beside the messages."""

    bytes_beside = 0

    def __str__(self) -> str:
        more = f"; and {len(self) - PROBLEMS_MAX} more" if len(self) > PROBLEMS_MAX else ""
        return "; ".join(self[:PROBLEMS_MAX]) + more


def read_chat(body: dict[str, Any], problems: Problems) -> Chat | None:
    """The chat of a body; None when `problems` were found."""
    messages = _messages(body, problems)
    tools = _tools(body.get("tools"), problems)
    if body.get("n") not in (None, 1):
        problems.append("n: only 1 is answered; send the request several times")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    values = {
        "model": _model(body.get("model"), problems),
        "max_tokens": _integer(body, limit, 1, TOKENS_MAX, problems),
        "temperature": _number(body, "temperature", 0, 2, problems),
        "top_p": _number(body, "top_p", 0, 1, problems),
        "stop": _stop(body.get("stop"), problems),
        "seed": _integer(body, "seed", -(2**63), 2**63 - 1, problems),
        "tool_choice": _tool_choice(body.get("tool_choice"), tools, problems),
        "response_format": _response_format(body.get("response_format"), problems),
        "parallel_tool_calls": _boolean(body, "parallel_tool_calls", problems) if tools else None,
        "presence_penalty": _number(body, "presence_penalty", -2, 2, problems),
        "frequency_penalty": _number(body, "frequency_penalty", -2, 2, problems),
        "reasoning_effort": _effort(body.get("reasoning_effort"), problems),
        "logprobs": _logprobs(body, problems),
        "session": _session(body, problems),
        "models": _names(body, "models", problems),
        "deny": _names(body, "deny", problems),
        "sort": _sort(body.get("sort"), problems),
        "max_price": _max_price(body.get("max_price"), problems),
    }
    if problems:
        return None
    return Chat(messages=messages, tools=tools, **values)


def _messages(body: dict[str, Any], problems: Problems) -> tuple[dict[str, Any], ...]:
    prompt, messages = body.get("prompt"), body.get("messages")
    if messages is None:
        return _from_prompt(prompt, body.get("system"), problems)
    if prompt is not None or body.get("system") is not None:
        extra = "prompt" if prompt is not None else "system"
        problems.append(f"{extra}: not beside messages; put it into a message, or leave messages out")
    if not isinstance(messages, list) or not messages:
        problems.append("messages: must be a list of at least one message")
        return ()
    if len(messages) > MESSAGES_MAX:
        problems.append(f"messages: at most {MESSAGES_MAX}; leave the oldest out")
        return ()
    return tuple(_message(message, index, problems) for index, message in enumerate(messages))


def _from_prompt(prompt: Any, system: Any, problems: Problems) -> tuple[dict[str, Any], ...]:
    if prompt is None:
        problems.append("prompt: missing; send a prompt, or messages")
    elif not isinstance(prompt, str) or not prompt.strip():
        problems.append("prompt: must be a text that is not blank")
    if system is None:
        return ({"role": "user", "content": prompt},)
    if not isinstance(system, str):
        problems.append("system: must be a text")
    return {"role": "system", "content": system}, {"role": "user", "content": prompt}


def _message(message: Any, index: int, problems: Problems) -> dict[str, Any]:
    if not isinstance(message, dict):
        problems.append(f"messages[{index}]: must be an object with role and content")
        return {}
    given = message.get("role")
    role = ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        problems.append(f"messages[{index}].role: must be one of {', '.join(ROLES)}")
        return {}
    content, calls = message.get("content"), message.get("tool_calls")
    read: dict[str, Any] = {"role": role}
    if role == "assistant":
        if calls:
            read["tool_calls"] = _tool_calls(calls, f"messages[{index}].tool_calls", problems)
        if message.get("refusal"):
            read["refusal"] = _text(message["refusal"], f"messages[{index}].refusal", problems)
    if isinstance(content, str):
        read["content"] = content
    elif content is not None or len(read) == 1:
        read["content"] = _parts(content, f"messages[{index}].content", role, problems)
    if role == "tool":
        read["tool_call_id"] = _text(message.get("tool_call_id"), f"messages[{index}].tool_call_id", problems)
    if message.get("name") is not None:
        read["name"] = _text(message["name"], f"messages[{index}].name", problems)
    return read


def _parts(content: Any, where: str, role: str, problems: Problems) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not content:
        problems.append(f"{where}: must be a text, or a list of text and image_url parts")
        return []
    parts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind == "refusal" and role == "assistant" and isinstance(part.get("refusal"), str):
            parts.append({"type": "refusal", "refusal": part["refusal"]})
        elif kind == "image_url" and role == "user":
            parts.append(_image(part.get("image_url"), f"{where}[{index}].image_url", problems))
        else:
            allowed = "text or image_url" if role == "user" else "text"
            problems.append(f"{where}[{index}]: must be a part of type {allowed}, with that field")
    return parts


def _image(image: Any, where: str, problems: Problems) -> dict[str, Any]:
    """Only https and data URLs: a model server within the cluster would fetch anything else from there."""
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str) or not url.startswith(("https://", "data:image/")):
        problems.append(f"{where}.url: must be an https:// or a data:image/ URL")
        return {}
    kept = {"url": url}
    if image.get("detail") in ("low", "high", "auto"):
        kept["detail"] = image["detail"]
    return {"type": "image_url", "image_url": kept}


def _tool_calls(calls: Any, where: str, problems: Problems) -> list[dict[str, Any]]:
    read = []
    for index, call in enumerate(calls if isinstance(calls, list) else [calls]):
        function = call.get("function") if isinstance(call, dict) else None
        name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(arguments, str) or not isinstance(call.get("id"), str):
            problems.append(f"{where}[{index}]: needs id, function.name and function.arguments, all texts")
            continue
        kept = {"id": call["id"], "type": "function", "function": {"name": name, "arguments": arguments}}
        if isinstance(call.get("extra_content"), dict):
            kept["extra_content"] = call["extra_content"]   # a provider's own, such as a thought's signature: it wants it back
        read.append(kept)
    return read


def _tools(tools: Any, problems: Problems) -> tuple[dict[str, Any], ...]:
    if tools is None or tools == []:
        return ()
    if not isinstance(tools, list):
        problems.append("tools: must be a list of tools")
        return ()
    read = []
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            problems.append(f"tools[{index}].function.name: missing; every tool is a function with a name")
            continue
        if not isinstance(function.get("parameters", {}), dict):
            problems.append(f"tools[{index}].function.parameters: must be a JSON Schema object")
        known = {key: function[key] for key in ("name", "description", "parameters", "strict") if key in function}
        read.append({"type": "function", "function": known})
    _weigh(read, "tools", problems)
    return tuple(read)


def _tool_choice(choice: Any, tools: tuple[dict[str, Any], ...], problems: Problems) -> Any:
    if choice is None or (not tools and choice in ("none", "auto")):
        return None
    if choice in ("none", "auto", "required") and isinstance(choice, str) and tools:
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not any(tool["function"]["name"] == name for tool in tools):
        problems.append("tool_choice: must be none, auto, required, or the function of one of tools")
        return None
    return {"type": "function", "function": {"name": name}}


def _response_format(wanted: Any, problems: Problems) -> dict[str, Any] | None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        problems.append("response_format.type: must be text, json_object or json_schema")
        return None
    given = wanted.get("json_schema")
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(schema, dict):
        problems.append("response_format.json_schema.schema: must be an object, a JSON Schema")
        return None
    problem = compiled(schema).problem
    if problem:
        problems.append(f"response_format.json_schema.schema: {problem}")
        return None
    name = given.get("name")
    read = {"name": name if isinstance(name, str) and name else "answer", "schema": schema}
    if isinstance(given.get("description"), str):
        read["description"] = given["description"]
    if isinstance(given.get("strict"), bool):
        read["strict"] = given["strict"]
    _weigh(read, "response_format", problems)
    return {"type": "json_schema", "json_schema": read}


def _weigh(value: Any, where: str, problems: Problems) -> None:
    """Adds the bytes of free JSON. What cannot be written again here could not be sent to a provider later."""
    try:
        problems.bytes_beside += len(orjson.dumps(value))
    except orjson.JSONEncodeError:
        problems.append(f"{where}: must be plain JSON with integers of at most 64 bits")


def _model(model: Any, problems: Problems) -> str | None:
    if model is None or model == "auto" or model == "":
        return None
    return _text(model, "model", problems)


def _text(value: Any, where: str, problems: Problems) -> str:
    if isinstance(value, str) and value:
        return value
    problems.append(f"{where}: must be a text that is not empty")
    return ""


def _stop(stop: Any, problems: Problems) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if stops is None:
        return ()
    if not isinstance(stops, list) or len(stops) > STOP_MAX or not all(isinstance(item, str) and item for item in stops):
        problems.append(f"stop: must be a text, or a list of at most {STOP_MAX} texts, none empty")
        return ()
    return tuple(stops)


def _effort(effort: Any, problems: Problems) -> str | None:
    if effort is None or (isinstance(effort, str) and effort in EFFORTS):
        return effort
    problems.append(f"reasoning_effort: must be one of {', '.join(EFFORTS)}")
    return None


def _logprobs(body: dict[str, Any], problems: Problems) -> int | None:
    """How many alternatives are asked for per token; None where log-probabilities are not asked for at all."""
    top = _integer(body, "top_logprobs", 0, LOGPROBS_MAX, problems)
    if _boolean(body, "logprobs", problems):
        return top or 0
    if top:
        problems.append("top_logprobs: only beside logprobs: true; add that, or leave it out")
    return None


def _session(body: dict[str, Any], problems: Problems) -> str | None:
    """Baton's own field, or OpenAI's with the same purpose: requests that share it find their prompt in one cache."""
    field = "session" if body.get("session") is not None else "prompt_cache_key"
    session = body.get(field)
    if session is None or (isinstance(session, str) and 0 < len(session) <= SESSION_CHARS_MAX):
        return session
    problems.append(f"{field}: must be a text of 1 to {SESSION_CHARS_MAX} characters")
    return None


def _names(body: dict[str, Any], field: str, problems: Problems) -> tuple[str, ...]:
    value = body.get(field)
    if value is None:
        return ()
    if isinstance(value, list) and len(value) <= NAMES_MAX and all(isinstance(each, str) for each in value):
        return tuple(dict.fromkeys(value))
    problems.append(f"{field}: must be a list of at most {NAMES_MAX} names of models")
    return ()


def _sort(value: Any, problems: Problems) -> str | None:
    if value is None or (isinstance(value, str) and value in SORTS):
        return value
    problems.append(f"sort: must be one of {', '.join(SORTS)}")
    return None


def _max_price(value: Any, problems: Problems) -> tuple[float, float] | None:
    """USD per million tokens of input and of output; one that is not given is not bounded."""
    if value is None:
        return None
    if isinstance(value, dict) and value and not value.keys() - {"input", "output"}:
        prices = [value.get(side, PRICE_UNBOUNDED) for side in ("input", "output")]
        if all(type(price) in (int, float) and 0 <= price <= PRICE_UNBOUNDED for price in prices):
            return prices[0], prices[1]
    problems.append("max_price: must be an object of input and output, USD per million tokens")
    return None


def _boolean(body: dict[str, Any], field: str, problems: Problems) -> bool | None:
    value = body.get(field)
    if value is None or isinstance(value, bool):
        return value
    problems.append(f"{field}: must be true or false")
    return None


def _integer(body: dict[str, Any], field: str, least: int, most: int, problems: Problems) -> int | None:
    value = body.get(field)
    if value is None or (type(value) is int and least <= value <= most):
        return value
    problems.append(f"{field}: must be a whole number between {least} and {most}")
    return None


def _number(body: dict[str, Any], field: str, least: float, most: float, problems: Problems) -> float | None:
    value = body.get(field)
    if value is None or (type(value) in (int, float) and least <= value <= most):
        return value
    problems.append(f"{field}: must be a number between {least} and {most}")
    return None
