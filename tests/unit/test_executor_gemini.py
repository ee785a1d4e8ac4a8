"""Gemini's dialect: chats to bodies, and every shape of response to an answer or a class of failure."""

from typing import Any

import orjson
import pytest

from schemas.ledger import FailureClass, Usage
from schemas.messages import Chat
from services.executor.adapters import gemini
from services.executor.adapters.flavours import FLAVOURS
from services.executor.reply import Reply
from tests.support.builders_executor import SECRET
from tests.support.chats import NOW, PLACE, PNG, SCHEMA, WEATHER, a_call, a_chat, a_plain_chat
from tests.support.streams import event, gemini_piece

PLAIN = FLAVOURS[""]
OLD, NEW = "gemini-2.5-flash", "gemini-3-pro"


def sent(chat: Chat, model_name: str = OLD, tokens_out_max: int | None = 100) -> dict[str, Any]:
    found = orjson.loads(gemini.body(chat, model_name, tokens_out_max, False, PLAIN))
    assert isinstance(found, dict)
    return found


def config(model_name: str = OLD, **fields: Any) -> dict[str, Any]:
    found = sent(a_plain_chat("hi", **fields), model_name, None).get("generationConfig", {})
    assert isinstance(found, dict)
    return found


def read(status: int, body: Any, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return gemini.reply(status, headers, raw)


def said(*parts: dict[str, Any], finish: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100}
    return gemini_piece(*(parts or ({"text": "42"},)), finish=finish) | {"usageMetadata": usage} | fields


# Requests ----------------------------------------------------------------------------------------------------------


def test_a_whole_conversation_has_its_place() -> None:
    assert sent(a_chat(seed=7, presence_penalty=0.1, frequency_penalty=0.2, logprobs=3)) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "How warm is it here?"},
                    {"inlineData": {"mimeType": "image/png", "data": PNG}},
                    {"fileData": {"fileUri": "https://example.org/map.webp?x=1", "mimeType": "image/webp"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Let me look."},
                    {"functionCall": {"name": "weather", "args": {"place": "Bonn"}}},
                    {"functionCall": {"name": "now", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"celsius": 21}}},
                    {"functionResponse": {"name": "now", "response": {"result": "noon"}}},
                    {"text": "And tomorrow?"},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "The weather at a place.", "parametersJsonSchema": PLACE},
                    {"name": "now"},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "generationConfig": {
            "maxOutputTokens": 100,
            "temperature": 1.5,
            "topP": 0.9,
            "stopSequences": ["END", "STOP"],
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "responseLogprobs": True,
            "logprobs": 3,
            "thinkingConfig": {"thinkingBudget": 50},
        },
    }


def test_what_the_caller_left_out_is_left_out() -> None:
    assert sent(a_plain_chat("hi"), tokens_out_max=None) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("name", "streamed", "path"),
    [
        (OLD, False, "/models/gemini-2.5-flash:generateContent"),
        (OLD, True, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("models/gemini-3-pro", False, "/models/gemini-3-pro:generateContent"),
        ("x?key=1", True, "/models/x%3Fkey%3D1:streamGenerateContent?alt=sse"),
    ],
)
def test_the_path_names_model_and_method(name: str, streamed: bool, path: str) -> None:
    assert gemini.path(name, streamed, PLAIN) == path


