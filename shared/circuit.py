"""The circuit of a backend: a table of transitions, and pure functions that say which event has happened.

The fleet-wide state is the backend's `FleetEntry`; the monitor alone advances it. `LocalTrip` is the small breaker by
which an executor bridges the moment until the fleet knows. No clock and no randomness: both are passed in.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.fleet import Circuit, FleetEntry, Gate
from shared.windows import NO_CALLS, NO_PROBES, NO_RUN, Health, Probes, Run, Slowness


class Event(StrEnum):
    TRIPPED = "tripped"
    COOLED = "cooled"
    PROBES_PASSED = "probes_passed"
    PROBE_FAILED = "probe_failed"


# Unlisted pairs leave the state alone: late and repeated events are normal on Kafka.
# fmt: off
TRANSITIONS = {
    (Circuit.CLOSED,    Event.TRIPPED):       Circuit.OPEN,       # it fails, is slow, or refuses the credential
    (Circuit.OPEN,      Event.COOLED):        Circuit.HALF_OPEN,  # the cooldown is over
    (Circuit.HALF_OPEN, Event.PROBES_PASSED): Circuit.CLOSED,     # all of them; traffic then ramps up
    (Circuit.HALF_OPEN, Event.PROBE_FAILED):  Circuit.OPEN,       # one is enough; the next cooldown is twice as long
}
# fmt: on

CREDENTIAL_REFUSED = "credential refused"
HELD = "held closed, too many backends are out already"
"""Reasons that an entry is known by: see `is_refused` and `is_held`."""


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """When circuits trip and how they recover. Times in milliseconds unless the name says otherwise.

    Chances of a false trip at 7.26 % independent failures: 8 in a row 7.7e-10 per call, half of 30 4.4e-10, half of 20
    3.8e-7. The short window is for speed when a part of the calls fails; when all of them fail the row of 8 is faster.
    """

    run_max: int = 8
    short_s: int = 10
    short_judged_min: int = 20
    long_s: int = 60
    long_judged_min: int = 30
    failed_share_max: float = 0.5
    slow_factor: float = 3.0               # times the p95 of the last hour
    slow_calls_min: int = 30
    slow_share_max: float = 0.8
    refused_max: int = 2
    cooldown_ms: int = 15_000
    cooldown_ms_max: int = 300_000
    refused_cooldown_ms: int = 60_000      # a key is changed by people
    refused_cooldown_ms_max: int = 900_000
    cooldown_jitter: float = 0.2
    probes: int = 3                        # of the whole fleet, in one half-open period
    probe_patience_ms: int = 90_000        # or, if that is longer, what a call of the backend may take and
    probe_slack_ms: int = 10_000           # so much more: then nobody is still working on a lease
    reporter_fresh_ms: int = 10_000
    ramp_ms: int = 30_000
    ramp_shares: tuple[float, ...] = (0.10, 0.25, 0.50)
    open_share_max: float = 0.5
    throttle_k: float = 1.5                # 2 in Google's SRE book; 1.5 starts at a third of failures instead of at half
    throttle_share_min: float = 0.05
    local_hold_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a backend at `now_ms`. `may_open` is the cap; `all_out` the panic: no backend is closed."""

    now_ms: int
    run: Run = NO_RUN
    refused: Run = NO_RUN
    short: Health = NO_CALLS
    long: Health = NO_CALLS
    slow: tuple[Slowness, ...] = ()
    probes: Probes = NO_PROBES
    gate: Gate | None = None                                       # that holds now
    reporters: Mapping[str, int] = field(default_factory=dict)     # when each was last heard of, on any backend
    may_open: bool = True
    all_out: bool = False
    call_ms_max: int = 0                                           # the longest that one call of it may take


def advance(entry: FleetEntry, seen: Evidence, jitter: float, rules: CircuitRules) -> FleetEntry:
    """The entry after whatever has happened by now, at most one transition; `entry` itself when nothing has.

    `jitter` in [-1, 1] spreads cooldowns. Windows and `updated_ms` are not touched.
    """
    event, reason = _event(entry, seen, rules)
    if event is Event.TRIPPED and not seen.may_open and reason != CREDENTIAL_REFUSED:
        return _held(entry, f"{HELD}: {reason}", seen, rules)
    circuit = TRANSITIONS.get((entry.circuit, event)) if event else None
    if circuit is None:
        return _changed(_upkeep(entry, seen, rules), gate=seen.gate)
    moved = _changed(entry, circuit=circuit, reason=reason, since_ms=seen.now_ms, probe_leases={}, gate=seen.gate)
    if circuit is Circuit.OPEN:
        return _opened(moved, jitter, rules)
    if circuit is Circuit.HALF_OPEN:
        return _leased(moved, seen, rules)
    return _changed(moved, share=rules.ramp_shares[0] if rules.ramp_ms else 1.0)


