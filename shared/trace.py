"""W3C trace context: taken on where a caller sends a valid one, begun where not. Pure: the randomness is passed in."""

import re

from schemas.envelope import Header
from shared.broker import Headers

RANDOM_BYTES = 24
"""What `new` needs: 16 for the trace, 8 for its first span."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_BYTES_MAX = 512


def valid(text: str | None) -> bool:
    """Whether a `traceparent` may be passed on as it is (W3C Trace Context, section 3.2)."""
    return text is not None and _TRACEPARENT.fullmatch(text) is not None


def new(random_bytes: bytes) -> str:
    """A sampled `traceparent` from 24 random bytes."""
    text = random_bytes.hex()
    return f"00-{text[:32]}-{text[32:48]}-01"


def taken_on(traceparent: str | None, tracestate: str | None, random_bytes: bytes) -> Headers:
    """The trace headers of a record: the caller's when they are valid, else a trace of its own."""
    if traceparent is None or not valid(traceparent):
        return ((Header.TRACEPARENT, new(random_bytes).encode()),)
    headers: Headers = ((Header.TRACEPARENT, traceparent.encode()),)
    state = (tracestate or "").encode("utf-8", "replace")
    if state and len(state) <= _TRACESTATE_BYTES_MAX:
        headers += ((Header.TRACESTATE, state),)
    return headers
