"""Turns on the CPU: what is asked of the kernel takes effect, in a process and in what it starts."""

import os
import subprocess
import sys

import pytest

from shared.scheduling import TURN_MS

PROGRAM = """
import ctypes, os, struct, subprocess, sys
from shared.scheduling import gather_turns

def told():
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
    return os.sched_getscheduler(0), struct.unpack("=IIQiIQQQ", attributes)[5]

if sys.argv[1] == "parent":
    os.nice(3)
    gather_turns()
    subprocess.run([sys.executable, *sys.orig_argv[1:-1], "child"], check=True)
print(*told(), os.nice(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the scheduler of Linux")
def test_a_process_and_its_children_take_longer_turns_and_stay_as_nice_as_they_were() -> None:
    command = [sys.executable, "-c", PROGRAM, "parent"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == 2, "parent and child"
    for line in told:
        policy, turn_ns, nice = map(int, line.split())
        assert policy == os.SCHED_BATCH
        assert nice == 3 + os.nice(0)
        assert turn_ns == (TURN_MS * 1_000_000 if kernel() >= (6, 12) else 0)


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])
