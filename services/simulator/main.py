"""Wires the simulator: routes, control plane, invoice, listening and stopping. Bound to this machine unless told otherwise."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import web

from services.simulator import dialect_openai
from services.simulator.chat import Chat
from services.simulator.control import ControlError, Controls, read_control
from services.simulator.invoice import Invoice
from services.simulator.profiles import FLEETS

_BODY_BYTES_MAX = 32 << 20
_DRAIN_S = 2.0
_PROVIDER = "{provider:[A-Za-z0-9_-]+}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one simulator process runs. `name` is the provider of paths without a provider; port 0 takes a free one."""

    name: str = "alpha"
    port: int = 0
    invoice: Path | None = None
    profile: str = "typical"
    seed: int = 7
    latency_scale: float = 1.0
    host: str = "127.0.0.1"


def application(settings: Settings) -> web.Application:
    """The web application; closing it closes the invoice."""
    controls = Controls(settings.latency_scale, FLEETS[settings.profile])
    invoice = Invoice(settings.invoice)
    chat = Chat(settings.name, settings.seed, controls, invoice)
    app = web.Application(client_max_size=_BODY_BYTES_MAX)

    async def models(_: web.Request) -> web.Response:
        return web.Response(body=dialect_openai.models(), content_type="application/json")

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def show_control(_: web.Request) -> web.Response:
        return _json(200, controls.as_dict())

    async def control(request: web.Request) -> web.Response:
        try:
            controls.apply(read_control(await request.read()))
        except ControlError as bad:
            return _json(400, {"error": {"field": bad.field, "message": bad.message}})
        return _json(200, controls.as_dict())

    async def show_invoice(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/jsonl"})
        await response.prepare(request)
        for piece in invoice.read():
            await response.write(piece)
        return response

    async def close(_: web.Application) -> None:
        invoice.close()

    for prefix in ("", f"/{_PROVIDER}"):
        app.router.add_post(f"{prefix}/v1/chat/completions", chat.handle)
        app.router.add_get(f"{prefix}/v1/models", models)
    app.router.add_get("/livez", livez)
    app.router.add_get("/control", show_control)
    app.router.add_post("/control", control)
    app.router.add_get("/invoice", show_invoice)
    app.on_cleanup.append(close)
    return app


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


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
