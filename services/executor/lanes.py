"""Who goes next when calls wait for a place at a backend: by the weights of their lanes, and in order within a lane.

Pure: time is passed in, in epoch milliseconds. No lane with anybody in it is ever passed over for good, and no place stays
empty while anybody wants it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heapify, heappop, heappush

from schemas.messages import Lane

LANES = (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH)
WEIGHTS = {Lane.INTERACTIVE: 16, Lane.STANDARD: 4, Lane.BATCH: 1}
CROWDED_MS = 1_000
"""CoDel's target (Nichols and Jacobson, 2012): 5 ms of a packet, so here a little of a call that takes seconds."""
CROWDED_FOR_MS = 2_000
"""CoDel's interval: about one usual call. A wait above the target for so long is no burst but a standing queue."""

_INDEX = {lane: index for index, lane in enumerate(LANES)}
_STRIDES = tuple(max(WEIGHTS.values()) // WEIGHTS[lane] for lane in LANES)
_HEAP_SLACK = 64


class _State(IntEnum):
    WAITING = 0
    LATE = 1        # can no longer make it, and nobody has been told
    GONE = 2        # was given a place, left, or was told that it is late


@dataclass(slots=True, eq=False)
class Ticket:
    """A call that waits for a place at any one of its backends. `order` places it in its lane: when its plan arrived."""

    lane: Lane
    backends: frozenset[str]
    order: int
    number: int
    latest_start_ms: int
    since_ms: int
    state: _State = _State.WAITING


@dataclass(slots=True, eq=False)
class _Line:
    """Tickets of one lane that want the same backends, by order."""

    lane: int
    backends: frozenset[str]
    tickets: list[Ticket] = field(default_factory=list)

    def add(self, ticket: Ticket) -> None:
        if self.tickets and _place(self.tickets[-1]) > _place(ticket):
            insort(self.tickets, ticket, key=_place)     # it was here before, and came back for another try
        else:
            self.tickets.append(ticket)

    def remove(self, ticket: Ticket) -> None:
        if self.tickets[0] is ticket:
            del self.tickets[0]
        elif self.tickets[-1] is ticket:
            del self.tickets[-1]
        else:
            del self.tickets[bisect_left(self.tickets, _place(ticket), key=_place)]


def _place(ticket: Ticket) -> tuple[int, int]:
    return ticket.order, ticket.number


@dataclass(slots=True)
class _Door:
    """One backend: the lines before it, and how far each lane has come there.

    Stride scheduling (Waldspurger and Weihl, 1995): the lane that has come least far goes, and moves on by its stride. A lane
    that was empty resumes where the others are now, so it has no credit for the past, and an empty lane costs nobody.
    """

    lines: tuple[list[_Line], ...] = field(default_factory=lambda: tuple([] for _ in LANES))
    passes: list[int] = field(default_factory=lambda: [0] * len(LANES))
    now: int = 0
    crowded_since_ms: list[int | None] = field(default_factory=lambda: [None] * len(LANES))

    def next_lane(self, lanes: int) -> int | None:
        """Whose turn it is, if any of the highest `lanes` has anybody in it: then a lower one goes in its turn all the same,
        or it never would while they keep the backend full."""
        if not any(self.lines[:lanes]):
            return None
        return min((max(self.passes[index], self.now), index) for index, lines in enumerate(self.lines) if lines)[1]

    def charge(self, lane: int) -> None:
        self.now = max(self.passes[lane], self.now)
        self.passes[lane] = self.now + _STRIDES[lane]

    def first(self, lane: int, now_ms: int) -> Ticket:
        """Oldest first; newest first where calls that somebody waits for have waited too long for a while. The oldest are
        about to be late anyway, and in order everybody would be (Maurer, Fail at Scale, 2015: adaptive LIFO)."""
        oldest = min((line.tickets[0] for line in self.lines[lane]), key=_place)
        if lane == _INDEX[Lane.BATCH] or not self._is_crowded(lane, oldest, now_ms):
            return oldest
        return max((line.tickets[-1] for line in self.lines[lane]), key=_place)

    def _is_crowded(self, lane: int, oldest: Ticket, now_ms: int) -> bool:
        if now_ms - oldest.since_ms < CROWDED_MS:
            self.crowded_since_ms[lane] = None
            return False
        since_ms = self.crowded_since_ms[lane]
        if since_ms is None:
            since_ms = self.crowded_since_ms[lane] = now_ms
        return now_ms - since_ms >= CROWDED_FOR_MS


class Turnstile:
    """All tickets of a replica. A backend with a free place is offered; who goes is decided per backend, so that a lane has
    its share of each, even where some tickets can go nowhere else."""

    __slots__ = ("_counts", "_deadlines", "_doors", "_lines", "_number")

    def __init__(self) -> None:
        self._lines: dict[tuple[int, frozenset[str]], _Line] = {}
        self._doors: dict[str, _Door] = {}
        self._counts = [0] * len(LANES)
        self._deadlines: list[tuple[int, int, Ticket]] = []   # a heap; tickets that are gone stay until they are many
        self._number = 0

    def enter(self, lane: Lane, backends: Iterable[str], order: int, latest_start_ms: int, now_ms: int) -> Ticket:
        """Wait for a place at any of the backends, at the latest until just before `latest_start_ms`: the deadline less what
        a call usually takes. A plan that comes back passes its old `order` and stands where it stood."""
        self._number += 1
        ticket = Ticket(lane, frozenset(backends), order, self._number, latest_start_ms, now_ms)
        self._line(_INDEX[lane], ticket.backends).add(ticket)
        self._counts[_INDEX[lane]] += 1
        if len(self._deadlines) > 2 * len(self) + _HEAP_SLACK:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is not _State.GONE]
            heapify(self._deadlines)
        heappush(self._deadlines, (latest_start_ms, ticket.number, ticket))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """It waits no longer: cancelled, or out of patience. Nothing happens when it was not waiting."""
        if ticket.state is _State.WAITING:
            self._remove(ticket)
        ticket.state = _State.GONE

    def offer(self, backend: str, now_ms: int, lanes: int = len(LANES)) -> Ticket | None:
        """The backend has a free place for the highest so many lanes: who gets it, or None when nobody can use it. Late
        tickets never do."""
        door = self._doors.get(backend)
        while door is not None and (lane := door.next_lane(lanes)) is not None:
            ticket = door.first(lane, now_ms)
            self._remove(ticket)
            if ticket.latest_start_ms > now_ms:
                door.charge(lane)
                ticket.state = _State.GONE
                return ticket
            ticket.state = _State.LATE
        return None

    def expired(self, now_ms: int) -> list[Ticket]:
        """Tickets that can no longer make it, each told once, so that they fail early and cost nothing."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            ticket = heappop(self._deadlines)[2]
            if ticket.state is not _State.GONE:
                self.leave(ticket)
                late.append(ticket)
        return late

    def is_wanted(self, backend: str) -> bool:
        """Whether anybody waits for it."""
        door = self._doors.get(backend)
        return door is not None and any(door.lines)

    def wanted(self) -> list[str]:
        """Backends that anybody waits for."""
        return [backend for backend, door in self._doors.items() if any(door.lines)]

    def waiting(self, lane: Lane) -> int:
        return self._counts[_INDEX[lane]]

    def __len__(self) -> int:
        return sum(self._counts)

    def oldest_wait_ms(self, lane: Lane, now_ms: int) -> int:
        """How long the first in the lane has waited; 0 when nobody does."""
        heads = (line.tickets[0].since_ms for line in self._lines.values() if line.lane == _INDEX[lane])
        return max(0, now_ms - min(heads, default=now_ms))

    def _line(self, lane: int, backends: frozenset[str]) -> _Line:
        line = self._lines.get((lane, backends))
        if line is None:
            line = self._lines[lane, backends] = _Line(lane, backends)
            for backend in backends:
                self._doors.setdefault(backend, _Door()).lines[lane].append(line)
        return line

    def _remove(self, ticket: Ticket) -> None:
        lane = _INDEX[ticket.lane]
        line = self._lines[lane, ticket.backends]
        line.remove(ticket)
        self._counts[lane] -= 1
        if not line.tickets:
            del self._lines[lane, ticket.backends]
            for backend in ticket.backends:
                door = self._doors[backend]
                door.lines[lane].remove(line)
                if not door.lines[lane]:
                    door.crowded_since_ms[lane] = None
