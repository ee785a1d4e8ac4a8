"""OpenAI's dialect: chats to bodies, and every shape of response to an answer or a class of failure."""

from typing import Any

import orjson
import pytest

from schemas.fleet import RateLimits
from schemas.ledger import FailureClass, Usage
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS, openai
from services.executor.adapters.flavours import FLAVOURS
from tests.support.builders_executor import SECRET, completed

MESSAGES = ({"role": "user", "content": "hi"},)
PLAIN = FLAVOURS[""]


def sent(tokens_out_max: int | None = None, streamed: bool = False, **chat: Any) -> dict[str, Any]:
    found = orjson.loads(openai.body(Chat(messages=MESSAGES, **chat), "gpt", tokens_out_max, streamed, PLAIN))
    assert isinstance(found, dict)
    return found


def read(status: int, body: Any, **headers: str) -> tuple[FailureClass | None, Any]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    reply = openai.reply(status, headers, raw)
    return reply.failure, reply


def test_openai_is_a_dialect() -> None:
    assert ADAPTERS["openai"].path("gpt", False, PLAIN) == "/chat/completions"


def test_what_the_caller_left_out_is_left_out() -> None:
    assert sent() == {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}


def test_every_parameter_goes_along() -> None:
    given: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ("END",),
        "tools": ({"type": "function", "function": {"name": "f"}},),
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
        "parallel_tool_calls": False,
        "presence_penalty": -0.5,
        "frequency_penalty": 1.5,
        "reasoning_effort": "low",
    }
    body = sent(tokens_out_max=20, **given)
    assert body.pop("max_tokens") == 20
    assert body.pop("model") == "gpt"
    assert body.pop("messages")
    assert body == orjson.loads(orjson.dumps(given))


def test_a_stream_is_asked_for_with_its_usage() -> None:
    body = sent(streamed=True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "stream" not in sent()


@pytest.mark.parametrize(("wanted", "fields"), [(0, {"logprobs": True}), (3, {"logprobs": True, "top_logprobs": 3})])
def test_log_probabilities_are_asked_for(wanted: int, fields: dict[str, Any]) -> None:
    assert {name: value for name, value in sent(logprobs=wanted).items() if "logprobs" in name} == fields


def test_the_key_goes_into_one_header() -> None:
    assert ("authorization", f"Bearer {SECRET}") in openai.headers(SECRET, PLAIN)
    assert not any(SECRET in value for name, value in openai.headers(SECRET, PLAIN) if name != "authorization")
    assert all(name != "authorization" for name, _ in openai.headers(None, PLAIN))


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


def test_tokens_written_to_the_cache_are_counted() -> None:
    body = completed()
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 100, "cache_write_tokens": 50}
    usage = read(200, body)[1].usage
    assert (usage.tokens_in, usage.tokens_cached, usage.tokens_cache_write) == (1000, 100, 50)


def test_reasoning_that_is_counted_beside_the_completion_is_output_all_the_same() -> None:
    body = completed()
    body["usage"] |= {"total_tokens": 1400, "completion_tokens_details": {"reasoning_tokens": 300}}
    assert read(200, body)[1].usage == Usage(tokens_in=1000, tokens_out=400, tokens_reasoning=300)
    body["usage"]["total_tokens"] = 1100   # and where it is among them, it is not counted twice
    assert read(200, body)[1].usage.tokens_out == 100


