"""Observations to rolling windows: a ring of 60 seconds and 60 minutes of buckets per backend.

Pure: every time is passed in. A fold is by event time, so a replay rebuilds the same ring, and adds nothing twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from schemas.fleet import Gate, GateReason, Observation, RateLimits, Window
from shared.sketch import Sketch, above, merge, quantiles

SECONDS = 60
MINUTES = 60
REPORTER_SILENT_MS_MAX = 600_000
"""A reporter silent for longer is forgotten, so that restarts do not grow the ring."""

LIMITS_SILENT_MS_MAX = 600_000
"""Rate limits that no answer has confirmed for longer are no longer believed."""

USUAL_CALLS_MIN = 100
USUAL_NEWEST_MINUTES = 2
"""Left out of what is usual, or a slow spell would raise its own bar at once."""

GATE_MS_MAX = 86_400_000
GATE_BACKOFF_MS = {
    # Where the provider did not say until when: the first gate, and the longest, doubling between them.
    GateReason.RATE_LIMITED: (1_000, 60_000),
    GateReason.QUOTA_EXHAUSTED: (300_000, 3_600_000),
    GateReason.CREDENTIAL: (60_000, 900_000),
}

_VERSION = 2


@dataclass(slots=True)
class Bucket:
    """What was observed in one second or one minute. Only calls that succeeded are in the sketches."""

    calls: int = 0
    judged: int = 0     # those that say something about the backend: a caller's bad request does not
    failed: int = 0
    latency: Sketch = field(default_factory=dict)
    first_token: Sketch = field(default_factory=dict)
    pace: Sketch = field(default_factory=dict)
    packed: bytes | None = field(default=None, compare=False)    # of now, as stored; None: it has changed since

    def fold(self, seen: Observation) -> None:
        self.calls += seen.calls
        self.judged += _judged(seen)
        self.failed += sum(seen.failures.values())
        merge(self.latency, seen.latency_sketch)
        merge(self.first_token, seen.first_token_sketch)
        merge(self.pace, seen.pace_sketch)
        self.packed = None


class Reporter(NamedTuple):
    """How far one executor's observations are folded in, and when it was last heard of."""

    sequence: int
    at_ms: int


class Run(NamedTuple):
    """Failures in a row, across reporters in the order their observations arrived, and when the row began."""

    failures: int = 0
    since_ms: int = 0


class Probes(NamedTuple):
    """Results of the newest half-open epoch that was reported on."""

    epoch: int = 0
    passed: int = 0
    failed: int = 0


class Health(NamedTuple):
    """Calls that say something about the backend, and how many of them failed."""

    judged: int = 0
    failed: int = 0


class Slowness(NamedTuple):
    """Calls that succeeded, and how many of them took longer than they may, by one measure."""

    measure: str
    calls: int
    slow: int


class Usual(NamedTuple):
    """What 95 % of a backend's calls keep below, in milliseconds; None: too few calls to tell."""

    first_token_ms: float | None = None
    pace_ms: float | None = None

    def times(self, factor: float) -> "Usual":
        return Usual(*(value and value * factor for value in self))


NO_RUN, NO_PROBES, NO_CALLS = Run(), Probes(), Health()


