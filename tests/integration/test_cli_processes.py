"""Services as child processes: they come back when they die, stop in the flow's order, and never outlive who runs them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.cli.broker_state import command_line
from services.cli.processes import ProcessError, Processes, service_ports

CHILD = "tests.support.child"
PARENT = """
import os, sys
from pathlib import Path
from services.cli.processes import Processes
processes = Processes(os.environ, Path(sys.argv[1]), lambda _: None)
names = [processes.start("child", "tests.support.child", replica) for replica in range(2)]
processes.wait_ready()
print(*map(processes.pid, names), flush=True)
input()
"""


def wait_until(claim: Callable[[], bool], what: str, within_s: float = 15) -> None:
    deadline_s = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline_s, f"{what}: not within {within_s} s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    return bool(command_line(pid))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def processes(tmp_path: Path, said: list[str]) -> Iterator[Processes]:
    with Processes(os.environ, tmp_path / "logs", said.append) as running:
        yield running


def test_a_killed_child_comes_back_and_the_message_says_how_it_died(
    processes: Processes, said: list[str], tmp_path: Path
) -> None:
    name = processes.start("child", CHILD)
    processes.wait_ready()
    before = processes.pid(name)
    processes.kill(name)
    processes.wait_ready(name)
    assert processes.pid(name) != before
    assert not is_running(before)
    assert processes.restarts(name) == 1
    assert "child-0 was killed by SIGKILL" in said[0]
    assert "starting it again in 0.5 s" in said[0]
    assert "child says hello" in said[0]
    assert (tmp_path / "logs" / "child-0.log").read_text().count("hello") == 2


def test_a_child_that_ends_with_75_is_started_again_with_growing_pauses(processes: Processes, said: list[str]) -> None:
    processes.start("child", CHILD, CHILD_EXITS="75")
    wait_until(lambda: len(said) >= 2, "two deaths")
    assert "ended with code 75" in said[0]
    assert "in 0.5 s" in said[0]
    assert "in 1 s" in said[1]


def test_wrong_settings_are_not_tried_again_and_the_error_shows_the_log(processes: Processes) -> None:
    name = processes.start("child", CHILD, CHILD_EXITS="64")
    with pytest.raises(ProcessError, match="child-0 cannot start") as caught:
        processes.wait_ready()
    assert "child says hello" in caught.value.message
    assert processes.restarts(name) == 0


def test_who_is_not_ready_in_time_is_named(processes: Processes, tmp_path: Path) -> None:
    processes.start("fine", CHILD)
    processes.start("slow", CHILD, CHILD_NEVER_READY="1")
    processes.wait_ready("fine-0")
    wait_until(lambda: "hello" in (tmp_path / "logs" / "slow-0.log").read_text(), "the slow one is there")
    with pytest.raises(ProcessError, match="not ready after 0 s: slow-0\n") as caught:
        processes.wait_ready(timeout_s=0.3)
    assert "child says hello" in caught.value.message


def test_replicas_have_their_own_ports_and_numbers(processes: Processes) -> None:
    names = [processes.start("child", CHILD, replica) for replica in range(2)]
    processes.wait_ready()
    assert names == ["child-0", "child-1"]
    environments = [Path(f"/proc/{processes.pid(name)}/environ").read_text().split("\0") for name in names]
    for variable in ("BATON_HEALTH_PORT", "BATON_HTTP_PORT", "BATON_REPLICA"):
        values = [entry for environment in environments for entry in environment if entry.startswith(f"{variable}=")]
        assert len(set(values)) == 2
    assert processes.http_port("child-0") != processes.http_port("child-1")


def test_a_child_that_is_stopped_for_good_stays_down_while_the_others_run(processes: Processes, said: list[str]) -> None:
    names = [processes.start("child", CHILD, replica) for replica in range(2)]
    processes.wait_ready()
    gone = processes.pid(names[0])
    processes.stop(names[0])
    assert not is_running(gone)
    assert processes.names() == ["child-1"]
    assert processes.is_ready("child-1")
    assert said == []


def test_a_child_that_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    with Processes(os.environ, tmp_path, stop_timeout_s=0.3) as processes:
        name = processes.start("child", CHILD, CHILD_STUBBORN="1")
        processes.wait_ready()
        pid = processes.pid(name)
    assert not is_running(pid)


def test_services_are_stopped_upstream_first_whatever_the_order_of_their_start(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Processes(os.environ, tmp_path, order=("upstream", "middle", "downstream")) as processes:
        for name in ("provider", "downstream", "upstream", "middle"):
            processes.start(name, CHILD, CHILD_JOURNAL=str(journal), CHILD_NAME=name)
        processes.wait_ready()
    assert [line.split()[0] for line in journal.read_text().splitlines()] == ["upstream", "middle", "downstream", "provider"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the kernel was told from /proc")
def test_what_stands_before_the_calls_gives_way_to_them_also_after_a_restart(tmp_path: Path) -> None:
    with Processes(os.environ, tmp_path) as processes:
        names = [processes.start(name, CHILD) for name in ("intake", "router", "executor", "simulator")]
        processes.wait_ready()
        assert [niceness(processes.pid(name)) for name in names] == [os.nice(0) + steps for steps in (3, 1, 0, 0)]
        processes.kill(names[0])
        processes.wait_ready(names[0])
        assert niceness(processes.pid(names[0])) == os.nice(0) + 3
        if Path("/proc/self/autogroup").exists():
            sessions = [Path(f"/proc/{processes.pid(name)}/autogroup").read_text().split()[-1] for name in names]
            assert sessions == ["3", "1", "0", "0"]


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def bearing(mark: str) -> list[int]:
    """Every process with the mark in its environment; a zombie has none."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


