"""Runs code that a model wrote, with a test of it, in a process that can do little: no files, no network, no other process,
two seconds, half a gigabyte. It judges honest mistakes; against malice it is one fence, not a wall.
"""

import resource
import subprocess
import sys
import tempfile

CPU_S = 2
WALL_S = 10.0
MEMORY_BYTES = 512 * 1024 * 1024
OUTPUT_CHARS = 200

GUARD = """
import sys
def _refuse(event, args):
    if event.startswith(("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "pty.", "ftplib.", "urllib.", "http.")):
        raise PermissionError(event)
    if event == "open" and (args[1] is None or any(way in str(args[1]) for way in "wax+")):
        raise PermissionError(event)
import math, re, collections, itertools, functools, string, statistics, heapq, bisect, random, typing, dataclasses, datetime
sys.addaudithook(_refuse)
del _refuse
"""
"""Modules that answers use are imported before the door is shut: importing lists folders. An audit hook cannot be removed."""


def problem_of(code: str, test: str) -> str:
    """What is wrong with the code, or nothing. `test` raises where a result is not as it must be.

    Nothing of what the code prints or says in errors comes out: only the class of the error.
    """
    program = f"{GUARD}\n{code}\n{test}\n"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", "-c", program],
                cwd=folder, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=WALL_S, preexec_fn=_limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"the code takes longer than {WALL_S:g} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"the code was ended by signal {-done.returncode}: it takes more than {CPU_S} s or {MEMORY_BYTES >> 20} MB"
    last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    error = last.partition(":")[0]
    return f"the code fails its test: {error if error.isidentifier() else 'error'}"


def _limit() -> None:
    """In the child, before the program."""
    for limit, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
