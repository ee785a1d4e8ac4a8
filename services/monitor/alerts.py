"""Two states of a backend to what an operator should hear: one alert per change. Pure.

Nothing is remembered here: an entry that was restored after a restart differs from itself in nothing, so nothing is said
twice.
"""

from typing import NamedTuple

from schemas.fleet import Alert, AlertKind, Circuit, FleetEntry, Gate, GateReason, Severity
from shared.circuit import is_held, is_refused

KINDS = {
    Circuit.OPEN: AlertKind.CIRCUIT_OPEN,
    Circuit.HALF_OPEN: AlertKind.CIRCUIT_HALF_OPEN,
    Circuit.CLOSED: AlertKind.CIRCUIT_CLOSED,
}
GATE_KINDS = {
    GateReason.QUOTA_EXHAUSTED: AlertKind.QUOTA_EXHAUSTED,
    GateReason.CREDENTIAL: AlertKind.CREDENTIAL_REFUSED,
}
"""A rate limit that is reached is ordinary: it is no change worth an alert."""

ROUTINE = frozenset({AlertKind.CIRCUIT_HALF_OPEN, AlertKind.CIRCUIT_CLOSED})


class Change(NamedTuple):
    kind: AlertKind
    reason: str


def changes(before: FleetEntry, after: FleetEntry, now_ms: int) -> list[Change]:
    """What has changed about a circuit or a gate, in words that end up in `history`."""
    found = []
    if after.circuit is not before.circuit:
        kind = AlertKind.CREDENTIAL_REFUSED if is_refused(after) else KINDS[after.circuit]
        found.append(Change(kind, after.reason))
    elif is_held(after) and not is_held(before):
        found.append(Change(AlertKind.CIRCUIT_HELD, after.reason))
    elif is_held(before) and not is_held(after):
        found.append(Change(AlertKind.CIRCUIT_CLOSED, "no longer held"))
    gated = _gated(after.gate)
    if after.gate is not None and gated and gated is not _gated(before.gate):
        seconds = -(-(after.gate.until_ms - now_ms) // 1000)
        found.append(Change(gated, f"{gated.replace('_', ' ')}, not called for {seconds} s"))
    return found


def _gated(gate: Gate | None) -> AlertKind | None:
    return GATE_KINDS.get(gate.reason) if gate else None


def alert(change: Change, entry: FleetEntry, now_ms: int, is_last: bool) -> Alert:
    """`is_last`: no backend of the fleet is well now; what is bad for one is then bad for all."""
    worst = Severity.CRITICAL if is_last else Severity.WARNING
    return Alert(
        alert_id=_alert_id(entry.backend, change.kind, now_ms),
        kind=change.kind,
        severity=Severity.INFO if change.kind in ROUTINE else worst,
        subject=entry.backend,
        message=f"{entry.backend}: {entry.circuit.replace('_', ' ')}, {change.reason}",
        at_ms=now_ms,
    )


def all_out(backend: str, begins: bool, now_ms: int) -> Alert:
    """The last closed circuit has opened, or the first has closed again."""
    return Alert(
        alert_id=_alert_id(backend, AlertKind.ALL_OUT, now_ms),
        kind=AlertKind.ALL_OUT,
        severity=Severity.CRITICAL if begins else Severity.INFO,
        subject=backend,
        message="no backend is closed any more" if begins else f"{backend} is closed: the fleet is no longer all out",
        at_ms=now_ms,
    )


def _alert_id(backend: str, kind: AlertKind, at_ms: int) -> str:
    return f"{backend}/{kind}/{at_ms}"
