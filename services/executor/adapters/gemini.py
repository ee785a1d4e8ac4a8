"""Google's Gemini, generateContent and streamGenerateContent: the request. Pure.

`path` in quirks stands for `/models/{model}`; the method is added to it. What has no place there is left out: names of
speakers, the detail of an image, and that only one tool may be called. Safety settings are the project's own.
Source: Gemini API reference: generateContent, function calling, structured output, thinking, thought signatures.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from schemas.messages import Chat
from services.executor.adapters import parts
from services.executor.adapters.flavours import Flavour, key_headers, located
from services.executor.adapters.gemini_reply import SIGNATURE_KEYS, reply, stream
from shared.tokens import THINKING_TOKENS, TOKENS_OUT_MAX

__all__ = ["body", "headers", "path", "reply", "stream"]

_PATH = "/models/{model}"
_PLAIN_HEADERS = (("content-type", "application/json"), ("accept", "application/json"), ("accept-encoding", "identity"))
_SEED_MAX = 2**31
_MODE = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_CONFIG = (
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
)
# As Google's own OpenAI endpoint maps reasoning_effort: models before 3 take a budget of tokens, later ones a level.
_BUDGETED = ("gemini-1", "gemini-2")
_BUDGET = {"none": 0, **THINKING_TOKENS}
# Budgets that are refused, and what comes nearest: one model cannot stop thinking, another thinks long or not at all.
_BUDGET_MIN = (("gemini-2.5-pro", 128, 128), ("gemini-2.5-flash-lite", 512, 0))
_LEVEL = {"none": "low", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
# For calls that this API did not make itself, models from 3 on want this word in place of their signature.
_NO_SIGNATURE = "skip_thought_signature_validator"


def path(model_name: str, streamed: bool, flavour: Flavour) -> str:
    """What stands after base_url: the model and the method."""
    name = model_name.removeprefix("models/")
    if not streamed:
        return located(f"{flavour.path or _PATH}:generateContent", name, flavour.query)
    return located(f"{flavour.path or _PATH}:streamGenerateContent", name, (("alt", "sse"), *flavour.query))


def headers(key: str | None, flavour: Flavour) -> tuple[tuple[str, str], ...]:
    """The key in `x-goog-api-key`: never in the URL, where logs would show it."""
    return (*_PLAIN_HEADERS, *key_headers(key, flavour, "x-goog-api-key"))


def body(chat: Chat, model_name: str, tokens_out_max: int | None, streamed: bool, flavour: Flavour) -> bytes:
    """The request's body."""
    name = model_name.removeprefix("models/")
    wanted: dict[str, Any] = {"contents": _contents(chat.messages, wants_signatures(name))}
    system = [text for message in chat.messages if message["role"] == "system" for text in parts.texts(message.get("content"))]
    if system:
        wanted["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    if chat.tools:
        wanted["tools"] = [{"functionDeclarations": [_declared(function) for function in parts.functions(chat.tools)]}]
        if chat.tool_choice is not None:
            wanted["toolConfig"] = {"functionCallingConfig": _calling(chat.tool_choice)}
    config = _config(chat, name, tokens_out_max)
    for dropped in flavour.drop:
        config.pop(dropped, None)
    if config:
        wanted["generationConfig"] = config
    return orjson.dumps(wanted)


def wants_signatures(model_name: str) -> bool:
    """Whether the model refuses function calls of earlier turns that carry no signature."""
    return model_name.startswith("gemini-") and not model_name.startswith(_BUDGETED)


def _contents(messages: Sequence[dict[str, Any]], signed: bool) -> list[dict[str, Any]]:
    """Turns in alternation. A result names the function that was called, which only the call itself knows."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if message["role"] == "system":
            continue
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
        role = "model" if message["role"] == "assistant" else "user"
        found = _parts(message, names, signed)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"].extend(found)
        elif found:
            turns.append({"role": role, "parts": found})
    return turns


def _parts(message: dict[str, Any], names: dict[str, str], signed: bool) -> list[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        name = names.get(message["tool_call_id"], message.get("name") or "unknown")
        return [{"functionResponse": {"name": name, "response": _response(content)}}]
    if message["role"] == "assistant":
        said = [{"text": text} for text in parts.said_by(message)]
        return said + [_call(call, signed and place == 0) for place, call in enumerate(message.get("tool_calls") or ())]
    if isinstance(content, str):
        return [{"text": content}]
    return [{"text": part["text"]} if part["type"] == "text" else _image(part["image_url"]["url"]) for part in content or ()]


def _call(call: dict[str, Any], signed: bool) -> dict[str, Any]:
    """A call with the signature it came with; the first of a turn must have one."""
    part: dict[str, Any] = {"functionCall": {"name": call["function"]["name"], "args": parts.arguments_of(call)}}
    signature: Any = call
    for key in SIGNATURE_KEYS:
        signature = signature.get(key) if isinstance(signature, dict) else None
    if signature or signed:
        part["thoughtSignature"] = signature or _NO_SIGNATURE
    return part


def _response(content: Any) -> dict[str, Any]:
    """A tool's result as the object that the API wants: its own if it is one, else under `result`."""
    text = "".join(parts.texts(content))
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = text
    return found if isinstance(found, dict) else {"result": found}


def _image(url: str) -> dict[str, Any]:
    data = parts.data_url(url)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    mime = parts.mime_of(url)
    return {"fileData": {"fileUri": url} | ({"mimeType": mime} if mime else {})}


def _declared(function: dict[str, Any]) -> dict[str, Any]:
    """A function; parameters without properties would be refused."""
    declared = {name: function[name] for name in ("name", "description") if function.get(name)}
    parameters = function.get("parameters") or {}
    return declared | ({"parametersJsonSchema": parameters} if parameters.get("properties") else {})


def _calling(choice: Any) -> dict[str, Any]:
    name = parts.named(choice)
    return {"mode": "ANY", "allowedFunctionNames": [name]} if name else {"mode": _MODE.get(choice, "AUTO")}


def _config(chat: Chat, model_name: str, tokens_out_max: int | None) -> dict[str, Any]:
    config = {theirs: getattr(chat, ours) for ours, theirs in _CONFIG if getattr(chat, ours) is not None}
    if tokens_out_max is not None:
        config["maxOutputTokens"] = tokens_out_max
    if chat.stop:
        config["stopSequences"] = chat.stop
    if chat.seed is not None:
        config["seed"] = chat.seed % _SEED_MAX   # the API's seeds have 32 bits
    schema = parts.schema_of(chat.response_format)
    if schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    elif parts.wants_object(chat.response_format):
        config["responseMimeType"] = "application/json"
    if chat.logprobs is not None:
        config["responseLogprobs"] = True
        config |= {"logprobs": chat.logprobs} if chat.logprobs else {}
    if chat.reasoning_effort in _BUDGET:
        config["thinkingConfig"] = _thinking(chat.reasoning_effort or "", model_name, tokens_out_max)
    return config


def _thinking(effort: str, model_name: str, tokens_out_max: int | None) -> dict[str, Any]:
    if model_name.startswith(_BUDGETED):
        return {"thinkingBudget": _budget(effort, model_name, tokens_out_max)}
    return {"thinkingLevel": _LEVEL[effort]}


def _budget(effort: str, model_name: str, tokens_out_max: int | None) -> int:
    """Thoughts count as output, so the answer is left what it usually gets, or half of what there is."""
    budget = _BUDGET[effort]
    if tokens_out_max is not None:
        budget = min(budget, tokens_out_max - min(TOKENS_OUT_MAX, tokens_out_max // 2))
    for name, least, instead in _BUDGET_MIN:
        if model_name.startswith(name) and budget < least:
            return instead
    return budget
