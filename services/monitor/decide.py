"""Rings of observations to fleet entries: which circuit moves, and which entries the fleet must hear of now.

Pure: no clock, no I/O, no randomness of its own. One `Watch` per process; it judges the backends whose rings it holds.
"""

from collections.abc import Callable, Collection, Mapping

from schemas.fleet import Circuit, FleetEntry
from shared.circuit import CircuitRules, Evidence, advance, may_open
from shared.windows import Ring, health, window

WINDOWS_S = (10, 60, 300)
PUBLISH_INTERVAL_MS = 250
"""At most this often per backend, unless its circuit moves: four records a second, whatever the load."""


def judge(
    entry: FleetEntry, ring: Ring, fleet: "FleetView", now_ms: int, jitter: float, rules: CircuitRules
) -> FleetEntry:
    """The entry with its circuit as of now; windows and `updated_ms` as they were."""
    seen = Evidence(
        now_ms=now_ms,
        run=ring.run,
        short=health(ring, now_ms, rules.short_s, entry.since_ms),
        long=health(ring, now_ms, rules.long_s, entry.since_ms),
        probes=ring.probes,
        reporters=fleet.reporters,
        may_open=may_open(len(fleet.out - {entry.backend}), len(fleet.backends | {entry.backend}), rules),
        all_out=fleet.backends <= fleet.out,
    )
    return advance(entry, seen, jitter, rules)


class FleetView:
    """What a circuit must know of the others: all backends, those not closed, and every reporter that was heard of."""

    def __init__(self, backends: Collection[str], entries: Mapping[str, FleetEntry], rings: Collection[Ring]) -> None:
        self.backends = frozenset(backends)
        self.out = {name for name in backends if name in entries and entries[name].circuit is not Circuit.CLOSED}
        self.reporters: dict[str, int] = {}
        for ring in rings:
            for name, reporter in ring.reporters.items():
                self.reporters[name] = max(reporter.at_ms, self.reporters.get(name, 0))

    def moved(self, entry: FleetEntry) -> None:
        """Two circuits that trip in the same look must see each other, or both would fit under the cap."""
        if entry.circuit is Circuit.CLOSED:
            self.out.discard(entry.backend)
        else:
            self.out.add(entry.backend)


class Watch:
    """The backends of this replica: their rings, and their entries as last judged and as last published.

    `published_by_all` is the live `fleet` table: it restores circuits after a restart, and shows what other replicas
    hold. `catalogue` names the backends of the config; while it names none, the fleet is every backend that was seen.
    """

    def __init__(
        self,
        rules: CircuitRules,
        published_by_all: Callable[[], Mapping[str, FleetEntry]],
        catalogue: Callable[[], Collection[str]],
    ) -> None:
        self.rings: dict[str, Ring] = {}
        self._rules = rules
        self._published_by_all = published_by_all
        self._catalogue = catalogue
        self._entries: dict[str, FleetEntry] = {}
        self._published: dict[str, FleetEntry] = {}

    def look(self, now_ms: int, jitter: Callable[[], float], owns: Callable[[str], bool]) -> list[FleetEntry]:
        """Judge every backend of ours, and return the entries that are due. They count as published from now on."""
        for backend in [backend for backend in self.rings if not owns(backend)]:
            self._forget(backend)
        known = {**self._published_by_all(), **self._entries}
        fleet = FleetView(self._catalogue() or known.keys() | self.rings.keys(), known, self.rings.values())
        due = []
        for backend, ring in self.rings.items():
            entry = known.get(backend) or FleetEntry(backend=backend)
            entry = self._entries[backend] = judge(entry, ring, fleet, now_ms, jitter(), self._rules)
            fleet.moved(entry)
            entry = with_windows_if_due(entry, self._published.get(backend), ring, now_ms)
            if entry is not self._entries[backend]:
                self._entries[backend] = self._published[backend] = entry
                due.append(entry)
        return due

    def not_published(self, backend: str) -> None:
        """The log did not take the entry: the next look returns it again."""
        self._published.pop(backend, None)

    def _forget(self, backend: str) -> None:
        """Another replica judges it now. Should it come back, the `fleet` topic says what became of it meanwhile."""
        for of_backend in (self.rings, self._entries, self._published):
            of_backend.pop(backend, None)


def with_windows_if_due(entry: FleetEntry, published: FleetEntry | None, ring: Ring, now_ms: int) -> FleetEntry:
    """The entry with fresh windows if the fleet must hear of it now; else the very same entry."""
    has_moved = published is None or _circuit_of(entry) != _circuit_of(published)
    if published and not has_moved and 0 <= now_ms - published.updated_ms < PUBLISH_INTERVAL_MS:
        return entry
    fresh = entry.model_copy(update={"windows": tuple(window(ring, now_ms, seconds) for seconds in WINDOWS_S)})
    if has_moved or fresh != published:
        return fresh.model_copy(update={"updated_ms": now_ms})
    return entry


def _circuit_of(entry: FleetEntry) -> tuple[object, ...]:
    """What executors act on at once."""
    return entry.circuit, entry.share, entry.probe_epoch, entry.probe_leases

