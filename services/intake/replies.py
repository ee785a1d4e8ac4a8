"""Answers that came back for this replica: handed to whoever waits, and kept for a while for whoever asks later."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.messages import Result
from schemas.topology import REPLIES
from shared.broker import Record
from shared.codec import decode
from shared.errors import UndecodableError

log = logging.getLogger(__name__)

RECENT_BYTES_MAX = 32_000_000
ENTRY_BYTES = 180
"""What remembering an answer takes beside the answer itself: most of it, where answers are a word."""


class Replies:
    """Bounded by bytes, not by count: one answer may be as large as thousands of others."""

    def __init__(self, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._waiting: dict[str, tuple[asyncio.Future[Result], int]] = {}
        self.waiting = 0   # callers that hold a socket open now

    def note(self, record: Record) -> None:
        """One record of this replica's partition; its key is the request id. A repeat changes nothing."""
        request_id, value = (record.key or b"").decode("utf-8", "replace"), record.value or b""
        if request_id in self._recent:
            return
        self._recent[request_id] = value
        self._bytes += len(value) + ENTRY_BYTES
        while self._bytes > self._bytes_max:
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= len(dropped) + ENTRY_BYTES
        future, _ = self._waiting.get(request_id, (None, 0))
        result = _decoded(value) if future is not None else None
        if future is not None and result is not None and not future.done():
            future.set_result(result)

    def recent(self, request_id: str) -> Result | None:
        """The answer, if it came back here and has not been pushed out yet."""
        value = self._recent.get(request_id)
        return None if value is None else _decoded(value)

    @contextmanager
    def expecting(self, request_id: str) -> "Iterator[asyncio.Future[Result]]":
        """A future of the answer, shared by all who wait for it. Enter before the request is written.

        Await it through `asyncio.shield` or `asyncio.wait`: a caller who gives up must not cancel the others.
        """
        future, count = self._waiting.get(request_id) or (asyncio.get_running_loop().create_future(), 0)
        self._waiting[request_id] = (future, count + 1)
        self.waiting += 1
        known = self.recent(request_id)
        if known is not None and not future.done():
            future.set_result(known)
        try:
            yield future
        finally:
            self.waiting -= 1
            future, count = self._waiting[request_id]
            if count > 1:
                self._waiting[request_id] = (future, count - 1)
            else:
                del self._waiting[request_id]


def _decoded(value: bytes) -> Result | None:
    try:
        result: Result = decode(REPLIES, value)
    except UndecodableError as error:
        log.warning("unreadable reply skipped", extra={"error": str(error)})
        return None
    return result
