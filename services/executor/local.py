"""What this replica alone knows of one backend, and whether a call may go there now. Pure: every time is passed in."""

from dataclasses import dataclass, field
from math import exp

from schemas.config import Backend
from schemas.fleet import Circuit, FleetEntry, Gate, GateReason, RateLimits
from schemas.ledger import FailureClass
from schemas.messages import Lane
from services.executor.concurrency import Gradient
from services.executor.decide import fraction_of
from services.executor.lanes import LANES
from services.executor.quota import Quota
from services.executor.retry_tokens import RetryTokens
from shared.circuit import LocalTrip
from shared.delta import Delta

PACE_DECAY_MS = 3_000   # a backend that is well again should not wait long for its share
PACE_NEWCOMER_MS = 10.0
PACE_MS_MIN, PACE_MS_MAX = 0.01, 2_000.0
PACE_PART = 0.2
PACE_OF_FAILURE = 4
"""A call that failed counts as this many times slower than usual: a backend that fails quickly must not look quick."""
BEARABLE_MS = 1_000
"""A queue at a backend that ends within this is no harm where nobody is let pass. Without it a model that answers in
milliseconds would be judged by the moods of this machine, and few calls under way cost all stages several times the CPU."""
MEAN_PART = 0.1                         # of each call, in the running means
BESIDE_MS = 60_000
"""How long after an interactive plan came by the lower lanes leave no queue at the backend: the next one may come any time."""
UNKNOWN_GATE_MS = 10_000
"""How long a gate without an end holds here, until the fleet's entry says how long it really is."""


