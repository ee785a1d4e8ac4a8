"""Turns (limit, bucket, cost, time) into whether a call may pass, how long it must wait if not, and what is left.

Pure: the time is passed in. A refused call takes nothing out of a bucket, so the wait it is told is true.
"""

from dataclasses import dataclass
from math import ceil, floor

_MINUTE_S = 60.0
_TINY = 1e-6  # what floating point may lack: a bucket that refilled to 0.9999999 requests holds one


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests and tokens per minute of one (provider, key, model); 0 is no limit. A bucket holds one minute's worth."""

    rpm: int = 0
    tpm: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """How much was there, and when."""

    level: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One bucket after a call: per minute, left now, seconds until it is full again."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether one call passed. `retry_after_s` is None if it did, else the time after which the same call would pass."""

    retry_after_s: float | None
    requests: Standing | None
    tokens: Standing | None


class Limiter:
    """The buckets of one (provider, key, model), full at first."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None

    def admit(self, limit: Limit, tokens: int, now_s: float) -> Admission:
        """Take one request and its tokens, or nothing. A call larger than the bucket passes when the bucket is full."""
        requests_left, tokens_left = level(self._requests, limit.rpm, now_s), level(self._tokens, limit.tpm, now_s)
        cost = min(tokens, limit.tpm)
        wait_s = max(_wait_s(requests_left, 1, limit.rpm), _wait_s(tokens_left, cost, limit.tpm))
        if wait_s == 0:
            requests_left, tokens_left = requests_left - 1, tokens_left - cost
        self._requests = Bucket(requests_left, now_s) if limit.rpm else None
        self._tokens = Bucket(tokens_left, now_s) if limit.tpm else None
        return Admission(wait_s or None, _standing(requests_left, limit.rpm), _standing(tokens_left, limit.tpm))


def level(bucket: Bucket | None, per_minute: int, now_s: float) -> float:
    """What a bucket holds now: it refills evenly, up to one minute's worth."""
    if bucket is None:
        return float(per_minute)
    return min(float(per_minute), bucket.level + max(0.0, now_s - bucket.at_s) * per_minute / _MINUTE_S)


def _wait_s(left: float, cost: int, per_minute: int) -> float:
    """Seconds until the bucket holds the cost, rounded up to milliseconds, so that waiting exactly so long is enough."""
    if not per_minute or left + _TINY >= cost:
        return 0.0
    return ceil((cost - left) * _MINUTE_S / per_minute * 1000 - _TINY) / 1000


def _standing(left: float, per_minute: int) -> Standing | None:
    if not per_minute:
        return None
    return Standing(per_minute, max(0, floor(left + _TINY)), max(0.0, per_minute - left) * _MINUTE_S / per_minute)
