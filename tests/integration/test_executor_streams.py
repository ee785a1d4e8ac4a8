"""Streamed calls over real sockets: how long each silence is borne, how each end is told, and what becomes of the connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from schemas.config import Backend
from schemas.ledger import FailureClass
from services.executor.provider import Provider
from services.executor.reply import Reply
from services.executor.terms import Terms
from services.executor.transport import AiohttpTransport
from tests.support.builders_executor import a_backend, completed
from tests.support.chats import a_plain_chat
from tests.support.streams import EVENTS, TEXT, typed

each_dialect = pytest.mark.parametrize("dialect", list(EVENTS))
Play = Callable[["Upstream", web.Request], Awaitable[web.StreamResponse]]
NEVER_S = 60.0


@dataclass
class Upstream:
    """A provider that plays what it is told, and remembers its connections."""

    play: Play
    url: str = ""
    ports: list[int] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.ports.append(request.transport.get_extra_info("peername")[1])
        try:
            return await self.play(self, request)
        except (asyncio.CancelledError, ConnectionError):
            self.lost.set()
            raise


@dataclass
class Bench:
    provider: Provider
    start: Callable[[Play], Awaitable[Upstream]]

    async def call(self, upstream: Upstream, dialect: str = "openai", **terms: Any) -> Reply:
        return await self.provider.call("b", backend(upstream, dialect), a_plain_chat("hi"), a_terms(**terms))


def backend(upstream: Upstream, dialect: str) -> Backend:
    return a_backend(dialect=dialect, base_url=f"{upstream.url}/v1")


def a_terms(**fields: Any) -> Terms:
    defaults = {"timeout_ms": 20_000, "streamed": True, "first_token_ms": 10_000, "stall_ms": 10_000}
    return Terms("r1/plan/0/0-x", 100, **(defaults | fields))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    runners: list[web.AppRunner] = []
    transport = AiohttpTransport(connections_max=10)

    async def start(play: Play) -> Upstream:
        upstream = Upstream(play)
        app = web.Application()
        app.router.add_post("/{path:.*}", upstream.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return upstream

    yield Bench(Provider(transport, lambda reference: "key"), start)
    await transport.aclose()
    for runner in runners:
        await runner.cleanup()


def plays(events: Sequence[bytes | float | asyncio.Event], end: str = "clean", content_type: str = "text/event-stream") -> Play:
    """Sends events; a number is a pause in seconds, an asyncio.Event is waited for. At the end the body ends, breaks off, or
    stays open.
    """

    async def play(upstream: Upstream, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": content_type, "x-request-id": "req_1"})
        await response.prepare(request)
        for event in events:
            if isinstance(event, bytes):
                await response.write(event)
            elif isinstance(event, asyncio.Event):
                await event.wait()
            else:
                await asyncio.sleep(event)
        if end == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif end == "open":
            await asyncio.sleep(NEVER_S)
        return response

    return play


def text_of(reply: Reply) -> str | None:
    return None if reply.answer is None else reply.answer.text


@each_dialect
async def test_a_stream_is_answered_and_its_connection_used_again(bench: Bench, dialect: str) -> None:
    upstream = await bench.start(plays(EVENTS[dialect]()))
    replies = [await bench.call(upstream, dialect) for _ in range(3)]
    assert [text_of(reply) for reply in replies] == [TEXT] * 3
    assert len(set(upstream.ports)) == 1
    assert all(reply.streamed and reply.status == 200 and reply.usage and not reply.usage.estimated for reply in replies)


@each_dialect
async def test_the_time_to_the_first_token_is_measured(bench: Bench, dialect: str) -> None:
    head, *rest = EVENTS[dialect]()
    began, now_s = asyncio.Event(), asyncio.get_running_loop().time
    upstream = await bench.start(plays([b": ping\n\n", 0.2, head, *rest[:4], began, 0.2, *rest[4:]]))
    told_s: list[float] = []

    def tell() -> None:
        told_s.append(now_s())
        began.set()     # the rest is not sent before

    called_s = now_s()
    reply = await bench.call(upstream, dialect, on_first_token=tell)
    assert (text_of(reply), len(told_s)) == (TEXT, 1)
    assert reply.first_token_ms is not None
    assert 190 <= reply.first_token_ms <= (told_s[0] - called_s) * 1000 + 10


@each_dialect
async def test_a_stream_that_never_begins_times_out(bench: Bench, dialect: str) -> None:
    upstream = await bench.start(plays([b": ping\n\n", 0.1, b": ping\n\n", NEVER_S]))
    reply = await bench.call(upstream, dialect, first_token_ms=300)
    assert (reply.failure, reply.status, reply.first_token_ms) == (FailureClass.TIMEOUT, 200, None)
    await asyncio.wait_for(upstream.lost.wait(), 5)


async def test_headers_that_never_come_time_out(bench: Bench) -> None:
    async def play(upstream: Upstream, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(NEVER_S)
        return web.StreamResponse()

    upstream = await bench.start(play)
    reply = await bench.call(upstream, first_token_ms=200)
    assert (reply.failure, reply.status) == (FailureClass.TIMEOUT, 0)
    await asyncio.wait_for(upstream.lost.wait(), 5)


@each_dialect
async def test_a_stream_that_falls_silent_has_stalled(bench: Bench, dialect: str) -> None:
    upstream = await bench.start(plays([*EVENTS[dialect]()[:8], NEVER_S]))
    reply = await bench.call(upstream, dialect, stall_ms=200)
    assert reply.failure is FailureClass.STALLED
    assert reply.tokens_seen > 0
    assert reply.first_token_ms is not None
    await asyncio.wait_for(upstream.lost.wait(), 5)


async def test_a_slow_stream_is_not_a_silent_one_but_has_its_total(bench: Bench) -> None:
    dripping: list[bytes | float] = []
    for event in EVENTS["openai"]():
        dripping += [event, 0.1]
    upstream = await bench.start(plays(dripping))
    assert text_of(await bench.call(upstream, stall_ms=1500)) == TEXT
    reply = await bench.call(upstream, stall_ms=1500, timeout_ms=700)
    assert reply.failure is FailureClass.TIMEOUT
    assert reply.tokens_seen > 0


async def test_keep_alives_lengthen_a_silence_but_do_not_fill_it(bench: Bench) -> None:
    events = EVENTS["anthropic"]()
    pings: list[bytes | float] = [typed("ping"), 0.2] * 40
    upstream = await bench.start(plays([*events[:8], *pings[:8], *events[8:]]))
    assert text_of(await bench.call(upstream, "anthropic", stall_ms=500)) == TEXT
    upstream = await bench.start(plays([*events[:8], *pings, *events[8:]]))
    assert (await bench.call(upstream, "anthropic", stall_ms=500)).failure is FailureClass.STALLED


@each_dialect
async def test_a_stream_that_is_cut_is_truncated(bench: Bench, dialect: str) -> None:
    upstream = await bench.start(plays(EVENTS[dialect]()[:9], end="cut"))
    reply = await bench.call(upstream, dialect)
    assert reply.failure is FailureClass.TRUNCATED
    assert reply.tokens_seen > 0
    assert reply.usage is not None
    assert reply.usage.estimated


@each_dialect
async def test_a_stream_that_ends_without_a_reason_is_truncated(bench: Bench, dialect: str) -> None:
    upstream = await bench.start(plays(EVENTS[dialect]()[:9]))
    assert (await bench.call(upstream, dialect)).failure is FailureClass.TRUNCATED


async def test_a_missing_end_marker_is_not_waited_for(bench: Bench) -> None:
    upstream = await bench.start(plays(EVENTS["openai"]()[:-1], end="open"))
    began_s = asyncio.get_running_loop().time()
    reply = await bench.call(upstream)
    assert text_of(reply) == TEXT
    assert reply.usage is not None
    assert not reply.usage.estimated
    assert asyncio.get_running_loop().time() - began_s < 1.5, "less than a missing usage is waited for"


async def test_a_missing_usage_is_waited_for_a_little(bench: Bench) -> None:
    upstream = await bench.start(plays(EVENTS["openai"]()[:-2], end="open"))
    began_s = asyncio.get_running_loop().time()
    reply = await bench.call(upstream)
    assert text_of(reply) == TEXT
    assert reply.usage is not None
    assert reply.usage.estimated
    assert 1.5 < asyncio.get_running_loop().time() - began_s < 8, "more than nothing, less than a stall"


async def test_a_late_usage_is_not_lost(bench: Bench) -> None:
    events = EVENTS["openai"]()
    upstream = await bench.start(plays([*events[:-2], 0.5, *events[-2:]]))
    reply = await bench.call(upstream, stall_ms=200)
    assert reply.usage is not None
    assert not reply.usage.estimated


async def test_an_event_that_is_no_json_is_not_read_past(bench: Bench) -> None:
    upstream = await bench.start(plays([*EVENTS["openai"]()[:8], b'data: {"id\n\n', NEVER_S]))
    assert (await bench.call(upstream)).failure is FailureClass.MALFORMED
    await asyncio.wait_for(upstream.lost.wait(), 5)


async def test_a_cancelled_call_cuts_its_connection(bench: Bench) -> None:
    upstream = await bench.start(plays([*EVENTS["openai"]()[:8], NEVER_S]))
    call = asyncio.create_task(bench.call(upstream))
    while not upstream.ports:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(upstream.lost.wait(), 5)
    upstream.play = plays(EVENTS["openai"]())
    assert text_of(await bench.call(upstream)) == TEXT
    assert len(set(upstream.ports)) == 2


async def test_an_error_before_the_stream_is_read_as_one(bench: Bench) -> None:
    async def play(upstream: Upstream, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "slow", "code": "slow_down"}}, status=429, headers={"retry-after": "3"})

    reply = await bench.call(await bench.start(play))
    assert (reply.failure, reply.status, reply.wait_ms, reply.streamed) == (FailureClass.RATE_LIMITED, 429, 3000, True)


async def test_a_server_that_does_not_stream_is_answered_all_the_same(bench: Bench) -> None:
    async def play(upstream: Upstream, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return web.json_response(completed("42"))

    reply = await bench.call(await bench.start(play), stall_ms=50)
    assert text_of(reply) == "42"
    assert (reply.streamed, reply.first_token_ms) == (True, None)


async def test_a_page_in_place_of_a_stream_is_malformed(bench: Bench) -> None:
    upstream = await bench.start(plays([b"<html>502</html>"], content_type="text/html"))
    assert (await bench.call(upstream)).failure is FailureClass.MALFORMED


async def test_a_plain_call_is_not_a_stream(bench: Bench) -> None:
    async def play(upstream: Upstream, request: web.Request) -> web.StreamResponse:
        assert "stream" not in await request.json()
        return web.json_response(completed("42"))

    reply = await bench.call(await bench.start(play), streamed=False)
    assert (text_of(reply), reply.streamed) == ("42", False)
