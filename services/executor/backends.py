"""What this replica knows of each backend, and which of a plan's backends may be called right now.

The fleet's view (circuit, share, probe leases, windows) comes from the monitor; this replica adds what only it can know
at once: its own calls in flight, their latency, and a local trip until the fleet has made up its mind.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import exp

from schemas.config import Backend
from schemas.fleet import Circuit, FleetEntry, Observation
from schemas.ledger import AttemptKind, FailureClass, Usage
from schemas.messages import Plan
from services.executor.decide import (
    Call,
    Option,
    fraction_of,
)
from shared.catalogue import Catalogue
from shared.circuit import CircuitRules, LocalTrip
from shared.windows import Delta

log = logging.getLogger(__name__)

CIRCUIT_RULES = CircuitRules()
LATENCY_DECAY_MS = 10_000
LATENCY_NEWCOMER_MS = 500.0
LATENCY_MS_MAX = 60_000.0
PRESENCE_MS = 1_000
"""How often a replica says that it is there for probes of a backend whose circuit is not closed."""


@dataclass(slots=True)
class Local:
    """What this replica alone knows of one backend."""

    in_flight: int = 0
    latency_ms: float = 0.0             # peak-EWMA; 0: never called from here
    latency_at_ms: int = 0
    trip: LocalTrip = field(default_factory=LocalTrip)
    probe_epoch: int = -1
    probes_used: int = 0
    delta: Delta = field(default_factory=Delta)
    sequence: int = 0
    present_at_ms: int = 0
    entry: FleetEntry | None = None     # the one that `p50_ms` was read from
    p50_ms: int | None = None

    def observe(self, latency_ms: float, now_ms: int) -> None:
        """Peak-EWMA: a slow call counts at once and fades over seconds (Finagle's balancer)."""
        if latency_ms >= self.latency_ms:
            self.latency_ms = min(latency_ms, LATENCY_MS_MAX)
        else:
            old = exp((self.latency_at_ms - now_ms) / LATENCY_DECAY_MS)
            self.latency_ms = self.latency_ms * old + latency_ms * (1 - old)
        self.latency_at_ms = now_ms

    def read(self, entry: FleetEntry | None) -> None:
        """Note the median of the shortest window that has one; the fleet's word replaces a local trip."""
        self.entry = entry
        if entry is not None:
            self.trip = self.trip.follow(entry.circuit)
        windows = sorted(entry.windows, key=lambda window: window.seconds) if entry else []
        self.p50_ms = next((round(window.p50_ms) for window in windows if window.p50_ms > 0), None)

    def load(self, weight: float) -> float:
        return (self.latency_ms or self.p50_ms or LATENCY_NEWCOMER_MS) * (self.in_flight + 1) / weight

    def probes_left(self, entry: FleetEntry, instance: str) -> int:
        used = self.probes_used if self.probe_epoch == entry.probe_epoch else 0
        return entry.probe_leases.get(instance, 0) - used


def may_call(entry: FleetEntry | None, local: Local, attempt_id: str, instance: str, now_ms: int) -> bool:
    """Whether this attempt may use the backend. A recovering one takes its share of attempts, drawn from their ids."""
    if local.trip.is_open(now_ms):
        return False
    if entry is None:
        return True
    if entry.circuit is Circuit.HALF_OPEN:
        return local.probes_left(entry, instance) > 0
    return entry.circuit is Circuit.CLOSED and (entry.share >= 1.0 or fraction_of(attempt_id) < entry.share)


class Backends:
    """All backends of the catalogue, seen from this replica."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        fleet: Callable[[], Mapping[str, FleetEntry]],
        instance: str,
        is_callable: Callable[[str, Backend], bool] = lambda name, backend: True,
    ) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._instance = instance
        self._is_callable = is_callable
        self._locals: dict[str, Local] = {}
        self._changed = asyncio.Event()
        self._last_seen: object = None
        self.tripped = asyncio.Event()

    def options(self, plan: Plan, attempt_id: str, now_ms: int) -> dict[str, Option]:
        """Every backend of the plan that is still offered, usable by this attempt or not."""
        catalogue, fleet = self._catalogue(), self._fleet()
        options: dict[str, Option] = {}
        for candidate in plan.candidates:
            for name in candidate.backends:
                backend = catalogue.backends.get(name)
                if backend is None or not self._is_callable(name, backend):
                    continue
                entry, local = fleet.get(name), self.local(name)
                if local.entry is not entry:
                    local.read(entry)
                options[name] = Option(
                    backend=name,
                    usable=may_call(entry, local, attempt_id, self._instance, now_ms),
                    load=local.load(backend.weight),
                    p50_ms=local.p50_ms,
                    timeout_ms=backend.timeout_ms,
                    context_tokens=catalogue.models[backend.model].context_tokens,
                    probe=entry is not None and entry.circuit is Circuit.HALF_OPEN,
                )
        return options

    def local(self, name: str) -> Local:
        local = self._locals.get(name)
        if local is None:
            local = self._locals[name] = Local()
        return local

    def begin(self, call: Call) -> int:
        """Count a decided call as in flight; a probe uses up its lease before anything is awaited. Returns its epoch."""
        local = self.local(call.backend)
        local.in_flight += 1
        entry = self._fleet().get(call.backend)
        if call.kind is not AttemptKind.PROBE or entry is None:
            return 0
        if local.probe_epoch != entry.probe_epoch:
            local.probe_epoch, local.probes_used = entry.probe_epoch, 0
        local.probes_used += 1
        return entry.probe_epoch

    def end(self, call: Call) -> None:
        """The call is over, however it went."""
        self.local(call.backend).in_flight -= 1

    def record(
        self,
        call: Call,
        probe_epoch: int,
        latency_ms: float,
        failure: FailureClass | None,
        counts: bool,
        usage: Usage | None,
        cost_microusd: int,
        now_ms: int,
    ) -> None:
        """Learn from a finished call. A backend that fails too often in a row is tripped here and reported at once."""
        local = self.local(call.backend)
        local.delta.record(latency_ms, failure, counts, usage, cost_microusd)
        if call.kind is AttemptKind.PROBE:
            local.delta.record_probe(probe_epoch, passed=failure is None)
        if failure is None:
            local.observe(latency_ms, now_ms)
        elif counts:
            # A backend that fails quickly must not look quick. Never from its own peak: failures in a row would compound,
            # and it would get no traffic for minutes after it is well again.
            local.observe(max(latency_ms, 2 * (local.p50_ms or LATENCY_NEWCOMER_MS)), now_ms)
        if failure is None or counts:
            self._judge(call.backend, local, failure is not None, now_ms)

    def _judge(self, name: str, local: Local, failed: bool, now_ms: int) -> None:
        was_open = local.trip.is_open(now_ms)
        local.trip = local.trip.record(failed, now_ms, CIRCUIT_RULES)
        if local.trip.is_open(now_ms) and not was_open:
            self.tripped.set()
            log.warning("backend tripped here", extra={"backend": name, "failures_in_row": local.trip.run})

    async def changed(self, timeout_ms: int) -> None:
        """Returns when a backend may have become usable, at the latest after the timeout."""
        try:
            await asyncio.wait_for(self._changed.wait(), max(timeout_ms, 1) / 1000)
        except TimeoutError:
            return

    def tick(self, now_ms: int) -> None:
        """Wake whoever waits if anything changed that decides which backends are usable."""
        seen = (self._catalogue().version, tuple(self._situation(name, entry, now_ms) for name, entry in self._all()))
        if seen != self._last_seen:
            self._last_seen = seen
            self._changed.set()
            self._changed = asyncio.Event()

    def _all(self) -> list[tuple[str, FleetEntry | None]]:
        fleet = self._fleet()
        return [(name, fleet.get(name)) for name in self._catalogue().backends]

    def _situation(self, name: str, entry: FleetEntry | None, now_ms: int) -> object:
        tripped = self.local(name).trip.is_open(now_ms)
        if entry is None:
            return name, tripped
        return name, tripped, entry.circuit, entry.share, entry.probe_epoch, entry.probe_leases.get(self._instance, 0)

    def take(self, now_ms: int) -> list[Observation]:
        """What is to be reported now: deltas, and a sign of life where a circuit waits for somebody to probe."""
        taken = []
        for name, entry in self._all():
            local = self.local(name)
            seen = local.delta.take(name, self._instance, local.sequence + 1, now_ms)
            is_due = now_ms - local.present_at_ms >= PRESENCE_MS
            if seen is None and entry is not None and entry.circuit is not Circuit.CLOSED and is_due:
                seen = Observation(
                    backend=name, reporter=self._instance, sequence=local.sequence + 1, at_ms=now_ms
                )
            if seen is not None:
                local.sequence += 1
                local.present_at_ms = now_ms
                taken.append(seen)
        return taken
