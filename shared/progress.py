"""Which offsets of one partition are finished: the low-water mark, and a note of what finished above it.

The mark is what is committed. The note travels with it in the commit's metadata, so that after a crash behind a straggler
only the unfinished records are read again. Pure: no I/O, no clock.
"""

import asyncio
import base64
import binascii

from shared.broker import Commit

NOTE_VERSION = "1"
SPAN_LIMIT = 20_000
"""Widest span a note can describe: base64 of a bitset of 20,000 offsets is 3,336 characters, the broker's limit is 4,096."""


class Progress:
    """Offsets taken from one partition, in order, and finished in any order."""

    def __init__(self, commit: Commit | None) -> None:
        self.next = commit.offset if commit else 0
        self.committed = commit
        self.tasks: set[asyncio.Task[None]] = set()
        self.abandoned = False   # another replica owns the partition now: late finishes must not count
        self._open: dict[int, int] = {}   # unfinished offset → the record's timestamp, in the order taken
        self._done_ahead = finished_of(commit) if commit else set()

    def take(self, offset: int, timestamp_ms: int = 0) -> bool:
        """Note that a record was read. False: it was finished before the last crash or rebalance, skip it."""
        self.next = offset + 1
        if offset in self._done_ahead:
            self._done_ahead.discard(offset)
            return False
        self._open[offset] = timestamp_ms
        return True

    def finish(self, offset: int) -> None:
        """Everything the record caused is in the log. Finishing twice is harmless."""
        self._open.pop(offset, None)

    @property
    def low(self) -> int:
        """The oldest unfinished offset, or the next one to be read."""
        return next(iter(self._open), self.next)

    @property
    def span(self) -> int:
        """How far reading is ahead of the oldest unfinished record."""
        return self.next - self.low

    @property
    def unfinished(self) -> int:
        return len(self._open)

    @property
    def oldest_ms(self) -> int | None:
        """Timestamp of the oldest unfinished record."""
        return next(iter(self._open.values()), None)

    def commit(self, finishing: frozenset[int] = frozenset()) -> Commit:
        """What to commit now; `finishing` counts as finished (a transaction that is about to finish them)."""
        unfinished = [offset for offset in self._open if offset not in finishing]
        low = unfinished[0] if unfinished else self.next
        if self._done_ahead:
            # What an earlier owner finished beyond our position must survive our own crash too.
            self._done_ahead = {offset for offset in self._done_ahead if offset >= low}
        return Commit(low, note_of(low, self.next, unfinished, self._done_ahead))


def note_of(low: int, next_offset: int, unfinished: list[int], done_ahead: set[int]) -> str:
    """A bitset of the offsets from `low` on, 1 = finished, as version + base64; empty when nothing is finished above."""
    top = max([next_offset, *(offset + 1 for offset in done_ahead)])
    if len(unfinished) == next_offset - low and not done_ahead:
        return ""
    bits = bytearray((top - low + 7) // 8)
    for index in range(next_offset - low):
        bits[index >> 3] |= 1 << (index & 7)
    for offset in unfinished:
        bits[(offset - low) >> 3] &= ~(1 << ((offset - low) & 7))
    for offset in done_ahead:
        bits[(offset - low) >> 3] |= 1 << ((offset - low) & 7)
    return NOTE_VERSION + base64.b64encode(bits).decode()


def reached(commit: Commit) -> int:
    """The offset after the last one that is finished. A straggler keeps the mark back, and says nothing about those behind it."""
    return max(finished_of(commit), default=commit.offset - 1) + 1


def finished_of(commit: Commit) -> set[int]:
    """Offsets that a commit's note marks as finished. A note of another version or origin is ignored: a replay is safe."""
    if not commit.note.startswith(NOTE_VERSION):
        return set()
    try:
        bits = base64.b64decode(commit.note[len(NOTE_VERSION) :], validate=True)
    except binascii.Error:
        return set()
    return {
        commit.offset + index
        for index in range(len(bits) * 8)
        if bits[index >> 3] >> (index & 7) & 1
    }
