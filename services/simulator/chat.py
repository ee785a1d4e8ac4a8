"""Serves one chat call: parse, decide, answer plain or streamed, bill. The only place where a fault becomes bytes.

A call is billed before the last byte of its answer leaves, and whether or not the client is still there to read it.
"""

import asyncio
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from secrets import token_hex

from aiohttp import web

from services.simulator import dialect_openai as dialect
from services.simulator.call import Answer, Call, Prefixes, Usage, answer_tokens, count_tokens
from services.simulator.control import Controls
from services.simulator.decide import Behaviour, decide
from services.simulator.draws import seed_of
from services.simulator.faults import ERROR_STATUS, Fault, FaultKind
from services.simulator.invoice import Invoice
from services.simulator.text import answer, spoiled

_HANG_S = 120.0
_WATCH_S = 0.2  # how often a silent call looks whether its client has left
_SLEEP_S_MIN = 0.001  # shorter waits are made up for at the next event
_CACHED_TOKENS_MIN = 1024  # as OpenAI: shorter prefixes are not cached, longer ones in steps of 128
_CACHED_TOKENS_STEP = 128
_MALFORMED_AT_EVENT = 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Backend:
    """What one model of one provider remembers between calls."""

    seed: int
    calls: int = 0
    in_burst: bool = False
    minute: int = 0
    minute_requests: int = 0
    minute_tokens: int = 0
    prefixes: Prefixes = field(default_factory=Prefixes)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call under way: what is needed to answer and to bill it."""

    provider: str
    call: Call
    behaviour: Behaviour
    scale: float
    attempt_id: str
    reply_id: str
    headers: dict[str, str]
    cached_tokens: int
    started_s: float


class Chat:
    """`POST /v1/chat/completions` of all providers of this process."""

    def __init__(self, name: str, seed: int, controls: Controls, invoice: Invoice) -> None:
        self._name, self._seed, self._controls, self._invoice = name, seed, controls, invoice
        self._backends: dict[tuple[str, str], Backend] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        started_s = time.monotonic()
        try:
            call = dialect.parse(await request.read())
        except dialect.BadRequest as bad:
            return _error(dialect.refusal_of(bad, ERROR_STATUS[bad.error_class]), token_hex(12))
        exchange = self._begin(request, call, started_s)
        fault = exchange.behaviour.fault
        if fault is not None and fault.kind in (FaultKind.ERROR, FaultKind.HANG, FaultKind.RESET):
            return await _fail(request, exchange, fault)
        said = answer(call)
        if fault is not None:
            said = spoiled(said, call, fault.kind)
        if call.streamed:
            return await self._stream(request, exchange, said)
        return await self._plain(request, exchange, said)

    def _begin(self, request: web.Request, call: Call, started_s: float) -> Exchange:
        provider, model = request.match_info.get("provider", self._name), call.model.name
        backend = self._backends.get((provider, model))
        if backend is None:
            backend = self._backends[provider, model] = Backend(seed_of(self._seed, provider, model))
        rule = self._controls.rule(provider, model)
        fleet = self._controls.fleet_of(provider)
        fault = rule.fault if rule else None
        behaviour = decide(call.model, fleet, fault, backend.in_burst, backend.seed, backend.calls)
        backend.calls += 1
        backend.in_burst = behaviour.in_burst
        if behaviour.by_rule:
            self._controls.hit(provider, model)
        reply_id = token_hex(12)
        return Exchange(
            provider=provider,
            call=call,
            behaviour=behaviour,
            scale=self._controls.latency_scale,
            attempt_id=request.headers.get("x-client-request-id", ""),
            reply_id=reply_id,
            headers=_headers(backend, call, reply_id),
            cached_tokens=_cached_tokens(backend, call),
            started_s=started_s,
        )

    async def _plain(self, request: web.Request, exchange: Exchange, said: Answer) -> web.StreamResponse:
        tokens_out, fault = answer_tokens(said), exchange.behaviour.fault
        await _sleep_until(exchange, tokens_out)
        usage = _usage(exchange, tokens_out, said.reasoning_tokens)
        if fault is not None and fault.kind is FaultKind.MALFORMED:
            self._bill(exchange, usage, "malformed")
            return web.Response(body=dialect.HTML, content_type="text/html", headers=exchange.headers)
        body = dialect.completion(exchange.call, said, usage, exchange.reply_id, int(time.time()))
        if fault is not None and fault.kind in (FaultKind.CUT_STREAM, FaultKind.STALL_STREAM):
            self._bill(exchange, usage, "truncated")
            return await _half(request, exchange, body, fault)
        self._bill(exchange, usage, "ok")
        return web.Response(body=body, content_type="application/json", headers=exchange.headers)

    async def _stream(self, request: web.Request, exchange: Exchange, said: Answer) -> web.StreamResponse:
        fault = exchange.behaviour.fault
        kind = fault.kind if fault else None
        speech = Speech(request, exchange, said)
        try:
            await speech.begin()
            if fault is not None and kind in (FaultKind.CUT_STREAM, FaultKind.STALL_STREAM):
                await speech.say(tokens_max=fault.after_tokens)
                self._bill(exchange, speech.usage(speech.tokens_said), "truncated")
                return await _break_off(request, speech.response, speech.ready, fault)
            await speech.say(spoil_at=_MALFORMED_AT_EVENT if kind is FaultKind.MALFORMED else 0)
        except ConnectionError:
            self._bill(exchange, speech.usage(speech.tokens_sent), "cancelled")
            return speech.response
        usage = speech.usage(answer_tokens(said))
        self._bill(exchange, usage, "malformed" if kind is FaultKind.MALFORMED else "ok")
        await speech.end(usage, done=kind is not FaultKind.NO_DONE)
        return speech.response

    def _bill(self, exchange: Exchange, usage: Usage, status: str) -> None:
        self._invoice.bill(
            attempt_id=exchange.attempt_id,
            provider=exchange.provider,
            model=exchange.call.model,
            usage=usage,
            at_ms=int(time.time() * 1000),
            status=status,
            streamed=exchange.call.streamed,
        )


class Speech:
    """A stream under way: events paced at the model's speed, those that are due together in one write."""

    def __init__(self, request: web.Request, exchange: Exchange, said: Answer) -> None:
        self._request, self._exchange, self._said = request, exchange, said
        self._chunks = dialect.Chunks(exchange.call, said, exchange.reply_id, int(time.time()))
        self._text_bytes = len(said.tool_name)
        self.response = web.StreamResponse(headers=exchange.headers | {"cache-control": "no-cache"})
        self.response.content_type = "text/event-stream"
        self.ready = self._chunks.first()
        self.tokens_said = said.reasoning_tokens
        self.tokens_sent = 0

    async def begin(self) -> None:
        """Wait for the first token, send the headers."""
        await _sleep_until(self._exchange, self.tokens_said)
        await self.response.prepare(self._request)

    async def say(self, *, tokens_max: int | None = None, spoil_at: int = 0) -> None:
        """The pieces of the answer, at most so many tokens; `spoil_at` puts a broken event before that one."""
        pieces = list(self._chunks.pieces())
        spoil_at = min(spoil_at, len(pieces) + 1)
        for at, (piece, event) in enumerate(pieces, 2):
            if tokens_max is not None and self.tokens_said >= tokens_max:
                return
            wait_s = _wait_s(self._exchange, self.tokens_said)
            if wait_s > _SLEEP_S_MIN:
                await self.response.write(self.ready)
                self.tokens_sent, self.ready = self.tokens_said, b""
                await asyncio.sleep(wait_s)
            self._text_bytes += len(piece.encode("utf-8", "surrogatepass"))
            self.tokens_said = self._said.reasoning_tokens + (self._text_bytes + 3) // 4
            self.ready += dialect.NOT_JSON_EVENT + event if at == spoil_at else event

    def usage(self, tokens_out: int) -> Usage:
        """What so many tokens of output count and cost."""
        return _usage(self._exchange, tokens_out, min(tokens_out, self._said.reasoning_tokens))

    async def end(self, usage: Usage, *, done: bool) -> None:
        """Finish reason, usage and `[DONE]`. The call is billed already: a client that has left changes nothing."""
        with suppress(ConnectionError):
            await self.response.write(self.ready + self._chunks.last(usage) + (dialect.DONE if done else b""))
            await self.response.write_eof()


