"""What goes wrong, as each provider words it: bodies and statuses as the official clients read them, headers, waits."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from services.simulator import dialect_anthropic, dialect_azure, dialect_gemini, dialect_openai
from services.simulator.call import Usage
from services.simulator.dialect import BadRequest, Dialect, ErrorReply, Failure, Quota
from services.simulator.faults import ERROR_STATUS
from services.simulator.limits import Standing

DIALECTS: dict[str, Dialect] = {
    "openai": dialect_openai,
    "azure": dialect_azure,
    "anthropic": dialect_anthropic,
    "gemini": dialect_gemini,
}
NOW_S = 1_795_422_751.4
QUOTA = Quota(Standing(600, 599, 0.1), Standing(10_000, 9_000, 6.0))
CALL = dialect_openai.parse(
    orjson.dumps({"model": "sim-small", "messages": [{"role": "user", "content": "What is 6 * 7?"}]}), {}, {}, {}
)


def failed(dialect: Dialect, error_class: str, **fields: Any) -> ErrorReply:
    return dialect.error(Failure(error_class, "abc", NOW_S, **{"call": CALL, "quota": QUOTA, **fields}))


def body(dialect: Dialect, error_class: str, **fields: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(failed(dialect, error_class, **fields).body)
    return parsed


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_words_every_error_class(dialect: Any) -> None:
    assert set(ERROR_STATUS) == dialect.ERROR_CLASSES
    for error_class in ERROR_STATUS:
        reply = failed(dialect, error_class, retry_after_s=2.0)
        assert b"{" not in reply.body.partition(b'"message":"')[2].partition(b'"')[0], f"a fact is missing in {error_class}"
        assert orjson.loads(reply.body)


@pytest.mark.parametrize(
    ("error_class", "openai", "azure", "anthropic", "gemini"),
    [
        ("invalid_request", 400, 400, 400, 400),
        ("context_length", 400, 400, 400, 400),
        ("content_filtered", 400, 400, 200, 200),
        ("auth", 401, 401, 401, 400),
        ("billing", 429, 429, 402, 400),
        ("permission", 403, 403, 403, 403),
        ("not_found", 404, 404, 404, 404),
        ("conflict", 409, 409, 409, 409),
        ("too_large", 413, 413, 413, 413),
        ("rate_limited", 429, 429, 429, 429),
        ("quota_exhausted", 429, 429, 400, 429),
        ("spend_limit", 429, 429, 429, 429),
        ("server_error", 500, 500, 500, 500),
        ("overloaded", 503, 503, 529, 503),
        ("timeout", 504, 408, 504, 504),
    ],
)
def test_a_class_has_the_providers_own_status(error_class: str, openai: int, azure: int, anthropic: int, gemini: int) -> None:
    statuses = {"openai": openai, "azure": azure, "anthropic": anthropic, "gemini": gemini}
    assert {name: failed(dialect, error_class).status for name, dialect in DIALECTS.items()} == statuses
    assert failed(DIALECTS["openai"], error_class, status=ERROR_STATUS[error_class]).status == openai


def test_a_status_that_was_asked_for_is_sent() -> None:
    assert failed(dialect_anthropic, "overloaded", status=502).status == 502


def test_openai_names_type_param_and_code() -> None:
    assert set(body(dialect_openai, "auth")["error"]) == {"message", "type", "param", "code"}
    spent = body(dialect_openai, "spend_limit")["error"]
    assert (spent["type"], spent["code"]) == ("insufficient_quota", "project_spend_limit_exceeded")
    limited = body(dialect_openai, "rate_limited", retry_after_s=41.724)["error"]
    assert "tokens per min (TPM): Limit 10000, Used 10000" in limited["message"]
    assert limited["message"].endswith("Please try again in 41.724s.")


def test_what_is_used_up_is_what_the_error_names() -> None:
    requests = Quota(Standing(600, 0, 0.1), Standing(10_000, 9_000, 6.0))
    limited = body(dialect_openai, "rate_limited", quota=requests)["error"]
    assert limited["type"] == "requests"
    assert "requests per min (RPM): Limit 600, Used 600, Requested 1" in limited["message"]
    assert "600 requests per minute" in body(dialect_anthropic, "rate_limited", quota=requests)["error"]["message"]
    (failure, *_) = body(dialect_gemini, "rate_limited", quota=requests)["error"]["details"]
    assert failure["violations"][0]["quotaId"] == "GenerateRequestsPerMinutePerProjectPerModel"
    headers = failed(dialect_openai, "rate_limited", quota=requests).headers
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"]) == ("0", "9000")


def test_azure_has_a_code_and_for_the_filter_an_inner_error() -> None:
    assert body(dialect_azure, "auth")["error"]["code"] == "401"
    assert set(body(dialect_azure, "not_found")["error"]) == {"code", "message"}
    assert body(dialect_azure, "not_found")["error"]["code"] == "DeploymentNotFound"
    filtered = body(dialect_azure, "content_filtered")["error"]
    assert (filtered["code"], filtered["param"], filtered["status"]) == ("content_filter", "prompt", 400)
    assert filtered["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert filtered["innererror"]["content_filter_result"]["violence"] == {"filtered": True, "severity": "medium"}
    assert "Please retry after 3 seconds." in body(dialect_azure, "rate_limited", retry_after_s=2.2)["error"]["message"]


@pytest.mark.parametrize(
    ("error_class", "kind"),
    [
        ("invalid_request", "invalid_request_error"),
        ("context_length", "invalid_request_error"),
        ("auth", "authentication_error"),
        ("billing", "billing_error"),
        ("permission", "permission_error"),
        ("not_found", "not_found_error"),
        ("conflict", "conflict_error"),
        ("too_large", "request_too_large"),
        ("rate_limited", "rate_limit_error"),
        ("spend_limit", "rate_limit_error"),
        ("server_error", "api_error"),
        ("overloaded", "overloaded_error"),
        ("timeout", "timeout_error"),
    ],
)
def test_an_anthropic_error_has_its_type_and_the_id_of_the_request(error_class: str, kind: str) -> None:
    reply = failed(dialect_anthropic, error_class)
    parsed = orjson.loads(reply.body)
    assert (parsed["type"], parsed["error"]["type"]) == ("error", kind)
    assert parsed["request_id"] == reply.headers["request-id"] == "req_abc"


def test_an_anthropic_spend_limit_says_so_and_names_no_wait() -> None:
    reply = failed(dialect_anthropic, "spend_limit", retry_after_s=5)
    assert orjson.loads(reply.body)["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    assert "retry-after" not in reply.headers


def test_a_prompt_that_is_too_long_is_told_its_length() -> None:
    bad = BadRequest("context_length", model="sim-nano", tokens=20_000, context_tokens=16_000)

    def message(dialect: Dialect) -> str:
        return str(body(dialect, "context_length", bad=bad, call=None)["error"]["message"])

    assert message(dialect_anthropic) == "prompt is too long: 20000 tokens > 16000 maximum"
    assert "(20000) exceeds the maximum number of tokens allowed (16000)" in message(dialect_gemini)
    assert "maximum context length is 16000 tokens. However, your messages resulted in 20000 tokens" in message(dialect_openai)


def test_an_anthropic_refusal_is_an_answer_without_content_that_is_billed() -> None:
    reply = failed(dialect_anthropic, "content_filtered", usage=Usage(4, 0))
    message = orjson.loads(reply.body)
    assert (reply.billed, message["stop_reason"], message["content"]) == (True, "refusal", [])
    assert message["usage"]["input_tokens"] == 4


def test_a_prompt_gemini_blocks_has_feedback_and_no_candidates() -> None:
    reply = failed(dialect_gemini, "content_filtered", usage=Usage(4, 0))
    response = orjson.loads(reply.body)
    assert (reply.billed, response["promptFeedback"]["blockReason"]) == (True, "SAFETY")
    assert "candidates" not in response
    assert response["usageMetadata"]["promptTokenCount"] == 4


@pytest.mark.parametrize(
    ("error_class", "status"),
    [
        ("invalid_request", "INVALID_ARGUMENT"),
        ("auth", "INVALID_ARGUMENT"),
        ("billing", "FAILED_PRECONDITION"),
        ("permission", "PERMISSION_DENIED"),
        ("not_found", "NOT_FOUND"),
        ("rate_limited", "RESOURCE_EXHAUSTED"),
        ("quota_exhausted", "RESOURCE_EXHAUSTED"),
        ("spend_limit", "RESOURCE_EXHAUSTED"),
        ("server_error", "INTERNAL"),
        ("overloaded", "UNAVAILABLE"),
        ("timeout", "DEADLINE_EXCEEDED"),
    ],
)
def test_a_gemini_error_has_code_message_and_status(error_class: str, status: str) -> None:
    reply = failed(dialect_gemini, error_class)
    error = orjson.loads(reply.body)["error"]
    assert (error["code"], error["status"]) == (reply.status, status)
    assert error["message"]
    assert reply.headers == {}


def details(error_class: str, **fields: Any) -> dict[str, dict[str, Any]]:
    found = body(dialect_gemini, error_class, **fields)["error"]["details"]
    return {one["@type"].rpartition(".")[2]: one for one in found}


def test_gemini_says_in_the_details_what_is_exhausted_and_when_to_come_back() -> None:
    found = details("rate_limited", retry_after_s=37)
    assert found["RetryInfo"]["retryDelay"] == "37s"
    assert "PerMinute" in found["QuotaFailure"]["violations"][0]["quotaId"]
    assert "PerDay" in details("quota_exhausted")["QuotaFailure"]["violations"][0]["quotaId"]
    assert "RetryInfo" not in details("quota_exhausted")
    assert details("auth")["ErrorInfo"]["reason"] == "API_KEY_INVALID"
    wrong = BadRequest("invalid_request", "no", "contents")
    assert details("invalid_request", bad=wrong)["BadRequest"]["fieldViolations"] == [{"field": "contents", "description": "no"}]


def test_anthropics_limits_are_reset_at_an_instant() -> None:
    headers = dialect_anthropic.headers("abc", QUOTA, NOW_S)
    names = {f"anthropic-ratelimit-{of}-{what}" for of in ("requests", "tokens", "input-tokens", "output-tokens")
             for what in ("limit", "remaining", "reset")}  # fmt: skip
    assert names == {name for name in headers if "ratelimit" in name}
    assert headers["anthropic-ratelimit-input-tokens-limit"] == "8000"
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-tokens-reset"])
    assert reset == datetime.fromtimestamp(1_795_422_758, UTC)


def test_openais_limits_are_reset_after_a_duration() -> None:
    headers = dialect_openai.headers("abc", Quota(Standing(1, 1, 0.012), Standing(1, 1, 360)), NOW_S)
    assert (headers["x-ratelimit-reset-requests"], headers["x-ratelimit-reset-tokens"]) == ("12ms", "6m0s")
    azure = dialect_azure.headers("abc", QUOTA, NOW_S)
    assert {name for name in headers if "ratelimit" in name} <= set(azure)
    assert "apim-request-id" in azure
    assert dialect_gemini.headers("abc", QUOTA, NOW_S) == {}


def test_a_wait_is_in_the_headers_only_if_there_is_one() -> None:
    for dialect in (dialect_openai, dialect_azure, dialect_anthropic):
        assert failed(dialect, "rate_limited", retry_after_s=1.2).headers["retry-after"] == "2"
        assert "retry-after" not in failed(dialect, "rate_limited").headers
    assert failed(dialect_anthropic, "rate_limited").headers["anthropic-ratelimit-tokens-remaining"] == "0"
