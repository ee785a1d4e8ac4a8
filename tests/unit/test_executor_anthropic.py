"""Anthropic's dialect: chats to bodies, and every shape of response to an answer or a class of failure."""

from typing import Any

import orjson
import pytest

from schemas.fleet import RateLimits
from schemas.ledger import FailureClass, Usage
from schemas.messages import Chat
from services.executor.adapters import anthropic
from services.executor.adapters.flavours import FLAVOURS
from services.executor.reply import Reply
from tests.support.builders_executor import SECRET
from tests.support.chats import ANTHROPIC_MESSAGES, CONVERSATION, NOW, PLACE, SCHEMA, WEATHER, a_call, a_chat, a_plain_chat
from tests.support.streams import anthropic_block, anthropic_end, anthropic_start, anthropic_text

PLAIN = FLAVOURS[""]


def sent(chat: Chat, tokens_out_max: int | None = 100, streamed: bool = False) -> dict[str, Any]:
    found = orjson.loads(anthropic.body(chat, "claude", tokens_out_max, streamed, PLAIN))
    assert isinstance(found, dict)
    return found


def read(status: int, body: Any, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return anthropic.reply(status, headers, raw)


def said(*blocks: dict[str, Any], reason: str | None = "end_turn", **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    content = list(blocks or ({"type": "text", "text": "42"},))
    head = {"id": "msg_1", "type": "message", "model": "claude-1"}
    return head | {"content": content, "stop_reason": reason, "usage": usage} | fields


# Requests ----------------------------------------------------------------------------------------------------------


def test_a_whole_conversation_has_its_place() -> None:
    assert sent(a_chat()) == {
        "model": "claude",
        "max_tokens": 100,
        "system": "Be brief.",
        "messages": ANTHROPIC_MESSAGES,
        "top_p": 0.9,
        "stop_sequences": ["END", "STOP"],
        "tools": [
            {"name": "weather", "description": "The weather at a place.", "input_schema": PLACE, "strict": True},
            {"name": "now", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "auto"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
    }


def test_what_the_caller_left_out_is_left_out_but_for_the_bound() -> None:
    assert sent(a_plain_chat("hi")) == {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    assert sent(a_plain_chat("hi", max_tokens=7), None)["max_tokens"] == 7
    assert sent(a_plain_chat("hi"), None)["max_tokens"] == 4096
    assert sent(a_plain_chat("hi"), streamed=True)["stream"] is True


def test_what_has_no_place_there_is_left_out() -> None:
    chat = a_plain_chat("hi", seed=7, presence_penalty=1, frequency_penalty=1, logprobs=3, session="s")
    assert sent(chat) == sent(a_plain_chat("hi"))


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (0.2, 0.9, {"temperature": 0.2}),
        (1.0, 0.9, {"top_p": 0.9}),
        (1.7, None, {"temperature": 1.0}),
        (None, 0.9, {"top_p": 0.9}),
    ],
)
def test_of_temperature_and_top_p_one_is_sent_not_the_default(
    temperature: float | None, top_p: float | None, expected: dict[str, float]
) -> None:
    assert sent(a_plain_chat("hi", temperature=temperature, top_p=top_p)) == sent(a_plain_chat("hi")) | expected


def test_a_schema_is_closed_at_every_level_and_what_was_asked_stays_as_it_was() -> None:
    leaf = {"type": "object", "properties": {"additionalProperties": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": leaf}, "b": {"anyOf": [leaf, {"type": "null"}]}, "c": leaf},
        "$defs": {"d": leaf | {"additionalProperties": True}},
        "additionalProperties": False,
    }
    before = orjson.dumps(schema)
    chat = a_plain_chat("hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    shut = leaf | {"additionalProperties": False}
    assert sent(chat)["output_config"]["format"]["schema"] == schema | {
        "properties": {"a": {"type": "array", "items": shut}, "b": {"anyOf": [shut, {"type": "null"}]}, "c": shut},
        "$defs": {"d": shut},
    }
    assert orjson.dumps(schema) == before


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
        {"allOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
        {"enum": [{"properties": {"a": 1}}]},
    ],
)
def test_a_schema_that_closing_would_change_goes_out_as_it_came(schema: dict[str, Any]) -> None:
    chat = a_plain_chat("hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert sent(chat)["output_config"]["format"]["schema"] == schema


def test_system_messages_stand_at_the_top_wherever_they_stood() -> None:
    system = {"role": "system", "content": "Be brief."}
    late = {"role": "system", "content": [{"type": "text", "text": "Be kind."}]}
    body = sent(Chat(messages=(system, {"role": "user", "content": "hi"}, late)))
    assert body["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert body["messages"] == [{"role": "user", "content": "hi"}]


def test_turns_alternate() -> None:
    roles = ("user", "user", "assistant", "assistant", "user")
    messages = tuple({"role": role, "content": f"{at}"} for at, role in enumerate(roles))
    blocks = [[{"type": "text", "text": f"{at}"} for at in pair] for pair in ((0, 1), (2, 3))]
    assert sent(Chat(messages=messages))["messages"] == [
        {"role": "user", "content": blocks[0]},
        {"role": "assistant", "content": blocks[1]},
        {"role": "user", "content": "4"},
    ]


def test_a_trailing_message_of_the_assistant_goes_out_as_it_came() -> None:
    assert sent(a_plain_chat("hi", "The answer is "))["messages"][-1] == {"role": "assistant", "content": "The answer is "}


def test_an_assistant_that_said_nothing_is_left_out_and_a_refusal_is_what_it_said() -> None:
    silent = {"role": "assistant", "content": ""}
    refused = {"role": "assistant", "refusal": "No."}
    messages = sent(Chat(messages=({"role": "user", "content": "a"}, silent, refused)))["messages"]
    assert messages == [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "No."}]}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ('{"a": 1}', {"a": 1}), ("{broken", {"arguments": "{broken"}), ("[1]", {"arguments": [1]})],
)
def test_arguments_are_an_object(arguments: str, expected: dict[str, Any]) -> None:
    message = {"role": "assistant", "tool_calls": [a_call("c", "f", arguments)]}
    content = sent(Chat(messages=({"role": "user", "content": "a"}, message)))["messages"][1]["content"]
    assert content == [{"type": "tool_use", "id": "c", "name": "f", "input": expected}]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "now"}}, None, {"type": "tool", "name": "now"}),
    ],
)
def test_the_choice_of_tools_is_translated(choice: Any, parallel: bool | None, expected: Any) -> None:
    body = sent(a_plain_chat("hi", tools=(WEATHER, NOW), tool_choice=choice, parallel_tool_calls=parallel))
    assert body.get("tool_choice") == expected