def _headers(backend: Backend, call: Call, reply_id: str) -> dict[str, str]:
    now_s = time.time()
    minute = int(now_s // 60)
    if minute != backend.minute:
        backend.minute, backend.minute_requests, backend.minute_tokens = minute, 0, 0
    backend.minute_requests += 1
    backend.minute_tokens += call.tokens_in + (call.max_tokens or 0)
    limits = dialect.limit_headers(backend.minute_requests, backend.minute_tokens, now_s % 60)
    return {"x-request-id": f"req_{reply_id}", **limits}


def _cached_tokens(backend: Backend, call: Call) -> int:
    """Tokens of the prompt the provider has in its cache: everything before the last message, if seen before."""
    tokens = count_tokens(call.prefix)
    if tokens < _CACHED_TOKENS_MIN or not backend.prefixes.has(seed_of(call.prefix)):
        return 0
    return tokens // _CACHED_TOKENS_STEP * _CACHED_TOKENS_STEP


def _usage(exchange: Exchange, tokens_out: int, reasoning_tokens: int) -> Usage:
    return Usage(exchange.call.tokens_in, tokens_out, exchange.cached_tokens, reasoning_tokens)


def _wait_s(exchange: Exchange, tokens: int) -> float:
    """Time until the model would have said so many tokens."""
    behaviour = exchange.behaviour
    due_s = (behaviour.ttft_ms + tokens * behaviour.ms_per_token) / 1000 * exchange.scale
    fault = behaviour.fault
    if fault is not None and fault.kind is FaultKind.SLOW:
        due_s += fault.delay_ms / 1000
    return exchange.started_s + due_s - time.monotonic()


async def _sleep_until(exchange: Exchange, tokens: int) -> None:
    wait_s = _wait_s(exchange, tokens)
    if wait_s > _SLEEP_S_MIN:
        await asyncio.sleep(wait_s)


async def _watch(request: web.Request, seconds: float) -> None:
    """Stay silent for so long, or until the client leaves."""
    for _ in range(ceil(seconds / _WATCH_S)):
        if _has_left(request):
            return
        await asyncio.sleep(_WATCH_S)


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _drop(request: web.Request, *, reset: bool) -> None:
    """End the connection here and now, with a TCP reset if asked for."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort() if reset else transport.close()


async def _fail(request: web.Request, exchange: Exchange, fault: Fault) -> web.StreamResponse:
    """A call that yields no output and costs nothing."""
    if fault.kind is FaultKind.ERROR:
        model = exchange.call.model.name
        reply = dialect.error(fault.error_class, fault.status, model, exchange.call.tokens_in, fault.retry_after_s)
        return _error(replace(reply, headers={**exchange.headers, **reply.headers}), exchange.reply_id)
    if fault.kind is FaultKind.HANG:
        await _watch(request, _HANG_S)
    _drop(request, reset=True)
    return web.Response(status=500)  # nobody reads it: the connection is gone


def _error(reply: dialect.ErrorReply, reply_id: str) -> web.Response:
    headers = {"x-request-id": f"req_{reply_id}", **reply.headers}
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", headers=headers)


async def _half(request: web.Request, exchange: Exchange, body: bytes, fault: Fault) -> web.StreamResponse:
    """A plain answer whose connection ends before its announced length."""
    response = web.StreamResponse(headers=exchange.headers)
    response.content_type, response.content_length = "application/json", len(body)
    with suppress(ConnectionError):
        await response.prepare(request)
    return await _break_off(request, response, body[: len(body) // 2], fault)


async def _break_off(request: web.Request, response: web.StreamResponse, ready: bytes, fault: Fault) -> web.StreamResponse:
    """Send what is ready, stay silent if the fault is a stall, then end the connection without an end of the body."""
    with suppress(ConnectionError):
        await response.write(ready)
        if fault.kind is FaultKind.STALL_STREAM:
            await _watch(request, fault.stall_s)
    _drop(request, reset=False)
    return response
