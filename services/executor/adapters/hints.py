"""What a response says beside its class: how long to leave the provider alone, what it allows per minute, why it refused. Pure.

The clock is the response's own `Date`: no other is right for instants that the provider names.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from schemas.fleet import RateLimits

WAIT_MS_MAX = 86_400_000   # whoever asks for more than a day is asked again after a day
SAID_CHARS_MAX = 300

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?)(?![a-z])")
_SPANS = r"((?:\d+(?:\.\d+)?\s*[a-z]+\s*){1,4})"
_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) " + _SPANS)
_INSTANT = re.compile(r"\b(\d{4}-\d\d-\d\d)(?: at |[T ])(\d\d:\d\d)(?::\d\d)?\s*(?:utc|z)\b")
_KEY = re.compile(
    r"\bbearer\s+\S+"
    r"|\b(?:sk|pk|rk|gsk|xai|org|proj|aiza|ya29|eyj)[-_.*a-z0-9]{6,}"
    r"|(?<![\w-])(?=[\w-]*\d)[\w-]{24,}",
    re.IGNORECASE,
)


def wait_ms(headers: Mapping[str, str], words: str = "", hint_s: float | None = None) -> int | None:
    """How long to wait, in the order in which it can be trusted: headers, a field of the body, the body's words."""
    text = headers.get("retry-after-ms")
    asked_ms = None if text is None else _number(text)
    if asked_ms is None:
        text = headers.get("retry-after")
        asked_s = None if text is None else _number(text)
        if asked_s is None and text is not None:
            asked_s = _until_s(_http_date(text), headers)
        if asked_s is None:
            asked_s = hint_s if hint_s is not None else _worded_s(words.lower(), headers)
        asked_ms = None if asked_s is None else asked_s * 1000
    return None if asked_ms is None else _clamped(asked_ms)


@lru_cache(1024)
def duration_s(text: str) -> float | None:
    """Seconds of `12ms`, `6m0s`, `41.724s`, `26 seconds`, `1.5`; None for anything else."""
    plain = _number(text)
    if plain is not None:
        return plain
    found = _SPAN.findall(text.lower())
    return sum(float(amount) * _UNIT_S["ms" if unit.startswith(("ms", "mil")) else unit[0]] for amount, unit in found) or (
        0.0 if found else None
    )


def openai_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """What `x-ratelimit-limit-*` allow per minute; of requests only where they come back at that pace: Groq counts a day's."""
    rpm, tpm = _count(headers.get("x-ratelimit-limit-requests")), _count(headers.get("x-ratelimit-limit-tokens"))
    if rpm is not None and not _is_per_minute(rpm, headers):
        rpm = None
    return None if rpm is None and tpm is None else _limits(rpm, tpm)


@lru_cache(1024)
def _limits(rpm: int | None, tpm: int | None) -> RateLimits:
    """They come with every answer and hardly ever change."""
    return RateLimits(rpm=rpm, tpm=tpm)


def anthropic_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """What `anthropic-ratelimit-*-limit` allow per minute. Without a limit on all tokens, those on input and output together."""
    rpm, tpm = (_count(headers.get(f"anthropic-ratelimit-{name}-limit")) for name in ("requests", "tokens"))
    if tpm is None:
        parts = [_count(headers.get(f"anthropic-ratelimit-{name}-limit")) for name in ("input-tokens", "output-tokens")]
        tpm = sum(part for part in parts if part) or None
    return None if rpm is None and tpm is None else RateLimits(rpm=rpm, tpm=tpm)


def said(words: object) -> str:
    """A provider's reason for the caller's eyes: one line, cut short, with everything that could be a key masked."""
    if not isinstance(words, str):
        return ""
    line = _KEY.sub("***", " ".join(words[: SAID_CHARS_MAX * 4].split()))
    return line if len(line) <= SAID_CHARS_MAX else line[: SAID_CHARS_MAX - 1] + "…"


def _is_per_minute(limit: int, headers: Mapping[str, str]) -> bool:
    """Whether what is used of a limit is free again as soon as a minute's would be; true where the headers do not say."""
    remaining = _number(headers.get("x-ratelimit-remaining-requests", ""))
    reset_s = duration_s(headers.get("x-ratelimit-reset-requests", ""))
    if remaining is None or reset_s is None or remaining >= limit:
        return True
    return (limit - remaining) * 60 / max(reset_s, 0.001) >= limit / 2


def _count(text: str | None) -> int | None:
    """A limit; Azure sends -1 or 0 where it has none to tell."""
    number = None if text is None else _number(text)
    return int(number) if number is not None and number >= 1 else None


def _number(text: str) -> float | None:
    if not text or text[-1].isalpha():
        return None   # a duration, or a date
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _worded_s(words: str, headers: Mapping[str, str]) -> float | None:
    again = _AGAIN.search(words)
    if again is not None:
        return duration_s(again[1])
    instant = _INSTANT.search(words)
    if instant is None:
        return None
    try:
        return _until_s(datetime.fromisoformat(f"{instant[1]}T{instant[2]}:00+00:00"), headers)
    except ValueError:
        return None


def _until_s(instant: datetime | None, headers: Mapping[str, str]) -> float | None:
    now = _http_date(headers.get("date", ""))
    return None if instant is None or now is None else (instant - now).total_seconds()


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _clamped(ms: float) -> int:
    return math.ceil(min(max(ms, 0), WAIT_MS_MAX))