def test_any_object_is_asked_for_in_words() -> None:
    chat = a_plain_chat("hi", response_format={"type": "json_object"})
    assert sent(chat)["system"] == "Answer with one JSON object and nothing else."


@pytest.mark.parametrize(("effort", "expected"), [("none", None), ("minimal", "low"), ("high", "high"), ("max", "max")])
def test_effort_is_said_where_the_api_has_a_word_for_it(effort: str, expected: str | None) -> None:
    assert sent(a_plain_chat("hi", reasoning_effort=effort)).get("output_config") == (expected and {"effort": expected})


def test_a_data_url_without_base64_is_encoded() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}}
    (block,) = sent(Chat(messages=({"role": "user", "content": [image]},)))["messages"][0]["content"]
    assert block["source"] == {"type": "base64", "media_type": "image/svg+xml", "data": "PHN2Zy8+"}


def test_the_key_goes_into_one_header() -> None:
    headers = dict(anthropic.headers(SECRET, PLAIN))
    assert headers["x-api-key"] == SECRET
    assert headers["anthropic-version"] == "2023-06-01"
    assert [name for name, value in headers.items() if SECRET in value] == ["x-api-key"]
    assert "x-api-key" not in dict(anthropic.headers(None, PLAIN))
    assert anthropic.path("claude", True, PLAIN) == "/messages"


def test_the_conversation_is_left_as_it_was() -> None:
    before = orjson.dumps(CONVERSATION)
    sent(a_chat())
    assert orjson.dumps(CONVERSATION) == before


