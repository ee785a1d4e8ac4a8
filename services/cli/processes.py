"""Turns modules into child processes that stay up: each with its own log and ports, started again when it ends.

A child must never outlive this process, not even if that is killed.
"""

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import Self

import click

from schemas.topology import STAGES
from services.cli.broker_config import HOST
from services.cli.guard import Guard
from shared.scheduling import gather_turns, give_way
from shared.service import EXIT_SETTINGS

POLL_S = 0.05
READY_TIMEOUT_S = 60.0
STILL_WAITING_S = 3.0
STOP_TIMEOUT_S = 35.0           # a stage drains for at most 30
RESTART_S = (0.5, 10.0)         # first and longest pause before a restart; it doubles
STEADY_S = 30.0                 # who ran that long starts with a short pause again
RESTARTS_AT_START_MAX = 3
LOG_LINES_SHOWN = 8
LOG_LINE_CHARS_MAX = 400
SERVICE_PORTS = range(20_000, 32_000)
SERVICE_PORTS_SHARES = 6        # two Batons that start at the same time look for ports in different shares, mostly
UPSTREAM_FIRST = tuple(stage.name for stage in STAGES)
GIVE_WAY = {"intake": 3, "preprocessing": 2, "router": 1}
"""Steps that what stands before the calls gives way: on a full machine what was begun is finished, and the rest waits in
`intake`. Of the steady rate 0.45 came out at five times the load without, 0.48 to 0.62 with. With twice as many steps, and more
stages, they had so little of the CPU beside other work on the machine that they missed their heartbeats."""

Say = Callable[[str], None]


