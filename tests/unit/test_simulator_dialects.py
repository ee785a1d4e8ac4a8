"""Three wire formats, one conversation: what they ask is the same call; what they refuse is refused in their words."""

from typing import Any

import orjson
import pytest

from services.simulator import dialect_anthropic, dialect_azure, dialect_gemini, dialect_openai
from services.simulator.call import Call
from services.simulator.dialect import BadRequest
from services.simulator.text import answer

VERSION = {"anthropic-version": "2023-06-01"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY_GEMINI = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}
LIST = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": ["string", "null"]}}}}
LIST_GEMINI = {
    "type": "OBJECT",
    "properties": {"tags": {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}}},
    "propertyOrdering": ["tags"],
}
ABOUT = "Current weather of a city"


def openai(body: dict[str, Any], model: str = "sim-scenario-fallback") -> Call:
    return dialect_openai.parse(orjson.dumps({"model": model, **body}), {}, {}, {})


def azure(body: dict[str, Any], model: str = "sim-scenario-fallback") -> Call:
    return dialect_azure.parse(orjson.dumps(body), {"model": model}, {"api-version": "2024-10-21"}, {})


def anthropic(body: dict[str, Any], model: str = "sim-scenario-fallback") -> Call:
    return dialect_anthropic.parse(orjson.dumps({"model": model, "max_tokens": 64, **body}), {}, {}, VERSION)


def gemini(body: dict[str, Any], model: str = "sim-scenario-fallback", method: str = "generateContent", **query: str) -> Call:
    return dialect_gemini.parse(orjson.dumps(body), {"model": model, "method": method}, query, {})


OPENAI_TALK: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather here and in Rome?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/sky.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}},
                {"id": "call_2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "call_2", "content": "19 degrees"},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": ABOUT, "parameters": CITY}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "tags", "schema": LIST}},
    "stop": ["END", "FIN"],
    "max_tokens": 64,
    "temperature": 0.5,
    "top_p": 0.9,
    "stream": True,
    "stream_options": {"include_usage": True},
}
ANTHROPIC_TALK: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather here and in Rome?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/sky.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two cities.", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Bonn"}},
                {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 degrees"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "19 degrees"}]},
                {"type": "text", "text": "And tomorrow?"},
            ],
        },
    ],
    "tools": [{"name": "get_weather", "description": ABOUT, "input_schema": CITY}],
    "output_config": {"format": {"type": "json_schema", "schema": LIST}},
    "stop_sequences": ["END", "FIN"],
    "max_tokens": 64,
    "temperature": 0.5,
    "top_p": 0.9,
    "stream": True,
}
GEMINI_TALK: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Weather here and in Rome?"},
                {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/sky.png"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Two cities.", "thought": True},
                {"text": "Let me look."},
                {"functionCall": {"name": "get_weather", "args": {"city": "Bonn"}}},
                {"functionCall": {"name": "get_weather", "args": {"city": "Rome"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "get_weather", "response": {"result": "12 degrees"}}},
                {"functionResponse": {"name": "get_weather", "response": {"output": "19 degrees"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And tomorrow?"}]},
    ],
    "tools": [{"functionDeclarations": [{"name": "get_weather", "description": ABOUT, "parameters": CITY_GEMINI}]}],
    "generationConfig": {
        "responseMimeType": "application/json",
        "responseSchema": LIST_GEMINI,
        "stopSequences": ["END", "FIN"],
        "maxOutputTokens": 64,
        "temperature": 0.5,
        "topP": 0.9,
    },
}


def test_the_same_conversation_is_the_same_call_in_every_dialect() -> None:
    call = openai(OPENAI_TALK)
    assert azure(OPENAI_TALK) == call
    assert anthropic(ANTHROPIC_TALK) == call
    assert gemini(GEMINI_TALK, method="streamGenerateContent", alt="sse") == call
    assert [turn.role for turn in call.turns] == ["user", "assistant", "tool", "tool", "user"]
    assert call.turns[0].images == ("data:image/png;base64,QUJD", "https://example.com/sky.png")
    assert [turn.tool_name for turn in call.turns[2:4]] == ["get_weather", "get_weather"]
    assert call.turns[1].tool_calls[1].arguments == '{"city":"Rome"}'


def test_the_same_call_has_the_same_answer() -> None:
    said = answer(openai(OPENAI_TALK))
    assert said == answer(anthropic(ANTHROPIC_TALK)) == answer(gemini(GEMINI_TALK, method="streamGenerateContent", alt="sse"))


def test_ids_are_kept_although_they_do_not_count() -> None:
    assert openai(OPENAI_TALK).turns[2].call_id == "call_1"
    assert anthropic(ANTHROPIC_TALK).turns[1].tool_calls[0].call_id == "toolu_1"


@pytest.mark.parametrize(
    ("openai_choice", "anthropic_choice", "gemini_choice", "choice"),
    [
        ("auto", {"type": "auto"}, {"mode": "AUTO"}, ("auto", "")),
        ("none", {"type": "none"}, {"mode": "NONE"}, ("none", "")),
        ("required", {"type": "any"}, {"mode": "ANY"}, ("any", "")),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"type": "tool", "name": "get_weather"},
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
            ("named", "get_weather"),
        ),
    ],
)
def test_a_tool_choice_is_the_same_in_every_dialect(
    openai_choice: object, anthropic_choice: object, gemini_choice: object, choice: tuple[str, str]
) -> None:
    calls = [
        openai({**OPENAI_TALK, "tool_choice": openai_choice}),
        anthropic({**ANTHROPIC_TALK, "tool_choice": anthropic_choice}),
        gemini(
            {**GEMINI_TALK, "toolConfig": {"functionCallingConfig": gemini_choice}}, method="streamGenerateContent", alt="sse"
        ),
    ]
    assert calls[0] == calls[1] == calls[2]
    assert (calls[0].tool_choice, calls[0].tool_named) == choice
    called = answer(calls[0]).tool_name
    assert called == ("get_weather" if choice[0] in ("any", "named") else called)
    assert choice[0] != "none" or not called


