"""Log lines hold no prompt, not even where a bug puts one into an exception."""

import json
import subprocess
import sys

FORGOTTEN = """
import asyncio, gc
from shared import log

async def bug():
    raise ValueError("the prompt")

async def main():
    task = asyncio.ensure_future(bug())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

log.set_up("router", "0000", "INFO")
asyncio.run(main())
"""
ENDING = """
from shared import log

log.set_up("router", "0000", "INFO")
raise ValueError("the prompt")
"""


def last_line(program: str) -> tuple[int, dict[str, object]]:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "prompt" not in ended.stderr
    return ended.returncode, json.loads(ended.stderr.splitlines()[-1])


def test_an_exception_that_nobody_awaited_is_logged_without_what_it_says() -> None:
    _, line = last_line(FORGOTTEN)
    assert line["message"] == "Task exception was never retrieved"
    assert line["error"] == "ValueError"
    assert line["where"]


def test_a_bug_that_ends_a_process_is_a_log_line_without_what_it_says() -> None:
    code, line = last_line(ENDING)
    assert code == 1
    assert (line["level"], line["error"], line["stage"]) == ("CRITICAL", "ValueError", "router")
    assert line["where"]
