"""OpenAI's errors, and those of the servers that speak its dialect, to a class of failure and what goes with it. Pure.

Sources: OpenAI's guides on errors and rate limits; Azure's content filter; error bodies of vLLM, Ollama, llama.cpp, Groq,
Mistral, DeepSeek, OpenRouter and xAI as they document them.
"""

from collections.abc import Mapping
from typing import Any

from schemas.ledger import FailureClass
from services.executor.adapters import hints
from services.executor.reply import Reply

# An error's `code`, else its `type`, is more exact than the status.
_CLASS_OF_CODE = {
    "rate_limit_exceeded": FailureClass.RATE_LIMITED,
    "rate_limit_error": FailureClass.RATE_LIMITED,
    "slow_down": FailureClass.RATE_LIMITED,
    "insufficient_quota": FailureClass.QUOTA_EXHAUSTED,
    "credit_balance_exhausted": FailureClass.QUOTA_EXHAUSTED,
    "organization_spend_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "project_spend_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "organization_usage_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": FailureClass.QUOTA_EXHAUSTED,
    "billing_not_active": FailureClass.QUOTA_EXHAUSTED,
    "payment_required": FailureClass.QUOTA_EXHAUSTED,
    "ReadOnlyDisabledSubscription": FailureClass.QUOTA_EXHAUSTED,
    "context_length_exceeded": FailureClass.CONTEXT_LENGTH,
    "exceed_context_size_error": FailureClass.CONTEXT_LENGTH,
    "string_above_max_length": FailureClass.TOO_LARGE,
    "request_too_large": FailureClass.TOO_LARGE,
    "invalid_api_key": FailureClass.AUTH,
    "account_deactivated": FailureClass.AUTH,
    "unsupported_country_region_territory": FailureClass.AUTH,
    "model_not_found": FailureClass.NOT_FOUND,
    "DeploymentNotFound": FailureClass.NOT_FOUND,
    "content_filter": FailureClass.CONTENT_FILTERED,
    "content_policy_violation": FailureClass.CONTENT_FILTERED,
    "ResponsibleAIPolicyViolation": FailureClass.CONTENT_FILTERED,
    "request_timeout": FailureClass.OVERLOADED,
    "server_error": FailureClass.SERVER_ERROR,
    "InternalServerError": FailureClass.SERVER_ERROR,
    "server_is_overloaded": FailureClass.OVERLOADED,
    "service_unavailable_error": FailureClass.OVERLOADED,
    "provider_unavailable": FailureClass.OVERLOADED,
}

_CLASS_OF_STATUS = {
    400: FailureClass.INVALID,
    401: FailureClass.AUTH,
    402: FailureClass.QUOTA_EXHAUSTED,
    403: FailureClass.AUTH,
    404: FailureClass.NOT_FOUND,
    405: FailureClass.NOT_FOUND,
    408: FailureClass.OVERLOADED,
    413: FailureClass.TOO_LARGE,
    422: FailureClass.INVALID,
    429: FailureClass.RATE_LIMITED,
    503: FailureClass.OVERLOADED,
    504: FailureClass.OVERLOADED,
    529: FailureClass.OVERLOADED,
}

# Servers without codes say it in words; vLLM also names the parameter.
_CONTEXT_PARAMS = frozenset({"input_tokens"})
_CONTEXT_WORDS = (
    "context length",
    "context window",
    "context size",
    "maximum context",
    "prompt is too long",
    "input is too long",
    "max_new_tokens` must be <=",
)
_KEY_WORDS = ("incorrect api key", "invalid api key", "api key is invalid")
_QUOTA_WORDS = ("insufficient balance", "out of call volume quota", "exceeded your monthly")
_WAITS = frozenset({FailureClass.RATE_LIMITED, FailureClass.QUOTA_EXHAUSTED, FailureClass.OVERLOADED, FailureClass.SERVER_ERROR})
_TELLS = frozenset({FailureClass.INVALID, FailureClass.CONTENT_FILTERED})


def is_error(parsed: object) -> bool:
    """Whether a body or an event is an error's; Mistral's and vLLM's older form is not nested."""
    return isinstance(parsed, dict) and (bool(parsed.get("error")) or parsed.get("object") == "error")


