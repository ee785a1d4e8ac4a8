"""`baton up`: broker, topics, a provider, all stages and the config, in this order, as child processes of this one.

Nothing here is a shortcut: what runs are the same programs that run in production, on a real broker.
"""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from schemas.config import ConfigFile
from schemas.topology import STAGES
from services.cli.address import BOOTSTRAP, UpState, connected, read_up, run, up_file
from services.cli.apply import apply_config
from services.cli.broker import choose, state_file
from services.cli.broker_config import HOST
from services.cli.broker_state import read_state
from services.cli.config_file import load, offered
from services.cli.demo import demonstrate, invoice_file
from services.cli.jvm import CHECKOUT, run_dir
from services.cli.processes import Processes, service_ports
from services.cli.results_table import WIDTH_MIN
from services.cli.steps import Steps
from services.cli.topics import create_all
from shared.clock import SystemClock
from shared.config import Settings, environment
from shared.errors import BatonError

SIMULATOR = "BATON_SIMULATOR_"
PROVIDERS = ("alpha", "beta")
CONFIG_FILE = "baton.yaml"
OPEN_KEY = {"BATON_DEMO_KEY": "baton-demo"}
"""A key that everybody knows: OpenAI's clients send one always, and a key that is not one opens nothing."""

ALONE = ("monitor",)
"""Stages of which one is enough here: `--replicas` is about the path of a request."""


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    replicas: int
    http_port: int
    config_file: Path


