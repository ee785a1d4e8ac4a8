"""The provider's own books: one JSON line per billed call, appended before the answer's last byte leaves.

Independent of Baton's ledger on purpose, and never read by it: the two are compared from outside.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson

from services.simulator.call import Usage
from services.simulator.profiles import ModelProfile, cost_microusd

_READ_BYTES = 1 << 20


class Invoice:
    """An append-only JSON Lines file; without a path, a temporary file that goes with the process."""

    def __init__(self, path: Path | None) -> None:
        if path is None:
            handle, name = tempfile.mkstemp(prefix="invoice-", suffix=".jsonl")
            os.unlink(name)
            self._fd = handle
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    def bill(
        self,
        *,
        attempt_id: str,
        provider: str,
        model: ModelProfile,
        usage: Usage,
        at_ms: int,
        status: str,
        streamed: bool,
        reported: Usage | None = None,
    ) -> None:
        """Hand one line to the operating system: a kill of this process loses nothing that was billed.

        `usage` is the truth and costs; `reported` is noted beside it where the answer told its caller something else.
        """
        line: dict[str, object] = {
            "attempt_id": attempt_id,
            "provider": provider,
            "model": model.name,
            "tokens_in": usage.tokens_in,
            "tokens_out": usage.tokens_out,
            "cached_tokens": usage.cached_tokens,
            "cost_microusd": cost_microusd(
                model, usage.tokens_in, usage.cached_tokens, usage.tokens_out, usage.cache_write_tokens
            ),
            "at_ms": at_ms,
            "status": status,
            "streamed": streamed,
        }
        if usage.cache_write_tokens:
            line["cache_write_tokens"] = usage.cache_write_tokens
        if reported is not None and reported != usage:
            line["reported"] = {"tokens_in": reported.tokens_in, "tokens_out": reported.tokens_out}
        written = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if os.write(self._fd, written) != len(written):
            raise OSError("the invoice could not be written whole; is the disk full?")

    def read(self) -> Iterator[bytes]:
        """The file so far, in pieces."""
        offset, end = 0, os.fstat(self._fd).st_size
        while offset < end:
            piece = os.pread(self._fd, min(_READ_BYTES, end - offset), offset)
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file; the lines are already the operating system's."""
        os.close(self._fd)
