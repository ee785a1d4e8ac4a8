"""JSON lines on stderr: time, level, stage, message, and what the caller adds. Never prompts, answers or secrets.

WARN: unexpected, nothing lost. ERROR: data loss, or a human is needed. Nothing per record above DEBUG.
"""

import logging
import sys
import time
from typing import Any

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One record as one JSON object; fields given through `extra=` stand beside the message."""

    def __init__(self, stage: str, instance: str) -> None:
        super().__init__()
        self._fixed = {"stage": stage, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            **self._fixed,
            "logger": record.name,
            "message": _message(record),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["where"] = _where(record.exc_info[2])
        return orjson.dumps(line, default=str).decode()


def _message(record: logging.LogRecord) -> str:
    """asyncio puts the text of an exception nobody awaited behind the first line of its message; that may hold a prompt."""
    message = record.getMessage()
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _where(traceback: Any) -> list[str]:
    """Files and lines of a traceback without its message or locals: those may hold a prompt."""
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-8:]


def set_up(stage: str, instance: str, level: str) -> None:
    """Replace the root logger's handlers. The Kafka client is silent unless debugging: in an outage it
    writes twenty lines a second; what that means for a stage is for the stage to say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(stage, instance))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL if level != "DEBUG" else logging.INFO)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    sys.excepthook = _last_words


def _last_words(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Of a process that a bug ends, as a line like all others: Python's own would show what the exception says."""
    logging.getLogger(__name__).critical("ending on what nobody expected", exc_info=(kind, error, traceback))
