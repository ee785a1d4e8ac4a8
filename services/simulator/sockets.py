"""Ends connections the way broken providers do: silence, a reset, a body that stops before its end."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from math import ceil

from aiohttp import web

from services.simulator.dialect import JSON

_WATCH_S = 0.2  # how often a silent call looks whether its client has left
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def watch(request: web.Request, seconds: float) -> None:
    """Stay silent for so long, or until the client leaves."""
    for _ in range(ceil(seconds / _WATCH_S)):
        if has_left(request):
            return
        await asyncio.sleep(_WATCH_S)


def has_left(request: web.Request) -> bool:
    """Whether the client has closed its connection."""
    return request.transport is None or request.transport.is_closing()


def drop(request: web.Request, *, reset: bool) -> None:
    """End the connection here and now, with a TCP reset if asked for."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort() if reset else transport.close()


async def half(request: web.Request, headers: Mapping[str, str], body: bytes, stall_s: float) -> web.StreamResponse:
    """A plain answer whose connection ends before its announced length."""
    response = web.StreamResponse(headers=headers)
    response.content_type, response.content_length = JSON, len(body)
    with suppress(ConnectionError):
        await response.prepare(request)
    return await break_off(request, response, body[: len(body) // 2], stall_s)


async def break_off(request: web.Request, response: web.StreamResponse, ready: bytes, stall_s: float) -> web.StreamResponse:
    """Send what is ready, stay silent for so long, then end the connection without an end of the body."""
    with suppress(ConnectionError):
        await response.write(ready)
        await watch(request, stall_s)
    drop(request, reset=False)
    return response
