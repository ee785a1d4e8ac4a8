"""One call of one backend over HTTP, plain or streamed: endpoint, key and terms in, `Reply` out. Bodies and keys go no further
than this file and the adapter: nothing here logs either, and a key goes to its own backend's base_url alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import httpx2

from schemas.config import Backend
from schemas.ledger import FailureClass
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS, Stream
from services.executor.adapters.flavours import flavour_of
from services.executor.patience import Patience
from services.executor.reply import Reply
from services.executor.terms import Terms
from services.executor.transport import AiohttpResponse
from shared.config import resolve_secret
from shared.errors import SettingsError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
BODY_BYTES_MAX = 8 << 20
STREAM_BYTES_MAX = 64 << 20   # an event is a hundred times the size of its token
_EXTENSIONS = {"timeout": {"connect": CONNECT_TIMEOUT_S}}   # the whole call is bounded around it
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_WHOLE = ("application/json", "text/html")   # content types of an answer that is no stream, though one was asked for


class Endpoint:
    """Where and how one backend is called. Raises SettingsError when a reference yields nothing here."""

    __slots__ = ("_headers", "_key", "_resolve", "adapter", "backend", "flavour", "model_name", "url", "url_streamed")

    def __init__(self, backend: Backend, resolve: Callable[[str], str]) -> None:
        self.backend = backend
        self.adapter = ADAPTERS[backend.dialect]
        self.flavour = flavour_of(backend)
        self.model_name = backend.model_name or backend.model
        base_url = resolve(backend.base_url) if backend.base_url.startswith("env:") else backend.base_url
        self.url, self.url_streamed = (
            httpx2.URL(base_url.rstrip("/") + self.adapter.path(self.model_name, streamed, self.flavour))
            for streamed in (False, True)
        )
        self._resolve = resolve
        self._key: str | None = None
        self._headers = _raw(self.adapter.headers(None, self.flavour))
        self.headers()

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers of a call; built again only when the key was rotated."""
        if self.backend.key is not None:
            key = self._resolve(self.backend.key)
            if key != self._key:
                self._key, self._headers = key, _raw(self.adapter.headers(key, self.flavour))
        return self._headers


def _raw(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode()) for name, value in headers)


class Provider:
    """Calls backends over one transport."""

    def __init__(
        self, transport: httpx2.AsyncBaseTransport, resolve: Callable[[str], str] = resolve_secret
    ) -> None:
        self._transport = transport
        self._resolve = resolve
        self._endpoints: dict[str, tuple[Backend, Endpoint | None]] = {}

    def is_callable(self, name: str, backend: Backend) -> bool:
        """Whether its references can be resolved here; said once per version of the backend."""
        return self._endpoint(name, backend) is not None

    def _endpoint(self, name: str, backend: Backend) -> Endpoint | None:
        known = self._endpoints.get(name)
        if known is not None and known[0] is backend:
            return known[1]
        endpoint = None
        try:
            endpoint = Endpoint(backend, self._resolve)
        except SettingsError as error:
            log.error("a backend cannot be called from here: %s", error, extra={"backend": name})
        except (httpx2.InvalidURL, UnicodeError):
            log.error("a backend cannot be called: base_url is no URL; fix it and apply again", extra={"backend": name})
        self._endpoints[name] = (backend, endpoint)
        return endpoint

    async def call(self, name: str, backend: Backend, chat: Chat, terms: Terms) -> Reply:
        """One call; every way in which a provider can fail is a `Reply`, never an exception. A cancelled call is cut."""
        endpoint = self._endpoint(name, backend)
        if endpoint is None:
            return Reply(failure=FailureClass.AUTH, sent=False, streamed=terms.streamed)
        try:
            request = _request(endpoint, chat, terms)
        except SettingsError as error:
            log.error("a backend's key is gone: %s", error, extra={"backend": name})
            return Reply(failure=FailureClass.AUTH, sent=False, streamed=terms.streamed)
        if terms.streamed:
            return await self._stream(endpoint, request, terms)
        return await self._exchange(endpoint, request, terms.timeout_ms)

    async def _exchange(self, endpoint: Endpoint, request: httpx2.Request, timeout_ms: int) -> Reply:
        response: httpx2.Response | None = None
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                response = await self._transport.handle_async_request(request)
                headers = _plain(response)
                body = await _read(response, headers)
        except TimeoutError:
            return Reply(response.status_code if response else 0, failure=FailureClass.TIMEOUT)
        except httpx2.RequestError as error:
            return _broken(error, response, endpoint)
        finally:
            if response is not None:
                await response.aclose()
        return _whole(endpoint, response.status_code, headers, body)

    async def _stream(self, endpoint: Endpoint, request: httpx2.Request, terms: Terms) -> Reply:
        response: httpx2.Response | None = None
        reader: Stream | None = None
        patience = Patience(terms)
        try:
            async with patience.limit:
                response = await self._transport.handle_async_request(request)
                headers = _plain(response)
                if response.status_code == 200 and not headers.get("content-type", "").startswith(_WHOLE):
                    reader = endpoint.adapter.stream(headers)
                    reply = await _listen(reader, _pieces(response, headers), patience, _has_end(headers))
                else:
                    patience.for_whole()
                    body = await _read(response, headers)
                    reply = _whole(endpoint, response.status_code, headers, body)
        except TimeoutError:
            status = response.status_code if response else 0
            reply = reader.result(patience.ran_out(reader)) if reader else Reply(status, failure=FailureClass.TIMEOUT)
        except httpx2.RequestError as error:
            reply = reader.result(FailureClass.TRUNCATED) if reader else _broken(error, response, endpoint)
        finally:
            if response is not None:
                await response.aclose()
        return reply._replace(streamed=True, first_token_ms=patience.first_token_ms)


