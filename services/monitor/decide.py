"""Rings of observations to fleet entries: which circuit moves, and which entries the fleet must hear of now.

Pure: no clock, no I/O, no randomness of its own. One `Watch` per process; it judges the backends whose rings it holds.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from schemas.config import Backend
from schemas.fleet import Alert, Circuit, FleetEntry, Transition
from services.monitor.alerts import alert, all_out, changes
from shared.circuit import CircuitRules, Evidence, advance, is_held, may_open
from shared.windows import LIMITS_SILENT_MS_MAX, Ring, Slowness, Usual, health, slowness, usual, window

WINDOWS_S = (10, 60, 300)
PUBLISH_INTERVAL_MS = 250
"""At most this often per backend, unless its circuit moves or a gate falls: four records a second, whatever the load."""

HISTORY_MAX = 8
GONE_MS = 60_000
"""A backend that the config has not named for so long is taken off the `fleet` topic."""


class Due(NamedTuple):
    """What the log must hear of one backend now. No entry: it is gone."""

    backend: str
    entry: FleetEntry | None
    alerts: tuple[Alert, ...] = ()


class FleetView:
    """What a circuit must know of the others: all backends, those not closed, and every reporter that was heard of."""

    def __init__(self, backends: Collection[str], entries: Mapping[str, FleetEntry], rings: Collection[Ring]) -> None:
        self.backends = frozenset(backends)
        self.out: set[str] = set()
        self.held: set[str] = set()
        self.reporters: dict[str, int] = {}
        for name in backends:
            if name in entries:
                self.moved(entries[name])
        for ring in rings:
            for name, reporter in ring.reporters.items():
                self.reporters[name] = max(reporter.at_ms, self.reporters.get(name, 0))

    def moved(self, entry: FleetEntry) -> None:
        """Two circuits that trip in the same look must see each other, or both would fit under the cap."""
        for among, is_one in ((self.out, entry.circuit is not Circuit.CLOSED), (self.held, is_held(entry))):
            if is_one:
                among.add(entry.backend)
            else:
                among.discard(entry.backend)

    @property
    def is_out(self) -> bool:
        """No backend is closed."""
        return self.backends <= self.out

    @property
    def is_unwell(self) -> bool:
        """No backend is closed for a good reason."""
        return self.backends <= self.out | self.held


def judge(
    entry: FleetEntry,
    ring: Ring,
    fleet: FleetView,
    now_ms: int,
    jitter: float,
    rules: CircuitRules,
    slow: tuple[Slowness, ...] = (),
    call_ms_max: int = 0,
) -> FleetEntry:
    """The entry as of now; windows and `updated_ms` as they were."""
    seen = Evidence(
        now_ms=now_ms,
        run=ring.run,
        refused=ring.refused,
        short=health(ring, now_ms, rules.short_s, entry.since_ms),
        long=health(ring, now_ms, rules.long_s, entry.since_ms),
        slow=slow,
        probes=ring.probes,
        gate=ring.gate if ring.gate and ring.gate.until_ms > now_ms else None,
        reporters=fleet.reporters,
        may_open=may_open(len(fleet.out - {entry.backend}), len(fleet.backends | {entry.backend}), rules),
        all_out=fleet.is_out,
        call_ms_max=call_ms_max,
    )
    after = advance(entry, seen, jitter, rules)
    told = tuple(Transition(at_ms=now_ms, circuit=after.circuit, reason=c.reason) for c in changes(entry, after, now_ms))
    learned = {
        "limits": ring.limits if now_ms - ring.limits_ms <= LIMITS_SILENT_MS_MAX else None,
        "executors": sum(now_ms - at_ms <= rules.reporter_fresh_ms for at_ms in fleet.reporters.values()),
        "history": (*after.history, *told)[-HISTORY_MAX:],
    }
    return after.model_copy(update=learned)


class Watch:
    """The backends of this replica: their rings, and their entries as last judged and as last published.

    `published_by_all` is the live `fleet` table: it restores circuits after a restart, and shows what other replicas
    hold. `catalogue` has the backends of the config; while it names none, the fleet is every backend that was seen.
    """

    def __init__(
        self,
        rules: CircuitRules,
        published_by_all: Callable[[], Mapping[str, FleetEntry]],
        catalogue: Callable[[], Mapping[str, Backend]],
    ) -> None:
        self.rings: dict[str, Ring] = {}
        self._rules = rules
        self._published_by_all = published_by_all
        self._catalogue = catalogue
        self._entries: dict[str, FleetEntry] = {}
        self._published: dict[str, FleetEntry] = {}
        self._alerts: dict[str, list[Alert]] = {}         # that the log has yet to hear
        self._missing_since_ms: dict[str, int] = {}
        self._usual: dict[str, tuple[int, Usual]] = {}    # and the minute of which it is
        self._slow_at_s = 0

    def look(self, now_ms: int, jitter: Callable[[], float], owns: Callable[[str], bool]) -> list[Due]:
        """Judge every backend of ours, and return what is due. It counts as published from now on."""
        for backend in [backend for backend in self.rings if not owns(backend)]:
            self._forget(backend)
        catalogue = self._catalogue()
        known = {**self._published_by_all(), **self._entries}
        fleet = FleetView(catalogue or known.keys() | self.rings.keys(), known, self.rings.values())
        looks_for_slow = now_ms // 1000 != self._slow_at_s      # it is the one thing here that costs
        self._slow_at_s = now_ms // 1000
        due = []
        for backend, ring in self.rings.items():
            if catalogue and backend not in catalogue:
                continue
            before = known.get(backend) or FleetEntry(backend=backend)
            slow = self._slow(before, ring, now_ms) if looks_for_slow else ()
            call_ms_max = catalogue[backend].timeout_ms if catalogue else 0
            entry = judge(before, ring, fleet, now_ms, jitter(), self._rules, slow, call_ms_max)
            self._entries[backend] = entry
            self._tell(before, entry, fleet, now_ms)
            published = self._published.get(backend)
            entry = with_windows_if_due(entry, published, ring, now_ms, backend in self._alerts)
            if entry is not self._entries[backend]:
                self._entries[backend] = self._published[backend] = entry
                due.append(Due(backend, entry, tuple(self._alerts.pop(backend, ()))))
        return due + self._gone(catalogue, now_ms, owns)

    def _slow(self, entry: FleetEntry, ring: Ring, now_ms: int) -> tuple[Slowness, ...]:
        minute = now_ms // 60_000
        if self._usual.get(entry.backend, (0, None))[0] != minute:
            self._usual[entry.backend] = minute, usual(ring, now_ms)
        limits = self._usual[entry.backend][1].times(self._rules.slow_factor)
        return slowness(ring, now_ms, self._rules.long_s, entry.since_ms, limits)

    def _tell(self, before: FleetEntry, after: FleetEntry, fleet: FleetView, now_ms: int) -> None:
        was_out = fleet.is_out
        fleet.moved(after)
        found = [alert(change, after, now_ms, fleet.is_unwell) for change in changes(before, after, now_ms)]
        if fleet.is_out is not was_out:
            found.append(all_out(after.backend, fleet.is_out, now_ms))
        if found:
            self._alerts.setdefault(after.backend, []).extend(found)

    def _gone(self, catalogue: Collection[str], now_ms: int, owns: Callable[[str], bool]) -> list[Due]:
        """Entries of backends that the config no longer names, once in GONE_MS each until they are off the topic."""
        missing = self._published_by_all().keys() - set(catalogue) if catalogue else set()
        self._missing_since_ms = {name: self._missing_since_ms.get(name, now_ms) for name in missing}
        gone = [name for name, since_ms in self._missing_since_ms.items() if now_ms - since_ms >= GONE_MS and owns(name)]
        for name in gone:
            self._missing_since_ms[name] = now_ms
            self._entries.pop(name, None)
            self._published.pop(name, None)
        return [Due(name, None) for name in gone]

    def not_published(self, due: Due) -> None:
        """The log did not take it: the next look returns it again, the tombstone of a backend after a while."""
        self._published.pop(due.backend, None)
        waiting = self._alerts.get(due.backend, [])
        if unheard := [*(told for told in due.alerts if told not in waiting), *waiting]:
            self._alerts[due.backend] = unheard

    def _forget(self, backend: str) -> None:
        """Another replica judges it now. Should it come back, the `fleet` topic says what became of it meanwhile."""
        self.rings.pop(backend, None)
        self._entries.pop(backend, None)
        self._published.pop(backend, None)
        self._alerts.pop(backend, None)
        self._usual.pop(backend, None)


def with_windows_if_due(
    entry: FleetEntry, published: FleetEntry | None, ring: Ring, now_ms: int, must: bool = False
) -> FleetEntry:
    """The entry with fresh windows if the fleet must hear of it now; else the very same entry."""
    has_moved = must or published is None or _acted_on(entry) != _acted_on(published) or _is_gated(entry, published, now_ms)
    if published and not has_moved and 0 <= now_ms - published.updated_ms < PUBLISH_INTERVAL_MS:
        return entry
    fresh = entry.model_copy(update={"windows": tuple(window(ring, now_ms, seconds) for seconds in WINDOWS_S)})
    if has_moved or fresh != published:
        return fresh.model_copy(update={"updated_ms": now_ms})
    return entry


def _acted_on(entry: FleetEntry) -> tuple[object, ...]:
    """What executors act on at once."""
    return entry.circuit, entry.share, entry.probe_epoch, entry.probe_leases


def _is_gated(entry: FleetEntry, published: FleetEntry, now_ms: int) -> bool:
    """Whether a gate falls where the fleet knows of none, or of one that is as good as over. Longer ones may wait."""
    known_ms = published.gate.until_ms if published.gate else 0
    return entry.gate is not None and entry.gate != published.gate and known_ms - now_ms <= PUBLISH_INTERVAL_MS
