"""Serves one chat call: parse, let in, decide, answer plain or streamed, bill. The only place where a fault becomes bytes.

It is given a dialect and knows none. A call is billed before the last byte of its answer leaves, and whether or not the
client is still there to read it.
"""

import time
from dataclasses import dataclass, field, replace
from secrets import token_hex

from aiohttp import web

from services.simulator.call import Answer, Call, Prefixes, Usage, answer_tokens, count_tokens
from services.simulator.control import Controls
from services.simulator.decide import Behaviour, Moment, decide
from services.simulator.desk import Desk, Visit
from services.simulator.dialect import HTML, JSON, BadRequest, Dialect, ErrorReply, Failure, Quota
from services.simulator.draws import seed_of
from services.simulator.faults import Fault, FaultKind
from services.simulator.invoice import Invoice
from services.simulator.limits import Admission, Standing
from services.simulator.sockets import break_off, drop, half, has_left, watch
from services.simulator.speech import Exchange, Speech
from services.simulator.text import answer, spoiled

_CACHED_TOKENS_MIN = 1024  # as OpenAI: shorter prefixes are not cached, longer ones in steps of 128
_CACHED_TOKENS_STEP = 128
# Without a limit of its own a backend shows these and enforces nothing: a bench has no ceiling but the machine's.
_REQUESTS_PER_MINUTE = 600_000
_TOKENS_PER_MINUTE = 600_000_000
_MUCH_REQUESTS = Standing(_REQUESTS_PER_MINUTE, _REQUESTS_PER_MINUTE, 0.0)
_MUCH_TOKENS = Standing(_TOKENS_PER_MINUTE, _TOKENS_PER_MINUTE, 0.0)
_BEFORE_OUTPUT = frozenset({FaultKind.ERROR, FaultKind.ERROR_IN_200, FaultKind.HANG, FaultKind.RESET})
_NO_STATUS = frozenset({FaultKind.HANG, FaultKind.RESET})
_MID_OUTPUT = frozenset({FaultKind.CUT_STREAM, FaultKind.STALL_STREAM, FaultKind.STREAM_ERROR})


@dataclass(slots=True)
class Backend:
    """What one model of one provider remembers between calls."""

    seed: int
    first_s: float
    calls: int = 0
    in_burst: bool = False
    minute: int = 0
    minute_requests: int = 0
    minute_tokens: int = 0
    prefixes: Prefixes = field(default_factory=Prefixes)