async def _listen(reader: Stream, pieces: AsyncIterator[bytes], patience: Patience, has_end: bool) -> Reply:
    """Reads a stream to its end, or to where nothing that could still come would matter. `has_end`: the body can prove that it
    was whole; where only the connection's close ends it, half looks like all of it."""
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > STREAM_BYTES_MAX:
            return reader.result(FailureClass.MALFORMED)
        reader.feed(piece)
        if reader.over and not reader.finished:
            break
        patience.heard(reader)
    return reader.result(None if has_end or reader.finished else FailureClass.TRUNCATED)


def _has_end(headers: dict[str, str]) -> bool:
    return "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")


def _whole(endpoint: Endpoint, status: int, headers: dict[str, str], body: bytes | None) -> Reply:
    if body is None:
        return Reply(status, failure=FailureClass.MALFORMED)
    return endpoint.adapter.reply(status, headers, body)


def _request(endpoint: Endpoint, chat: Chat, terms: Terms) -> httpx2.Request:
    body = endpoint.adapter.body(chat, endpoint.model_name, terms.tokens_out_max, terms.streamed, endpoint.flavour)
    return httpx2.Request(
        "POST",
        endpoint.url_streamed if terms.streamed else endpoint.url,
        headers=[*endpoint.headers(), (b"x-client-request-id", terms.attempt_id.encode())],
        stream=httpx2.ByteStream(body),
        extensions=_EXTENSIONS,
    )


def _plain(response: httpx2.Response) -> dict[str, str]:
    """The headers by their names in small letters."""
    if isinstance(response, AiohttpResponse):
        return response.plain
    return {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers.raw}


def _pieces(response: httpx2.Response, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes, decoded where it must be: nobody asked for an encoding, but a proxy may do it all the same."""
    if "content-encoding" not in headers and isinstance(response.stream, httpx2.AsyncByteStream):
        return aiter(response.stream)
    return response.aiter_bytes()


async def _read(response: httpx2.Response, headers: dict[str, str]) -> bytes | None:
    """The whole body, or None when it is larger than any answer."""
    pieces: list[bytes] = []
    size = 0
    async for piece in _pieces(response, headers):
        size += len(piece)
        if size > BODY_BYTES_MAX:
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _broken(error: httpx2.RequestError, response: httpx2.Response | None, endpoint: Endpoint) -> Reply:
    """The class of a connection that did not last. Before the request left it is free; after it, nobody can tell."""
    if response is not None and response.status_code != 200:
        return endpoint.adapter.reply(response.status_code, _plain(response), b"")
    if isinstance(error, httpx2.DecodingError):
        return Reply(200, failure=FailureClass.MALFORMED)
    if response is not None:
        return Reply(200, failure=FailureClass.TRUNCATED)
    if isinstance(error, _NOT_SENT):
        return Reply(failure=FailureClass.CONNECT_ERROR, sent=False)
    if isinstance(error, httpx2.TimeoutException):
        return Reply(failure=FailureClass.TIMEOUT)
    return Reply(failure=FailureClass.CONNECT_ERROR)
