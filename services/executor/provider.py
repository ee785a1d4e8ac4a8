"""One call of one backend over HTTP: endpoint and key in, `Reply` out. Bodies and keys go no further than this file
and the adapter: nothing here logs either, and a key goes to its own backend's base_url alone.
"""

import asyncio
import logging
from collections.abc import Callable

import httpx2

from schemas.config import Backend
from schemas.ledger import FailureClass
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS
from services.executor.reply import Reply
from services.executor.terms import Terms
from shared.config import resolve_secret
from shared.errors import SettingsError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
BODY_BYTES_MAX = 8 << 20
_EXTENSIONS = {"timeout": {"connect": CONNECT_TIMEOUT_S}}   # the whole call is bounded around it
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class Endpoint:
    """Where and how one backend is called. Raises SettingsError when a reference yields nothing here."""

    __slots__ = ("_headers", "_key", "_resolve", "adapter", "backend", "model_name", "url")

    def __init__(self, backend: Backend, resolve: Callable[[str], str]) -> None:
        self.backend = backend
        self.adapter = ADAPTERS[backend.dialect]
        self.model_name = backend.model_name or backend.model
        base_url = resolve(backend.base_url) if backend.base_url.startswith("env:") else backend.base_url
        self.url = httpx2.URL(base_url.rstrip("/") + self.adapter.PATH)
        self._resolve = resolve
        self._key: str | None = None
        self._headers = _raw(self.adapter.headers(None))
        self.headers()

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers of a call; built again only when the key was rotated."""
        if self.backend.key is not None:
            key = self._resolve(self.backend.key)
            if key != self._key:
                self._key, self._headers = key, _raw(self.adapter.headers(key))
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
        """One call; every way in which a provider can fail is a `Reply`, never an exception."""
        endpoint = self._endpoint(name, backend)
        if endpoint is None:
            return Reply(failure=FailureClass.AUTH, sent=False)
        try:
            request = _request(endpoint, chat, terms)
        except SettingsError as error:
            log.error("a backend's key is gone: %s", error, extra={"backend": name})
            return Reply(failure=FailureClass.AUTH, sent=False)
        return await self._exchange(endpoint, request, terms.timeout_ms)

    async def _exchange(self, endpoint: Endpoint, request: httpx2.Request, timeout_ms: int) -> Reply:
        response: httpx2.Response | None = None
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                response = await self._transport.handle_async_request(request)
                body = await _read(response)
        except TimeoutError:
            return Reply(response.status_code if response else 0, failure=FailureClass.TIMEOUT)
        except httpx2.RequestError as error:
            return _broken(error, response, endpoint)
        finally:
            if response is not None:
                await response.aclose()
        if body is None:
            return Reply(response.status_code, failure=FailureClass.MALFORMED)
        return endpoint.adapter.reply(response.status_code, response.headers, body)


def _request(endpoint: Endpoint, chat: Chat, terms: Terms) -> httpx2.Request:
    return httpx2.Request(
        "POST",
        endpoint.url,
        headers=[*endpoint.headers(), (b"x-client-request-id", terms.attempt_id.encode())],
        stream=httpx2.ByteStream(endpoint.adapter.body(chat, endpoint.model_name, terms.tokens_out_max)),
        extensions=_EXTENSIONS,
    )


async def _read(response: httpx2.Response) -> bytes | None:
    """The whole body, or None when it is larger than any answer."""
    pieces: list[bytes] = []
    size = 0
    is_plain = "content-encoding" not in response.headers   # nobody asked for one, but a proxy may do it all the same
    stream = response.stream if is_plain and isinstance(response.stream, httpx2.AsyncByteStream) else response.aiter_bytes()
    async for piece in stream:
        size += len(piece)
        if size > BODY_BYTES_MAX:
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _broken(error: httpx2.RequestError, response: httpx2.Response | None, endpoint: Endpoint) -> Reply:
    """The class of a connection that did not last. Before the request left it is free; after it, nobody can tell."""
    if response is not None and response.status_code != 200:
        return endpoint.adapter.reply(response.status_code, response.headers, b"")
    if isinstance(error, httpx2.DecodingError):
        return Reply(200, failure=FailureClass.MALFORMED)
    if response is not None:
        return Reply(200, failure=FailureClass.TRUNCATED)
    if isinstance(error, _NOT_SENT):
        return Reply(failure=FailureClass.CONNECT_ERROR, sent=False)
    if isinstance(error, httpx2.TimeoutException):
        return Reply(failure=FailureClass.TIMEOUT)
    return Reply(failure=FailureClass.CONNECT_ERROR)
