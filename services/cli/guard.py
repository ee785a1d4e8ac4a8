"""Kills the children that their parent left behind, and deletes its temporary data: neither outlives who started it, however
that ends.

A guard is a process that waits until our end of its standard input closes, which the kernel does whatever happens to us. Not
PR_SET_PDEATHSIG: that is Linux only, and follows the *thread* that forked, which may end long before us.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

PROGRAM = """
import os, sys
pids, folders = set(), []
for line in sys.stdin.buffer:
    if line[:1] == b"/":
        folders.append(line[:-1])
    else:
        (pids.add if line[:1] == b"+" else pids.discard)(int(line[1:]))
for pid in pids:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass
for folder in folders:
    import shutil, time
    give_up_s = time.monotonic() + 10
    while os.path.exists(folder) and time.monotonic() < give_up_s:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)   # who was killed just now may still be writing there
"""
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Guard:
    """Give `watch_me` to each child as its `preexec_fn`, and `forget` it when it is gone.

    **Invariant:** the guard ends after the last pid it knows. It is never killed while it knows one, by us or by a signal.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=_ignore_endings,
        )

    def watch_me(self) -> None:
        """Called in a child before it becomes its program: were we to tell, we could be killed before we have. Raises
        ValueError after `close`, and so nothing is started that nobody guards.
        """
        self._tell(b"+%d\n" % os.getpid())

    def forget(self, pid: int) -> None:
        """To be called as soon as a child is gone, before its pid can belong to somebody else."""
        with suppress(ValueError, BrokenPipeError):   # closed, or gone: nobody knows the pid any more
            self._tell(b"-%d\n" % pid)

    def delete_at_end(self, folder: Path) -> None:
        """Whatever is in it then."""
        self._tell(b"%s\n" % os.fsencode(folder.absolute()))

    def close(self) -> None:
        """As if this process ended: a child that was not forgotten is killed, and folders are deleted."""
        self._end.close()
        self._process.wait()

    @property
    def _end(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _tell(self, line: bytes) -> None:
        os.write(self._end.fileno(), line)   # one short write: lines of several processes never mix


def _ignore_endings() -> None:
    """Who ends a whole tree of processes signals the guard as well; then it is needed most. Ignoring survives the exec."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
