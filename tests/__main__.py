"""`make test`: three runs of pytest, two side by side and one alone, as tests of processes mostly wait and others mostly compute.

Every test is in exactly one part: what `BESIDE` and `ALONE` do not name is in the first. Arguments are pytest's, for each part.
"""

import subprocess
import sys
import time
from pathlib import Path

from services.cli.guard import Guard

ROOT = Path(__file__).resolve().parents[1]
BESIDE_LOG = ROOT / "build" / "test-beside.log"
FINE = (0, 5)   # all passed; nothing was left to run after -k

BESIDE = (
    "tests/chaos",
    "tests/integration/test_broker_outage.py",
    "tests/integration/test_broker_process.py",
    "tests/integration/test_cli_up.py",
    "tests/integration/test_reviews.py",
)
"""Processes of their own, mostly waited for, and judged by what is there when all is over: a busy machine makes these slow,
never wrong. So many that both runs take as long.
"""

ALONE = (
    "tests/integration/test_books_on_kafka.py",
    "tests/integration/test_executor_streams.py",
    "tests/integration/test_failover.py",
    "tests/integration/test_fleet_live.py",
    "tests/integration/test_holding_back.py",
    "tests/integration/test_learning.py",
    "tests/integration/test_monitor_on_kafka.py",
    "tests/integration/test_scenarios.py",
    "tests/integration/test_simulator_weather.py",
)
"""Judged by the clock, to fractions of a second: what runs beside them would be measured as well."""


def main(options: list[str]) -> int:
    began_s = time.monotonic()
    parts = Parts(options)
    BESIDE_LOG.parent.mkdir(exist_ok=True)
    say("what computes, and short live tests; beside them those that start a Baton and kill it, whose report follows")
    with BESIDE_LOG.open("wb") as log:
        beside = parts.start(*BESIDE, stdout=log.fileno())
        first = parts.start("tests", *(f"--ignore={path}" for path in BESIDE + ALONE))
        failed = parts.failed(first, beside)
    say(f"what starts a Baton and kills it ({BESIDE_LOG.relative_to(ROOT)})")
    print(BESIDE_LOG.read_text("utf-8", "replace"), flush=True)
    say("what is timed, alone")
    failed |= parts.failed(parts.start(*ALONE))
    say(f"{'FAILED' if failed else 'passed'} after {time.monotonic() - began_s:.0f} s")
    return int(failed)


class Parts:
    """Runs of pytest that end when this process does."""

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._guard = Guard()

    def start(self, *arguments: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pytest", "--durations=10", *arguments, *self._options]
        return subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=subprocess.STDOUT, preexec_fn=self._guard.watch_me)

    def failed(self, *parts: "subprocess.Popen[bytes]") -> bool:
        """Whether one of them did, when all have ended; they get an interrupt themselves, and take their time to clean up."""
        try:
            codes = [part.wait() for part in parts]
        except KeyboardInterrupt:
            codes = [part.wait() for part in parts]
        for part in parts:
            self._guard.forget(part.pid)
        return any(code not in FINE for code in codes)


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