@dataclass(slots=True)
class Local:
    """Mutable; one per backend. `pace_ms` is milliseconds per unit of answer (see `shared.delta.pace_ms`)."""

    gradient: Gradient
    bearable: float = 0.0               # calls that could be at the backend, each over within BEARABLE_MS; Little's law
    quota: Quota = field(default_factory=Quota)
    tokens: RetryTokens = field(default_factory=RetryTokens)
    in_flight: int = 0
    promised: int = 0                   # of these: places of plans that have not begun their call yet
    writing: int = 0                    # of these: calls whose line the ledger has not acknowledged yet
    writing_ms: float = 0.0             # how long that takes, running mean; 0: nothing was written yet
    latency_ms: float = 0.0             # of calls that were answered, running mean; 0: none was
    interactive: int = 0                # of these: interactive calls that have begun
    pace_ms: float = 0.0                # EWMA; 0: never called from here
    pace_at_ms: int = 0
    trip: LocalTrip = field(default_factory=LocalTrip)
    gate_until_ms: int = 0
    interactive_at_ms: int = -BESIDE_MS # when the last interactive plan would have gone there
    probe_epoch: int = -1
    probes_used: int = 0
    delta: Delta = field(default_factory=Delta)
    sequence: int = 0
    present_at_ms: int = 0
    backend: Backend | None = None      # the configuration and the entry that limits and figures were read from
    entry: FleetEntry | None = None
    p50_ms: int | None = None
    p95_ms: int | None = None
    pace_usual_ms: float = 0.0

    def observe(self, pace_ms: float, now_ms: int) -> None:
        """A geometric EWMA: a fifth of each call, in logarithms, since a model's latency is log-normal with a heavy tail.

        Finagle's peak-EWMA, which takes the worst call for seconds, would let the tail of equal backends toss the traffic
        about; a backend that hangs shows at once all the same, by its calls in flight.
        """
        known_ms = self._faded(now_ms) if self.pace_ms or self.pace_usual_ms else pace_ms
        self.pace_ms = min(known_ms ** (1 - PACE_PART) * max(pace_ms, PACE_MS_MIN) ** PACE_PART, PACE_MS_MAX)
        self.pace_at_ms = now_ms

    def answered(self, pace_ms: float, latency_ms: float, in_flight: int, now_ms: int) -> None:
        """Learn from a call that succeeded; `in_flight` were at the backend when it was sent, itself included."""
        self.observe(pace_ms, now_ms)
        self.gradient.observe(pace_ms, in_flight, now_ms)
        bearable = min(BEARABLE_MS * in_flight / max(latency_ms, 1.0), self.gradient.limit_max)
        self.bearable += MEAN_PART * (bearable - self.bearable)
        self.latency_ms += MEAN_PART * (latency_ms - self.latency_ms) if self.latency_ms else latency_ms

    def written(self, took_ms: float) -> None:
        """The line of a call was acknowledged, so the call leaves now."""
        self.writing -= 1
        self.writing_ms += MEAN_PART * (took_ms - self.writing_ms) if self.writing_ms else took_ms

    def _faded(self, now_ms: int) -> float:
        """What is above the fleet's figure fades by itself: one bad call must not keep a backend idle, and so unmeasured."""
        usual_ms = self.pace_usual_ms or PACE_NEWCOMER_MS
        if self.pace_ms <= usual_ms:
            return self.pace_ms or usual_ms
        return usual_ms + (self.pace_ms - usual_ms) * exp((self.pace_at_ms - now_ms) / PACE_DECAY_MS)

    def failed(self, now_ms: int) -> None:
        """Never from its own peak: failures in a row would compound, and it would get no traffic long after it is well."""
        self.observe(PACE_OF_FAILURE * (self.pace_usual_ms or PACE_NEWCOMER_MS), now_ms)

    def load(self, weight: float, now_ms: int) -> float:
        return self._faded(now_ms) * (self.in_flight + 1) / weight

    def read(self, backend: Backend, entry: FleetEntry | None) -> None:
        """Take over the fleet's word: it replaces a local trip, sets limits, and gives the figures of a usual call."""
        self.gradient.set_max(backend.concurrency_max)
        was_out = self.entry is not None and self.entry.circuit is not Circuit.CLOSED
        self.backend, self.entry = backend, entry
        limits = entry.limits if entry and entry.limits else RateLimits()
        self.quota.set(backend.rpm or limits.rpm, backend.tpm or limits.tpm, max(entry.executors, 1) if entry else 1)
        if entry is None:
            return
        self.trip = self.trip.follow(entry.circuit)
        if was_out and entry.circuit is Circuit.CLOSED:
            self.pace_ms = 0.0          # what it did before it was well again says nothing
        windows = sorted(entry.windows, key=lambda window: window.seconds)
        told = next((window for window in windows if window.p50_ms > 0), None)
        self.p50_ms, self.p95_ms = (round(told.p50_ms), round(told.p95_ms)) if told else (None, None)
        self.pace_usual_ms = next((window.pace_p50_ms for window in windows if window.pace_p50_ms > 0), 0.0)

    # --- May a call go there now? --------------------------------------------------------------------------------

    def passes(self, attempt_id: str, instance: str, now_ms: int, has_place: bool) -> bool:
        """Whether the circuit lets this attempt through. A recovering backend takes its share of attempts, drawn from
        their ids; one that was given a place has been counted in already."""
        entry = self.entry
        if self.trip.is_open(now_ms):
            return False
        if entry is None:
            return True
        if entry.circuit is Circuit.HALF_OPEN:
            return self.probes_left(entry, instance) > 0
        return entry.circuit is Circuit.CLOSED and (has_place or entry.share >= 1.0 or fraction_of(attempt_id) < entry.share)

    def lanes_let_in(self, now_ms: int) -> int:
        """How many lanes, from the highest, have a free place within the adaptive limit, which a recovering backend has only
        its share of. Beside interactive calls the others leave no queue at the backend, for that queue knows no lanes; and it
        is the others who make room when fewer calls are let in for a while, to measure how long one takes without a queue."""
        if not self._is_below(self.limit):
            are_few = 2 * self.interactive < self.in_flight
            return int(are_few and self._is_below(self._shared(self.gradient.limit_undipped)))
        beside = self.gradient.limit_beside
        if beside == self.gradient.limit or now_ms - self.interactive_at_ms >= BESIDE_MS:
            return len(LANES)
        # Here what is being written down counts: it would queue at the backend a moment later.
        return len(LANES) if self.in_flight < max(1, int(beside * self._share)) else LANES.index(Lane.INTERACTIVE) + 1

    @property
    def limit(self) -> int:
        """Calls that may be at the backend at once, from here."""
        return self._shared(self.gradient.limit)

    def _shared(self, limit: int) -> int:
        return max(1, int(max(limit, self.bearable) * self._share))

    @property
    def _share(self) -> float:
        return 1.0 if self.entry is None or self.entry.circuit is not Circuit.CLOSED else self.entry.share

    def _is_below(self, limit: int) -> bool:
        """What is still being written down is not at the backend, so a slow log must not make its places scarce: as many more
        may stand there as calls will be over meanwhile, by Little's law. More would arrive at once where no place is free
        (a provider with a queue of its own turned away 6 % of the calls). Never more than the configuration allows."""
        meanwhile = min(self.writing_ms / self.latency_ms, 1.0) if self.latency_ms else 1.0
        at_most = min(limit * (1.0 + meanwhile), self.gradient.limit_max)
        return self.in_flight - self.writing < limit and self.writing < limit and self.in_flight < at_most

    def has_room(self, lane: Lane, now_ms: int) -> bool:
        """Whether a call of the lane may start; that an interactive one would is remembered."""
        if lane is Lane.INTERACTIVE:
            self.interactive_at_ms = now_ms
        return LANES.index(lane) < self.lanes_let_in(now_ms)

    def ready_at_ms(self, tokens: int, now_ms: int) -> int:
        """Until when a gate or a rate limit forbids a call of so many tokens; `now_ms` or earlier: none does."""
        return max(self.gated_until_ms(), self.quota.ready_at_ms(tokens, now_ms))

    def gated_until_ms(self) -> int:
        """Until when the provider forbids any call."""
        told = self.entry.gate.until_ms if self.entry is not None and self.entry.gate is not None else 0
        return max(self.gate_until_ms, told)

    def probes_left(self, entry: FleetEntry, instance: str) -> int:
        used = self.probes_used if self.probe_epoch == entry.probe_epoch else 0
        return entry.probe_leases.get(instance, 0) - used

    def use_probe(self) -> int:
        """Use up a lease; returns its epoch."""
        epoch = self.entry.probe_epoch if self.entry is not None else 0
        if self.probe_epoch != epoch:
            self.probe_epoch, self.probes_used = epoch, 0
        self.probes_used += 1
        return epoch

    def return_probe(self, epoch: int) -> None:
        """A probe that proved nothing: its lease may be used again."""
        if self.probe_epoch == epoch and self.probes_used:
            self.probes_used -= 1

    def is_probed(self) -> bool:
        """Whether leases of probes limit the calls."""
        return self.entry is not None and self.entry.circuit is Circuit.HALF_OPEN

    # --- Gates ---------------------------------------------------------------------------------------------------

    def gated(self, reason: GateReason, wait_ms: int | None, now_ms: int) -> None:
        """Nobody calls before the wait is over: here at once, elsewhere as soon as the fleet has heard."""
        until_ms = 0 if wait_ms is None else now_ms + wait_ms
        self.gate_until_ms = max(self.gate_until_ms, until_ms or now_ms + UNKNOWN_GATE_MS)
        self.delta.gated(Gate(until_ms=until_ms, reason=reason))

    def throttled(self, failure: FailureClass, now_ms: int) -> None:
        """The backend said, or showed, that it has too much to do."""
        if failure in _TOO_MUCH:
            self.gradient.dropped(now_ms)


_TOO_MUCH = frozenset({FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.TIMEOUT, FailureClass.STALLED})