@dataclass(slots=True)
class Ring:
    """Everything remembered of one backend; buckets are keyed by epoch second and epoch minute."""

    seconds: dict[int, Bucket] = field(default_factory=dict)
    minutes: dict[int, Bucket] = field(default_factory=dict)
    reporters: dict[str, Reporter] = field(default_factory=dict)
    newest_ms: int = 0
    late: int = 0                   # observations older than the seconds of the ring when they came
    run: Run = NO_RUN               # hard failures
    refused: Run = NO_RUN           # refusals of the credential
    probes: Probes = NO_PROBES
    gate: Gate | None = None        # the latest ever reported, over or not
    gates_unsaid: int = 0           # gates in a row of which the provider did not say until when
    limits: RateLimits | None = None
    limits_ms: int = 0

    def to_bytes(self) -> bytes:
        """One JSON object. Buckets are packed once, so that a batch costs two of them and not 120."""
        return orjson.dumps(
            {
                "version": _VERSION,
                "seconds": {second: orjson.Fragment(_packed(bucket)) for second, bucket in self.seconds.items()},
                "minutes": {minute: orjson.Fragment(_packed(bucket)) for minute, bucket in self.minutes.items()},
                "reporters": {name: list(reporter) for name, reporter in self.reporters.items()},
                "newest_ms": self.newest_ms,
                "late": self.late,
                "run": list(self.run),
                "refused": list(self.refused),
                "probes": list(self.probes),
                "gate": self.gate and [self.gate.until_ms, self.gate.reason],
                "gates_unsaid": self.gates_unsaid,
                "limits": self.limits and [self.limits.rpm, self.limits.tpm],
                "limits_ms": self.limits_ms,
            },
            option=orjson.OPT_NON_STR_KEYS,
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Ring":
        """Nothing remembered where an older version wrote it; raises ValueError for bytes that none wrote."""
        value: dict[str, Any] = orjson.loads(raw)
        if value.get("version") in range(1, _VERSION):
            return cls()
        if value.get("version") != _VERSION:
            raise ValueError(f"ring: version {value.get('version')!r} is not {_VERSION}; delete the monitor's changelog")
        gate, limits = value["gate"], value["limits"]
        return cls(
            seconds={int(second): _unpacked(packed) for second, packed in value["seconds"].items()},
            minutes={int(minute): _unpacked(packed) for minute, packed in value["minutes"].items()},
            reporters={name: Reporter(*reporter) for name, reporter in value["reporters"].items()},
            newest_ms=value["newest_ms"],
            late=value["late"],
            run=Run(*value["run"]),
            refused=Run(*value["refused"]),
            probes=Probes(*value["probes"]),
            gate=gate and Gate(until_ms=gate[0], reason=gate[1]),
            gates_unsaid=value["gates_unsaid"],
            limits=limits and RateLimits(rpm=limits[0], tpm=limits[1]),
            limits_ms=value["limits_ms"],
        )


# --- Folding -----------------------------------------------------------------------------------------------------


def fold(ring: Ring, seen: Observation, logged_ms: int) -> bool:
    """Add one observation to the ring; False when it was folded in before, or may have been.

    `logged_ms` is the broker's time of the record: a reporter whose clock is ahead must not push other buckets out.
    """
    at_ms = min(seen.at_ms, logged_ms)
    known = ring.reporters.get(seen.reporter)
    if known is not None and seen.sequence <= known.sequence:
        return False
    if known is None and at_ms < ring.newest_ms - REPORTER_SILENT_MS_MAX:
        ring.late += 1      # of a reporter that was forgotten, as far as anybody knows
        return False
    ring.reporters[seen.reporter] = Reporter(seen.sequence, at_ms)
    ring.newest_ms = max(ring.newest_ms, at_ms)
    if seen.calls or seen.refused:      # a key that another backend refused is refused here, too
        _fold_calls(ring, seen, at_ms)
    if seen.probes_ok or seen.probes_failed:
        _fold_probes(ring, seen)
    if seen.gate is not None:
        _fold_gate(ring, seen.gate, at_ms)
    if seen.limits is not None and at_ms >= ring.limits_ms:
        ring.limits, ring.limits_ms = seen.limits, at_ms
    _forget(ring)
    return True


def _fold_calls(ring: Ring, seen: Observation, at_ms: int) -> None:
    second, minute = at_ms // 1000, at_ms // 60_000
    is_late = second <= ring.newest_ms // 1000 - SECONDS
    if is_late:
        ring.late += 1
    else:
        ring.seconds.setdefault(second, Bucket()).fold(seen)
        _fold_rows(ring, seen, at_ms)
    if minute > ring.newest_ms // 60_000 - MINUTES:
        ring.minutes.setdefault(minute, Bucket()).fold(seen)


def _fold_rows(ring: Ring, seen: Observation, at_ms: int) -> None:
    """A row grows only by observations without a success; one success in them starts it anew."""
    judged = _judged(seen)
    has_succeeded = judged > sum(seen.failures.values())
    if judged:
        ring.run = _longer(ring.run, seen.consecutive_failures, has_succeeded, at_ms)
    if seen.refused or has_succeeded:
        ring.refused = _longer(ring.refused, seen.refused, has_succeeded, at_ms)
    if has_succeeded and ring.gate is not None and at_ms >= ring.gate.until_ms:
        ring.gates_unsaid = 0


def _longer(row: Run, failures: int, has_succeeded: bool, at_ms: int) -> Run:
    if has_succeeded or not row.failures:
        return Run(failures, at_ms)
    return Run(row.failures + failures, row.since_ms)


def _fold_probes(ring: Ring, seen: Observation) -> None:
    """Results of an epoch that is over are of no use to anybody."""
    known = ring.probes if seen.probe_epoch == ring.probes.epoch else Probes(seen.probe_epoch)
    if seen.probe_epoch >= ring.probes.epoch:
        ring.probes = Probes(known.epoch, known.passed + seen.probes_ok, known.failed + seen.probes_failed)


def _fold_gate(ring: Ring, gate: Gate, at_ms: int) -> None:
    """The later gate wins. One without an end lasts longer each time, until a call after it succeeds."""
    until_ms = gate.until_ms
    if not until_ms:
        if ring.gate is not None and ring.gate.reason is gate.reason and at_ms < ring.gate.until_ms:
            return      # of a call that was on its way before the gate was known
        first_ms, longest_ms = GATE_BACKOFF_MS[gate.reason]
        until_ms = at_ms + min(first_ms << min(ring.gates_unsaid, 30), longest_ms)
        ring.gates_unsaid += 1
    until_ms = min(until_ms, at_ms + GATE_MS_MAX)
    if ring.gate is None or until_ms > ring.gate.until_ms:
        ring.gate = Gate(until_ms=until_ms, reason=gate.reason)


def _forget(ring: Ring) -> None:
    oldest_second, oldest_minute = ring.newest_ms // 1000 - SECONDS, ring.newest_ms // 60_000 - MINUTES
    for second in [second for second in ring.seconds if second <= oldest_second]:
        del ring.seconds[second]
    for minute in [minute for minute in ring.minutes if minute <= oldest_minute]:
        del ring.minutes[minute]
    silent_ms = ring.newest_ms - REPORTER_SILENT_MS_MAX
    for name in [name for name, reporter in ring.reporters.items() if reporter.at_ms < silent_ms]:
        del ring.reporters[name]


def _judged(seen: Observation) -> int:
    return seen.calls - sum(seen.other_failures.values())


# --- Reading -----------------------------------------------------------------------------------------------------
# Up to 60 s a window is made of whole seconds, above of whole minutes; the running one counts, so a window covers at
# most its length, and at least one slice less. It is open towards the future: a reporter's clock may be ahead of ours.


def window(ring: Ring, now_ms: int, seconds: int) -> Window:
    """Figures of the last `seconds` (at most an hour); `error_rate` is the failed share of the judged calls."""
    buckets = list(_slices(ring, now_ms, seconds))
    judged = sum(bucket.judged for bucket in buckets)
    failed = sum(bucket.failed for bucket in buckets)
    p50_ms, p95_ms, p99_ms = _quantiles((bucket.latency for bucket in buckets), 0.50, 0.95, 0.99)
    first_token_p50_ms, first_token_p95_ms = _quantiles((bucket.first_token for bucket in buckets), 0.50, 0.95)
    pace_p50_ms, pace_p95_ms = _quantiles((bucket.pace for bucket in buckets), 0.50, 0.95)
    return Window(
        seconds=seconds,
        calls=sum(bucket.calls for bucket in buckets),
        failed=failed,
        error_rate=round(failed / judged, 6) if judged else 0.0,
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        first_token_p50_ms=first_token_p50_ms,
        first_token_p95_ms=first_token_p95_ms,
        pace_p50_ms=pace_p50_ms,
        pace_p95_ms=pace_p95_ms,
    )


def health(ring: Ring, now_ms: int, seconds: int, since_ms: int = 0) -> Health:
    """Judged and failed calls of the last `seconds` (at most 60), none from before the second after `since_ms`."""
    judged = failed = 0
    for bucket in _seconds_after(ring, now_ms, seconds, since_ms):
        judged += bucket.judged
        failed += bucket.failed
    return Health(judged, failed)


def usual(ring: Ring, now_ms: int) -> Usual:
    """The p95 of the ring's hour without its newest minutes."""
    newest_minute = now_ms // 60_000 - USUAL_NEWEST_MINUTES
    buckets = [bucket for minute, bucket in ring.minutes.items() if minute <= newest_minute]
    return Usual(_p95(bucket.first_token for bucket in buckets), _p95(bucket.pace for bucket in buckets))


def slowness(ring: Ring, now_ms: int, seconds: int, since_ms: int, limits: Usual) -> tuple[Slowness, ...]:
    """How many calls of the last `seconds` were above the limits: to the first token, and per unit of answer.

    Never by total latency, which grows with the length of an answer. Nothing where there is no limit.
    """
    buckets = list(_seconds_after(ring, now_ms, seconds, since_ms))
    measures = (
        ("first tokens", limits.first_token_ms, [bucket.first_token for bucket in buckets]),
        ("answers", limits.pace_ms, [bucket.pace for bucket in buckets]),
    )
    return tuple(_slow(name, sketches, limit_ms) for name, limit_ms, sketches in measures if limit_ms is not None)


def _slow(measure: str, sketches: list[Sketch], limit_ms: float) -> Slowness:
    calls = sum(sum(sketch.values()) for sketch in sketches)
    return Slowness(measure, calls, sum(above(sketch, limit_ms) for sketch in sketches))


def _slices(ring: Ring, now_ms: int, seconds: int) -> Iterator[Bucket]:
    if seconds <= SECONDS:
        return (bucket for second, bucket in ring.seconds.items() if second > now_ms // 1000 - seconds)
    return (bucket for minute, bucket in ring.minutes.items() if minute > now_ms // 60_000 - seconds // 60)


def _seconds_after(ring: Ring, now_ms: int, seconds: int, since_ms: int) -> Iterator[Bucket]:
    oldest = max(now_ms // 1000 - seconds, since_ms // 1000)
    return (bucket for second, bucket in ring.seconds.items() if second > oldest)


def _merged(sketches: Iterable[Sketch]) -> Sketch:
    merged: Sketch = {}
    for sketch in sketches:
        merge(merged, sketch)
    return merged


def _quantiles(sketches: Iterable[Sketch], *shares: float) -> list[float]:
    return [round(value, 3) for value in quantiles(_merged(sketches), shares)]


def _p95(sketches: Iterable[Sketch]) -> float | None:
    merged = _merged(sketches)
    return quantiles(merged, (0.95,))[0] if sum(merged.values()) >= USUAL_CALLS_MIN else None


# --- Packing -----------------------------------------------------------------------------------------------------


def _packed(bucket: Bucket) -> bytes:
    if bucket.packed is None:
        sketches = [_gaps(sketch) for sketch in (bucket.latency, bucket.first_token, bucket.pace)]
        bucket.packed = orjson.dumps([bucket.calls, bucket.judged, bucket.failed, *sketches])
    return bucket.packed


def _unpacked(packed: list[Any]) -> Bucket:
    calls, judged, failed, latency, first_token, pace = packed
    return Bucket(calls, judged, failed, _from_gaps(latency), _from_gaps(first_token), _from_gaps(pace))


def _gaps(sketch: Sketch) -> list[int]:
    """A flat list of steps to the next index and counts: a step has fewer digits than an index."""
    flat: list[int] = []
    last = 0
    for index in sorted(sketch):
        flat += (index - last, sketch[index])
        last = index
    return flat


def _from_gaps(flat: list[int]) -> Sketch:
    sketch: Sketch = {}
    index = 0
    for gap, count in zip(flat[::2], flat[1::2], strict=True):
        index += gap
        sketch[index] = count
    return sketch

