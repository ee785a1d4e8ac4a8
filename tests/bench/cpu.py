"""CPU time and memory of processes by their pid, read from /proc, and a description of the machine. Linux only, and says so."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from services.cli.jvm import KAFKA_VERSION

PROC = Path("/proc")
PACKAGES = ("aiokafka", "faust-streaming", "pydantic", "aiohttp", "httpx2", "orjson", "uvloop")
BUSY_SHARE = 0.25   # of the cores, as load average; above it figures say more about the neighbours


def require_proc() -> None:
    """Raises ClickException where CPU time cannot be read."""
    if not (PROC / "self" / "stat").exists():
        raise click.ClickException("the bench reads CPU time and memory from /proc: run it on Linux, or in a container")


def cpu_s(pid: int) -> float:
    """User and system time a process and its threads have taken, in steps of 10 ms."""
    after_name = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory in MB of 10⁶ bytes."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(f"process {pid} has ended")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):   # it ended meanwhile
                continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


class Meter:
    """CPU time since it was made, per name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._pids.items()}

    def spent_ms(self) -> dict[str, float]:
        return {name: (after - self._before[name]) * 1000 for name, after in self._now().items()}


def surroundings() -> dict[str, Any]:
    """What a figure depends on beside the code: the machine, its load before the run, and the versions."""
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
            "system": platform.platform(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "commit": _commit(),
            "python": platform.python_version(),
            "kafka": KAFKA_VERSION,
            **{name: version(name) for name in PACKAGES},
        },
    }


def busy_warning() -> str | None:
    """A sentence if others are at work on this machine."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= BUSY_SHARE * cores:
        return None
    return f"this machine is busy (load {load:.1f} on {cores} cores): only ratios within this run mean something"


def _cpu_model() -> str:
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Of the checkout; `-dirty` when files differ from it, empty without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