# Answers -----------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_read() -> None:
    thought = {"type": "thinking", "thinking": "6 × 7", "signature": "x"}
    reply = read(200, said(thought, {"type": "text", "text": "4"}, {"type": "text", "text": "2"}), **{"request-id": "req_9"})
    assert reply.answer is not None
    assert (reply.answer.text, reply.answer.finish, reply.answer.model_served) == ("42", "stop", "claude-1")
    assert reply.answer.provider_request_id == reply.provider_request_id == "req_9"
    assert reply.usage == reply.answer.usage == Usage(tokens_in=1000, tokens_out=100)


def test_cached_tokens_are_input_too() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 300,
        "output_tokens": 90,
        "output_tokens_details": {"thinking_tokens": 40},
    }
    expected = Usage(tokens_in=910, tokens_out=90, tokens_cached=600, tokens_cache_write=300, tokens_reasoning=40)
    assert read(200, said(usage=usage)).usage == expected


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 1}, {"input_tokens": -1, "output_tokens": 2}, [], True])
def test_a_garbled_usage_is_none(usage: Any) -> None:
    reply = read(200, said(usage=usage))
    assert reply.usage is None
    assert reply.answer is not None
    assert reply.answer.usage.estimated


def test_a_tool_use_is_a_tool_call() -> None:
    reply = read(200, said({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "ü"}}, reason="tool_use"))
    assert reply.answer is not None
    assert (reply.answer.text, reply.answer.finish) == ("", "tool_calls")
    assert reply.answer.tool_calls == (a_call("toolu_1", "f", '{"a":"ü"}'),)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
    ],
)
def test_a_stop_reason_is_a_finish(reason: str, finish: str) -> None:
    reply = read(200, said(reason=reason))
    assert reply.answer is not None
    assert reply.answer.finish == finish


@pytest.mark.parametrize("reason", [None, "", "new_reason", 7])
def test_an_answer_without_a_known_stop_reason_is_truncated(reason: Any) -> None:
    assert read(200, said(reason=reason)).failure is FailureClass.TRUNCATED


def test_a_refusal_is_filtered_says_why_and_is_paid_for() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Too dangerous."}
    reply = read(200, said(reason="refusal", stop_details=details))
    assert (reply.failure, reply.said) == (FailureClass.CONTENT_FILTERED, "Too dangerous.")
    assert reply.usage is not None
    assert read(200, said(reason="refusal", stop_details=details | {"explanation": None})).said == "bio"
    assert read(200, said(reason="refusal")).said == "refusal"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        b"null",
        {"hello": 1},
        {"content": "x"},
        said({"type": "text"}),
        said({"type": "text", "text": 5}),
        said() | {"content": [7]},
    ],
)
def test_a_200_with_garbage_is_malformed(body: Any) -> None:
    assert read(200, body).failure is FailureClass.MALFORMED


# Errors ------------------------------------------------------------------------------------------------------------


def error(type: str, message: str = "no", **fields: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message} | fields, "request_id": "req_7"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("invalid_request_error", "messages.0: bad"), "invalid"),
        (400, error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "context_length"),
        (400, error("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 9 > 8"), "context_length"),
        (400, error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), "quota_exhausted"),
        (400, error("invalid_request_error", "You have reached your specified API usage limits."), "quota_exhausted"),
        (400, error("invalid_request_error", "Output blocked by content filtering policy"), "content_filtered"),
        (400, error("invalid_request_error", "This model does not support assistant message prefill."), "invalid"),
        (401, error("authentication_error", "invalid x-api-key"), "auth"),
        (402, error("billing_error"), "quota_exhausted"),
        (403, error("permission_error"), "auth"),
        (404, error("not_found_error", "model: claude-9"), "not_found"),
        (409, error("conflict_error"), "unknown"),
        (413, error("request_too_large"), "too_large"),
        (413, b"<html>", "too_large"),
        (429, error("rate_limit_error"), "rate_limited"),
        (429, error("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "quota_exhausted"),
        (500, error("api_error"), "server_error"),
        (502, b"", "server_error"),
        (504, error("timeout_error"), "overloaded"),
        (504, b"<html>", "overloaded"),
        (529, error("overloaded_error", "Overloaded"), "overloaded"),
        (529, b"", "overloaded"),
        (503, b"", "overloaded"),
        (405, error("invalid_request_error", "Method Not Allowed"), "not_found"),
        (418, error("invalid_request_error", "teapot"), "unknown"),
        (302, b"", "not_found"),
        (200, error("overloaded_error"), "overloaded"),
        (200, error("new_error"), "malformed"),
    ],
)
def test_an_error_has_a_class(status: int, body: Any, expected: str) -> None:
    reply = read(status, body)
    assert reply.failure == FailureClass(expected)
    assert reply.status == status
    assert reply.answer is None