def test_log_probabilities_are_read() -> None:
    body = completed("ab")
    alternatives = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "x", "logprob": -3.0, "bytes": None}]
    body["choices"][0]["logprobs"] = {
        "content": [
            {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": alternatives},
            {"token": "b", "logprob": -0.2, "bytes": [98], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert read(200, body)[1].answer.logprobs == (
        {"token": "a", "logprob": -0.1, "top": [{"token": "a", "logprob": -0.1}, {"token": "x", "logprob": -3.0}]},
        {"token": "b", "logprob": -0.2, "top": []},
    )


def test_a_refusal_is_an_answer() -> None:
    body = completed()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I'm sorry"}
    assert read(200, body)[1].answer.text == "I'm sorry"


def test_text_in_parts_is_put_together() -> None:
    body = completed()
    body["choices"][0]["message"]["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "4"},
        {"type": "text", "text": "2"},
    ]
    assert read(200, body)[1].answer.text == "42"


def test_a_filter_that_failed_has_filtered_nothing() -> None:
    body = completed("42")
    body["choices"][0]["content_filter_results"] = {"error": {"code": "content_filter_error", "message": "not filtered"}}
    assert read(200, body)[1].answer.text == "42"


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
        (413, error("Request too large for model", "tokens", None, "rate_limit_exceeded"), "too_large"),
        (429, error("Request too large: Limit 10000, Requested 12000", "tokens", None, "rate_limit_exceeded"), "too_large"),
        (429, error(code="project_spend_limit_exceeded"), "quota_exhausted"),
        (429, error(code="credit_balance_exhausted", type="insufficient_quota"), "quota_exhausted"),
        (402, error("Insufficient Balance", "unknown_error"), "quota_exhausted"),
        (403, error("Out of call volume quota. Quota will be replenished in 3.00:00:00.", code="403"), "quota_exhausted"),
        (429, error("Requests have exceeded call rate limit. Please retry after 6 seconds.", code="429"), "rate_limited"),
        (400, {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "content_filtered"),
        (403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}}, "content_filtered"),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***"}, "auth"),
        (400, error("request (5000 tokens) exceeds the available context size", "exceed_context_size_error"), "context_length"),
        (400, error("`inputs` tokens + `max_new_tokens` must be <= 8193"), "context_length"),
        (400, {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}}, "invalid"),
        (408, error("The operation was timeout.", code="Timeout"), "overloaded"),
        (429, error(type="billing_not_active", code="billing_not_active"), "quota_exhausted"),
        (200, {"error": {"code": 429, "message": "Rate limited upstream"}}, "rate_limited"),
        (200, {"error": {"code": 502, "message": "Provider returned error"}}, "server_error"),
        (422, {"detail": []}, "invalid"),
        (500, error("The server had an error", "server_error"), "server_error"),
        (500, error("boom", "InternalServerError", None, 500), "server_error"),
        (502, b"<html>", "server_error"),
        (503, error("overloaded", "service_unavailable_error", None, "server_is_overloaded"), "overloaded"),
        (503, b"", "overloaded"),
        (504, b"", "overloaded"),
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


@pytest.mark.parametrize(
    ("headers", "message", "wait_ms"),
    [
        ({}, "no", None),
        ({"retry-after": "2"}, "try again in 41.724s", 2000),
        ({"retry-after-ms": "1500", "retry-after": "2"}, "", 1500),
        ({"retry-after": "1.5"}, "", 1500),
        ({"retry-after": "-3"}, "", 0),
        ({"retry-after": "999999"}, "", 86_400_000),
        ({"retry-after": "soon"}, "Please try again in 20ms.", 20),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "Mon, 01 Jan 2029 00:00:30 GMT", "date": "Mon, 01 Jan 2029 00:00:00 GMT"}, "", 30_000),
        ({"retry-after": "Mon, 01 Jan 2029 00:00:30 GMT"}, "", None),
        ({"x-ratelimit-reset-tokens": "6m0s"}, "", None),   # until the bucket is full, not until it has something
        ({}, "Rate limit reached. Please try again in 41.724s. Visit …", 41_724),
        ({}, "Please try again in 1m26.4s.", 86_400),
        ({}, "Please retry after 26 seconds.", 26_000),
        ({}, "Please try again later", None),
    ],
)
def test_how_long_to_wait_is_read(headers: dict[str, str], message: str, wait_ms: int | None) -> None:
    _, reply = read(429, error(message, "tokens", None, "rate_limit_exceeded"), **headers)
    assert reply.wait_ms == wait_ms


def test_only_failures_that_pass_have_a_wait() -> None:
    assert read(400, error("bad"), **{"retry-after": "2"})[1].wait_ms is None
    assert read(503, b"", **{"retry-after": "2"})[1].wait_ms == 2000
    assert read(429, error(code="insufficient_quota"), **{"retry-after": "60"})[1].wait_ms == 60_000


def limit_headers(limit: str, remaining: str = "", reset: str = "") -> dict[str, str]:
    named = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-requests": value for name, value in named.items() if value}


@pytest.mark.parametrize(
    ("headers", "rpm"),
    [
        (limit_headers("500", "499", "120ms"), 500),
        (limit_headers("500"), 500),
        (limit_headers("500", "500", "0ms"), 500),
        (limit_headers("14400", "14370", "2m59.56s"), None),   # Groq's: of a day
        (limit_headers("-1"), None),
        (limit_headers("0"), None),
        (limit_headers("many"), None),
    ],
)
def test_what_is_allowed_per_minute_is_learnt_from_headers(headers: dict[str, str], rpm: int | None) -> None:
    body = completed()
    assert read(200, body, **headers)[1].limits == (None if rpm is None else RateLimits(rpm=rpm))
    assert read(429, error(), **headers)[1].limits == (None if rpm is None else RateLimits(rpm=rpm))


def test_tokens_per_minute_are_learnt_too() -> None:
    headers = limit_headers("500") | {"x-ratelimit-limit-tokens": "30000"}
    assert read(200, completed(), **headers)[1].limits == RateLimits(rpm=500, tpm=30_000)


def test_a_refusal_says_why_and_a_rejected_key_does_not() -> None:
    filtered = {"violence": {"filtered": True, "severity": "medium"}, "hate": {"filtered": False, "severity": "safe"}}
    azure = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filtered}
    _, reply = read(400, {"error": {"message": "The response was filtered", "code": "content_filter", "innererror": azure}})
    assert reply.said == "The response was filtered (filtered: violence)"
    assert read(400, error("Unknown parameter: 'foo'."))[1].said == "Unknown parameter: 'foo'."
    assert read(422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]})[1].said == "body.seed: Extra inputs"
    for status in (401, 403, 404, 429, 500):
        assert read(status, error("Incorrect API key provided: sk-abc"))[1].said == ""


def test_what_is_said_is_short_and_holds_no_key() -> None:
    _, reply = read(400, error(f"bad header Bearer {SECRET} and {SECRET} and AIzaSyD4x8f9Qk2m7Vb\n" + "x" * 1000))
    assert SECRET not in reply.said
    assert "AIza" not in reply.said
    assert len(reply.said) == 300


def test_a_reply_holds_nothing_of_an_error_body() -> None:
    _, reply = read(401, error(f"Incorrect API key provided: {SECRET}"))
    assert SECRET not in repr(reply)
