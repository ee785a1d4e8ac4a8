"""`baton replay`: recorded tasks through another config, and what that would have changed. It writes nothing.

The router does it, in a process of its own: the code that decides here is the code that decides there.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from services.cli.address import BOOTSTRAP, bootstrap_option, known_environment, known_settings
from services.cli.apply import specs_of
from services.cli.config_file import load, offered
from services.cli.results_table import usd
from shared.clock import SystemClock
from shared.errors import BatonError

MODULE = "services.router.replay"
_AGO = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Side = Mapping[str, Any]


def moment_of(text: str, now_ms: int) -> int:
    """Epoch ms of `90m`, `2h`, `7d` ago, or of a day or time in ISO 8601, UTC where it says nothing else. Raises ValueError."""
    ago = _AGO.match(text)
    if ago:
        return now_ms - int(ago[1]) * _MS[ago[2]]
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command("replay")
@click.option("--policy", "file", required=True, type=click.Path(path_type=Path), help="The other config: a whole baton.yaml.")
@click.option("--since", default="1h", show_default=True, help="Tasks from then on: 90m, 2h, 7d, or a day or time in ISO 8601.")
@click.option("--tasks-max", default=10_000, show_default=True, type=click.IntRange(1))
@bootstrap_option
def replay(file: Path, since: str, tasks_max: int, bootstrap: str | None) -> None:
    """Put recorded tasks through another config, off-line, and print what it would change."""
    try:
        since_ms = moment_of(since, SystemClock().now_ms())
    except ValueError:
        raise click.UsageError("--since: give 90m, 2h, 7d, or a day or time such as 2026-11-26T14:00") from None
    try:
        environment = known_environment(bootstrap)
        environment[BOOTSTRAP] = known_settings(bootstrap).kafka_bootstrap_servers
        choice = offered(load(file), environment)
    except BatonError as error:
        raise click.ClickException(str(error)) from None
    for note in choice.left_out:
        click.echo(note, err=True)
    order = orjson.dumps({"since_ms": since_ms, "tasks_max": tasks_max, "specs": specs_of(choice.config)})
    done = subprocess.run([sys.executable, "-m", MODULE], input=order, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
    for line in lines_of(orjson.loads(done.stdout)):
        click.echo(line)


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The comparison, to read. Expected figures of the first model planned, on both sides."""
    if not found["tasks"]:
        return ["no task was recorded since then"]
    now, other = found["now"], found["other"]
    lines = [
        f"{found['tasks']} tasks; {found['changed']} of them would be asked of another model"
        + (f"; {found['unreadable']} records could not be read" if found["unreadable"] else ""),
        f"{'':22}{'in force':>14}{'other':>14}{'difference':>14}",
        _row("expected cost, USD", now["cost_microusd"], other["cost_microusd"], lambda value: usd(round(value))),
        _row("expected quality", _quality(now), _quality(other), "{:.4f}".format),
        _row("p95 latency, ms", _latency_ms(now), _latency_ms(other), "{:.0f}".format),
        _row("not planned", sum(now["failures"].values()), sum(other["failures"].values()), "{:d}".format),
    ]
    for name in sorted(now["models"].keys() | other["models"].keys()):
        lines.append(_row(name, now["models"].get(name, 0), other["models"].get(name, 0), "{:d}".format))
    lines += [f"    {request_id}  {before or 'none'} -> {after or 'none'}" for request_id, before, after in found["different"]]
    return lines


def _quality(side: Side) -> float | None:
    return side["quality_sum"] / side["planned"] if side["planned"] else None


def _latency_ms(side: Side) -> float | None:
    return side["latency_sum_ms"] / side["latencies"] if side["latencies"] else None


def _row(name: str, now: Any, other: Any, shown: Any) -> str:
    if now is None or other is None:
        difference = "unknown"
    else:
        sign = "+" if other > now else "-" if other < now else ""
        difference = sign + shown(abs(other - now))
    sides = ("unknown" if each is None else shown(each) for each in (now, other))
    return f"{name:22}" + "".join(f"{each:>14}" for each in (*sides, difference))
