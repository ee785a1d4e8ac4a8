"""How many calls a provider works on at once: the others wait in a queue, first come first served, or are turned away."""

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """Calls worked on at once (0: any number) and calls that may wait for that; more are overload."""

    calls: int = 0
    queue_max: int = 100


UNLIMITED = Capacity()


class Slots:
    """The calls one provider works on and those that wait. `capacity` may change at any time; then call `widen`."""

    def __init__(self, capacity: Capacity = UNLIMITED) -> None:
        self.capacity = capacity
        self.working = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(not turn.cancelled() for turn in self._waiting)

    def take(self) -> bool:
        """A slot without waiting, if there is one and nobody waits for it."""
        if self.capacity.calls and (self._waiting or self.working >= self.capacity.calls):
            return False
        self.working += 1
        return True

    def is_full(self) -> bool:
        """Whether one more call would make the queue longer than it may be."""
        return self.waiting >= self.capacity.queue_max

    async def wait(self) -> None:
        """Wait for a slot, behind everyone who waits already."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the slot was handed over in the very moment of the cancellation
                self.leave()
            raise

    def leave(self) -> None:
        """Give a slot back, to whoever waits longest."""
        self.working -= 1
        self.widen()

    def widen(self) -> None:
        """Hand out the slots that are free."""
        while self._waiting and (not self.capacity.calls or self.working < self.capacity.calls):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.working += 1
                turn.set_result(None)
