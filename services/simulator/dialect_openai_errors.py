"""OpenAI's errors and rate-limit headers, as it words them. Pure.

Source: OpenAI's guides on error codes and rate limits, and bodies quoted in public issues.
"""

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType

import orjson

from services.simulator.dialect import BadRequest, ErrorReply, Failure, Quota

Wording = tuple[str, str, str | None, str | None]  # message, type, param, code

WORDINGS: Mapping[str, Wording] = MappingProxyType(
    {
        "invalid_request": ("We could not parse the JSON body of your request.", "invalid_request_error", None, None),
        "context_length": (
            "This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "messages",
            "context_length_exceeded",
        ),
        "content_filtered": (
            "Your request was rejected as a result of our safety system. Your prompt may contain text that is not "
            "allowed by our safety system.",
            "invalid_request_error",
            None,
            "content_policy_violation",
        ),
        "auth": (
            "Incorrect API key provided: sk-sim****ulat. You can find your API key in your account settings.",
            "invalid_request_error",
            None,
            "invalid_api_key",
        ),
        "permission": (
            "Country, region, or territory not supported",
            "request_forbidden",
            None,
            "unsupported_country_region_territory",
        ),
        "not_found": (
            "The model `{model}` does not exist or you do not have access to it.",
            "invalid_request_error",
            None,
            "model_not_found",
        ),
        "rate_limited": (
            "Rate limit reached for {model} in organization org-simulator on {what}: "
            "Limit {limit}, Used {used}, Requested {requested}.{hint}",
            "tokens",
            None,
            "rate_limit_exceeded",
        ),
        "quota_exhausted": (
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            None,
            "insufficient_quota",
        ),
        "spend_limit": (
            "This project has reached its enforced spend limit. Increase or remove the limit, or wait for the monthly reset.",
            "insufficient_quota",
            None,
            "project_spend_limit_exceeded",
        ),
        "billing": (
            "Your account is not active, please check your billing details on our website.",
            "billing_not_active",
            None,
            "billing_not_active",
        ),
        "conflict": (
            "The resource was updated by another request. Please retry your request.",
            "invalid_request_error",
            None,
            "conflict",
        ),
        "too_large": ("Maximum content size limit (33554432) exceeded.", "invalid_request_error", None, "request_too_large"),
        "server_error": (
            "The server had an error while processing your request. Sorry about that!",
            "server_error",
            None,
            None,
        ),
        "timeout": ("Request timed out.", "server_error", None, "request_timeout"),
        "overloaded": (
            "That model is currently overloaded with other requests. You can retry your request.",
            "service_unavailable_error",
            None,
            "server_is_overloaded",
        ),
    }
)
ERROR_CLASSES = frozenset(WORDINGS)
_OWN_STATUS = MappingProxyType({"billing": 429})


def error(failure: Failure) -> ErrorReply:
    """The error of a class as OpenAI words it. Without `retry_after_s` there is no hint, in header or message."""
    message, kind, param, code = worded(failure, WORDINGS)
    body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
    return ErrorReply(failure.status_of(_OWN_STATUS), body, {"x-request-id": f"req_{failure.reply_id}", **retry_headers(failure)})


def worded(failure: Failure, wordings: Mapping[str, Wording]) -> Wording:
    """Message, type, param and code: those of the request's own mistake if it made one."""
    message, kind, param, code = wordings[failure.error_class]
    if failure.bad is not None:
        message, param, code = _of_mistake(failure.bad, message, param, code)
    quota = failure.quota.exhausted()
    by_requests = quota.requests.remaining == 0 and quota.requests.limit > 0
    used_up = quota.requests if by_requests else quota.tokens
    facts = failure.facts | {
        "what": "requests per min (RPM)" if by_requests else "tokens per min (TPM)",
        "limit": used_up.limit,
        "used": used_up.limit - used_up.remaining,
        "requested": 1 if by_requests else failure.facts["tokens"],
        "hint": "" if failure.retry_after_s is None else f" Please try again in {failure.retry_after_s:g}s.",
        "retry_after": "" if failure.retry_after_s is None else f" Please retry after {ceil(failure.retry_after_s)} seconds.",
    }
    kind = "requests" if by_requests and kind == "tokens" else kind
    return (message if failure.bad and failure.bad.message else message.format_map(facts)), kind, param, code


def _of_mistake(bad: BadRequest, message: str, param: str | None, code: str | None) -> tuple[str, str | None, str | None]:
    if bad.message:
        return bad.message, bad.param, bad.code
    return message, bad.param or param, bad.code or code


def retry_headers(failure: Failure) -> dict[str, str]:
    """When to come back, if the failure says so; with a rate limit also that nothing is left."""
    headers: dict[str, str] = {}
    if failure.retry_after_s is not None:
        headers["retry-after"] = str(ceil(failure.retry_after_s))
        headers["retry-after-ms"] = str(ceil(failure.retry_after_s * 1000))
    if failure.error_class == "rate_limited":
        headers |= {**limit_headers(failure.quota.exhausted()), "x-should-retry": "true"}
    return headers


def headers(reply_id: str, quota: Quota, now_s: float) -> dict[str, str]:
    """What every answer carries: its id and what is left of the minute."""
    return {"x-request-id": f"req_{reply_id}", **limit_headers(quota)}


def limit_headers(quota: Quota) -> dict[str, str]:
    """OpenAI's six rate-limit headers. `reset` is the time until the bucket is full, not the time to wait."""
    requests, tokens = quota.requests, quota.tokens
    return {
        "x-ratelimit-limit-requests": str(requests.limit),
        "x-ratelimit-limit-tokens": str(tokens.limit),
        "x-ratelimit-remaining-requests": str(requests.remaining),
        "x-ratelimit-remaining-tokens": str(tokens.remaining),
        "x-ratelimit-reset-requests": duration(requests.reset_s),
        "x-ratelimit-reset-tokens": duration(tokens.reset_s),
    }


def duration(seconds: float) -> str:
    """A Go-like duration: `12ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
