"""Where plans wait for a backend that has no place for them now: in order, by lane, and each until its own time.

A place that is handed out is counted as in flight at once, so nobody can take it between the offer and the call.
"""

import asyncio
from collections.abc import Callable, Sequence

from schemas.messages import Lane
from services.executor.lanes import Ticket, Turnstile

PUMP_S = 0.02
"""How soon is found what came by time alone: a gate that opened, a rate limit that recovered, a wait that is over."""

_Given = asyncio.Future[str | None]


class WaitingRoom:
    """`lanes_let_in(backend)` says how many lanes, from the highest, it could take a call of now; `reserve` counts one of so many
    tokens in, `release` out."""

    def __init__(
        self,
        lanes_let_in: Callable[[str], int],
        reserve: Callable[[str, int], None],
        release: Callable[[str, int], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._lanes_let_in = lanes_let_in
        self._reserve = reserve
        self._release = release
        self._now_ms = now_ms
        self._turnstile = Turnstile()
        self._waiting: dict[Ticket, tuple[_Given, int]] = {}
        self._pump: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def is_wanted(self, backend: str) -> bool:
        """Whether anybody waits for it already: a newcomer must not pass them by."""
        return bool(self._waiting) and self._turnstile.is_wanted(backend)

    def waiting(self, lane: Lane) -> int:
        return self._turnstile.waiting(lane)

    async def place(self, backends: Sequence[str], lane: Lane, until_ms: int, order: int, tokens: int = 0) -> str | None:
        """A backend with a place, a call of so many tokens counted in; None when the time is over or something changed: then
        ask again. `order` is the plan's place in its lane: when it was accepted, in milliseconds. Without backends it is a pause.
        """
        ticket = self._turnstile.enter(lane, backends, order, until_ms, self._now_ms())
        future: _Given = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future, tokens
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._pumping())
        for backend in backends:
            self.offer(backend)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (unused := future.result()) is not None:
                self._release(unused, tokens)
            raise
        finally:
            self._leave(ticket)

    def offer(self, backend: str) -> None:
        """Hand out what places the backend has."""
        while self._waiting and (lanes := self._lanes_let_in(backend)):
            ticket = self._turnstile.offer(backend, self._now_ms(), lanes)
            if ticket is None:
                return
            future, tokens = self._waiting.pop(ticket)
            if not future.done():
                self._reserve(backend, tokens)
                future.set_result(backend)

    def wake_all(self) -> None:
        """The catalogue changed: everybody asks again what may be called at all."""
        for ticket in list(self._waiting):
            self._wake(ticket)

    def _wake(self, ticket: Ticket) -> None:
        future, _ = self._waiting.get(ticket, (None, 0))
        self._leave(ticket)
        if future is not None and not future.done():
            future.set_result(None)

    def _leave(self, ticket: Ticket) -> None:
        if self._waiting.pop(ticket, None) is not None:
            self._turnstile.leave(ticket)

    async def _pumping(self) -> None:
        while self._waiting:
            for ticket in self._turnstile.expired(self._now_ms()):
                self._wake(ticket)
            for backend in self._turnstile.wanted():
                self.offer(backend)
            await asyncio.sleep(PUMP_S)