def failed(status: int, headers: Mapping[str, str], parsed: object) -> Reply:
    """The reply to an error, with what the provider says of waiting, and why it refused where the caller may know."""
    told = _told(parsed)
    failure = failure_of(status, parsed)
    words = _words(told, parsed)
    return Reply(
        status,
        failure=failure,
        provider_request_id=headers.get("x-request-id", ""),
        wait_ms=hints.wait_ms(headers, words) if failure in _WAITS else None,
        limits=hints.openai_limits(headers),
        said=hints.said(words + _filtered(told)) if failure in _TELLS else "",
    )


def failure_of(status: int, parsed: object) -> FailureClass:
    """Code before type before words before status."""
    told = _told(parsed)
    words = _words(told, parsed).lower()
    if status == 200:
        status = _status_of(told.get("code")) or status   # those of OpenRouter, vLLM and Azure are statuses
    known = _by_code(told)
    if known is FailureClass.RATE_LIMITED and (status == 413 or "request too large" in words):
        return FailureClass.TOO_LARGE   # it is larger than a whole minute's tokens: waiting would not help, another account might
    if known is not None:
        return known
    by_words = _by_words(status, told, words)
    return by_words or _by_status(status, words)


def _by_code(told: dict[str, Any]) -> FailureClass | None:
    inner, metadata = told.get("innererror"), told.get("metadata")
    names = [told.get("code"), told.get("type")]
    names += [inner.get("code")] if isinstance(inner, dict) else []
    names += [metadata.get("error_type")] if isinstance(metadata, dict) else []
    for name in names:
        known = _CLASS_OF_CODE.get(name) if isinstance(name, str) else None
        if known is not None:
            return known
    if isinstance(metadata, dict) and metadata.get("reasons"):   # OpenRouter's moderation
        return FailureClass.CONTENT_FILTERED
    return None


def _by_words(status: int, told: dict[str, Any], words: str) -> FailureClass | None:
    if status in (200, 400, 413, 422) and (told.get("param") in _CONTEXT_PARAMS or any(w in words for w in _CONTEXT_WORDS)):
        return FailureClass.CONTEXT_LENGTH
    if status in (200, 400) and any(w in words for w in _KEY_WORDS):
        return FailureClass.AUTH   # xAI's
    if status in (400, 403, 429) and any(w in words for w in _QUOTA_WORDS):
        return FailureClass.QUOTA_EXHAUSTED
    return None


def _by_status(status: int, words: str) -> FailureClass:
    if status == 200:
        return FailureClass.NOT_FOUND if "not found" in words else FailureClass.MALFORMED
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    if 300 <= status < 400:
        return FailureClass.NOT_FOUND   # a redirect is not followed: the key goes to its base_url alone
    return FailureClass.SERVER_ERROR if status >= 500 else FailureClass.UNKNOWN


def _told(parsed: object) -> dict[str, Any]:
    """The error object. Ollama's and xAI's error is a bare string, Mistral's and old vLLM's is not nested."""
    error = parsed.get("error") or parsed if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _words(told: dict[str, Any], parsed: object) -> str:
    words = told.get("message")
    if isinstance(words, str):
        return words
    details = words.get("detail") if isinstance(words, dict) else told.get("detail")
    if isinstance(details, str):
        return details
    found = details if isinstance(details, list) else []
    return "; ".join(_located(one) for one in found if isinstance(one, dict))


def _located(complaint: dict[str, Any]) -> str:
    """One complaint of a server that checks with pydantic: where, and what."""
    place = complaint.get("loc")
    where = ".".join(str(step) for step in place) if isinstance(place, list) else ""
    return f"{where}: {complaint.get('msg')}" if where else str(complaint.get("msg"))


def _filtered(told: dict[str, Any]) -> str:
    """Which of Azure's filters held the prompt."""
    inner = told.get("innererror")
    results = inner.get("content_filter_result") if isinstance(inner, dict) else None
    if not isinstance(results, dict):
        return ""
    names = [name for name, found in results.items() if isinstance(found, dict) and found.get("filtered") is True]
    return f" (filtered: {', '.join(names)})" if names else ""


def _status_of(code: object) -> int | None:
    number = int(code) if isinstance(code, str) and code.isdecimal() else code
    return number if isinstance(number, int) and 400 <= number < 600 else None
