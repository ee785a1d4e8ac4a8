"""Lanes of several replicas before one provider that queues, in simulated time: the real limits, places and turnstiles."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from schemas.messages import Lane
from services.executor.concurrency import Gradient
from services.executor.lanes import LANES, Ticket, Turnstile
from services.executor.local import Local
from tests.support.queueing import UNITS, heavy_tail

NAME = "a"


@dataclass(frozen=True)
class Stream:
    """Calls of one lane: so many per second, at random, from one second to another, each useful for so long."""

    lane: Lane
    per_s: float
    from_s: float
    until_s: float
    deadline_ms: int = 120_000


@dataclass(slots=True, eq=False)
class Asked:
    """One call: what became of it. `ended_ms` is None when it was never made."""

    stream: Stream
    at_ms: int
    service_ms: float
    began_ms: float = 0.0
    ended_ms: float | None = None


class Replica:
    """What one executor has: a limit with places, and who waits."""

    def __init__(self, limit_max: int, minds_lanes: bool) -> None:
        self.minds_lanes = minds_lanes
        self.local = Local(Gradient(limit_max))
        self.turnstile = Turnstile()
        self.asked: dict[Ticket, Asked] = {}

    def arrive(self, one: Asked, usual_ms: int) -> None:
        self.local.has_room(one.stream.lane, one.at_ms)
        latest_ms = one.at_ms + one.stream.deadline_ms - usual_ms
        self.asked[self.turnstile.enter(one.stream.lane, NAME, one.at_ms, latest_ms, one.at_ms)] = one

    def next(self, now_ms: int) -> Asked | None:
        """Who gets a place now, as the waiting room hands them out."""
        lanes = self.local.lanes_let_in(now_ms)
        lanes = len(LANES) if lanes and not self.minds_lanes else lanes
        ticket = self.turnstile.offer(NAME, now_ms, lanes) if lanes else None
        if ticket is None:
            return None
        self.local.in_flight += 1
        self.local.interactive += ticket.lane is Lane.INTERACTIVE
        return self.asked.pop(ticket)


@dataclass
class Flood:
    """`places` calls are worked on at once; the others wait at the provider, in order. `minds_lanes`: else whoever is next
    gets a place while there is one, whatever its lane."""

    places: Callable[[float], int]
    rng: random.Random
    replicas: int = 2
    limit_max: int = 256
    service: Callable[[random.Random], float] = heavy_tail
    usual_ms: int = 4_000
    minds_lanes: bool = True
    done: list[Asked] = field(default_factory=list)
    at_once: list[tuple[int, int, int]] = field(default_factory=list)     # every second: when, at the provider, worked on
    _queue: deque[tuple[Replica, Asked, int]] = field(default_factory=deque)
    _busy: int = 0
    _events: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    _number: int = 0

    def run(self, streams: Sequence[Stream], seconds: float) -> list[Asked]:
        """All calls, in order of arrival."""
        executors = [Replica(self.limit_max, self.minds_lanes) for _ in range(self.replicas)]
        every = sorted((one for stream in streams for one in self._arrivals(stream)), key=lambda one: one.at_ms)
        for one in every:
            replica = self.rng.choice(executors)
            self._at(one.at_ms, lambda now_ms, one=one, replica=replica: self._arrived(replica, one, now_ms))
        for second in range(1, int(seconds)):
            self._at(second * 1000, lambda now_ms: self._sample(executors, now_ms))
        while self._events and self._events[0][0] < seconds * 1000:
            now_ms, _, event = heappop(self._events)
            event(now_ms)
        return every

    def _arrivals(self, stream: Stream) -> list[Asked]:
        at_s, found = stream.from_s, []
        while (at_s := at_s + self.rng.expovariate(stream.per_s)) < stream.until_s:
            found.append(Asked(stream, int(at_s * 1000), self.service(self.rng)))
        return found

    def _at(self, at_ms: float, event: Callable[[float], None]) -> None:
        self._number += 1
        heappush(self._events, (at_ms, self._number, event))

    def _sample(self, executors: list[Replica], now_ms: float) -> None:
        self.at_once.append((int(now_ms), sum(one.local.in_flight for one in executors), self._busy))

    def _arrived(self, replica: Replica, one: Asked, now_ms: float) -> None:
        replica.arrive(one, self.usual_ms)
        self._fill(replica, now_ms)

    def _fill(self, replica: Replica, now_ms: float) -> None:
        for ticket in replica.turnstile.expired(int(now_ms)):
            del replica.asked[ticket]
        while (one := replica.next(int(now_ms))) is not None:
            one.began_ms = now_ms
            self._queue.append((replica, one, replica.local.in_flight))
        self._serve(now_ms)

    def _serve(self, now_ms: float) -> None:
        while self._queue and self._busy < self.places(now_ms):
            replica, one, in_flight = self._queue.popleft()
            self._busy += 1
            self._at(now_ms + one.service_ms, lambda now_ms, r=replica, o=one, n=in_flight: self._ended(r, o, n, now_ms))

    def _ended(self, replica: Replica, one: Asked, in_flight: int, now_ms: float) -> None:
        self._busy -= 1
        one.ended_ms = now_ms
        self.done.append(one)
        replica.local.gradient.observe((now_ms - one.began_ms) / UNITS, in_flight, int(now_ms))
        replica.local.in_flight -= 1
        replica.local.interactive -= one.stream.lane is Lane.INTERACTIVE
        self._serve(now_ms)
        self._fill(replica, now_ms)
