"""The log of calls: every call that arrived, billed or not, and those that arrived while their caller had been told to wait.

It exists to judge a caller from outside. It never holds a key, a prompt or an answer.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

CALLS_MAX = 1_000_000
_GATED_MAX = 100_000
_LINES_PER_PIECE = 1_000
_AUTHORIZATION = "authorization"
_KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")
_HASH_BYTES = 6


class CallLine(NamedTuple):
    """One call. `status` is 0 if no HTTP status was sent (reset, hang); `error_class` is the class of the error or, if the
    answer was spoilt in another way, the kind of the fault; `""` for a good answer."""

    at_ms: int
    done_ms: int
    provider: str
    model: str
    key: str
    attempt_id: str
    status: int
    error_class: str
    retry_after_ms: int
    streamed: bool


class Calls:
    """The last million calls, in the order in which they ended."""

    def __init__(self, calls_max: int = CALLS_MAX) -> None:
        self._lines: deque[tuple[int | str, ...]] = deque(maxlen=calls_max)

    def add(self, line: CallLine) -> None:
        """Note one call. Kept as a plain tuple: the garbage collector forgets those, a million named ones would stall it."""
        self._lines.append(tuple(line))

    def read(self, since_ms: int = 0) -> Iterator[bytes]:
        """JSON lines of the calls that arrived at or after `since_ms`, in pieces."""
        lines = [line for line in map(CallLine._make, self._lines) if line.at_ms >= since_ms]
        for start in range(0, len(lines), _LINES_PER_PIECE):
            piece = lines[start : start + _LINES_PER_PIECE]
            yield b"".join(orjson.dumps(line._asdict(), option=orjson.OPT_APPEND_NEWLINE) for line in piece)


class Gates:
    """Which (provider, key, model) was told to wait until when, and the calls that came all the same. Times in ms."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], tuple[float, float]] = {}
        self._early: deque[dict[str, Any]] = deque(maxlen=_GATED_MAX)
        self._count = 0

    def told(self, provider: str, key: str, model: str, at_ms: float, wait_ms: float) -> None:
        """A 429 with a wait was answered. A shorter wait told later ends no longer one."""
        told_ms, told_wait_ms = self._told.get((provider, key, model), (0.0, 0.0))
        if at_ms + wait_ms > told_ms + told_wait_ms:
            self._told[provider, key, model] = (at_ms, wait_ms)

    def arrived(self, provider: str, key: str, model: str, at_ms: float) -> None:
        """A call came; it is counted if its wait is not over."""
        if not self._told:
            return
        told_ms, wait_ms = self._told.get((provider, key, model), (0.0, -1.0))
        after_ms = at_ms - told_ms
        if 0 <= after_ms < wait_ms:
            self._count += 1
            self._early.append(
                {
                    "at_ms": round(at_ms),
                    "provider": provider,
                    "model": model,
                    "key": key,
                    "after_ms": round(after_ms, 3),
                    "retry_after_ms": round(wait_ms, 3),
                }
            )

    def as_dict(self) -> dict[str, Any]:
        """How many came too early, and the last of them."""
        return {"count": self._count, "calls": list(self._early)}


def key_of(headers: Mapping[str, str]) -> str:
    """The hash of the key a call came with; "" without one. OpenAI, Anthropic, Gemini and Azure headers, in this order."""
    key = headers.get(_AUTHORIZATION, "")
    if key:
        return key_hash(key[7:] if key[:7].lower() == "bearer " else key)
    for name in _KEY_HEADERS:
        key = headers.get(name, "")
        if key:
            return key_hash(key)
    return ""


def key_hash(key: str) -> str:
    """Twelve hexadecimal digits: enough to tell keys apart, too few to learn anything."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
