"""Turns `.run/broker.json`, left by `baton broker start`, into a claim about processes that run now.

It must never signal a process that is not ours: a pid may be dead, or belong to somebody else since.
"""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from services.cli.broker_process import STOP_TIMEOUT_S, KafkaProcess

POLL_S = 0.05


class BrokerState(BaseModel):
    """A detached cluster. `started_at` is UTC, ISO 8601."""

    model_config = ConfigDict(frozen=True)

    bootstrap: str
    pids: list[int]
    ports: list[int]
    data_dir: str
    started_at: datetime

    @classmethod
    def of(cls, cluster: KafkaProcess) -> "BrokerState":
        return cls(
            bootstrap=cluster.bootstrap,
            pids=cluster.pids,
            ports=[node.port for node in cluster.nodes.values()],
            data_dir=str(cluster.home),
            started_at=datetime.now(UTC),
        )

    def running(self) -> list[int]:
        """Those pids whose command line still names our data directory. A zombie has no command line."""
        return [pid for pid in self.pids if f"{self.data_dir}{os.sep}node-" in command_line(pid)]

    def stop(self) -> None:
        """SIGTERM to all at once, SIGKILL to what is left after STOP_TIMEOUT_S."""
        for wanted, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
            for pid in self.running():
                os.kill(pid, wanted)
            deadline = time.monotonic() + patience_s
            while self.running() and time.monotonic() < deadline:
                time.sleep(POLL_S)


def read_state(file: Path) -> BrokerState | None:
    """None if there is no such file, it is garbled, or none of its processes runs."""
    try:
        state = BrokerState.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return state if state.running() else None


def write_state(file: Path, state: BrokerState) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(state.model_dump_json(indent=2) + "\n")


def command_line(pid: int) -> str:
    """Of a running process; empty if there is none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return proc.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout
