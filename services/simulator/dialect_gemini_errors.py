"""Gemini's errors, blocked prompts and token counts, as Google words them. Pure.

Source: the Gemini API's troubleshooting and rate-limit pages, google.rpc error details; bodies quoted in public issues.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from services.simulator.call import Call, Usage
from services.simulator.dialect import EVENTS, JSON, ErrorReply, Failure

_RPC = "type.googleapis.com/google.rpc."
_METRIC = "generativelanguage.googleapis.com/generate_content_paid_tier_"
_HELP = {
    "@type": f"{_RPC}Help",
    "links": [{"description": "Learn more about Gemini API quotas", "url": "ai.google.dev/gemini-api/docs/rate-limits"}],
}
_QUOTA_MESSAGE = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, head "
    "to: ai.google.dev/gemini-api/docs/rate-limits. "
)
# class -> (HTTP status, google.rpc status, message)
_ERRORS: Mapping[str, tuple[int, str, str]] = MappingProxyType(
    {
        "invalid_request": (400, "INVALID_ARGUMENT", "Invalid JSON payload received."),
        "context_length": (
            400,
            "INVALID_ARGUMENT",
            "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({context}).",
        ),
        "content_filtered": (200, "", ""),
        "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        "billing": (
            400,
            "FAILED_PRECONDITION",
            "Gemini API free tier is not available in your country. Please enable billing on your project in Google AI Studio.",
        ),
        "permission": (403, "PERMISSION_DENIED", "Permission denied: the project has no access to this model."),
        "not_found": (
            404,
            "NOT_FOUND",
            "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels "
            "to see the list of available models and their supported methods.",
        ),
        "conflict": (409, "ABORTED", "The operation was aborted due to a concurrency conflict."),
        "too_large": (413, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 33554432 bytes."),
        "rate_limited": (
            429,
            "RESOURCE_EXHAUSTED",
            _QUOTA_MESSAGE + "\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}{hint}",
        ),
        "quota_exhausted": (
            429,
            "RESOURCE_EXHAUSTED",
            _QUOTA_MESSAGE + "\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}{hint}",
        ),
        "spend_limit": (
            429,
            "RESOURCE_EXHAUSTED",
            "Your project has exceeded its monthly spending cap. Please go to AI Studio at ai.studio/spend to manage "
            "your project spend cap.",
        ),
        "server_error": (500, "INTERNAL", "An internal error has occurred. Please retry or report the problem."),
        "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "timeout": (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    }
)
ERROR_CLASSES = frozenset(_ERRORS)
_OWN_STATUS = MappingProxyType({error_class: status for error_class, (status, _, _) in _ERRORS.items()})
_REQUESTS_PER_DAY = 1500


def error(failure: Failure) -> ErrorReply:
    """The error of a class as Google words it. A prompt that is filtered is an answer: a response without candidates."""
    if failure.error_class == "content_filtered" and failure.call is not None:
        return _blocked(failure, failure.call)
    _, status, message = _ERRORS[failure.error_class]
    code = failure.status_of(_OWN_STATUS)
    message = failure.bad.message if failure.bad and failure.bad.message else message.format_map(_facts(failure))
    described: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details := _details(failure, message):
        described["details"] = details
    return ErrorReply(code, orjson.dumps({"error": described}), {})


def _facts(failure: Failure) -> dict[str, object]:
    metric, _, limit = _violated(failure)
    hint = "" if failure.retry_after_s is None else f"\nPlease retry in {failure.retry_after_s:g}s."
    return failure.facts | {"metric": metric, "limit": limit, "hint": hint}


def _violated(failure: Failure) -> tuple[str, str, int]:
    """Metric, quota id and limit of what is used up: a day's requests, a minute's requests, a minute's tokens."""
    if failure.error_class == "quota_exhausted":
        return f"{_METRIC}requests", "GenerateRequestsPerDayPerProjectPerModel", _REQUESTS_PER_DAY
    quota = failure.quota.exhausted()
    if quota.requests.remaining == 0 and quota.requests.limit > 0:
        return f"{_METRIC}requests", "GenerateRequestsPerMinutePerProjectPerModel", quota.requests.limit
    return f"{_METRIC}input_token_count", "GenerateContentPaidTierInputTokensPerModelPerMinute", quota.tokens.limit


def _details(failure: Failure, message: str) -> list[dict[str, Any]]:
    if failure.error_class in ("rate_limited", "quota_exhausted"):
        return _exhausted(failure)
    if failure.error_class == "auth":
        about = {"domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}
        localized = {"@type": f"{_RPC}LocalizedMessage", "locale": "en-US", "message": message}
        return [{"@type": f"{_RPC}ErrorInfo", "reason": "API_KEY_INVALID", **about}, localized]
    if failure.bad is not None and failure.bad.param:
        violation = {"field": failure.bad.param, "description": message}
        return [{"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]}]
    return []


def _exhausted(failure: Failure) -> list[dict[str, Any]]:
    metric, quota_id, limit = _violated(failure)
    violation = {
        "quotaMetric": metric,
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": failure.facts["model"]},
        "quotaValue": str(limit),
    }
    details: list[dict[str, Any]] = [{"@type": f"{_RPC}QuotaFailure", "violations": [violation]}, _HELP]
    if failure.retry_after_s is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{failure.retry_after_s:g}s"})
    return details


def _blocked(failure: Failure, call: Call) -> ErrorReply:
    rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
    body = orjson.dumps(
        {
            "promptFeedback": {"blockReason": "SAFETY", "safetyRatings": [rating]},
            "usageMetadata": usage_of(failure.usage),
            "modelVersion": call.model.name,
            "responseId": failure.reply_id,
        }
    )
    if not call.streamed:
        return ErrorReply(200, body, {}, JSON, billed=True)
    if not call.as_events:
        return ErrorReply(200, b"[" + body + b"]", {}, JSON, billed=True)
    return ErrorReply(200, b"data: " + body + b"\r\n\r\n", {}, EVENTS, billed=True)


def usage_of(usage: Usage) -> dict[str, Any]:
    """The prompt's count includes cached tokens, the candidates' excludes thoughts; what is zero is left out."""
    said = usage.tokens_out - usage.reasoning_tokens
    counted = {
        "promptTokenCount": usage.tokens_in,
        "candidatesTokenCount": said,
        "totalTokenCount": usage.tokens_in + usage.tokens_out,
        "cachedContentTokenCount": usage.cached_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
    }
    details = [{"modality": "TEXT", "tokenCount": usage.tokens_in}]
    return {**{name: count for name, count in counted.items() if count}, "promptTokensDetails": details}
