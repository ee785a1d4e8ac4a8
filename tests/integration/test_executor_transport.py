"""The transport against real sockets: bodies, timeouts, and every way in which a connection can end."""

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import httpx2
import pytest
from aiohttp import web

from services.executor.transport import ERRORS, AiohttpTransport, translated

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(connections_max=10)
    yield transport
    await transport.aclose()


def a_request(url: str, content: bytes = b"{}", **timeout: float) -> httpx2.Request:
    headers = [("x-client-request-id", "r/plan/0/0-x"), ("authorization", "Bearer k")]
    return httpx2.Request("POST", url, headers=headers, content=content, extensions={"timeout": timeout})


async def got(transport: AiohttpTransport, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
    response = await transport.handle_async_request(request)
    try:
        return response, await response.aread()
    finally:
        await response.aclose()


async def test_a_request_arrives_as_it_was_made(transport: AiohttpTransport, serve: Serve) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(request.headers, path=request.path_qs, body=await request.read())
        return web.Response(status=201, body=b"fine", headers={"x-request-id": "req_1", "set-cookie": "a=b"})

    url = await serve(handler)
    body = "Füße".encode() * 100_000
    response, content = await got(transport, a_request(f"{url}/v1/chat%20x?q=%2F", body))
    assert (response.status_code, content, response.headers["x-request-id"]) == (201, b"fine", "req_1")
    assert seen["path"] == "/v1/chat%20x?q=%2F"
    assert seen["body"] == body
    assert seen["Authorization"] == "Bearer k"
    assert seen["x-client-request-id"] == "r/plan/0/0-x"
    assert "Accept-Encoding" not in seen
    await got(transport, a_request(url))
    assert "Cookie" not in seen


async def test_connections_are_kept_and_used_again(transport: AiohttpTransport, serve: Serve) -> None:
    ports: set[int] = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(body=b"x" * 100_000)

    url = await serve(handler)
    for _ in range(5):
        await got(transport, a_request(url))
    assert len(ports) == 1


async def test_a_redirect_is_an_answer_and_is_not_followed(transport: AiohttpTransport, serve: Serve) -> None:
    calls = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=307, headers={"location": "/there"})

    response, _ = await got(transport, a_request(await serve(handler)))
    assert (response.status_code, calls) == (307, 1)


async def test_a_compressed_body_is_left_to_httpx(transport: AiohttpTransport, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=zlib.compress(b"hello"), headers={"content-encoding": "deflate"})

    response, content = await got(transport, a_request(await serve(handler)))
    assert content == b"hello"
    assert response.headers["content-encoding"] == "deflate"


async def test_a_body_streams_as_it_comes(transport: AiohttpTransport, serve: Serve) -> None:
    more = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await more.wait()
        await response.write(b"two")
        return response

    response = await transport.handle_async_request(a_request(await serve(handler)))
    pieces = response.aiter_raw()
    assert await anext(pieces) == b"one"
    more.set()
    assert await anext(pieces) == b"two"
    await response.aclose()


async def test_a_refused_connection_is_a_connect_error(transport: AiohttpTransport) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(httpx2.ConnectError):
        await got(transport, a_request(url))


async def test_a_url_without_a_scheme_is_unsupported(transport: AiohttpTransport) -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        await got(transport, a_request("gopher://127.0.0.1/"))


async def test_a_silent_server_is_a_read_timeout(transport: AiohttpTransport, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    with pytest.raises(httpx2.ReadTimeout):
        await got(transport, a_request(await serve(handler), read=0.05))


async def test_a_connection_that_ends_before_the_headers_is_a_protocol_error(
    transport: AiohttpTransport, serve: Serve
) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        await got(transport, a_request(await serve(handler)))


async def test_a_body_that_ends_early_is_a_protocol_error(transport: AiohttpTransport, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b"only this")
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(httpx2.RemoteProtocolError):
        await got(transport, a_request(await serve(handler)))


async def test_what_is_not_http_is_a_protocol_error(transport: AiohttpTransport) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HELLO THERE\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    with pytest.raises(httpx2.RemoteProtocolError):
        await got(transport, a_request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    server.close()


@pytest.mark.parametrize(
    "error",
    [getattr(aiohttp, name) for name in dir(aiohttp) if isinstance(getattr(aiohttp, name), type)],
    ids=lambda error: error.__name__,
)
def test_every_error_of_aiohttp_has_its_counterpart(error: type) -> None:
    if issubclass(error, aiohttp.ClientError):
        bare = error.__new__(error)
        assert isinstance(translated(bare), httpx2.TransportError)
        assert str(translated(bare)) == error.__name__


def test_a_subclass_stands_above_its_base() -> None:
    for place, (later, _) in enumerate(ERRORS):
        for earlier, _ in ERRORS[:place]:
            assert not issubclass(later, earlier), f"{later.__name__} is never reached behind {earlier.__name__}"