def test_seed_and_log_probabilities_are_the_same_where_the_dialect_has_them() -> None:
    talk = {"messages": [{"role": "user", "content": "Hello"}], "seed": 5, "logprobs": True, "top_logprobs": 3}
    config = {"seed": 5, "responseLogprobs": True, "logprobs": 3}
    call = openai(talk)
    assert call == gemini({"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": config})
    assert (call.seed, call.logprobs) == ("5", 3)


def test_json_without_a_schema_and_the_older_spellings_are_read() -> None:
    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    snake = {"contents": [{"parts": {"text": "Hello"}}], "generation_config": {"response_mime_type": "application/json"}}
    assert openai({**hello, "response_format": {"type": "json_object"}}) == gemini(snake)
    schema = {"type": "json_schema", "schema": CITY}
    assert anthropic({**hello, "output_format": schema}) == anthropic({**hello, "output_config": {"format": schema}})
    exact = {"responseMimeType": "application/json", "responseJsonSchema": CITY}
    assert gemini({"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": exact}).schema == CITY


def test_a_tools_result_that_is_an_object_stays_one() -> None:
    talk = {**GEMINI_TALK, "contents": [*GEMINI_TALK["contents"][:2]]}
    responses = [{"name": "get_weather", "response": {"degrees": 12}}, {"name": "get_weather", "response": {"result": 3}}]
    talk["contents"] = [*talk["contents"], {"role": "user", "parts": [{"functionResponse": one} for one in responses]}]
    assert [turn.text for turn in gemini(talk).turns[2:]] == ['{"degrees":12}', '{"result":3}']
    assert gemini(talk).role == "tool"


def test_only_a_marked_prompt_is_cached_by_anthropic() -> None:
    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    assert not anthropic(hello).cacheable
    for marked in (
        {**hello, "cache_control": {"type": "ephemeral"}},
        {**hello, "tools": [{"name": "t", "input_schema": {}, "cache_control": {"type": "ephemeral"}}]},
        ANTHROPIC_TALK,
    ):
        assert anthropic(marked).cacheable
        assert anthropic(marked).pays_cache_writes
    assert openai(hello).cacheable
    assert not openai(hello).pays_cache_writes