def test_an_error_names_its_request() -> None:
    assert read(500, error("api_error")).provider_request_id == "req_7"
    assert read(500, error("api_error"), **{"request-id": "req_8"}).provider_request_id == "req_8"


def test_an_error_says_how_long_to_wait() -> None:
    assert read(429, error("rate_limit_error"), **{"retry-after": "17"}).wait_ms == 17_000
    assert read(504, error("timeout_error"), **{"retry-after": "1"}).wait_ms == 1000
    assert read(529, error("overloaded_error")).wait_ms is None
    words = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    regain = error("invalid_request_error", words)
    assert read(400, regain, date="Mon, 30 Nov 2026 22:00:00 GMT").wait_ms == 7_200_000
    assert read(400, regain).wait_ms is None


def test_limits_are_learnt_from_headers() -> None:
    named = {"requests": "50", "tokens": "40000", "input-tokens": "30000", "output-tokens": "8000"}
    headers = {f"anthropic-ratelimit-{name}-limit": value for name, value in named.items()}
    assert read(200, said(), **headers).limits == RateLimits(rpm=50, tpm=40_000)
    del headers["anthropic-ratelimit-tokens-limit"]
    assert read(429, error("rate_limit_error"), **headers).limits == RateLimits(rpm=50, tpm=38_000)
    assert read(200, said()).limits is None


def test_a_rejected_request_says_why_and_a_rejected_key_does_not() -> None:
    assert read(400, error("invalid_request_error", "messages.0: bad")).said == "messages.0: bad"
    assert read(401, error("authentication_error", f"invalid {SECRET}")).said == ""
    assert SECRET not in repr(read(400, error("invalid_request_error", f"bad {SECRET}")))


# Streams -----------------------------------------------------------------------------------------------------------


def streamed(*events: bytes) -> Reply:
    stream = anthropic.stream({})
    for event in events:
        stream.feed(event)
    return stream.result()


def test_a_tool_use_is_streamed_in_fragments() -> None:
    fragments = ({"type": "input_json_delta", "partial_json": part} for part in ("", '{"pla', 'ce": "Bo', 'nn"}'))
    start = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    bare = anthropic_block(2, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}})
    events = [anthropic_start(), *anthropic_text(0), *anthropic_block(1, start, *fragments), *bare, *anthropic_end("tool_use")]
    reply = streamed(*events)
    assert reply.answer is not None
    assert reply.answer.finish == "tool_calls"
    assert reply.answer.tool_calls == (a_call("toolu_1", "weather", '{"place": "Bonn"}'), a_call("toolu_2", "now", "{}"))
    del events[-8]   # a fragment that is lost with its whole event is noticed by what is left
    assert streamed(*events).failure is FailureClass.MALFORMED


def test_a_tool_use_that_was_too_long_is_kept_as_it_came() -> None:
    start = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    block = anthropic_block(0, start, {"type": "input_json_delta", "partial_json": '{"a'})
    reply = streamed(anthropic_start(), *block, *anthropic_end("max_tokens"))
    assert reply.answer is not None
    assert (reply.answer.finish, reply.answer.tool_calls[0]["function"]["arguments"]) == ("length", '{"a')


def test_the_usage_of_a_stream_is_the_last_word_on_each_count() -> None:
    reply = streamed(
        anthropic_start(cache_read_input_tokens=600, cache_creation_input_tokens=300), *anthropic_text(0), *anthropic_end()
    )
    assert reply.usage == Usage(tokens_in=925, tokens_out=40, tokens_cached=600, tokens_cache_write=300)


def test_a_streamed_refusal_is_filtered_and_paid_for() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    reply = streamed(anthropic_start(), *anthropic_end("refusal", 3, stop_details=details))
    assert (reply.failure, reply.said) == (FailureClass.CONTENT_FILTERED, "cyber")
    assert reply.usage == Usage(tokens_in=25, tokens_out=3)
