"""What every dialect's stream has in common: events in, what they amount to out. Pure: sans I/O, no clock.

A stream is whole when its finish reason came and nothing before it was lost; then it does not matter how the connection
ended. **An answer of which a part may be missing is never an answer.**
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer
from services.executor.adapters.sse import Events
from services.executor.reply import Reply

_BYTES_PER_TOKEN = 4   # of plain text, roughly, in the tokenisers of all three
_EXACT = frozenset(
    {
        FailureClass.RATE_LIMITED,
        FailureClass.QUOTA_EXHAUSTED,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.AUTH,
        FailureClass.NOT_FOUND,
        FailureClass.INVALID,
        FailureClass.TOO_LARGE,
        FailureClass.CONTENT_FILTERED,
    }
)


class AnswerStream(ABC):
    """One stream under way. A dialect gives `take`, what its events mean, and `answer`, what they made.

    `started`: something of the answer came, thoughts included. `finished`: the finish reason came, so nothing of the text is
    missing. `over`: nothing that may still come would change anything. `alive` rises with every event that is no keep-alive.
    """

    end_mark: ClassVar[bytes] = b"[DONE]"
    outlives_its_finish: ClassVar[bool] = False   # whether text may follow a finish reason: then only the body's end proves it

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.started = self.finished = self.over = False
        self.alive = 0
        self.failure: FailureClass | None = None
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.model = ""
        self.said = ""
        self.wait_ms: int | None = None
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.headers = headers
        self._events = Events()
        self._last = b""
        self.read_any = False
        self._repeats = 0
        self._pieces = 0
        self._chars = 0

    # What a dialect gives

    @abstractmethod
    def take(self, event: dict[str, Any]) -> None:
        """Reads one event. A ValueError, TypeError, LookupError or AttributeError: it has another shape than the dialect's."""

    @abstractmethod
    def answer(self, usage: Usage) -> Answer | None:
        """The answer, or None where its parts do not fit together."""

    def request_id(self) -> str:
        return ""

    def limited(self, reply: Reply) -> Reply:
        """The reply with what the response's headers say of limits."""
        return reply

    # What the caller uses

    def feed(self, piece: bytes) -> None:
        """Takes bytes as they come."""
        for data in self._events.feed(piece):
            self._read(data)

    def result(self, broken: FailureClass | None = None) -> Reply:
        """What it amounts to. `broken`: the stream did not end by itself but was cut, fell silent or took too long."""
        if broken is None:
            for data in self._events.end():
                self._read(data, is_rest=True)
            self.finished = self.finished or self.finish is not None
        if self.failure is None and not self.finished:
            nothing_read = broken is None and not self.read_any
            self.failure = broken or (FailureClass.MALFORMED if nothing_read else FailureClass.TRUNCATED)
        if self.failure is None and self._is_doubled():
            self.failure = FailureClass.MALFORMED
        usage = self.usage if self.usage is not None else self._estimated()
        if not self.finished and self.failure is not FailureClass.CONTENT_FILTERED and not usage.estimated:
            usage = usage.model_copy(update={"estimated": True})   # running counts of an answer that broke off: nobody's bill
        answer = None if self.failure else self._answered(usage)
        failure = self.failure or (None if answer else FailureClass.MALFORMED)
        return self.limited(
            Reply(
                status=200,
                answer=answer,
                failure=failure,
                usage=usage,
                model_served=self.model,
                provider_request_id=self.request_id(),
                streamed=True,
                wait_ms=self.wait_ms,
                tokens_seen=self.tokens_seen(),
                said=self.said,
            )
        )

    def tokens_seen(self) -> int:
        """Tokens of what came, thoughts included, estimated: an event is a token at least, and four characters are one."""
        return max(self._pieces, -(-self._chars // _BYTES_PER_TOKEN))

    # For dialects

    def came(self, chars: int) -> None:
        """Something of the answer came: text, thought, or a part of a tool call."""
        if chars:
            self.started = True
            self._pieces += 1
            self._chars += chars

    def fail(self, failure: FailureClass) -> None:
        """An error event: its own class where that says more than that the stream failed. Behind the finish it is too late."""
        if not self.finished:
            self.failure = failure if failure in _EXACT else FailureClass.STREAM_ERROR
        self.over = True

    def finish_with(self, finish: str | None, failure: FailureClass | None) -> None:
        """The finish reason: an answer's, or that of a failure."""
        self.finish, self.failure = finish, failure
        self.finished = not self.outlives_its_finish

    def _read(self, data: bytes, is_rest: bool = False) -> None:
        if self.over or not data:
            return
        if data == self.end_mark:
            self.over = True
            return
        try:
            event = orjson.loads(data)
            if data == self._last:
                if self.is_same(event):
                    return
                self._repeats += 1
            self._last = data
            self.take(event)
            self.read_any = True
        except (ValueError, AttributeError, LookupError, TypeError):
            if not is_rest:
                self._lost()

    def _answered(self, usage: Usage) -> Answer | None:
        try:
            return self.answer(usage)
        except (TypeError, ValueError):
            return None   # a piece that is no text, or a field of another shape

    def is_same(self, event: dict[str, Any]) -> bool:
        """Whether an event that equals the one before it is provably the same one again, and no repeated word."""
        return False

    def _lost(self) -> None:
        """An event that cannot be read may have carried text. After the finish reason it carried none."""
        if not self.finished:
            self.failure, self.over = FailureClass.MALFORMED, True

    def _is_doubled(self) -> bool:
        """Events came twice in a row, and they are just what is more than the provider counts tokens: they were copies."""
        counted = self.usage.tokens_out if self.usage is not None else 0
        return 0 < counted < self._pieces <= counted + self._repeats

    def _estimated(self) -> Usage:
        return Usage(tokens_out=self.tokens_seen(), estimated=True)
