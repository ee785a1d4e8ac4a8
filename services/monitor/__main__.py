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
from shared.service import EXIT_ENDED_ITSELF, EXIT_SETTINGS

logger = logging.getLogger(__name__)


def main() -> None:
    instance = secrets.token_hex(4)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{STAGE.name}: {error}\n")
        sys.exit(EXIT_SETTINGS)
    log.set_up(STAGE.name, instance, settings.log_level)
    for chatty in ("faust", "mode"):
        logging.getLogger(chatty).setLevel(logging.WARNING if settings.log_level != "DEBUG" else logging.INFO)
    try:
        uvloop.run(_until_signalled(settings, instance))
    except BatonError as error:
        logger.error("ending: %s", error)
        sys.exit(EXIT_ENDED_ITSELF)


async def _until_signalled(settings: Settings, instance: str) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        await serve(settings, instance, stop)
    except StreamEndedError as error:
        # At once: what is left of Faust, a thread with its own loop, would keep the process for ever.
        logger.error("ending: %s", error)
        os._exit(EXIT_ENDED_ITSELF)


if __name__ == "__main__":
    main()