def service_ports(count: int) -> list[int]:
    """Ports free at this moment, none of which was given to a service lately: seconds pass until that listens. They are below
    those that the kernel gives to outgoing connections, of which one may have gone to somebody's by then.
    """
    found: list[int] = []
    for port in islice(_own_ports(), len(SERVICE_PORTS) // SERVICE_PORTS_SHARES):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise ProcessError(f"no {count} free ports between {SERVICE_PORTS.start} and {SERVICE_PORTS.stop} on {HOST}")


@cache
def _own_ports() -> Iterator[int]:
    """This process's share in an order of its own, over and over: a port is given again after all others."""
    mine = SERVICE_PORTS[os.getpid() % SERVICE_PORTS_SHARES :: SERVICE_PORTS_SHARES]
    return cycle(random.sample(mine, len(mine)))


class ProcessError(click.ClickException):
    """A service that does not get ready, with the end of its log."""


@dataclass
class Child:
    """One service process and its successors. `again_s` is when it is started anew, on the monotonic clock."""

    name: str
    command: list[str]
    env: dict[str, str]
    log_file: Path
    ready_port: int
    ready_path: str
    process: subprocess.Popen[bytes]
    started_s: float
    pause_s: float = RESTART_S[0]
    again_s: float | None = None
    restarts: int = 0

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            return False
        connection = http.client.HTTPConnection(HOST, self.ready_port, timeout=2)
        try:
            connection.request("GET", self.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def last_lines(self) -> str:
        lines = self.log_file.read_text("utf-8", "replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"    {line[:LOG_LINE_CHARS_MAX]}" for line in lines)


class Processes:
    """Children by name (`router-0`). Use it as a context manager, or call stop().

    `env` is the environment of every child; `say` hears of each that ended by itself; `order` is that of stopping.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        log_dir: Path,
        say: Say = click.echo,
        order: Sequence[str] = UPSTREAM_FIRST,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._env = dict(env)
        self._log_dir = log_dir
        self._say = say
        self._order = order
        self._stop_timeout_s = stop_timeout_s
        self._children: dict[str, Child] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._guard = Guard()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()
        log_dir.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, replica: int = 0, **env: str) -> str:
        """Start the service `python -m module` as `name-replica`, which is returned. Its ports are free ones unless `env`,
        which comes above that of all children, has them. It is ready when `/readyz` at its BATON_HEALTH_PORT says so.
        """
        health_port, http_port = service_ports(2)
        own = {"BATON_HEALTH_PORT": str(health_port), "BATON_HTTP_PORT": str(http_port), "BATON_REPLICA": str(replica)} | env
        return self.run(f"{name}-{replica}", [module], (int(own["BATON_HEALTH_PORT"]), "/readyz"), own)

    def run(self, name: str, arguments: Sequence[str], ready: tuple[int, str], env: Mapping[str, str] | None = None) -> str:
        """Start any Python module with arguments; ready when `ready`, a port and a path, answers 200."""
        log_file = self._log_dir / f"{name}.log"
        log_file.write_bytes(b"")
        with self._lock:
            if self._ending.is_set():
                raise ValueError(f"{name} cannot start: these processes were stopped")
            if name in self._children:
                raise ValueError(f"{name} runs already; stop it first, or choose another replica")
            command = [sys.executable, "-m", *arguments]
            own = self._env | dict(env or {})
            process = self._launch(name, command, own, log_file)
            self._children[name] = Child(name, command, own, log_file, *ready, process, time.monotonic())
        return name

    def pid(self, name: str) -> int:
        """Of the process that runs under the name now; it changes with a restart."""
        with self._lock:
            return self._children[name].process.pid

    def names(self) -> list[str]:
        return list(self._children)

    def http_port(self, name: str) -> int:
        """Where an intake replica listens."""
        return int(self._children[name].env["BATON_HTTP_PORT"])

    def restarts(self, name: str) -> int:
        return self._children[name].restarts

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal. A child that ends of it is started again; `stop(name)` is for good."""
        with self._lock:
            process = self._children[name].process
            process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()

    def is_ready(self, name: str) -> bool:
        return self._children[name].is_ready()

    def wait_ready(self, *names: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until those named, or all, are ready. Says who is not after a while. Raises ProcessError."""
        waiting = list(names or self._children)
        began_s = said_s = time.monotonic()
        while waiting := [name for name in waiting if not self.is_ready(name)]:
            self._raise_if_hopeless(waiting)
            now_s = time.monotonic()
            if now_s - began_s > timeout_s:
                logs = "\n".join(f"  {name}, the end of {self._log(name)}" for name in waiting)
                raise ProcessError(f"not ready after {timeout_s:.0f} s: {', '.join(waiting)}\n{logs}")
            if now_s - said_s > STILL_WAITING_S:
                said_s = now_s
                self._say(f"still waiting for {', '.join(waiting)}")
            time.sleep(POLL_S)

    def stop(self, *names: str) -> None:
        """Stop those named, or all and the supervision with them: upstream first, so that what is in flight is finished.

        Each drains on SIGTERM; what is left after `stop_timeout_s` in all, or when this is interrupted, gets SIGKILL.
        """
        with self._lock:
            ending = [self._children.pop(name) for name in names or list(self._children)]
        deadline_s = time.monotonic() + self._stop_timeout_s

        def place(child: Child) -> int:
            return self._place(child.name)

        try:
            for _, replicas in groupby(sorted(ending, key=place), key=place):
                _end(list(replicas), deadline_s)
        finally:
            for child in ending:
                child.process.kill()
                child.process.wait()
                self._guard.forget(child.process.pid)
        if not names:
            self._ending.set()
            self._supervisor.join()
            self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ending.is_set():
            self.stop()

    def _launch(self, name: str, command: list[str], env: dict[str, str], log_file: Path) -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt in the terminal is ours to handle: stages stop in order
                preexec_fn=partial(self._in_child, GIVE_WAY.get(_service_of(name), 0)),
            )

    def _in_child(self, steps: int) -> None:
        """What stands in for a provider takes no more turns from a stage than one elsewhere would."""
        self._guard.watch_me()
        gather_turns()
        give_way(steps)

    def _supervise(self) -> None:
        while not self._ending.wait(POLL_S):
            with self._lock:
                for child in self._children.values():
                    self._tend(child)

    def _tend(self, child: Child) -> None:
        """As a platform would: whatever ended is started again, after a pause that doubles. Bad settings stay bad."""
        code = child.process.poll()
        if code is None:
            return
        now_s = time.monotonic()
        if child.again_s is None:
            self._guard.forget(child.process.pid)
            child.pause_s = RESTART_S[0] if now_s - child.started_s > STEADY_S else child.pause_s
            child.again_s = float("inf") if code == EXIT_SETTINGS else now_s + child.pause_s
            self._say(_obituary(child, code))
        elif now_s >= child.again_s:
            child.process = self._launch(child.name, child.command, child.env, child.log_file)
            child.started_s, child.again_s = now_s, None
            child.pause_s = min(2 * child.pause_s, RESTART_S[1])
            child.restarts += 1

    def _place(self, name: str) -> int:
        """What is not in the order, such as a provider, comes last."""
        service = _service_of(name)
        return self._order.index(service) if service in self._order else len(self._order)

    def _raise_if_hopeless(self, names: Sequence[str]) -> None:
        for name in names:
            child = self._children[name]
            code = child.process.poll()
            if code == EXIT_SETTINGS or (code is not None and child.restarts >= RESTARTS_AT_START_MAX):
                raise ProcessError(f"{name} cannot start; the end of {self._log(name)}")

    def _log(self, name: str) -> str:
        child = self._children[name]
        return f"{child.log_file}:\n{child.last_lines()}"


def _service_of(name: str) -> str:
    """Without the number of the replica."""
    return name.rstrip("0123456789").removesuffix("-")


def _end(children: Sequence[Child], deadline_s: float) -> None:
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()


def _obituary(child: Child, code: int) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if code == EXIT_SETTINGS:
        then = "its settings are wrong, so it is not started again"
    else:
        then = f"starting it again in {child.pause_s:g} s"
    ran_s = time.monotonic() - child.started_s
    return f"{child.name} {how} after {ran_s:.1f} s; {then}. The end of {child.log_file}:\n{child.last_lines()}"
