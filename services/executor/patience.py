"""How long one streamed call is waited for: until its first token, between events, for its end, and in all."""

import asyncio

from schemas.ledger import FailureClass
from services.executor.adapters import Stream
from services.executor.terms import Terms

# After its finish reason a stream may still send its usage and its end; the answer is whole without them.
END_S = 2.0
# After all that can matter only the end of the body is missing: with it the connection can be used again.
CLOSE_S = 0.1
# Keep-alives prove that the server lives, not that the model does: with them a silence may be so many times as long.
ALIVE_FACTOR = 3


class Patience:
    """The one time limit of one call, moved with every piece that comes. Made when the call begins; `limit` is entered once."""

    def __init__(self, terms: Terms) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._end_s = self._began_s + terms.timeout_ms / 1000
        self._stall_s = terms.stall_ms / 1000
        self._alive = 0
        self._heard_s = self._began_s
        self._on_first_token = terms.on_first_token
        self.first_token_ms: float | None = None
        self.limit = asyncio.timeout_at(min(self._end_s, self._began_s + terms.first_token_ms / 1000))

    def for_whole(self) -> None:
        """What comes is no stream: only the total counts."""
        self.limit.reschedule(self._end_s)

    def heard(self, reader: Stream) -> None:
        """A piece came and was read."""
        now_s = self._loop.time()
        if reader.alive != self._alive:
            self._alive, self._heard_s = reader.alive, now_s
        if self.first_token_ms is None and reader.started:
            self.first_token_ms = (now_s - self._began_s) * 1000
            if self._on_first_token is not None:
                self._on_first_token()
        if reader.over:
            self._sooner(now_s + CLOSE_S)
        elif reader.finished:
            self._sooner(now_s + END_S)
        elif reader.started:
            silent_until_s = min(now_s + self._stall_s, self._heard_s + self._stall_s * ALIVE_FACTOR)
            self.limit.reschedule(min(self._end_s, silent_until_s))

    def ran_out(self, reader: Stream) -> FailureClass:
        """What it means that the limit was reached."""
        is_silence = reader.started and self._loop.time() < self._end_s
        return FailureClass.STALLED if is_silence else FailureClass.TIMEOUT

    def _sooner(self, at_s: float) -> None:
        """Moves the limit, but never later than a finished stream already had it."""
        ends_s = min(self._end_s, at_s)
        self._end_s = ends_s
        self.limit.reschedule(ends_s)