@contextmanager
def parent_of_two(tmp_path: Path, mark: str, program: str = PARENT, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Runs two children, prints their pids when they are ready, and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=os.environ | {"MARK": mark} | env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as parent:
        try:
            yield parent
        except BaseException:   # a claim that fails must not wait for ever
            parent.kill()
            raise


def pids_told(parent: "subprocess.Popen[str]") -> list[int]:
    assert parent.stdout
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_running, pids))
    return pids


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_who_started_it_not_even_a_frozen_one(tmp_path: Path, ending: signal.Signals) -> None:
    mark = f"{tmp_path}-{ending}"
    with parent_of_two(tmp_path, mark) as parent:
        os.kill(pids_told(parent)[0], signal.SIGSTOP)
        parent.send_signal(ending)
    wait_until(lambda: not bearing(mark), "children and guard are gone")


def test_no_child_outlives_an_end_of_the_whole_tree(tmp_path: Path) -> None:
    """Who ends a job by its tree or its cgroup signals the guard, too; children may be deaf, at work, or frozen."""
    mark = f"{tmp_path}-tree"
    with parent_of_two(tmp_path, mark, CHILD_STUBBORN="1") as parent:
        pids = pids_told(parent)
        os.kill(pids[0], signal.SIGSTOP)
        everybody = bearing(mark)
        assert set(everybody) > {parent.pid, *pids}, "and the guard"
        for pid in sorted(everybody, key=lambda pid: pid == parent.pid):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not bearing(mark), "children and guard are gone")


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_no_child_outlives_who_dies_while_starting_it(tmp_path: Path, share: float) -> None:
    mark = f"{tmp_path}-{share}"
    with parent_of_two(tmp_path, mark) as parent:
        while len(bearing(mark)) < 2 and parent.poll() is None:   # from its first process on: the guard
            time.sleep(0.001)
        time.sleep(share * 0.3)
        parent.kill()
    wait_until(lambda: not bearing(mark), "children and guard are gone")


IMPATIENT = PARENT.replace("input()", """
stopping = threading.Thread(target=processes.stop)
stopping.start()
while processes.names():
    pass
processes.stop()
os._exit(0)
""").replace("import os, sys", "import os, sys, threading")


def test_no_child_outlives_a_stop_that_was_cut_short(tmp_path: Path) -> None:
    """An interrupt leaves a stop that goes on in another thread, as asyncio's do, and the way out stops a second time."""
    mark = f"{tmp_path}-impatient"
    with parent_of_two(tmp_path, mark, IMPATIENT, CHILD_STUBBORN="1") as parent:
        pids_told(parent)
    wait_until(lambda: not bearing(mark), "children and guard are gone")


def test_no_port_is_given_twice_though_nobody_listens_on_it_yet() -> None:
    given = [port for _ in range(200) for port in service_ports(2)]
    assert len(set(given)) == len(given)


def test_what_was_stopped_starts_nothing_any_more(tmp_path: Path) -> None:
    with Processes(os.environ, tmp_path) as processes:
        processes.stop()
        with pytest.raises(ValueError, match="child-0 cannot start: these processes were stopped"):
            processes.start("child", CHILD)
