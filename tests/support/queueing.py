"""A backend with so many places and a queue before them, in simulated time: what limits and lanes are proved on."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp

from services.executor.concurrency import Gradient

UNITS = 100
NEVER_FULL = 10**9


def heavy_tail(rng: random.Random, p50_ms: float = 1000.0) -> float:
    """Latency of a model: lognormal, and 2.5 % of a Pareto tail from 3 times the median on, 60 times at the most."""
    if rng.random() < 0.025:
        return p50_ms * min(60.0, 3 * rng.paretovariate(0.9))
    return p50_ms * exp(rng.gauss(0, 0.56))


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@dataclass
class Loaded:
    """A backend that is always offered as much as the limit lets through, or `offered` calls at once.

    `places` may depend on the time. Every call takes one place for its own latency and waits in order until there is one.
    """

    limit: Gradient | int
    places: Callable[[float], int]
    rng: random.Random
    offered: int = NEVER_FULL
    latency: Callable[[random.Random], float] = heavy_tail
    now_ms: float = 0.0
    done: list[tuple[float, float]] = field(default_factory=list)     # when, and how long it took with the queue
    used_ms: float = 0.0                                              # of all places together
    in_flight: int = 0
    _busy: int = 0
    _queue: deque[tuple[float, int]] = field(default_factory=deque)
    _ends: list[tuple[float, float, int]] = field(default_factory=list)

    def run(self, until_s: float) -> "Loaded":
        while self.now_ms < until_s * 1000:
            self._fill()
            before_ms = self.now_ms
            self.now_ms, began_ms, in_flight = heappop(self._ends)
            self.used_ms += self._busy * (self.now_ms - before_ms)
            self._busy -= 1
            self.in_flight -= 1
            self.done.append((self.now_ms, self.now_ms - began_ms))
            if isinstance(self.limit, Gradient):
                self.limit.observe((self.now_ms - began_ms) / UNITS, in_flight, int(self.now_ms))
        return self

    def _fill(self) -> None:
        limit = self.limit.limit if isinstance(self.limit, Gradient) else self.limit
        while self.in_flight < min(limit, self.offered):
            self.in_flight += 1
            self._queue.append((self.now_ms, self.in_flight))
        while self._queue and self._busy < self.places(self.now_ms):
            began_ms, in_flight = self._queue.popleft()
            self._busy += 1
            heappush(self._ends, (self.now_ms + self.latency(self.rng), began_ms, in_flight))

    def latencies_ms(self, from_s: float) -> list[float]:
        return [latency_ms for at_ms, latency_ms in self.done if at_ms >= from_s * 1000]
