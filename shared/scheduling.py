"""How the kernel shares the CPU among Baton's processes where cores are fewer than processes.

By default a process that is woken by a record takes the CPU from the one that runs. On a full machine every stage then wakes for
a record or two at a time, and finds its caches cold. `SCHED_BATCH` says: whoever runs may finish its turn; a longer turn lets
more records gather for the next one. With a core to spare nothing changes, a process that wakes runs at once.
"""

import ctypes
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

TURN_MS = 10
"""Measured on two cores that carried broker, provider and load as well: 535 requests/s with the system's own turns, 732 with
SCHED_BATCH alone, 833 with 10 ms, 842 with 30 ms, 739 with 100 ms."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call, for which neither Python nor the C library has a function."""

_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""size, policy, flags, nice, priority, runtime, deadline, period (ns): the first version of `struct sched_attr`, sched(7)."""


_LIBC = ctypes.CDLL(None)


def gather_turns() -> None:
    """Let this process, and those that it starts from now on, run in turns of up to `TURN_MS`.

    Kernels before Linux 6.12 know no length and keep theirs (about 3 ms). Where the system or a sandbox will not have it, all
    goes on as before.
    """
    if sys.platform != "linux":
        return
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or not _set_attributes(number):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def give_way(steps: int) -> None:
    """Let those that give way by fewer steps have the CPU first, where cores are fewer than processes. Never takes steps back.

    A step is one of nice(2): a fifth less of the CPU. Linux may share it among sessions before it looks at processes (autogroup,
    sched(7)); for a process with a session of its own the session is made as nice.
    """
    os.nice(steps)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(steps))


def _set_attributes(number: int) -> bool:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_BATCH, 0, nice, 0, TURN_MS * 1_000_000, 0, 0)
    return bool(_LIBC.syscall(number, 0, attributes, 0) == 0)
