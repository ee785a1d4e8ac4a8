"""What a result looks like over HTTP: its status, an OpenAI error object, or an OpenAI chat completion. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.messages import Answer, Reason, Result, Status

HTTP_STATUS: Mapping[Status, int] = {
    Status.DELIVERED: 200,
    Status.REJECTED: 400,
    Status.OVER_BUDGET: 402,
    Status.FAILED: 502,
    Status.EXPIRED: 504,
}
HTTP_STATUS_OF_REASON: Mapping[Reason, int] = {
    Reason.UNKNOWN_MODEL: 404,
    Reason.TOO_LARGE: 413,
}
"""Reasons that clients know by a status of their own; all others go by the result's status."""

CODES: Mapping[Reason, str] = {
    Reason.UNKNOWN_MODEL: "model_not_found",
    Reason.CONTEXT_TOO_LONG: "context_length_exceeded",
    Reason.OVER_BUDGET: "insufficient_quota",
}
"""Codes that OpenAI's clients know; all others are the reason itself."""

NOT_AGAIN: Mapping[str, str] = {"x-should-retry": "false"}
"""On every answer about a request that is in the log and was not delivered. OpenAI's clients repeat whatever ended with 500 or
above, twice and without an idempotency key: one request would be made and paid for three times. This they heed."""

_TYPES: Mapping[int, str] = {402: "insufficient_quota", 401: "authentication_error"}


def http_status(status: Status, reason: Reason | None) -> int:
    return HTTP_STATUS_OF_REASON.get(reason, HTTP_STATUS[status]) if reason else HTTP_STATUS[status]


def error_object(http_status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's shape of an error; `code` is always a string."""
    kind = _TYPES.get(http_status, "api_error" if http_status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_of(result: Result) -> tuple[int, dict[str, Any]]:
    """HTTP status and error object of a request that was not delivered."""
    status = http_status(result.status, result.reason)
    code = CODES.get(result.reason, result.reason.value) if result.reason else result.status.value
    return status, error_object(status, code, result.message or f"the request ended {result.status.value}: {code}")


def chat_completion(result: Result, answer: Answer) -> dict[str, Any]:
    """OpenAI's `chat.completion` of a delivered result."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message |= {"content": answer.text or None, "tool_calls": list(answer.tool_calls)}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(answer.logprobs), "finish_reason": answer.finish}
    usage = answer.usage
    return {
        "id": f"chatcmpl-{result.request_id}",
        "object": "chat.completion",
        "created": result.decided_ms // 1000,
        "model": answer.model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage.tokens_in,
            "completion_tokens": usage.tokens_out,
            "total_tokens": usage.tokens_in + usage.tokens_out,
            "prompt_tokens_details": {"cached_tokens": usage.tokens_cached},
            "completion_tokens_details": {"reasoning_tokens": usage.tokens_reasoning},
        },
    }


def _logprobs(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """OpenAI's shape of a choice's log-probabilities; None where the provider gave none."""
    if not tokens:
        return None
    content = [_token(each) | {"top_logprobs": [_token(other) for other in each.get("top", ())]} for each in tokens]
    return {"content": content, "refusal": None}


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    """`bytes` stays null, as OpenAI allows: a token may be part of a character, and its text does not say which."""
    return {"token": token["token"], "logprob": token["logprob"], "bytes": None}


def headers_of(result: Result) -> dict[str, str]:
    """What Baton adds to an answer: which request, which model, what it cost in micro-USD, and whether asking again is of use."""
    headers = {"x-baton-request-id": result.request_id, "x-baton-cost-microusd": str(result.cost_microusd)}
    if result.answer is not None and result.answer.model:
        headers["x-baton-model"] = result.answer.model
    return headers if result.status is Status.DELIVERED else {**headers, **NOT_AGAIN}
