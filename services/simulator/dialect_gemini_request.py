"""Reads Gemini's generateContent requests, in the spelling of JSON or of protocol buffers, as the API does. Pure.

Source: the Gemini API reference, generateContent, function calling and structured output.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from services.simulator.call import Call, Tool, ToolCall, ToolChoice, Turn
from services.simulator.dialect import BadRequest, Read, checked, compact, model_of, need, number, object_of, texts, whole
from services.simulator.profiles import ModelProfile

# fmt: off
_KNOWN = frozenset({
    "contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig", "cachedContent", "model",
    "labels", "store", "serviceTier",
})
_CONFIG = frozenset({
    "stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema", "candidateCount",
    "responseModalities", "maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty",
    "responseLogprobs", "logprobs", "enableEnhancedCivicAnswers", "speechConfig", "thinkingConfig", "imageConfig",
    "mediaResolution",
})
# fmt: on
_METHODS = {"generateContent": False, "streamGenerateContent": True}
_MODES: Mapping[str, ToolChoice] = {"AUTO": "auto", "VALIDATED": "auto", "NONE": "none", "ANY": "any"}
_STOPS_MAX = 5
_UNEQUAL = (
    "Please ensure that the number of function response parts is equal to the number of function call parts of the function "
    "call turn."
)
_LOGPROBS_MAX = 20
_RESULT_KEYS = ("output", "result", "content")  # a tool's result is an object; a text goes into it under one of these


def parse(raw: bytes, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    """Read a request; model and method are in the path. Raises BadRequest naming the field."""
    streamed = _METHODS.get(path["method"])
    if streamed is None:
        raise BadRequest("not_found", model=path["model"])
    body = _camel(object_of(raw), _KNOWN, "")
    config = _camel(body.get("generationConfig") or {}, _CONFIG, "generation_config")
    model = model_of(path["model"])
    read = _read(body)
    schema, wants_json = _schema(model, config)
    tools = _tools(model, body.get("tools"))
    choice, tools, named = _tool_choice(body.get("toolConfig"), tools)
    call = Call(
        model=model,
        prompt=read.texts[-1],
        system="\n".join(read.system),
        prefix="\n".join(read.texts[:-1]),
        role=read.turns[-1].role,
        tokens_in=read.tokens,
        turns=tuple(read.turns),
        seed=str(config.get("seed") or ""),
        max_tokens=whole(config.get("maxOutputTokens"), "generation_config.max_output_tokens"),
        stop=texts(config.get("stopSequences"), "generation_config.stop_sequences", _STOPS_MAX),
        temperature=number(config.get("temperature"), "generation_config.temperature", 2),
        top_p=number(config.get("topP"), "generation_config.top_p", 1),
        logprobs=_logprobs(config),
        streamed=streamed,
        as_events=not streamed or query.get("alt") == "sse",
        wants_json=wants_json,
        schema=schema,
        tools=tools,
        tool_choice=choice,
        tool_named=named,
    )
    return checked(call, "contents")


def _camel(found: object, known: frozenset[str], where: str) -> dict[str, Any]:
    """An object with its names as JSON spells them; one that is unknown is refused, as Google does."""
    if not isinstance(found, dict):
        raise _wrong(where, "expected an object")
    spelled = {}
    for name, value in found.items():
        head, *tail = name.split("_") if not name.startswith("_") else (name,)
        camel = head + "".join(part.capitalize() for part in tail)
        if camel not in known:
            at = f" at '{where}'" if where else ""
            message = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
            raise BadRequest("invalid_request", message, where or name)
        spelled[camel] = value
    return spelled


def _get(found: Mapping[str, Any], camel: str) -> Any:
    """A field in either spelling."""
    if camel in found:
        return found[camel]
    return found.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel))


def _wrong(param: str, complaint: str) -> BadRequest:
    return BadRequest("invalid_request", f"Invalid value at '{param}': {complaint}.", param)


def _read(body: Mapping[str, Any]) -> Read:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise BadRequest("invalid_request", "* GenerateContentRequest.contents: contents is not specified\n", "contents")
    system: list[str] = []
    if (instruction := body.get("systemInstruction")) is not None:
        system = [str(part.get("text", "")) for part in _parts(instruction, "system_instruction")]
    turns: list[Turn] = []
    calls = 0
    for at, content in enumerate(contents):
        param = f"contents[{at}]"
        parts = _parts(content, param)
        role = content.get("role", "user")
        if role not in ("user", "model", "function"):
            raise BadRequest("invalid_request", "Please use a valid role: user, model.", f"{param}.role")
        results = sum(bool(_get(part, "functionResponse")) for part in parts)
        if results not in (0, calls) or (calls and not results):
            raise BadRequest("invalid_request", _UNEQUAL, param)
        calls = sum(bool(_get(part, "functionCall")) for part in parts)
        turns.extend(_turns(role == "model", parts, param))
    return Read(turns, system, [*system, *(turn.text for turn in turns)])


def _parts(content: object, param: str) -> list[dict[str, Any]]:
    parts = content.get("parts") if isinstance(content, dict) else None
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        message = f"* GenerateContentRequest.{param}.parts: must not be empty\n"
        raise BadRequest("invalid_request", message, f"{param}.parts")
    return parts


def _turns(is_model: bool, parts: list[dict[str, Any]], param: str) -> list[Turn]:
    """The turns of one content: each tool result is one, what else it holds is another."""
    text, images, calls, turns = "", [], [], []
    for at, part in enumerate(parts):
        if part.get("thought"):
            continue
        if isinstance(part.get("text"), str):
            text += part["text"]
        elif data := _get(part, "inlineData"):
            images.append(f"data:{_get(data, 'mimeType')};base64,{data.get('data')}")
        elif data := _get(part, "fileData"):
            images.append(str(_get(data, "fileUri")))
        elif called := _get(part, "functionCall"):
            calls.append(ToolCall(str(called.get("name")), compact(called.get("args")), str(called.get("id") or "")))
        elif result := _get(part, "functionResponse"):
            answer, call_id = _result(result.get("response")), str(result.get("id") or "")
            turns.append(Turn("tool", answer, tool_name=str(result.get("name")), call_id=call_id))
        else:
            name = f"{param}.parts[{at}].data"
            message = f"* GenerateContentRequest.{name}: required oneof field 'data' must have one initialized field\n"
            raise BadRequest("invalid_request", message, name)
    if text or images or calls or not turns:
        turns.append(Turn("assistant" if is_model else "user", text, tuple(images), tuple(calls)))
    return turns


def _result(response: object) -> str:
    if isinstance(response, dict) and len(response) == 1:
        ((name, value),) = response.items()
        if name in _RESULT_KEYS and isinstance(value, str):
            return value
    return orjson.dumps(response).decode()


def _schema(model: ModelProfile, config: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    as_json = config.get("responseJsonSchema") or config.get("_responseJsonSchema")
    schema = as_json or config.get("responseSchema")
    wants_json = config.get("responseMimeType") == "application/json"
    if schema is None:
        return None, wants_json
    need(model, "json_schema", "structured output", "generation_config.response_schema")
    if not wants_json:
        message = "Unable to submit request because response schema needs `response_mime_type` application/json."
        raise BadRequest("invalid_request", message, "generation_config.response_mime_type")
    if not isinstance(schema, dict):
        raise _wrong("generation_config.response_schema", "expected an object")
    return (schema if as_json else json_schema(schema)), True


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Google's dialect of OpenAPI schemas as JSON Schema: types in capitals, `nullable`, an order of its own."""
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "type" and isinstance(value, str):
            found[name] = value.lower()
        elif name == "properties" and isinstance(value, dict):
            found[name] = {field: json_schema(part) for field, part in value.items()}
        elif name == "items" and isinstance(value, dict):
            found[name] = json_schema(value)
        elif name in ("anyOf", "any_of") and isinstance(value, list):
            found["anyOf"] = [json_schema(part) for part in value]
        elif name not in ("propertyOrdering", "property_ordering", "nullable"):
            found[name] = value
    if schema.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _tools(model: ModelProfile, wanted: object) -> tuple[Tool, ...]:
    if not wanted:
        return ()
    need(model, "tools", "function calling", "tools")
    if not isinstance(wanted, list) or not all(isinstance(tool, dict) for tool in wanted):
        raise _wrong("tools", "expected a list of objects")
    tools = []
    for at, tool in enumerate(wanted):
        for declared in _get(tool, "functionDeclarations") or ():
            if not isinstance(declared, dict) or not isinstance(declared.get("name"), str):
                raise _wrong(f"tools[{at}].function_declarations.name", "Invalid function name")
            exact = _get(declared, "parametersJsonSchema")
            parameters = exact if exact is not None else json_schema(declared.get("parameters") or {})
            tools.append(Tool(declared["name"], str(declared.get("description") or ""), parameters))
    return tuple(tools)


def _tool_choice(config: object, tools: tuple[Tool, ...]) -> tuple[ToolChoice, tuple[Tool, ...], str]:
    """The choice, the tools it leaves, and the one it names."""
    calling = _get(config, "functionCallingConfig") if isinstance(config, dict) else None
    if not isinstance(calling, dict):
        return "auto", tools, ""
    mode = str(calling.get("mode") or "AUTO")
    if mode not in _MODES:
        raise _wrong("tool_config.function_calling_config.mode", f'"{mode}"')
    allowed = _get(calling, "allowedFunctionNames") or []
    if mode == "ANY" and len(allowed) == 1:
        return "named", tools, str(allowed[0])
    return _MODES[mode], tuple(tool for tool in tools if not allowed or tool.name in allowed), ""


def _logprobs(config: Mapping[str, Any]) -> int | None:
    if not config.get("responseLogprobs"):
        return None
    wanted = whole(config.get("logprobs"), "generation_config.logprobs", least=0) or 0
    if wanted > _LOGPROBS_MAX:
        raise _wrong("generation_config.logprobs", f"logprobs must be in [0, {_LOGPROBS_MAX}]")
    return wanted
