"""Time as a value that is passed in: decisions never read a clock of their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for deadlines, monotonic time for durations."""

    def now_ms(self) -> int:
        """Epoch milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary point; never runs backwards."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