def is_refused(entry: FleetEntry) -> bool:
    """Whether the circuit is open because the provider refuses the credential."""
    return entry.circuit is Circuit.OPEN and entry.reason == CREDENTIAL_REFUSED


def is_held(entry: FleetEntry) -> bool:
    """Whether the circuit would be open if others were not."""
    return entry.circuit is Circuit.CLOSED and entry.reason.startswith(HELD)


# --- What has happened -------------------------------------------------------------------------------------------


def _event(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> tuple[Event | None, str]:
    if entry.circuit is Circuit.CLOSED:
        reason = trip_reason(entry, seen, rules)
        return (Event.TRIPPED if reason else None), reason
    if entry.circuit is Circuit.OPEN:
        return (Event.COOLED if seen.now_ms >= _cooled_at_ms(entry, seen, rules) else None), "the cooldown is over"
    if seen.probes.epoch != entry.probe_epoch:
        return None, ""
    if seen.probes.failed:
        is_refusal = seen.refused.failures >= rules.refused_max and not seen.run.failures
        return Event.PROBE_FAILED, CREDENTIAL_REFUSED if is_refusal else "a probe failed"
    if seen.probes.passed >= rules.probes:
        return Event.PROBES_PASSED, f"{seen.probes.passed} probes passed"
    return None, ""


def trip_reason(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> str:
    """Why the backend should not be called now; empty when nothing speaks against it.

    A row that began before the circuit last closed is that outage's; windows must leave it out as well.
    """
    if seen.refused.failures >= rules.refused_max and seen.refused.since_ms >= entry.since_ms:
        return CREDENTIAL_REFUSED
    if seen.run.failures >= rules.run_max and seen.run.since_ms >= entry.since_ms:
        return f"{rules.run_max} hard failures in a row"
    for health, seconds, judged_min in (
        (seen.short, rules.short_s, rules.short_judged_min),
        (seen.long, rules.long_s, rules.long_judged_min),
    ):
        if health.judged >= judged_min and health.failed >= rules.failed_share_max * health.judged:
            return f"at least {rules.failed_share_max:.0%} of the calls of {seconds} s failed"
    return _slow_reason(seen, rules) if seen.may_open else ""


def _slow_reason(seen: Evidence, rules: CircuitRules) -> str:
    """A slow backend is better than none, so this never holds a circuit."""
    for slow in seen.slow:
        if slow.calls >= rules.slow_calls_min and slow.slow >= rules.slow_share_max * slow.calls:
            return f"{slow.measure} of {rules.long_s} s take over {rules.slow_factor:g} times as long as usual"
    return ""


def _cooled_at_ms(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> int:
    """Panic: when no backend is left closed, nobody backs off for longer than the first cooldown; probes decide."""
    if seen.all_out:
        first_ms = rules.refused_cooldown_ms if is_refused(entry) else rules.cooldown_ms
        return min(entry.cooldown_until_ms, entry.since_ms + first_ms)
    return entry.cooldown_until_ms


# --- What follows from a transition ------------------------------------------------------------------------------


def _opened(entry: FleetEntry, jitter: float, rules: CircuitRules) -> FleetEntry:
    spread = 1 + rules.cooldown_jitter * jitter
    cooldown_ms = round(_cooldown_ms(entry, rules) * spread)
    return _changed(entry, trips=entry.trips + 1, cooldown_until_ms=entry.since_ms + cooldown_ms, share=0.0)


def _cooldown_ms(entry: FleetEntry, rules: CircuitRules) -> int:
    first_ms, longest_ms = rules.cooldown_ms, rules.cooldown_ms_max
    if is_refused(entry):
        first_ms, longest_ms = rules.refused_cooldown_ms, rules.refused_cooldown_ms_max
    return min(first_ms << min(entry.trips, 30), longest_ms)


def _leased(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> FleetEntry:
    """A new epoch voids whatever was leased before. Nothing is leased while no reporter is known."""
    leases = lease(seen.reporters, entry.probe_leases, seen.now_ms, rules)
    epoch = max(entry.probe_epoch, seen.probes.epoch) + 1
    return _changed(entry, probe_epoch=epoch, probe_leases=leases, share=0.0)


def lease(
    reporters: Mapping[str, int], before: Collection[str], now_ms: int, rules: CircuitRules
) -> dict[str, int]:
    """Exactly `rules.probes` probes over as many reporters as possible; none when there are no reporters.

    Only those heard of lately, when there are any: the others may be dead. First those without a lease `before`.
    """
    def rank(name: str) -> tuple[bool, int, str]:
        return name in before, -reporters[name], name

    fresh = [name for name, at_ms in reporters.items() if now_ms - at_ms <= rules.reporter_fresh_ms]
    chosen = sorted(fresh or reporters, key=rank)[: rules.probes]
    return {name: len(range(place, rules.probes, len(chosen))) for place, name in enumerate(chosen)}


# --- What time alone changes -------------------------------------------------------------------------------------


def _upkeep(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> FleetEntry:
    if entry.circuit is Circuit.HALF_OPEN:
        return _renewed(entry, seen, rules)
    if is_held(entry) and _throttle(seen, rules) < 1.0:
        return _held(entry, entry.reason, seen, rules)
    return _recovering(entry, seen, rules) if entry.circuit is Circuit.CLOSED else entry


def _renewed(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> FleetEntry:
    """Leases that brought no result go to others, in a new epoch; `since_ms` then starts anew.

    At once when the provider asked to be left alone, for a probe it turned away has neither passed nor failed; else when
    they had time enough, from when the provider may be called. A good call may take longer than our patience: a new epoch
    voids its result, so without the time that the backend's calls may take, a slow one would never be closed again.
    """
    is_gated_anew = seen.gate is not None and seen.gate != entry.gate
    may_probe_ms = max(entry.since_ms, seen.gate.until_ms if seen.gate else 0)
    patience_ms = max(rules.probe_patience_ms, seen.call_ms_max + rules.probe_slack_ms)
    is_stale = is_gated_anew or seen.now_ms - may_probe_ms >= patience_ms
    if not seen.reporters or (entry.probe_leases and not is_stale):
        return entry
    return _changed(_leased(entry, seen, rules), since_ms=seen.now_ms)


def _recovering(entry: FleetEntry, seen: Evidence, rules: CircuitRules) -> FleetEntry:
    """The share rises in steps; after a further cooldown without a trip the past is forgotten."""
    if not entry.trips:
        return _changed(entry, share=1.0, reason="")
    closed_ms = seen.now_ms - entry.since_ms
    if closed_ms < rules.ramp_ms:
        step = max(0, closed_ms) * len(rules.ramp_shares) // rules.ramp_ms
        return _changed(entry, share=rules.ramp_shares[step], reason="recovering")
    if closed_ms < rules.ramp_ms + _cooldown_ms(entry, rules):
        return _changed(entry, share=1.0, reason="recovered")
    return _changed(entry, share=1.0, trips=0, reason="", cooldown_until_ms=0)


def _changed(entry: FleetEntry, **update: object) -> FleetEntry:
    """A copy with these fields; the very same entry when they are what they were."""
    if all(getattr(entry, name) == value for name, value in update.items()):
        return entry
    return entry.model_copy(update=update)


# --- The cap -----------------------------------------------------------------------------------------------------


def may_open(out: int, fleet: int, rules: CircuitRules) -> bool:
    """Whether one more of `fleet` backends may open when `out` others are open or half-open.

    After it at most `open_share_max` of the fleet, rounded down, is out, and at least one backend stays closed: a bad
    signal must not take everything out, and where there is nothing else to call an open circuit helps nobody (Envoy's
    outlier detection caps at 10 % and ignores health below 50 %; our fleets are smaller than its clusters). The cap is
    the fleet's and not a model's: the last backend of a model may open, since a plan names other models.
    """
    return out + 1 <= min(int(fleet * rules.open_share_max), fleet - 1)


def _held(entry: FleetEntry, reason: str, seen: Evidence, rules: CircuitRules) -> FleetEntry:
    """Closed because of the cap, with a share that follows from how much of it succeeds."""
    recovering = _recovering(entry, seen, rules)
    return _changed(recovering, share=min(recovering.share, _throttle(seen, rules)), reason=reason, gate=seen.gate)


def _throttle(seen: Evidence, rules: CircuitRules) -> float:
    """The share of calls worth making, in steps of a twentieth: adaptive throttling of Google's SRE book, by the worst of
    the row and the windows. Requests are those that were made, so it is 1 − k · success share, and never nothing."""
    row = Health(seen.run.failures, seen.run.failures)
    share = 1 - max(_rejected(calls, rules.throttle_k) for calls in (row, seen.short, seen.long))
    return max(rules.throttle_share_min, int(share * 20) / 20)


def _rejected(calls: Health, k: float) -> float:
    return max(0.0, (calls.judged - k * (calls.judged - calls.failed)) / (calls.judged + 1))


# --- The executor's own breaker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalTrip:
    """One replica's breaker for one backend. It opens at once and closes by itself; the fleet's word replaces it."""

    run: int = 0
    open_until_ms: int = 0

    def record(self, failed: bool, now_ms: int, rules: CircuitRules) -> "LocalTrip":
        """After a judged call. Past the hold a single hard failure trips again; a success ends the row."""
        if not failed:
            return LocalTrip()
        run = self.run + 1
        return LocalTrip(run, now_ms + rules.local_hold_ms if run >= rules.run_max else self.open_until_ms)

    def follow(self, circuit: Circuit) -> "LocalTrip":
        """After an entry of the fleet: once the fleet's circuit is not closed, that is what counts."""
        return self if circuit is Circuit.CLOSED else LocalTrip()

    def is_open(self, now_ms: int) -> bool:
        return now_ms < self.open_until_ms
