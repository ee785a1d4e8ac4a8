"""A backend, replicas that call it and report, and between them what is shipped: Delta, fold, Watch. Time is simulated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from schemas.fleet import Circuit, FleetEntry, Gate, GateReason, Observation
from schemas.ledger import FailureClass, Usage
from services.monitor.decide import Watch
from shared.circuit import CircuitRules
from shared.delta import Delta, Seen
from shared.windows import Ring, fold
from tests.support.builders import a_backend

START_MS = 1_764_000_000_000
TICK_MS = 100
TAKE_MS = 200
BACKEND = "a"
FLEET = (BACKEND, "b", "c", "d")

Answer = Callable[[int, Random], Seen]
"""What the backend does with a call at a time."""


def good(latency_ms: float = 400.0, tokens_out: int = 100, first_token_ms: float | None = None) -> Seen:
    usage = Usage(tokens_in=50, tokens_out=tokens_out)
    return Seen(latency_ms, None, counts=True, usage=usage, first_token_ms=first_token_ms)


BAD = Seen(30.0, FailureClass.SERVER_ERROR, counts=True)
TURNED_AWAY = Seen(5.0, FailureClass.RATE_LIMITED, counts=False)
REFUSED = Seen(5.0, FailureClass.AUTH, counts=False)


@dataclass
class Replica:
    """An executor as far as circuits go: it keeps to the entry it knows, and reports every TAKE_MS."""

    name: str
    entry: FleetEntry = field(default_factory=lambda: FleetEntry(backend=BACKEND))
    delta: Delta = field(default_factory=Delta)
    epoch: int = 0
    probes: int = 0
    sequence: int = 0

    def may_call(self, now_ms: int, draw: float) -> bool:
        if self.entry.gate is not None and now_ms < self.entry.gate.until_ms:
            return False
        if self.entry.circuit is Circuit.HALF_OPEN:
            used = self.probes if self.epoch == self.entry.probe_epoch else 0
            return used < self.entry.probe_leases.get(self.name, 0)
        return self.entry.circuit is Circuit.CLOSED and draw < self.entry.share

    def record(self, seen: Seen, now_ms: int) -> None:
        self.delta.record(seen)
        if seen.failure is FailureClass.RATE_LIMITED:
            self.delta.gated(Gate(until_ms=now_ms + 1_000, reason=GateReason.RATE_LIMITED))
        if seen.failure is FailureClass.AUTH:
            self.delta.refused()
        if self.entry.circuit is Circuit.HALF_OPEN:
            self._probed(seen)

    def _probed(self, seen: Seen) -> None:
        if self.epoch != self.entry.probe_epoch:
            self.epoch, self.probes = self.entry.probe_epoch, 0
        self.probes += 1
        if seen.failure is not FailureClass.RATE_LIMITED:
            self.delta.record_probe(self.epoch, passed=seen.failure is None)


class Rig:
    """Calls come at a rate, to a replica by chance; what a backend's circuit keeps away goes elsewhere."""

    def __init__(self, answer: Answer, replicas: int = 3, seed: int = 1, fleet: tuple[str, ...] = FLEET) -> None:
        catalogue = dict.fromkeys(fleet, a_backend())
        self.answer = answer
        self.random = Random(seed)
        self.now_ms = START_MS
        self.replicas = [Replica(f"r{number}") for number in range(replicas)]
        self.watch = Watch(CircuitRules(), dict, lambda: catalogue)
        self.ring = self.watch.rings[BACKEND] = Ring()
        self.entry = FleetEntry(backend=BACKEND)
        self.entries = [self.entry]                    # as published: each change of the circuit
        self.calls: list[tuple[int, Seen]] = []        # that reached the backend, and when
        self.probes: dict[int, int] = {}               # per epoch
        self.wanted = 0

    def run(self, seconds: float, calls_s: float) -> "Rig":
        for _ in range(round(seconds * 1000 / TICK_MS)):
            self.now_ms += TICK_MS
            for _ in range(self._due(calls_s * TICK_MS / 1000)):
                self._call(self.random.choice(self.replicas))
            if self.now_ms % TAKE_MS == 0:
                self.report()
            self.look()
        return self

    def _due(self, calls: float) -> int:
        return int(calls) + (self.random.random() < calls % 1)

    def _call(self, replica: Replica) -> None:
        self.wanted += 1
        if not replica.may_call(self.now_ms, self.random.random()):
            return
        seen = self.answer(self.now_ms, self.random)
        if replica.entry.circuit is Circuit.HALF_OPEN:
            self.probes[replica.entry.probe_epoch] = self.probes.get(replica.entry.probe_epoch, 0) + 1
        replica.record(seen, self.now_ms)
        self.calls.append((self.now_ms, seen))

    def report(self) -> None:
        """Also without calls: a replica says that it is there when a circuit is not closed."""
        for replica in self.replicas:
            seen = replica.delta.take(BACKEND, replica.name, replica.sequence + 1, self.now_ms)
            if seen is None and replica.entry.circuit is not Circuit.CLOSED and self.now_ms % 1_000 == 0:
                seen = Observation(
                    backend=BACKEND, reporter=replica.name, sequence=replica.sequence + 1, at_ms=self.now_ms
                )
            if seen is not None:
                replica.sequence += 1
                fold(self.ring, seen, self.now_ms)

    def look(self) -> None:
        """The replicas hear of an entry a tick after it was published."""
        for replica in self.replicas:
            replica.entry = self.entry
        for due in self.watch.look(self.now_ms, lambda: self.random.uniform(-1, 1), lambda backend: True):
            if due.entry is not None:
                self.entry = due.entry
                if due.entry.circuit is not self.entries[-1].circuit:
                    self.entries.append(due.entry)

    @property
    def openings(self) -> list[FleetEntry]:
        return [entry for entry in self.entries if entry.circuit is Circuit.OPEN]

    def lost(self) -> int:
        """Calls that reached the backend and failed."""
        return sum(seen.failure is not None for _, seen in self.calls)

    def steps(self) -> Iterator[tuple[FleetEntry, FleetEntry]]:
        """Each change of the circuit: the entry before it, and after."""
        yield from pairwise(self.entries)
