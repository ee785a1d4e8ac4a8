"""Wires the simulator: routes, control plane, invoice, listening and stopping. Bound to this machine unless told otherwise."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
from aiohttp import web

from services.simulator import dialect_anthropic, dialect_azure, dialect_gemini, dialect_openai
from services.simulator.chat import Chat
from services.simulator.control import Control, ControlError, Controls, read_control
from services.simulator.desk import Desk
from services.simulator.dialect import Dialect
from services.simulator.invoice import Invoice
from services.simulator.profiles import FLEETS
from services.simulator.weather import Sky, Weather

_BODY_BYTES_MAX = 32 << 20
_DRAIN_S = 2.0
_PROVIDER = "{provider:[A-Za-z0-9_-]+}"
_MODEL = "{model:[^/:]+}"
_CHATS: tuple[tuple[str, Dialect], ...] = (  # route -> dialect
    ("/v1/chat/completions", dialect_openai),
    ("/v1/messages", dialect_anthropic),
    (f"/v1beta/models/{_MODEL}:{{method}}", dialect_gemini),
    (f"/v1/models/{_MODEL}:{{method}}", dialect_gemini),
    (f"/openai/deployments/{_MODEL}/chat/completions", dialect_azure),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How one simulator process runs. `name` is the provider of paths without a provider; port 0 takes a free one.

    `controls` are put in force, in their order, before the first call.
    """

    name: str = "alpha"
    port: int = 0
    invoice: Path | None = None
    profile: str = "typical"
    seed: int = 7
    latency_scale: float = 1.0
    host: str = "127.0.0.1"
    controls: tuple[Control, ...] = ()


def application(settings: Settings) -> web.Application:
    """The web application; closing it closes the invoice."""
    controls = Controls(settings.latency_scale, Weather(Sky(FLEETS[settings.profile], time.monotonic()), settings.seed))
    for control in settings.controls:
        controls.apply(control, time.monotonic())
    invoice, desk = Invoice(settings.invoice), Desk(controls)
    chat = Chat(settings.name, settings.seed, controls, invoice, desk)
    app = web.Application(client_max_size=_BODY_BYTES_MAX)
    for prefix in ("", f"/{_PROVIDER}"):
        for route, dialect in _CHATS:
            app.router.add_post(f"{prefix}{route}", partial(chat.handle, dialect))
        app.router.add_get(f"{prefix}/v1/models", _models)
    app.router.add_get("/livez", _livez)
    _add_control(app, controls, desk)
    _add_books(app, invoice, desk)

    async def close(_: web.Application) -> None:
        invoice.close()

    app.on_cleanup.append(close)
    return app


async def _models(_: web.Request) -> web.Response:
    return web.Response(body=dialect_openai.models(), content_type="application/json")


async def _livez(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _add_control(app: web.Application, controls: Controls, desk: Desk) -> None:
    async def show(_: web.Request) -> web.Response:
        return _json(200, controls.as_dict(time.monotonic()) | {"load": desk.load()})

    async def change(request: web.Request) -> web.Response:
        try:
            controls.apply(read_control(await request.read()), time.monotonic())
        except ControlError as bad:
            return _bad(bad.field, bad.message)
        desk.refresh()
        return await show(request)

    app.router.add_get("/control", show)
    app.router.add_post("/control", change)


def _add_books(app: web.Application, invoice: Invoice, desk: Desk) -> None:
    async def show_invoice(request: web.Request) -> web.StreamResponse:
        return await _lines(request, invoice.read())

    async def show_calls(request: web.Request) -> web.StreamResponse:
        since_ms = request.query.get("since_ms", "0")
        if not since_ms.isdecimal():
            return _bad("since_ms", f"{since_ms!r} is no time; give epoch milliseconds, such as {time.time() * 1000:.0f}")
        return await _lines(request, desk.calls.read(int(since_ms)))

    async def show_gated(_: web.Request) -> web.Response:
        return _json(200, desk.gates.as_dict())

    app.router.add_get("/invoice", show_invoice)
    app.router.add_get("/calls", show_calls)
    app.router.add_get("/gated", show_gated)


async def serve(settings: Settings, ready: Callable[[str], None], stop: asyncio.Event | None = None) -> None:
    """Listen, tell `ready` the address, run until `stop`, SIGTERM or SIGINT. OSError: the port is taken."""
    stop = stop or asyncio.Event()
    runner = web.AppRunner(application(settings), access_log=None, shutdown_timeout=_DRAIN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        ready(f"http://{settings.host}:{runner.addresses[0][1]}")
        await stop.wait()
    finally:
        await runner.cleanup()


async def _lines(request: web.Request, pieces: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/jsonl"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    return response


def _bad(field: str, message: str) -> web.Response:
    return _json(400, {"error": {"field": field, "message": message}})


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
