"""Who goes next when plans wait for a free place: lanes by weight. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from schemas.messages import Lane

WEIGHTS = {Lane.INTERACTIVE: 16, Lane.STANDARD: 4, Lane.BATCH: 1}


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    lane: Lane
    backends: tuple[str, ...]
    order: int


class Turnstile:
    def __init__(self) -> None:
        self._tickets: dict[Lane, dict[Ticket, None]] = {lane: {} for lane in Lane}
        self._passed = dict.fromkeys(Lane, 0.0)

    def enter(self, lane: Lane, backends: Sequence[str], order: int, now_ms: int) -> Ticket:
        ticket = Ticket(lane, tuple(backends), order)
        self._tickets[lane][ticket] = None
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._tickets[ticket.lane].pop(ticket, None)

    def offer(self, backend: str, now_ms: int) -> Ticket | None:
        for lane in sorted(Lane, key=lambda lane: self._passed[lane]):
            for ticket in self._tickets[lane]:
                if backend in ticket.backends:
                    self.leave(ticket)
                    self._passed[lane] += 1 / WEIGHTS[lane]
                    return ticket
        return None

    def is_wanted(self, backend: str) -> bool:
        return any(backend in ticket.backends for tickets in self._tickets.values() for ticket in tickets)

    def wanted(self) -> Collection[str]:
        return {backend for tickets in self._tickets.values() for ticket in tickets for backend in ticket.backends}

    def waiting(self, lane: Lane) -> int:
        return len(self._tickets[lane])
