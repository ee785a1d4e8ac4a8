"""One answer under way: when the model would have said so many tokens, and the stream that says them at that speed."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from aiohttp import web

from services.simulator.call import Answer, Call, Usage, answer_tokens
from services.simulator.decide import Behaviour
from services.simulator.dialect import Dialect, Failure, Quota
from services.simulator.faults import FaultKind

_SLEEP_S_MIN = 0.001  # shorter waits are made up for at the next event
_ODD_EVENT = 10  # the event that is broken or sent twice


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call under way: what is needed to answer and to bill it."""

    dialect: Dialect
    provider: str
    call: Call
    behaviour: Behaviour
    scale: float
    attempt_id: str
    reply_id: str
    quota: Quota
    headers: dict[str, str]
    cached_tokens: int
    cache_write_tokens: int
    started_s: float
    now_s: float

    @property
    def kind(self) -> FaultKind | None:
        """What kind of fault befalls the call."""
        return self.behaviour.fault.kind if self.behaviour.fault else None

    def usage(self, tokens_out: int, reasoning_tokens: int) -> Usage:
        """What so many tokens of output count and cost."""
        cached, written = self.cached_tokens, self.cache_write_tokens
        return Usage(self.call.tokens_in, tokens_out, cached, reasoning_tokens, written)

    def reported(self, usage: Usage) -> Usage:
        """What the answer says it counts: the truth, unless the fault is that it does not."""
        if self.kind is not FaultKind.WRONG_USAGE:
            return usage
        return replace(usage, tokens_in=usage.tokens_in + 7, tokens_out=usage.tokens_out * 2 + 1)

    def wait_s(self, tokens: int) -> float:
        """Time until the model would have said so many tokens."""
        behaviour = self.behaviour
        due_s = (behaviour.ttft_ms + tokens * behaviour.ms_per_token) / 1000 * self.scale
        fault = behaviour.fault
        if fault is not None:
            if fault.kind is FaultKind.SLOW:
                due_s += fault.delay_ms / 1000
            elif fault.kind is FaultKind.DRIP:
                due_s += max(0, tokens - fault.after_tokens) * fault.stall_s
        return self.started_s + due_s - time.monotonic()

    async def sleep_until(self, tokens: int) -> None:
        """Wait as long as the model needs for so many tokens."""
        wait_s = self.wait_s(tokens)
        if wait_s > _SLEEP_S_MIN:
            await asyncio.sleep(wait_s)


class Speech:
    """A stream under way: events paced at the model's speed, those that are due together in one write."""

    def __init__(self, request: web.Request, exchange: Exchange, said: Answer) -> None:
        self._request, self._exchange, self._said = request, exchange, said
        begun = exchange.reported(exchange.usage(1, 0))
        self._chunks = exchange.dialect.chunks(exchange.call, said, begun, exchange.reply_id, int(exchange.now_s))
        self._text_bytes = len(said.tool_name)
        self.response = web.StreamResponse(headers=exchange.headers | {"cache-control": "no-cache"})
        self.response.content_type = self._chunks.content_type
        self.ready = self._chunks.first()
        self.tokens_said = self._chunks.silent_tokens
        self.tokens_sent = 0

    async def begin(self) -> None:
        """Wait for the first token, send the headers."""
        await self._exchange.sleep_until(self.tokens_said)
        await self.response.prepare(self._request)

    async def say(self, tokens_max: int | None = None) -> None:
        """The pieces of the answer, at most so many tokens."""
        pieces = list(self._chunks.pieces())
        odd_at = min(_ODD_EVENT, len(pieces) + 1) if self._exchange.kind in (FaultKind.MALFORMED, FaultKind.DUPLICATE) else 0
        for at, (piece, event) in enumerate(pieces, 2):
            if tokens_max is not None and self.tokens_said >= tokens_max:
                return
            wait_s = self._exchange.wait_s(self.tokens_said)
            if wait_s > _SLEEP_S_MIN:
                await self.response.write(self.ready)
                self.tokens_sent, self.ready = self.tokens_said, b""
                await asyncio.sleep(wait_s)
            self._text_bytes += len(piece.encode("utf-8", "surrogatepass"))
            self.tokens_said = self._chunks.silent_tokens + (self._text_bytes + 3) // 4
            self.ready += self._odd(event) if at == odd_at else event

    def _odd(self, event: bytes) -> bytes:
        return event * 2 if self._exchange.kind is FaultKind.DUPLICATE else self._chunks.broken() + event

    def usage(self, tokens_out: int | None = None) -> Usage:
        """What so many tokens of output count and cost; without a number, the whole answer."""
        tokens_out = answer_tokens(self._said) if tokens_out is None else tokens_out
        return self._exchange.usage(tokens_out, min(tokens_out, self._said.reasoning_tokens))

    async def end(self, usage: Usage) -> None:
        """Finish reason, usage and end marker. The call is billed already: a client that has left changes nothing."""
        end = b"" if self._exchange.kind is FaultKind.NO_DONE else self._chunks.end()
        await self._close(self._chunks.last(self._exchange.reported(usage)) + end)

    async def fail(self, failure: Failure) -> None:
        """An error event where the rest of the answer should be, then a clean end of the body."""
        said = self._exchange.reported(self.usage(self.tokens_said))
        await self._close(self._chunks.error(replace(failure, usage=said)))

    async def _close(self, last: bytes) -> None:
        with suppress(ConnectionError):
            await self.response.write(self.ready + last)
            await self.response.write_eof()
