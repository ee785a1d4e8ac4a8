"""`/livez`, `/readyz` and `/metrics` of one process, on their own port."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def serve_health(
    port: int, live: Callable[[], bool], ready: Callable[[], bool], host: str = "127.0.0.1"
) -> web.AppRunner:
    """Listen; `cleanup()` on the returned runner ends it. Raises OSError when the port is taken."""

    def probe(holds: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if holds() else web.Response(text="not yet\n", status=503)

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", probe(live))
    app.router.add_get("/readyz", probe(ready))
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
