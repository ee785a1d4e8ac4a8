"""Gemini's errors to a class of failure and what goes with it. Pure.

Sources: Gemini API troubleshooting and rate-limit guides; google.rpc.Code, ErrorInfo, QuotaFailure and RetryInfo.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.ledger import FailureClass
from services.executor.adapters import hints
from services.executor.reply import Reply

_CLASS_OF_STATUS_NAME = {
    "INVALID_ARGUMENT": FailureClass.INVALID,
    "FAILED_PRECONDITION": FailureClass.AUTH,   # the region or the project may not use the API as it is
    "OUT_OF_RANGE": FailureClass.INVALID,
    "UNAUTHENTICATED": FailureClass.AUTH,
    "PERMISSION_DENIED": FailureClass.AUTH,
    "NOT_FOUND": FailureClass.NOT_FOUND,
    "ABORTED": FailureClass.UNKNOWN,
    "CANCELLED": FailureClass.UNKNOWN,
    "RESOURCE_EXHAUSTED": FailureClass.RATE_LIMITED,
    "INTERNAL": FailureClass.SERVER_ERROR,
    "UNKNOWN": FailureClass.SERVER_ERROR,
    "DATA_LOSS": FailureClass.SERVER_ERROR,
    "UNAVAILABLE": FailureClass.OVERLOADED,
    "DEADLINE_EXCEEDED": FailureClass.OVERLOADED,
    "UNIMPLEMENTED": FailureClass.NOT_FOUND,
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
    429: FailureClass.RATE_LIMITED,
    503: FailureClass.OVERLOADED,
    504: FailureClass.OVERLOADED,
}
_CLASS_OF_REASON = {
    "API_KEY_INVALID": FailureClass.AUTH,
    "API_KEY_EXPIRED": FailureClass.AUTH,
    "API_KEY_SERVICE_BLOCKED": FailureClass.AUTH,
    "ACCESS_TOKEN_EXPIRED": FailureClass.AUTH,
    "SERVICE_DISABLED": FailureClass.AUTH,
    "CONSUMER_INVALID": FailureClass.AUTH,
    "BILLING_DISABLED": FailureClass.QUOTA_EXHAUSTED,
}
_CONTEXT_WORDS = ("input token count", "maximum number of tokens allowed", "context length", "context window")
_SPENT_WORDS = ("limit: 0", "spending cap", "credits are depleted")
_WAITS = frozenset({FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.SERVER_ERROR})
_TELLS = frozenset({FailureClass.INVALID, FailureClass.CONTENT_FILTERED})


def is_error(parsed: object) -> bool:
    """Whether a body or an event is an error's; some endpoints wrap it in a list."""
    return isinstance(_unwrapped(parsed), dict) and bool(_unwrapped(parsed).get("error"))


def failed(status: int, headers: Mapping[str, str], parsed: object) -> Reply:
    """The reply to an error, with what the provider says of waiting, and why it refused where the caller may know.

    The delay of a day's quota is not believed: it is as short as any, and what is used up comes back with the next day.
    """
    failure = failure_of(status, parsed)
    told = _told(parsed)
    words = _words(told)
    return Reply(
        status,
        failure=failure,
        wait_ms=hints.wait_ms(headers, words, _retry_delay_s(told)) if failure in _WAITS else None,
        said=hints.said(words) if failure in _TELLS else "",
    )


def failure_of(status: int, parsed: object) -> FailureClass:
    """The reason in the details before the words before the status by name before the HTTP status."""
    told = _told(parsed)
    for detail in _details(told):
        known = _CLASS_OF_REASON.get(str(detail.get("reason")))
        if known is not None:
            return known
    words = _words(told).lower()
    by_name = _CLASS_OF_STATUS_NAME.get(str(told.get("status")))
    if status == 200 and by_name is None:
        code = told.get("code")
        status = code if isinstance(code, int) else status
    found = by_name if by_name is not None and status != 402 else _by_status(status)
    if found is FailureClass.RATE_LIMITED and _is_spent(told, words):
        return FailureClass.QUOTA_EXHAUSTED
    if found is FailureClass.INVALID and "api key not valid" in words:
        return FailureClass.AUTH
    if found is FailureClass.INVALID and any(phrase in words for phrase in _CONTEXT_WORDS):
        return FailureClass.CONTEXT_LENGTH
    if found is FailureClass.INVALID and status == 413:
        return FailureClass.TOO_LARGE
    return found


def _is_spent(told: dict[str, Any], words: str) -> bool:
    """Whether a quota of a day is among those that were exceeded, or nothing is allowed at all."""
    by_day = any("PerDay" in str(violation.get("quotaId")) for violation in _violations(told))
    return by_day or any(phrase in words for phrase in _SPENT_WORDS)


def _violations(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for detail in _details(told):
        found = detail.get("violations")
        yield from (one for one in (found if isinstance(found, list) else []) if isinstance(one, dict))


def _retry_delay_s(told: dict[str, Any]) -> float | None:
    for detail in _details(told):
        delay = detail.get("retryDelay")
        if isinstance(delay, str):
            return hints.duration_s(delay)
    return None


def _details(told: dict[str, Any]) -> list[dict[str, Any]]:
    details = told.get("details")
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _by_status(status: int) -> FailureClass:
    if status == 200:
        return FailureClass.MALFORMED
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    if 300 <= status < 400:
        return FailureClass.NOT_FOUND   # a redirect is not followed: the key goes to its base_url alone
    return FailureClass.SERVER_ERROR if status >= 500 else FailureClass.UNKNOWN


def _unwrapped(parsed: object) -> Any:
    return parsed[0] if isinstance(parsed, list) and parsed else parsed


def _told(parsed: object) -> dict[str, Any]:
    found = _unwrapped(parsed)
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _words(told: dict[str, Any]) -> str:
    words = told.get("message")
    return words if isinstance(words, str) else ""
