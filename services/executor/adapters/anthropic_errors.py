"""Anthropic's errors to a class of failure and what goes with it. Pure.

Sources: Anthropic's pages on errors, rate limits and spend limits.
"""

from collections.abc import Mapping
from typing import Any

from schemas.ledger import FailureClass
from services.executor.adapters import hints
from services.executor.reply import Reply

_CLASS_OF_TYPE = {
    "invalid_request_error": FailureClass.INVALID,
    "authentication_error": FailureClass.AUTH,
    "permission_error": FailureClass.AUTH,
    "billing_error": FailureClass.QUOTA_EXHAUSTED,
    "not_found_error": FailureClass.NOT_FOUND,
    "conflict_error": FailureClass.UNKNOWN,   # may be tried again, and is nobody's fault
    "request_too_large": FailureClass.TOO_LARGE,
    "rate_limit_error": FailureClass.RATE_LIMITED,
    "api_error": FailureClass.SERVER_ERROR,
    "timeout_error": FailureClass.OVERLOADED,
    "overloaded_error": FailureClass.OVERLOADED,
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
# The API says these things in words alone, all of them as invalid_request_error.
_CLASS_OF_WORDS = (
    ("prompt is too long", FailureClass.CONTEXT_LENGTH),
    ("exceed context limit", FailureClass.CONTEXT_LENGTH),
    ("context window", FailureClass.CONTEXT_LENGTH),
    ("credit balance is too low", FailureClass.QUOTA_EXHAUSTED),
    ("api usage limits", FailureClass.QUOTA_EXHAUSTED),
    ("content filtering policy", FailureClass.CONTENT_FILTERED),
)
_SPEND_LIMIT = "enforced_spend_limit_reached"
_WAITS = frozenset({FailureClass.RATE_LIMITED, FailureClass.QUOTA_EXHAUSTED, FailureClass.OVERLOADED, FailureClass.SERVER_ERROR})
_TELLS = frozenset({FailureClass.INVALID, FailureClass.CONTENT_FILTERED})


def failed(status: int, headers: Mapping[str, str], parsed: object) -> Reply:
    """The reply to an error, with what the provider says of waiting, and why it refused where the caller may know."""
    failure = failure_of(status, parsed)
    words = _words(_told(parsed))
    return Reply(
        status,
        failure=failure,
        provider_request_id=request_id(headers, parsed),
        wait_ms=hints.wait_ms(headers, words) if failure in _WAITS else None,
        limits=hints.anthropic_limits(headers),
        said=hints.said(words) if failure in _TELLS else "",
    )


def failure_of(status: int, parsed: object) -> FailureClass:
    """The spend limit before words before type before status."""
    told = _told(parsed)
    details = told.get("details")
    if isinstance(details, dict) and details.get("error_code") == _SPEND_LIMIT:
        return FailureClass.QUOTA_EXHAUSTED
    known = _CLASS_OF_TYPE.get(str(told.get("type")))
    if known in (None, FailureClass.INVALID):
        words = _words(told).lower()
        for phrase, failure in _CLASS_OF_WORDS:
            if phrase in words:
                return failure
    if known is not None and not (known is FailureClass.INVALID and status not in (200, 400, 422)):
        return known   # the type may stand for any 4xx that has no name of its own
    return _by_status(status)


def is_error(parsed: object) -> bool:
    """Whether a body or an event is an error's."""
    return isinstance(parsed, dict) and (parsed.get("type") == "error" or bool(parsed.get("error")))


def request_id(headers: Mapping[str, str], parsed: object) -> str:
    """The id to name to the provider: a header, or a field of an error."""
    own = parsed.get("request_id") if isinstance(parsed, dict) else None
    return headers.get("request-id") or (own if isinstance(own, str) else "")


def _by_status(status: int) -> FailureClass:
    if status == 200:
        return FailureClass.MALFORMED
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    if 300 <= status < 400:
        return FailureClass.NOT_FOUND   # a redirect is not followed: the key goes to its base_url alone
    return FailureClass.SERVER_ERROR if status >= 500 else FailureClass.UNKNOWN


def _told(parsed: object) -> dict[str, Any]:
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _words(told: dict[str, Any]) -> str:
    words = told.get("message")
    return words if isinstance(words, str) else ""
