"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer, so 60 s take no time."""

import asyncio
import selectors
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # the platform decides the class
    """Never waits: tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is ready, and no timer is due")
            self.skipped_s += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when everything waits."""

    def __init__(self) -> None:
        self._jumps = _JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return 1_000.0 + self._jumps.skipped_s


class LoopClock:
    """A Clock that follows the running loop's time, virtual or real."""

    EPOCH_MS = 1_800_000_000_000

    def now_ms(self) -> int:
        # Virtual time is a sum of waits: what is short of a millisecond by a rounding error is that millisecond.
        return self.EPOCH_MS + int(round(asyncio.get_running_loop().time() * 1000, 3))

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()
