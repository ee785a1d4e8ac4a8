"""LiteLLM's proxy: installed in an environment of its own, started as a child, stopped at the end.

Set up for speed: one worker, no database, no logging, no retries, a master key, and prices given (an unpriced model costs it a
search per request). It gets nothing of this process's environment, and fetches nothing at start.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop
import yaml

from services.cli.broker_config import HOST
from services.cli.guard import Guard
from services.cli.jvm import cache_dir
from services.cli.processes import service_ports
from tests.bench.system import KEY, LOG_DIR, MODEL, Say

VERSION = "1.106.0"
READY_S = 120.0
STOP_S = 10.0
COLLECTED_SHOWN = 25


@dataclass(frozen=True)
class Proxy:
    """As it runs. `ready_s` is how long that took."""

    url: str
    pid: int
    ready_s: float


def install(say: Say) -> Path:
    """LiteLLM in its own environment; nothing to do when it is there. The command. Raises ClickException."""
    home = cache_dir().parents[1] / "peers" / "litellm"
    ready = home / f".ready-{VERSION}"
    if not ready.exists():
        say(f"installing LiteLLM {VERSION} with its proxy into {home}, once, a few minutes")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        _pip_install(home / "bin" / "python", f"litellm[proxy]=={VERSION}", say)
        ready.touch()
    return home / "bin" / "litellm"


def _pip_install(python: Path, package: str, say: Say) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", package]
    last: list[str] = []
    collected = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last = [*last[-9:], line.rstrip()]
            collected += line.startswith("Collecting")
            if line.startswith("Collecting") and collected % COLLECTED_SHOWN == 0:
                say(f"  {collected} packages found")
            elif line.startswith("Installing"):
                say(f"  installing {collected} packages")
    if pip.returncode:
        raise click.ClickException("\n".join([f"{package} could not be installed (it needs the network):", *last]))


@contextmanager
def running(litellm: Path, simulator_url: str) -> Iterator[Proxy]:
    """The proxy, ready. Stopped at the end, and killed if this process dies."""
    LOG_DIR.mkdir(parents=True, exist_ok=True)
    config, (port,), guard = LOG_DIR / "litellm.yaml", service_ports(1), Guard()
    config.write_text(yaml.safe_dump(_config(simulator_url)))
    where = ["--config", str(config), "--host", HOST, "--port", str(port)]
    command = [str(litellm), *where, "--num_workers", "1", "--telemetry", "False"]
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(LOG_DIR.absolute()),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",   # else it fetches a price list at start
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    began_s = time.monotonic()
    with (LOG_DIR / "litellm.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   preexec_fn=guard.watch_me)
    try:
        url = f"http://{HOST}:{port}"
        uvloop.run(_until_ready(f"{url}/health/readiness", process))
        yield Proxy(url, process.pid, time.monotonic() - began_s)
    finally:
        _stop(process)
        guard.forget(process.pid)
        guard.close()


def _config(simulator_url: str) -> dict[str, Any]:
    model = {"model": f"openai/{MODEL}", "api_base": f"{simulator_url}/v1", "api_key": "none"}
    prices = {"input_cost_per_token": 5e-8, "output_cost_per_token": 2e-7}
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": model | prices}],
        "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 30},
        "general_settings": {"master_key": KEY},
    }


async def _until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + READY_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass   # not listening yet
            await asyncio.sleep(0.1)
    raise click.ClickException(f"LiteLLM's proxy did not get ready in {READY_S:.0f} s; its log is {LOG_DIR / 'litellm.log'}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