@click.command("up")
@click.option("--demo", is_flag=True, help="Send the examples and show their results; ends after them without a terminal.")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(1, 6), help="Of every stage but the monitor.")
@click.option("--http-port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Where intake listens.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help=f"Default: {CONFIG_FILE} here, else Baton's own.")
def up(demo: bool, replicas: int, http_port: int, config: Path | None) -> None:
    """Run all of Baton on this machine."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    steps = Steps(_console())
    options = Options(replicas, http_port, config or _config_file())
    require_nothing_runs(options)
    try:
        with running(options, steps) as state:
            wrong = demonstrate(state, steps) if demo else []
            if demo and not sys.stdout.isatty():
                _judge(wrong)
                return
            for problem in wrong:
                steps.say(f"✗ {problem}")
            steps.say(_how_to_go_on(state))
            with suppress(KeyboardInterrupt):
                signal.pause()
    except BatonError as error:
        raise click.ClickException(str(error)) from None


def _judge(wrong: list[str]) -> None:
    """Raises ClickException, hence exit code 1, when an example did not end as it should."""
    if wrong:
        raise click.ClickException("not as expected:\n  " + "\n  ".join(wrong))


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _console() -> Console:
    """Where nobody looks at a window, lines are as long as they need to be."""
    return Console() if sys.stdout.isatty() else Console(width=max(WIDTH_MIN, 150))


def _config_file() -> Path:
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).exists() else CHECKOUT / CONFIG_FILE


def require_nothing_runs(options: Options) -> None:
    """Raises ClickException when another Baton or another program is in the way."""
    if other := read_up():
        raise click.ClickException(
            f"Baton runs already: {other.http_url}, pid {other.pid}; stop it, or set BATON_RUN to a folder for a second one"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)   # a port in TIME_WAIT is free for a server
        try:
            probe.bind((HOST, options.http_port))
        except OSError as error:
            raise click.ClickException(
                f"port {options.http_port} on {HOST} cannot be used ({error.strerror}); "
                f"choose another: baton up --http-port {options.http_port + 1}"
            ) from None


@contextmanager
def running(options: Options, steps: Steps) -> Iterator[UpState]:
    """All of Baton, ready; stopped at the end, stages before the broker that they need to finish."""
    config, env = load(options.config_file), dict(environment())
    Settings.from_environment(env, needs_broker=False)   # what is wrong there is better said before anything runs
    with Processes(env, run_dir() / "logs", steps.say) as processes:
        provider = start_simulator(processes, config, env, steps)
        with choose(steps.say, environment=_broker_environment(env, steps)) as chosen:
            try:
                own = provider | open_key(config, env) | {BOOTSTRAP: chosen.bootstrap}
                settings = Settings.from_environment(env | own)
                run(_create_topics(settings, steps))
                start_stages(processes, options, own)
                run(_apply(settings, config, env | own, options.config_file, steps))
                processes.wait_ready()
                steps.say(f"ready: {len(processes.names())} processes, logs in {run_dir() / 'logs'}")
                with announced(f"http://{HOST}:{options.http_port}", own) as state:
                    yield state
            finally:
                steps.say("stopping, upstream first")
                processes.stop()
    steps.say("stopped")


def _broker_environment(env: Mapping[str, str], steps: Steps) -> Mapping[str, str]:
    """With the broker of `baton broker start`, if that runs and nothing else is asked for."""
    if env.get(BOOTSTRAP) or env.get("BATON_KAFKA"):
        return env
    if state := read_state(state_file()):
        steps.say("a Kafka of `baton broker start` runs: using it, its data stays")
        return {**env, BOOTSTRAP: state.bootstrap}
    steps.say("starting Kafka; its data lasts as long as this command (`baton broker start` keeps it)")
    return env


def real_backends(config: ConfigFile, env: Mapping[str, str]) -> list[str]:
    """Backends of real providers that can be offered here, as their key is set."""
    return [
        name
        for name, backend in config.backends.items()
        if not (backend.requires or "").startswith(SIMULATOR) and (not backend.requires or env.get(backend.requires, "").strip())
    ]


def start_simulator(processes: Processes, config: ConfigFile, env: Mapping[str, str], steps: Steps) -> dict[str, str]:
    """Start the stand-in providers unless there is a real one; returns the environment that names them."""
    invoice_file().unlink(missing_ok=True)
    if real := real_backends(config, env):
        steps.say(f"provider: real ones, which cost money: {', '.join(real)}")
        return {}
    names = {provider: f"{SIMULATOR}{provider.upper()}_URL" for provider in PROVIDERS}
    if all(env.get(name) for name in names.values()):
        steps.say(f"provider: the simulator given by {' and '.join(names.values())}")
        return {name: env[name] for name in names.values()}
    (port,) = service_ports(1)
    arguments = ["--port", str(port), "--invoice", str(invoice_file()), "--profile", "typical", "--seed", "7"]
    processes.run("simulator", ["services.simulator", *arguments], (port, "/livez"))
    steps.say(f"provider: the simulator on http://{HOST}:{port}, since no key of a provider is set")
    return {name: f"http://{HOST}:{port}/{provider}/v1" for provider, name in names.items()}


def open_key(config: ConfigFile, env: Mapping[str, str]) -> dict[str, str]:
    """The known key, unless another one is set; only of a tenant that is open anyway, so that it opens nothing else."""
    opened = {key.removeprefix("env:") for tenant in config.tenants.values() if tenant.open for key in tenant.keys}
    return {name: key for name, key in OPEN_KEY.items() if name in opened and not env.get(name, "").strip()}


def start_stages(processes: Processes, options: Options, own: dict[str, str]) -> None:
    """All at once: each waits by itself for what it needs."""
    for stage in STAGES:
        for replica in range(1 if stage.name in ALONE else options.replicas):
            http = {"BATON_HTTP_PORT": str(options.http_port)} if (stage.name, replica) == ("intake", 0) else {}
            processes.start(stage.name, stage.module, replica, **own | http)


async def _create_topics(settings: Settings, steps: Steps) -> None:
    async with connected(settings) as broker:
        created = await create_all(broker, settings.request_partitions)
    steps.say(f"topics: {len(created)} created, {settings.request_partitions} partitions each for requests; starting the stages")


async def _apply(settings: Settings, config: ConfigFile, env: Mapping[str, str], file: Path, steps: Steps) -> None:
    choice = offered(config, env)
    async with connected(settings) as broker:
        report = await apply_config(broker, choice.config, SystemClock().now_ms())
    counts = f"{len(choice.config.models)} models, {len(choice.config.backends)} backends, {len(choice.config.tenants)} tenants"
    steps.say(f"config: {file}, {counts}; version {report.version} is in force")


@contextmanager
def announced(http_url: str, own: dict[str, str]) -> Iterator[UpState]:
    """`.run/up.json`, so that other commands find this Baton."""
    state = UpState(pid=os.getpid(), http_url=http_url, environment=own, started_at=datetime.now(UTC))
    up_file().parent.mkdir(parents=True, exist_ok=True)
    up_file().write_text(state.model_dump_json(indent=2) + "\n")
    try:
        yield state
    finally:
        up_file().unlink(missing_ok=True)


def _how_to_go_on(state: UpState) -> str:
    bootstrap = state.environment[BOOTSTRAP]
    baton = "baton" if shutil.which("baton") else os.path.relpath(Path(sys.executable).parent / "baton")
    return f"""Baton runs until Ctrl-C. In another terminal:

  {baton} send "What is a log?"
  {baton} tail attempts
  {baton} trace REQUEST_ID
  {baton} apply
  curl '{state.http_url}/v1/requests?wait=30' -d '{{"prompt": "Hello"}}'
  curl {state.http_url}/v1/chat/completions -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  echo '{{"prompt": "Hello"}}' | kcat -b {bootstrap} -t intake -P
  kcat -b {bootstrap} -t results -C -X isolation.level=read_committed
"""
