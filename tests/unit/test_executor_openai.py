"""OpenAI's dialect: chats to bodies, and every shape of response to an answer or a class of failure."""

from typing import Any

import orjson
import pytest

from schemas.ledger import FailureClass, Usage
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS, openai
from tests.support.builders_executor import SECRET, completed

MESSAGES = ({"role": "user", "content": "hi"},)


def sent(tokens_out_max: int | None = None, **chat: Any) -> dict[str, Any]:
    found = orjson.loads(openai.body(Chat(messages=MESSAGES, **chat), "gpt", tokens_out_max))
    assert isinstance(found, dict)
    return found


def read(status: int, body: Any, **headers: str) -> tuple[FailureClass | None, Any]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    reply = openai.reply(status, headers, raw)
    return reply.failure, reply


def test_openai_is_a_dialect() -> None:
    assert ADAPTERS["openai"].PATH == "/chat/completions"


def test_what_the_caller_left_out_is_left_out() -> None:
    assert sent() == {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}


def test_every_parameter_goes_along() -> None:
    given = {
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ("END",),
        "tools": ({"type": "function", "function": {"name": "f"}},),
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
    }
    body = sent(tokens_out_max=20, **given)
    assert body.pop("max_tokens") == 20
    assert body.pop("model") == "gpt"
    assert body.pop("messages")
    assert body == orjson.loads(orjson.dumps(given))


def test_the_key_goes_into_one_header() -> None:
    assert ("authorization", f"Bearer {SECRET}") in openai.headers(SECRET)
    assert not any(SECRET in value for name, value in openai.headers(SECRET) if name != "authorization")
    assert all(name != "authorization" for name, _ in openai.headers(None))


def test_a_whole_answer_is_read() -> None:
    body = completed("42")
    body["usage"] |= {
        "prompt_tokens_details": {"cached_tokens": 512},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    failure, reply = read(200, body, **{"x-request-id": "req_9"})
    assert failure is None
    assert reply.answer.text == "42"
    assert reply.answer.finish == "stop"
    assert reply.answer.model_served == reply.model_served == "small-2026"
    assert reply.answer.provider_request_id == "req_9"
    assert reply.usage == Usage(tokens_in=1000, tokens_out=100, tokens_cached=512, tokens_reasoning=30)


def test_a_tool_call_has_no_text() -> None:
    body = completed()
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    body["choices"][0] |= {"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    _, reply = read(200, body)
    assert (reply.answer.text, reply.answer.tool_calls, reply.answer.finish) == ("", tuple(calls), "tool_calls")


def test_an_answer_without_usage_says_so() -> None:
    body = completed()
    del body["usage"]
    _, reply = read(200, body)
    assert reply.usage is None
    assert reply.answer.usage.estimated


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": "9"}, {"prompt_tokens": -1, "completion_tokens": 2}, [], True])
def test_a_garbled_usage_is_none(usage: Any) -> None:
    assert read(200, completed() | {"usage": usage})[1].usage is None


@pytest.mark.parametrize("finish", [None, "", "abort", 7])
def test_an_answer_without_a_finish_reason_is_truncated(finish: Any) -> None:
    body = completed()
    body["choices"][0]["finish_reason"] = finish
    assert read(200, body)[0] is FailureClass.TRUNCATED


def test_a_filtered_answer_is_filtered_and_paid_for() -> None:
    body = completed()
    body["choices"][0]["finish_reason"] = "content_filter"
    failure, reply = read(200, body)
    assert failure is FailureClass.CONTENT_FILTERED
    assert reply.usage is not None


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502 Bad Gateway</html>",
        b"",
        b"[]",
        b"null",
        {"choices": []},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"message": {"content": ["x"]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "x", "tool_calls": ["y"]}, "finish_reason": "stop"}]},
        {"hello": "world"},
    ],
)
def test_a_200_with_garbage_is_malformed(body: Any) -> None:
    assert read(200, body)[0] is FailureClass.MALFORMED


def error(message: str = "no", type: str = "", param: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, error("Rate limit reached for gpt", "tokens", None, "rate_limit_exceeded"), "rate_limited"),
        (429, error("Slow down", "requests", None, "slow_down"), "rate_limited"),
        (429, error("You exceeded your current quota", "insufficient_quota", None, "insufficient_quota"), "quota_exhausted"),
        (429, error(code="organization_spend_limit_exceeded"), "quota_exhausted"),
        (429, b"Too many requests", "rate_limited"),
        (400, error("too long", "invalid_request_error", "messages", "context_length_exceeded"), "context_length"),
        (400, error("Your request was rejected", "invalid_request_error", None, "content_policy_violation"), "content_filtered"),
        (400, error("filtered", "", None, "content_filter"), "content_filtered"),
        (400, error("bad temperature", "invalid_request_error", "temperature"), "invalid"),
        (401, error("Incorrect API key provided: sk-te**st", "invalid_request_error", None, "invalid_api_key"), "auth"),
        (401, error("Access denied", "", None, "401"), "auth"),
        (403, error("Country, region, or territory not supported", "request_forbidden"), "auth"),
        (404, error("The model does not exist", "invalid_request_error", None, "model_not_found"), "not_found"),
        (404, error(code="DeploymentNotFound"), "not_found"),
        (404, {"error": "model 'x' not found, try pulling it first"}, "not_found"),
        (200, {"error": "model 'x' not found, try pulling it first"}, "not_found"),
        (413, b"", "too_large"),
        (422, {"detail": []}, "invalid"),
        (500, error("The server had an error", "server_error"), "server_error"),
        (500, error("boom", "InternalServerError", None, 500), "server_error"),
        (502, b"<html>", "server_error"),
        (503, error("overloaded", "service_unavailable_error", None, "server_is_overloaded"), "overloaded"),
        (503, b"", "overloaded"),
        (504, b"", "timeout"),
        (529, b"", "overloaded"),
        (200, error("The server had an error", "server_error"), "server_error"),
        (200, error("something"), "malformed"),
        (
            400,
            error("You passed 1015 input tokens … context length is only 1024", "BadRequestError", "input_tokens", 400),
            "context_length",
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 1024 tokens.", "code": 400},
            "context_length",
        ),
        (307, b"", "not_found"),
        (409, error("conflict"), "unknown"),
        (418, b"", "unknown"),
    ],
)
def test_an_error_has_a_class(status: int, body: Any, expected: str) -> None:
    failure, reply = read(status, body)
    assert failure == FailureClass(expected)
    assert reply.status == status
    assert reply.answer is None


def test_a_reply_holds_nothing_of_an_error_body() -> None:
    _, reply = read(401, error(f"Incorrect API key provided: {SECRET}"))
    assert SECRET not in repr(reply)
