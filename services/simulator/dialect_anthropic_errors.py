"""Anthropic's errors, refusals, usage and rate-limit headers, as it words them. Pure.

Source: Anthropic's pages on errors, rate limits and refusals; bodies quoted in public issues.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from types import MappingProxyType
from typing import Any

import orjson

from services.simulator.call import Call, Usage
from services.simulator.dialect import EVENTS, JSON, ErrorReply, Failure, Quota
from services.simulator.limits import Standing

# class -> (status, type, message)
_ERRORS: Mapping[str, tuple[int, str, str]] = MappingProxyType(
    {
        "invalid_request": (400, "invalid_request_error", "The request body is not valid JSON."),
        "context_length": (400, "invalid_request_error", "prompt is too long: {tokens} tokens > {context} maximum"),
        "content_filtered": (200, "", ""),
        "auth": (401, "authentication_error", "invalid x-api-key"),
        "billing": (402, "billing_error", "There is an issue with your billing or payment information."),
        "permission": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
        "not_found": (404, "not_found_error", "model: {model}"),
        "conflict": (409, "conflict_error", "The request conflicts with the current state of the resource."),
        "too_large": (413, "request_too_large", "Request exceeds the maximum allowed number of bytes."),
        "rate_limited": (
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of {limit} {what} per minute. Please reduce the "
            "prompt length or the maximum tokens requested, or try again later.",
        ),
        "quota_exhausted": (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits.",
        ),
        "spend_limit": (
            429,
            "rate_limit_error",
            "Your organization has reached its monthly spend limit. Access resumes on the first day of the next month.",
        ),
        "server_error": (500, "api_error", "Internal server error"),
        "timeout": (504, "timeout_error", "Request timed out"),
        "overloaded": (529, "overloaded_error", "Overloaded"),
    }
)
ERROR_CLASSES = frozenset(_ERRORS)
_OWN_STATUS = MappingProxyType({error_class: status for error_class, (status, _, _) in _ERRORS.items()})
_INPUT_SHARE = 0.8  # of the tokens of a minute; the rest is for output


def error(failure: Failure) -> ErrorReply:
    """The error of a class as Anthropic words it. A prompt that is filtered is an answer: a refusal without content."""
    if failure.error_class == "content_filtered" and failure.call is not None:
        return _refusal(failure, failure.call)
    _, kind, message = _ERRORS[failure.error_class]
    said: dict[str, Any] = {"type": kind, "message": _worded(failure, message)}
    if failure.error_class == "spend_limit":
        said["details"] = {"error_code": "enforced_spend_limit_reached"}
    body = {"type": "error", "error": said, "request_id": f"req_{failure.reply_id}"}
    headers = {"request-id": f"req_{failure.reply_id}"}
    if failure.retry_after_s is not None and failure.error_class != "spend_limit":
        headers["retry-after"] = str(ceil(failure.retry_after_s))
    if failure.error_class == "rate_limited":
        headers |= {**limit_headers(failure.quota.exhausted(), failure.now_s), "x-should-retry": "true"}
    return ErrorReply(failure.status_of(_OWN_STATUS), orjson.dumps(body), headers)


def _worded(failure: Failure, message: str) -> str:
    if failure.bad is not None and failure.bad.message:
        return failure.bad.message
    quota = failure.quota.exhausted()
    by_requests = quota.requests.remaining == 0 and quota.requests.limit > 0
    limit, what = (quota.requests.limit, "requests") if by_requests else (quota.tokens.limit, "input tokens")
    return message.format_map(failure.facts | {"limit": limit, "what": what})


def _refusal(failure: Failure, call: Call) -> ErrorReply:
    message = message_of(call, failure.reply_id, failure.usage)
    stop = {"stop_reason": "refusal", "stop_sequence": None}
    ids = {"request-id": f"req_{failure.reply_id}"}
    if not call.streamed:
        return ErrorReply(200, orjson.dumps(message | stop), ids, JSON, billed=True)
    events = (
        event("message_start", {"message": message}),
        event("message_delta", {"delta": stop, "usage": usage_of(failure.usage)}),
        event("message_stop", {}),
    )
    return ErrorReply(200, b"".join(events), ids, EVENTS, billed=True)


def message_of(call: Call, reply_id: str, usage: Usage) -> dict[str, Any]:
    """A message without content, as a stream begins."""
    return {
        "id": f"msg_{reply_id}",
        "type": "message",
        "role": "assistant",
        "model": call.model.name,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of(usage) | {"service_tier": "standard"},
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Input tokens exclude what was read from or written to the cache; output tokens include thinking."""
    return {
        "input_tokens": usage.tokens_in - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.tokens_out,
    }


def event(name: str, fields: dict[str, Any]) -> bytes:
    """One server-sent event; its name is repeated in the data."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps({"type": name, **fields}) + b"\n\n"


def headers(reply_id: str, quota: Quota, now_s: float) -> dict[str, str]:
    """What every answer carries: its id and what is left of the minute."""
    return {"request-id": f"req_{reply_id}", "anthropic-organization-id": "org-simulator", **limit_headers(quota, now_s)}


def limit_headers(quota: Quota, now_s: float) -> dict[str, str]:
    """Twelve headers; `reset` is the instant (RFC 3339, whole seconds) at which the bucket is full."""
    standings = {
        "requests": quota.requests,
        "tokens": quota.tokens,
        "input-tokens": _share(quota.tokens, _INPUT_SHARE),
        "output-tokens": _share(quota.tokens, 1 - _INPUT_SHARE),
    }
    found = {}
    for name, standing in standings.items():
        found[f"anthropic-ratelimit-{name}-limit"] = str(standing.limit)
        found[f"anthropic-ratelimit-{name}-remaining"] = str(standing.remaining)
        found[f"anthropic-ratelimit-{name}-reset"] = instant(now_s + standing.reset_s)
    return found


def _share(standing: Standing, share: float) -> Standing:
    return Standing(round(standing.limit * share), round(standing.remaining * share), standing.reset_s)


def instant(at_s: float) -> str:
    """Epoch seconds as RFC 3339, rounded up so that waiting until then is enough."""
    return datetime.fromtimestamp(ceil(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