HELLO = [{"role": "user", "content": "Hello"}]
TOOL_TURN = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": HELLO, "max_tokens": None}, "max_tokens: Field required"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"messages": HELLO, "temperature": 1.5}, "temperature: range: 0..1"),
        ({"messages": HELLO, "seed": 5}, "seed: Extra inputs are not permitted"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, 'messages: Unexpected role "system"'),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            "messages: text content blocks must be non-empty",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0: Input tag 'image_url' found",
        ),
        ({"messages": [*HELLO, TOOL_TURN, *HELLO]}, "messages.1: `tool_use` ids were found without `tool_result` blocks"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9"}]}]},
            "messages.0.content.0: unexpected `tool_use_id` found",
        ),
        ({"messages": HELLO, "tools": [{"name": "t"}]}, "tools.0.custom.input_schema: Field required"),
        ({"messages": HELLO, "tool_choice": "auto"}, "tool_choice: Input tag 'None'"),
        ({"messages": HELLO, "output_config": {"format": {"type": "json"}}}, "output_config.format.type"),
    ],
)
def test_anthropic_refuses_what_the_real_one_refuses(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        anthropic(body)
    assert caught.value.message.startswith(message)
    assert caught.value.error_class == "invalid_request"


def test_anthropic_wants_its_version_header() -> None:
    with pytest.raises(BadRequest, match="anthropic-version: header is required"):
        dialect_anthropic.parse(b"{}", {}, {}, {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "* GenerateContentRequest.contents: contents is not specified"),
        ({"contents": [{"parts": []}]}, "* GenerateContentRequest.contents[0].parts"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "Please use a valid role: user, model."),
        ({"contents": [{"parts": [{"text": "x"}]}], "messages": []}, 'Invalid JSON payload received. Unknown name "messages"'),
        (
            {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"max_tokens": 3}},
            "Invalid JSON payload received. Unknown name \"max_tokens\" at 'generation_config'",
        ),
        ({"contents": [{"parts": [{"video": 1}]}]}, "* GenerateContentRequest.contents[0].parts[0].data"),
        ({"contents": [*GEMINI_TALK["contents"][:2], GEMINI_TALK["contents"][3]]}, "Please ensure that the number of function"),
        (
            {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseSchema": {"type": "STRING"}}},
            "Unable to submit request because response schema needs",
        ),
    ],
)
def test_gemini_refuses_what_the_real_one_refuses(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        gemini(body)
    assert caught.value.message.startswith(message)


def test_azure_wants_its_api_version_and_a_deployment_that_exists() -> None:
    with pytest.raises(BadRequest) as caught:
        dialect_azure.parse(orjson.dumps({"messages": HELLO}), {"model": "sim-small"}, {}, {})
    assert (caught.value.error_class, caught.value.code) == ("not_found", "404")
    with pytest.raises(BadRequest) as caught:
        azure({"messages": HELLO, "model": "sim-small"}, "gpt-9")
    assert caught.value.error_class == "not_found"


@pytest.mark.parametrize("parse", [openai, azure, anthropic])
def test_a_model_without_prefill_wants_the_user_to_speak_last(parse: Any) -> None:
    talk = {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]}
    assert parse(talk).role == "assistant"
    with pytest.raises(BadRequest, match="does not support assistant message prefill"):
        parse(talk, "sim-noprefill")


def test_gemini_too_has_models_without_prefill() -> None:
    talk = {"contents": [{"parts": [{"text": "Hello"}]}, {"role": "model", "parts": [{"text": "The answer is"}]}]}
    assert gemini(talk).role == "assistant"
    with pytest.raises(BadRequest, match="does not support assistant message prefill"):
        gemini(talk, "sim-noprefill")


@pytest.mark.parametrize(
    ("parse", "talk"),
    [
        (openai, {"messages": HELLO, "tool_choice": "required"}),
        (openai, {**OPENAI_TALK, "tool_choice": {"type": "function", "function": {"name": "fly"}}}),
        (anthropic, {**ANTHROPIC_TALK, "tool_choice": {"type": "tool", "name": "fly"}}),
    ],
)
def test_a_tool_that_is_not_there_cannot_be_chosen(parse: Any, talk: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(talk)
    assert caught.value.param == "tool_choice"
