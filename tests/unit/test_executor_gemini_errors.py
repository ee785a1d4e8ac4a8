"""Gemini's errors: every shape to its class, how long to wait, and what may be said of it."""

from typing import Any

import orjson
import pytest

from schemas.ledger import FailureClass
from services.executor.adapters import gemini
from services.executor.reply import Reply
from tests.support.builders_executor import SECRET


def read(status: int, body: Any, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return gemini.reply(status, headers, raw)


def error(code: int, status: str, message: str = "no", *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(*ids: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id} for id in ids]}


def retry(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


MINUTE, DAY = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error(400, "INVALID_ARGUMENT", "Unknown name"), "invalid"),
        (400, error(400, "INVALID_ARGUMENT", TOO_LONG), "context_length"),
        (400, error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", KEY_INVALID), "auth"),
        (400, error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), "auth"),
        (400, error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), "auth"),
        (400, error(400, "OUT_OF_RANGE"), "invalid"),
        (401, error(401, "UNAUTHENTICATED"), "auth"),
        (402, error(402, "RESOURCE_EXHAUSTED"), "quota_exhausted"),
        (403, error(403, "PERMISSION_DENIED"), "auth"),
        (403, error(403, "PERMISSION_DENIED", "no", {"reason": "BILLING_DISABLED"}), "quota_exhausted"),
        (404, error(404, "NOT_FOUND", "models/x is not found"), "not_found"),
        (409, error(409, "ABORTED"), "unknown"),
        (413, error(413, "INVALID_ARGUMENT"), "too_large"),
        (413, b"", "too_large"),
        (429, error(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later."), "rate_limited"),
        (429, error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", quota(MINUTE)), "rate_limited"),
        (429, error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", quota(MINUTE, DAY)), "quota_exhausted"),
        (429, error(429, "RESOURCE_EXHAUSTED", "* Quota exceeded for metric: x, limit: 0", quota(MINUTE)), "quota_exhausted"),
        (429, error(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap."), "quota_exhausted"),
        (429, b"", "rate_limited"),
        (499, error(499, "CANCELLED"), "unknown"),
        (500, error(500, "INTERNAL"), "server_error"),
        (500, b"<html>", "server_error"),
        (503, error(503, "UNAVAILABLE"), "overloaded"),
        (504, error(504, "DEADLINE_EXCEEDED"), "overloaded"),
        (501, error(501, "UNIMPLEMENTED"), "not_found"),
        (301, b"", "not_found"),
        (418, b"", "unknown"),
        (200, error(503, "UNAVAILABLE"), "overloaded"),
        (200, {"error": {"code": 500, "message": "x"}}, "server_error"),
        (503, [error(503, "UNAVAILABLE")], "overloaded"),
    ],
)
def test_an_error_has_a_class(status: int, body: Any, expected: str) -> None:
    reply = read(status, body)
    assert reply.failure == FailureClass(expected)
    assert reply.status == status
    assert reply.answer is None


@pytest.mark.parametrize(
    ("details", "wait_ms"),
    [
        ((quota(MINUTE), retry("37s")), 37_000),
        ((quota(MINUTE), retry("37.5s")), 37_500),
        ((retry("0.2s"),), 200),
        ((retry("soon"),), None),
        ((quota(DAY), retry("37s")), None),   # what a day used up does not come back so soon
        ((), None),
    ],
)
def test_an_error_says_how_long_to_wait(details: tuple[dict[str, Any], ...], wait_ms: int | None) -> None:
    assert read(429, error(429, "RESOURCE_EXHAUSTED", "no", *details)).wait_ms == wait_ms


def test_words_and_headers_say_it_too() -> None:
    assert read(429, error(429, "RESOURCE_EXHAUSTED", "Please retry in 12.3s.")).wait_ms == 12_300
    assert read(429, error(429, "RESOURCE_EXHAUSTED", "no", retry("37s")), **{"retry-after": "3"}).wait_ms == 3000


def test_a_rejected_request_says_why_and_a_rejected_key_does_not() -> None:
    assert read(400, error(400, "INVALID_ARGUMENT", "Unknown name \"foo\"")).said == 'Unknown name "foo"'
    assert read(400, error(400, "INVALID_ARGUMENT", f"bad {SECRET}", KEY_INVALID)).said == ""
    assert SECRET not in repr(read(400, error(400, "INVALID_ARGUMENT", f"bad {SECRET}")))
