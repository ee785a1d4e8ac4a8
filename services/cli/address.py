"""Turns what `baton up` and `baton broker start` left in `.run` into the environment that other commands see.

It must never believe a file whose process is gone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ConfigDict, ValidationError

from services.cli.broker import state_file
from services.cli.broker_state import command_line, read_state
from services.cli.jvm import run_dir
from shared.config import Settings, environment
from shared.errors import BatonError, BrokerUnavailableError, SettingsError
from shared.kafka import KafkaBroker
from shared.service import kafka_options

BOOTSTRAP = "KAFKA_BOOTSTRAP_SERVERS"

T = TypeVar("T")

bootstrap_option = click.option(
    "--bootstrap", metavar="HOST:PORT",
    help=f"Kafka to talk to. Default: {BOOTSTRAP}, else that of the running `baton up` or `baton broker start`.",
)


class UpState(BaseModel):
    """A running `baton up`. `environment` is what a command needs to act on the same Baton; it holds no secret."""

    model_config = ConfigDict(frozen=True)

    pid: int
    http_url: str
    environment: dict[str, str]
    started_at: datetime


def up_file() -> Path:
    return run_dir() / "up.json"


def read_up() -> UpState | None:
    """None if there is no such file, it is garbled, or its process is gone."""
    try:
        state = UpState.model_validate_json(up_file().read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return state if " up" in command_line(state.pid) else None


def known_environment(bootstrap: str | None = None) -> dict[str, str]:
    """The shell's environment, above it `bootstrap`, beneath it what the running `baton up` or `baton broker` left."""
    given = {name: value for name, value in environment().items() if value.strip()}
    if bootstrap:
        given[BOOTSTRAP] = bootstrap
    up = read_up()
    if up and given.get(BOOTSTRAP) in (None, up.environment.get(BOOTSTRAP)):
        return up.environment | given
    if BOOTSTRAP not in given and (broker := read_state(state_file())):
        given[BOOTSTRAP] = broker.bootstrap
    return given


def known_settings(bootstrap: str | None = None) -> Settings:
    """Settings of a command. Raises SettingsError when nothing says where Kafka is."""
    env = known_environment(bootstrap)
    if not env.get(BOOTSTRAP):
        raise SettingsError(f"no Kafka is known: start one with `baton up`, set {BOOTSTRAP}, or give --bootstrap HOST:PORT")
    return Settings.from_environment(env)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[KafkaBroker]:
    """A broker for one command. Raises BrokerUnavailableError with the address."""
    broker = KafkaBroker(kafka_options(settings, "baton-cli"))
    try:
        yield broker
    except BrokerUnavailableError as error:
        raise BrokerUnavailableError(f"the Kafka at {settings.kafka_bootstrap_servers} does not answer: {error}") from None
    finally:
        await broker.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Baton's own errors become one line on the terminal."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters comes as an error of the call
    try:
        return asyncio.run(main)
    except BatonError as error:
        raise click.ClickException(str(error)) from None