def test_the_key_goes_into_one_header() -> None:
    headers = dict(gemini.headers(SECRET, PLAIN))
    assert [name for name, value in headers.items() if SECRET in value] == ["x-goog-api-key"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "now"}}, {"mode": "ANY", "allowedFunctionNames": ["now"]}),
    ],
)
def test_the_choice_of_tools_is_translated(choice: Any, expected: dict[str, Any]) -> None:
    body = sent(a_plain_chat("hi", tools=(WEATHER, NOW), tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": expected}


def test_a_result_is_named_by_the_last_call_of_its_id() -> None:
    calls = [{"role": "assistant", "tool_calls": [a_call("call_0", name, "{}")]} for name in ("weather", "now")]
    result = {"role": "tool", "tool_call_id": "call_0", "content": "x"}
    contents = sent(Chat(messages=(calls[0], result, calls[1], result)))["contents"]
    names = [turn["parts"][0]["functionResponse"]["name"] for turn in contents if "functionResponse" in turn["parts"][0]]
    assert names == ["weather", "now"]


def test_later_models_get_signatures_with_the_first_call_of_a_turn() -> None:
    own = a_call("c", "weather", "{}") | {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    foreign = [a_call("a", "weather", "{}"), a_call("b", "now", "{}")]
    chat = Chat(messages=tuple({"role": "assistant", "tool_calls": calls} for calls in ([own], foreign)))
    (turn,) = sent(chat, NEW)["contents"]
    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["c2ln", "skip_thought_signature_validator", None]
    (turn,) = sent(chat, OLD)["contents"]
    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["c2ln", None, None]


@pytest.mark.parametrize(
    ("name", "effort", "thinking"),
    [
        (OLD, "none", {"thinkingBudget": 0}),
        (OLD, "medium", {"thinkingBudget": 8192}),
        (OLD, "max", {"thinkingBudget": 24_576}),
        (NEW, "none", {"thinkingLevel": "low"}),
        (NEW, "medium", {"thinkingLevel": "medium"}),
        (NEW, "xhigh", {"thinkingLevel": "high"}),
    ],
)
def test_effort_is_a_budget_or_a_level(name: str, effort: str, thinking: dict[str, Any]) -> None:
    assert config(name, reasoning_effort=effort) == {"thinkingConfig": thinking}


@pytest.mark.parametrize(
    ("name", "effort", "tokens_out_max", "budget"),
    [
        (OLD, "high", 28_672, 24_576),
        (OLD, "high", 10_000, 10_000 - 4096),
        (OLD, "high", 4096, 2048),
        (OLD, "low", 28_672, 1024),
        ("gemini-2.5-pro", "none", 4096, 128),
        ("gemini-2.5-pro", "high", 100, 128),
        ("gemini-2.5-flash-lite", "low", 600, 0),
        ("gemini-2.5-flash-lite", "low", 5120, 1024),
    ],
)
def test_a_budget_leaves_room_for_the_answer_and_is_one_that_the_model_takes(
    name: str, effort: str, tokens_out_max: int, budget: int
) -> None:
    sent_config = sent(a_plain_chat("hi", reasoning_effort=effort), name, tokens_out_max)["generationConfig"]
    assert sent_config == {"maxOutputTokens": tokens_out_max, "thinkingConfig": {"thinkingBudget": budget}}


def test_json_is_asked_for() -> None:
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}


def test_a_seed_has_32_bits_and_stays_itself_within_them() -> None:
    assert config(seed=7) == {"seed": 7}
    assert 0 <= config(seed=-(2**63))["seed"] < 2**31
    assert config(seed=2**40 + 5) == {"seed": 5}


@pytest.mark.parametrize(("wanted", "fields"), [(0, {"responseLogprobs": True}), (5, {"responseLogprobs": True, "logprobs": 5})])
def test_log_probabilities_are_asked_for(wanted: int, fields: dict[str, Any]) -> None:
    assert config(logprobs=wanted) == fields


# Answers -----------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_read() -> None:
    reply = read(200, said({"text": "6 × 7", "thought": True}, {"text": "4"}, {"text": "2"}))
    assert reply.answer is not None
    assert (reply.answer.text, reply.answer.finish, reply.answer.model_served) == ("42", "stop", "m-1")
    assert reply.provider_request_id == reply.answer.provider_request_id == "resp-1"
    assert reply.usage == reply.answer.usage == Usage(tokens_in=1000, tokens_out=100)
    assert (reply.streamed, reply.tokens_seen) == (False, 0)


def test_thoughts_are_output_and_cached_tokens_are_input() -> None:
    usage = {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 600,
        "toolUsePromptTokenCount": 20,
        "candidatesTokenCount": 100,
        "thoughtsTokenCount": 300,
    }
    expected = Usage(tokens_in=1020, tokens_out=400, tokens_cached=600, tokens_reasoning=300)
    assert read(200, said(usageMetadata=usage)).usage == expected


@pytest.mark.parametrize("usage", [None, {}, {"candidatesTokenCount": 3}, {"promptTokenCount": "9"}, []])
def test_a_garbled_usage_is_none(usage: Any) -> None:
    reply = read(200, said(usageMetadata=usage))
    assert reply.usage is None
    assert reply.answer is not None
    assert reply.answer.usage.estimated


def test_a_function_call_is_a_tool_call_with_an_id_of_its_own() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": "ü"}}, "thoughtSignature": "c2ln"}
    body = said(call, {"functionCall": {"name": "g"}}, {"functionCall": {"name": "g", "id": "own"}})
    reply = read(200, body)
    assert reply.answer is not None
    first, second, third = reply.answer.tool_calls
    assert reply.answer.finish == "tool_calls"
    assert first["function"] == {"name": "f", "arguments": '{"a":"ü"}'}
    assert first["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert second == a_call(second["id"], "g", "{}")
    assert third["id"] == "own"
    assert first["id"] != second["id"]
    assert read(200, body).answer == reply.answer
    other = read(200, body | {"responseId": "resp-2"}).answer
    assert other is not None
    assert other.tool_calls[1]["id"] != second["id"]


@pytest.mark.parametrize(
    ("finish", "failure"),
    [
        ("SAFETY", "content_filtered"),
        ("RECITATION", "content_filtered"),
        ("LANGUAGE", "content_filtered"),
        ("BLOCKLIST", "content_filtered"),
        ("PROHIBITED_CONTENT", "content_filtered"),
        ("SPII", "content_filtered"),
        ("IMAGE_SAFETY", "content_filtered"),
        ("MALFORMED_FUNCTION_CALL", "malformed"),
        ("UNEXPECTED_TOOL_CALL", "malformed"),
        ("OTHER", "truncated"),
        ("FINISH_REASON_UNSPECIFIED", "truncated"),
        ("NEW_REASON", "truncated"),
        (None, "truncated"),
    ],
)
def test_a_finish_that_is_no_answer_is_a_failure_and_is_paid_for(finish: str | None, failure: str) -> None:
    reply = read(200, said(finish=finish))
    assert reply.failure == failure
    assert reply.usage is not None or failure == "truncated"


def test_an_answer_that_was_too_long_says_so() -> None:
    answer = read(200, said(finish="MAX_TOKENS")).answer
    assert answer is not None
    assert answer.finish == "length"


def test_a_blocked_prompt_is_filtered_and_says_why() -> None:
    rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}
    usage = {"promptTokenCount": 12}
    reply = read(200, {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": [rating]}, "usageMetadata": usage})
    assert (reply.failure, reply.said) == (FailureClass.CONTENT_FILTERED, "blocked: SAFETY (HARM_CATEGORY_HARASSMENT)")
    assert reply.usage == Usage(tokens_in=12)
    stream = gemini.stream({})
    stream.feed(event({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "We cannot."}, "usageMetadata": usage}))
    found = stream.result()
    assert (found.failure, found.said, found.usage) == (FailureClass.CONTENT_FILTERED, "We cannot.", Usage(tokens_in=12))


def test_log_probabilities_are_read() -> None:
    body = said({"text": "ab"})
    one = {"token": "a", "logProbability": -0.1, "tokenId": 1}
    other = {"token": "x", "logProbability": -3.0, "tokenId": 2}
    body["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [one, {"token": "b", "logProbability": -0.2}],
        "topCandidates": [{"candidates": [one, other]}, {"candidates": []}],
    }
    answer = read(200, body).answer
    assert answer is not None
    assert answer.logprobs == (
        {"token": "a", "logprob": -0.1, "top": [{"token": "a", "logprob": -0.1}, {"token": "x", "logprob": -3.0}]},
        {"token": "b", "logprob": -0.2, "top": []},
    )
    del body["candidates"][0]["logprobsResult"]["topCandidates"]
    answer = read(200, body).answer
    assert answer is not None
    assert answer.logprobs[0] == {"token": "a", "logprob": -0.1, "top": []}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        b"null",
        {"hello": 1},
        {"candidates": 5},
        said({"text": 5}),
        said({"text": ["x"]}),
        said({"functionCall": {}}),
    ],
)
def test_a_200_with_garbage_is_malformed(body: Any) -> None:
    assert read(200, body).failure is FailureClass.MALFORMED


def test_a_stream_of_a_blocked_answer_is_no_answer() -> None:
    stream = gemini.stream({})
    stream.feed(event(gemini_piece({"text": "I will"}, counted=2)) + event(gemini_piece(finish="SAFETY", counted=2)))
    reply = stream.result()
    assert (reply.failure, reply.said) == (FailureClass.CONTENT_FILTERED, "blocked: SAFETY")
    assert reply.usage == Usage(tokens_in=25, tokens_out=2)