class Chat:
    """The chat routes of all providers and dialects of this process."""

    def __init__(self, name: str, seed: int, controls: Controls, invoice: Invoice, desk: Desk) -> None:
        self._name, self._seed, self._controls, self._invoice, self._desk = name, seed, controls, invoice, desk
        self._backends: dict[tuple[str, str], Backend] = {}

    async def handle(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        visit = self._desk.arrive(request.match_info.get("provider", self._name), request.headers)
        status = 0
        try:
            response = await self._admitted(dialect, request, visit)
            status = 0 if visit.error_class in _NO_STATUS else response.status
            return response
        finally:
            self._desk.leave(visit, status)

    async def _admitted(self, dialect: Dialect, request: web.Request, visit: Visit) -> web.StreamResponse:
        try:
            call = dialect.parse(await request.read(), request.match_info, request.query, request.headers)
        except web.HTTPRequestEntityTooLarge:
            return _refused(dialect, BadRequest("too_large"), visit)
        except BadRequest as bad:
            return _refused(dialect, bad, visit)
        if await self._desk.enter(visit, call):
            return _turned_away(dialect, call, visit)
        if visit.waited and has_left(request):
            visit.error_class = "cancelled"
            return web.Response(status=499)  # nobody reads it, nothing was worked on
        exchange = self._begin(dialect, call, visit)
        fault = exchange.behaviour.fault
        visit.meets(fault)
        if fault is None:
            said = answer(call)
        elif fault.kind in _BEFORE_OUTPUT or (fault.kind is FaultKind.STREAM_ERROR and not call.streamed):
            return await self._fail(request, exchange, fault)
        else:
            said = spoiled(answer(call), call, fault.kind)
        if call.streamed:
            return await self._stream(request, exchange, said, visit)
        return await self._plain(request, exchange, said)

    def _begin(self, dialect: Dialect, call: Call, visit: Visit) -> Exchange:
        started_s, provider, model = time.monotonic(), visit.provider, call.model.name
        backend = self._backends.get((provider, model))
        if backend is None:
            backend = self._backends[provider, model] = Backend(seed_of(self._seed, provider, model), started_s)
        behaviour = self._decide(backend, call, visit, started_s)
        backend.calls += 1
        backend.in_burst = behaviour.in_burst
        reply_id, now_s = token_hex(12), time.time()
        quota = _quota(backend, call, visit.admission, now_s)
        cached_tokens, cache_write_tokens = _cache(backend, call)
        return Exchange(
            dialect=dialect,
            provider=provider,
            call=call,
            behaviour=behaviour,
            scale=self._controls.latency_scale,
            attempt_id=visit.attempt_id,
            reply_id=reply_id,
            quota=quota,
            headers=dialect.headers(reply_id, quota, now_s),
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
            started_s=started_s,
            now_s=now_s,
        )

    def _decide(self, backend: Backend, call: Call, visit: Visit, now_s: float) -> Behaviour:
        controls, provider = self._controls, visit.provider
        rule, weather = controls.rule(provider, call.model.name, visit.key), controls.weather
        moment = Moment(weather.is_down(provider, now_s), now_s - backend.first_s, controls.scenario_scale)
        fault, fleet = rule.fault if rule else None, weather.of(provider).fleet
        behaviour = decide(call.model, fleet, fault, backend.in_burst, backend.seed, backend.calls, moment)
        if rule is not None and behaviour.by_rule:
            controls.hit(rule)
        return behaviour

    async def _plain(self, request: web.Request, exchange: Exchange, said: Answer) -> web.StreamResponse:
        tokens_out, fault = answer_tokens(said), exchange.behaviour.fault
        await exchange.sleep_until(tokens_out)
        usage = exchange.usage(tokens_out, said.reasoning_tokens)
        if fault is not None and fault.kind is FaultKind.MALFORMED:
            self._bill(exchange, usage, "malformed")
            return web.Response(body=HTML, content_type="text/html", headers=exchange.headers)
        reported = exchange.reported(usage)
        body = exchange.dialect.completion(exchange.call, said, reported, exchange.reply_id, int(exchange.now_s))
        if fault is not None and fault.kind in _MID_OUTPUT:
            self._bill(exchange, usage, "truncated")
            return await half(request, exchange.headers, body, _silence_s(fault))
        self._bill(exchange, usage, "ok")
        return web.Response(body=body, content_type=JSON, headers=exchange.headers)

    async def _stream(self, request: web.Request, exchange: Exchange, said: Answer, visit: Visit) -> web.StreamResponse:
        fault = exchange.behaviour.fault
        speech = Speech(request, exchange, said)
        try:
            await speech.begin()
            if fault is not None and fault.kind in _MID_OUTPUT:
                await speech.say(fault.after_tokens)
                return await self._broken(request, exchange, speech, fault)
            await speech.say()
        except ConnectionError:
            visit.error_class = "cancelled"
            self._bill(exchange, speech.usage(speech.tokens_sent), "cancelled")
            return speech.response
        usage = speech.usage()
        self._bill(exchange, usage, "malformed" if exchange.kind is FaultKind.MALFORMED else "ok")
        await speech.end(usage)
        return speech.response

    async def _broken(self, request: web.Request, exchange: Exchange, speech: Speech, fault: Fault) -> web.StreamResponse:
        """The end of a stream whose fault comes in the middle of it."""
        self._bill(exchange, speech.usage(speech.tokens_said), "truncated")
        if fault.kind is FaultKind.STREAM_ERROR:
            await speech.fail(_failure(exchange, fault))
            return speech.response
        return await break_off(request, speech.response, speech.ready, _silence_s(fault))

    async def _fail(self, request: web.Request, exchange: Exchange, fault: Fault) -> web.StreamResponse:
        """A call that yields no output. It costs nothing, unless the dialect says no with an answer that counts tokens."""
        if fault.kind in (FaultKind.HANG, FaultKind.RESET):
            await watch(request, fault.hang_s if fault.kind is FaultKind.HANG else 0)
            drop(request, reset=True)
            return web.Response(status=500)  # nobody reads it: the connection is gone
        failure = _failure(exchange, fault)
        reply = exchange.dialect.error(failure)
        if reply.billed:
            self._bill(exchange, failure.usage, "filtered")
        if fault.kind is FaultKind.ERROR_IN_200:
            reply = replace(reply, status=200)
        return _error(replace(reply, headers={**exchange.headers, **reply.headers}))

    def _bill(self, exchange: Exchange, usage: Usage, status: str) -> None:
        reported = exchange.reported(usage) if status == "ok" else None
        self._invoice.bill(
            attempt_id=exchange.attempt_id,
            provider=exchange.provider,
            model=exchange.call.model,
            usage=usage,
            at_ms=int(time.time() * 1000),
            status=status,
            streamed=exchange.call.streamed,
            reported=reported,
        )


def _quota(backend: Backend, call: Call, admission: Admission, now_s: float) -> Quota:
    """What is left: of the limits in force, and where there is none of this minute, shown but not enforced."""
    minute = int(now_s // 60)
    if minute != backend.minute:
        backend.minute, backend.minute_requests, backend.minute_tokens = minute, 0, 0
    backend.minute_requests += 1
    backend.minute_tokens += call.tokens_in + (call.max_tokens or 0)
    reset_s = 60.0 - now_s % 60
    requests_left = max(0, _REQUESTS_PER_MINUTE - backend.minute_requests)
    tokens_left = max(0, _TOKENS_PER_MINUTE - backend.minute_tokens)
    return Quota(
        admission.requests or Standing(_REQUESTS_PER_MINUTE, requests_left, reset_s),
        admission.tokens or Standing(_TOKENS_PER_MINUTE, tokens_left, reset_s),
    )


def _cache(backend: Backend, call: Call) -> tuple[int, int]:
    """Tokens of the prompt read from and written to the provider's cache: everything before the last turn."""
    tokens = count_tokens(call.prefix)
    if tokens < _CACHED_TOKENS_MIN or not call.cacheable:
        return 0, 0
    tokens = tokens // _CACHED_TOKENS_STEP * _CACHED_TOKENS_STEP
    if backend.prefixes.has(seed_of(call.prefix)):
        return tokens, 0
    return 0, tokens if call.pays_cache_writes else 0


def _silence_s(fault: Fault) -> float:
    return fault.stall_s if fault.kind is FaultKind.STALL_STREAM else 0.0


def _failure(exchange: Exchange, fault: Fault) -> Failure:
    return Failure(
        fault.error_class,
        exchange.reply_id,
        exchange.now_s,
        fault.status,
        fault.retry_after_s,
        call=exchange.call,
        usage=exchange.usage(0, 0),
        quota=exchange.quota,
    )


def _turned_away(dialect: Dialect, call: Call, visit: Visit) -> web.Response:
    """A call the desk did not let in: with the true numbers of the limit it is over, if it is over one."""
    admission = visit.admission
    quota = Quota(admission.requests or _MUCH_REQUESTS, admission.tokens or _MUCH_TOKENS, enforced=True)
    failure = Failure(visit.error_class, token_hex(12), time.time(), 0, visit.retry_after_s, call=call, quota=quota)
    return _error(dialect.error(failure))


def _refused(dialect: Dialect, bad: BadRequest, visit: Visit) -> web.Response:
    visit.error_class = bad.error_class
    return _error(dialect.error(Failure(bad.error_class, token_hex(12), time.time(), bad=bad)))


def _error(reply: ErrorReply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=reply.headers)
