"""Starts the monitor: `python -m services.monitor`. Exits 64 for bad settings, 75 when only a restart helps."""

import asyncio
import logging
import os
import secrets
import signal
import sys

import uvloop

from services.monitor.main import StreamEndedError, serve
from services.monitor.monitor import STAGE
from shared import log
from shared.config import Settings
from shared.errors import BatonError, SettingsError
from shared.scheduling import gather_turns
from shared.service import EXIT_ENDED_ITSELF, EXIT_SETTINGS

logger = logging.getLogger(__name__)

STOP_S_MAX = 5.0


def main() -> None:
    instance = secrets.token_hex(4)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{STAGE.name}: {error}\n")
        sys.exit(EXIT_SETTINGS)
    log.set_up(STAGE.name, instance, settings.log_level)
    gather_turns()
    for chatty in ("faust", "mode"):
        logging.getLogger(chatty).setLevel(logging.WARNING if settings.log_level != "DEBUG" else logging.INFO)
    try:
        uvloop.run(_until_signalled(settings, instance))
    except BatonError as error:
        logger.error("ending: %s", error)
        sys.exit(EXIT_ENDED_ITSELF)


async def _until_signalled(settings: Settings, instance: str) -> None:
    """A stop that hangs, as Faust's does while the broker is away, is cut short: all that is unfinished is in the log."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    serving = asyncio.create_task(serve(settings, instance, stop))
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({serving}, timeout=min(settings.drain_ms / 1000, STOP_S_MAX))
    if not serving.done():
        logger.warning("not ended in %s s, the broker is away: going all the same", STOP_S_MAX)
        os._exit(0)
    try:
        serving.result()
    except StreamEndedError as error:
        # At once: what is left of Faust, a thread with its own loop, would keep the process for ever.
        logger.error("ending: %s", error)
        os._exit(EXIT_ENDED_ITSELF)


if __name__ == "__main__":
    main()
