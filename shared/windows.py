"""Observations to rolling windows: mergeable log-bucket sketches in a ring of 60 seconds and 60 minutes per backend.

Pure: every time is passed in. A fold is by event time, so a replay rebuilds the same ring, and adds nothing twice.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from schemas.fleet import Observation, Window
from schemas.ledger import FailureClass, Usage

# --- Sketch: bucket index -> count -------------------------------------------------------------------------------
# Bucket i holds values in (gamma^(i-1), gamma^i]. Any estimate is within ACCURACY of the true value, merging and
# subtracting are exact (DDSketch, Masson et al. 2019).

Sketch = dict[int, int]

ACCURACY = 0.01
VALUE_MIN = 1e-3
"""Milliseconds; below it everything is one bucket. It keeps zero and negative durations out of the logarithm."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


def add(sketch: Sketch, value: float) -> None:
    """Count one value."""
    index = math.ceil(math.log(max(value, VALUE_MIN)) / _LOG_GAMMA)
    sketch[index] = sketch.get(index, 0) + 1


def merge(sketch: Sketch, other: Sketch) -> None:
    """Add what `other` counted."""
    for index, count in other.items():
        sketch[index] = sketch.get(index, 0) + count


def subtract(sketch: Sketch, other: Sketch) -> None:
    """Take back what was merged before. Raises ValueError when `other` was not part of it."""
    if any(sketch.get(index, 0) < count for index, count in other.items()):
        raise ValueError("subtract: the other sketch was never merged into this one")
    for index, count in other.items():
        sketch[index] -= count
        if not sketch[index]:
            del sketch[index]


def quantile(sketch: Sketch, share: float) -> float:
    """Nearest-rank quantile, `share` in [0, 1]; 0.0 of nothing."""
    return quantiles(sketch, (share,))[0]


def quantiles(sketch: Sketch, shares: Sequence[float]) -> list[float]:
    """Several quantiles in one pass; `shares` must rise."""
    ranks = [max(1, math.ceil(share * sum(sketch.values()))) for share in shares]
    found: list[float] = []
    counted = 0
    for index in sorted(sketch):
        counted += sketch[index]
        while len(found) < len(ranks) and counted >= ranks[len(found)]:
            found.append(2 * _GAMMA**index / (_GAMMA + 1))
    return found or [0.0] * len(ranks)


# --- Ring --------------------------------------------------------------------------------------------------------

SECONDS = 60
MINUTES = 60
REPORTER_SILENT_MS_MAX = 600_000
"""A reporter silent for longer is forgotten, so that restarts do not grow the ring."""

_VERSION = 1


@dataclass(slots=True)
class Bucket:
    """What was observed in one second or one minute. Only calls that succeeded are in the sketch."""

    calls: int = 0
    failures: dict[str, int] = field(default_factory=dict)          # those that count for the circuit
    other_failures: dict[str, int] = field(default_factory=dict)
    sketch: Sketch = field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    cost_microusd: int = 0

    def fold(self, seen: Observation) -> None:
        self.calls += seen.calls
        _count(self.failures, seen.failures)
        _count(self.other_failures, seen.other_failures)
        merge(self.sketch, seen.latency_sketch)
        self.tokens_in += seen.tokens_in
        self.tokens_out += seen.tokens_out
        self.cost_microusd += seen.cost_microusd


class Reporter(NamedTuple):
    """How far one executor's observations are folded in, and when it was last heard of."""

    sequence: int
    at_ms: int


class Run(NamedTuple):
    """Hard failures in a row, across reporters in the order their observations arrived, and when the row began."""

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


NO_RUN, NO_PROBES, NO_CALLS = Run(), Probes(), Health()


@dataclass(slots=True)
class Ring:
    """Everything remembered of one backend; buckets are keyed by epoch second and epoch minute."""

    seconds: dict[int, Bucket] = field(default_factory=dict)
    minutes: dict[int, Bucket] = field(default_factory=dict)
    reporters: dict[str, Reporter] = field(default_factory=dict)
    newest_ms: int = 0
    late: int = 0                   # observations older than the seconds of the ring when they came
    run: Run = NO_RUN
    probes: Probes = NO_PROBES

    def to_bytes(self) -> bytes:
        """One JSON object; sketches are flat lists of index, count, index, count …"""
        return orjson.dumps(
            {
                "version": _VERSION,
                "seconds": {second: _packed(bucket) for second, bucket in self.seconds.items()},
                "minutes": {minute: _packed(bucket) for minute, bucket in self.minutes.items()},
                "reporters": {name: list(reporter) for name, reporter in self.reporters.items()},
                "newest_ms": self.newest_ms,
                "late": self.late,
                "run": list(self.run),
                "probes": list(self.probes),
            },
            option=orjson.OPT_NON_STR_KEYS,
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Ring":
        """Raises ValueError for bytes that no version of this class wrote."""
        value: dict[str, Any] = orjson.loads(raw)
        if value.get("version") != _VERSION:
            raise ValueError(f"ring: version {value.get('version')!r} is not {_VERSION}; delete the monitor's changelog")
        return cls(
            seconds={int(second): _unpacked(packed) for second, packed in value["seconds"].items()},
            minutes={int(minute): _unpacked(packed) for minute, packed in value["minutes"].items()},
            reporters={name: Reporter(*reporter) for name, reporter in value["reporters"].items()},
            newest_ms=value["newest_ms"],
            late=value["late"],
            run=Run(*value["run"]),
            probes=Probes(*value["probes"]),
        )


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
    if seen.calls:
        _fold_calls(ring, seen, at_ms)
    if seen.probes_ok or seen.probes_failed:
        _fold_probes(ring, seen)
    _forget(ring)
    return True


def _fold_calls(ring: Ring, seen: Observation, at_ms: int) -> None:
    second, minute = at_ms // 1000, at_ms // 60_000
    is_late = second <= ring.newest_ms // 1000 - SECONDS
    if is_late:
        ring.late += 1
    else:
        ring.seconds.setdefault(second, Bucket()).fold(seen)
        ring.run = _run(ring.run, seen, at_ms)
    if minute > ring.newest_ms // 60_000 - MINUTES:
        ring.minutes.setdefault(minute, Bucket()).fold(seen)


def _run(run: Run, seen: Observation, at_ms: int) -> Run:
    """A row grows only by observations in which every judged call failed; any success in one starts it anew."""
    judged = seen.calls - sum(seen.other_failures.values())
    if judged <= 0:
        return run
    if seen.consecutive_failures >= judged and run.failures:
        return Run(run.failures + judged, run.since_ms)
    return Run(seen.consecutive_failures, at_ms)


def _fold_probes(ring: Ring, seen: Observation) -> None:
    """Results of an epoch that is over are of no use to anybody."""
    known = ring.probes if seen.probe_epoch == ring.probes.epoch else Probes(seen.probe_epoch)
    if seen.probe_epoch >= ring.probes.epoch:
        ring.probes = Probes(known.epoch, known.passed + seen.probes_ok, known.failed + seen.probes_failed)


def _forget(ring: Ring) -> None:
    oldest_second, oldest_minute = ring.newest_ms // 1000 - SECONDS, ring.newest_ms // 60_000 - MINUTES
    for second in [second for second in ring.seconds if second <= oldest_second]:
        del ring.seconds[second]
    for minute in [minute for minute in ring.minutes if minute <= oldest_minute]:
        del ring.minutes[minute]
    silent_ms = ring.newest_ms - REPORTER_SILENT_MS_MAX
    for name in [name for name, reporter in ring.reporters.items() if reporter.at_ms < silent_ms]:
        del ring.reporters[name]


# --- Reading a ring ----------------------------------------------------------------------------------------------
# Up to 60 s a window is made of whole seconds, above of whole minutes; the running one counts, so a window covers at
# most its length, and at least one slice less. It is open towards the future: a reporter's clock may be ahead of ours.


def window(ring: Ring, now_ms: int, seconds: int) -> Window:
    """Figures of the last `seconds` (at most an hour); `error_rate` is the failed share of the judged calls."""
    sketch: Sketch = {}
    calls = judged = failed = 0
    for bucket in _slices(ring, now_ms, seconds):
        merge(sketch, bucket.sketch)
        calls += bucket.calls
        judged += _judged(bucket)
        failed += sum(bucket.failures.values())
    p50_ms, p95_ms, p99_ms = (round(value, 3) for value in quantiles(sketch, (0.50, 0.95, 0.99)))
    return Window(
        seconds=seconds,
        calls=calls,
        failed=failed,
        error_rate=round(failed / judged, 6) if judged else 0.0,
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
    )


def health(ring: Ring, now_ms: int, seconds: int, since_ms: int = 0) -> Health:
    """Judged and failed calls of the last `seconds` (at most 60), none from before the second after `since_ms`."""
    oldest = max(now_ms // 1000 - seconds, since_ms // 1000)
    judged = failed = 0
    for second, bucket in ring.seconds.items():
        if second > oldest:
            judged += _judged(bucket)
            failed += sum(bucket.failures.values())
    return Health(judged, failed)


def _slices(ring: Ring, now_ms: int, seconds: int) -> Iterable[Bucket]:
    if seconds <= SECONDS:
        return (bucket for second, bucket in ring.seconds.items() if second > now_ms // 1000 - seconds)
    return (bucket for minute, bucket in ring.minutes.items() if minute > now_ms // 60_000 - seconds // 60)


def _judged(bucket: Bucket) -> int:
    """Calls that succeeded or failed by the backend's fault: a caller's bad request says nothing about the backend."""
    return bucket.calls - sum(bucket.other_failures.values())


def _count(into: dict[str, int], seen: dict[FailureClass, int]) -> None:
    for name, count in seen.items():
        into[name.value] = into.get(name.value, 0) + count


def _packed(bucket: Bucket) -> list[Any]:
    flat = [number for pair in bucket.sketch.items() for number in pair]
    return [
        bucket.calls, bucket.failures, bucket.other_failures, flat,
        bucket.tokens_in, bucket.tokens_out, bucket.cost_microusd,
    ]  # fmt: skip


def _unpacked(packed: list[Any]) -> Bucket:
    calls, failures, other_failures, flat, tokens_in, tokens_out, cost_microusd = packed
    sketch = dict(zip(flat[::2], flat[1::2], strict=True))
    return Bucket(calls, failures, other_failures, sketch, tokens_in, tokens_out, cost_microusd)


# --- The reporter's side -----------------------------------------------------------------------------------------


class Delta:
    """What an executor gathers about one backend until it reports it. Mutable; one per backend."""

    __slots__ = ("_bucket", "_probes", "_run")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._bucket = Bucket()
        self._probes = NO_PROBES
        self._run = 0

    def record(
        self,
        latency_ms: float,
        failure: FailureClass | None,
        counts_for_circuit: bool,
        usage: Usage | None,
        cost_microusd: int,
    ) -> None:
        """Count one finished call. A failure that does not count for the circuit does not end a row of hard ones."""
        bucket = self._bucket
        bucket.calls += 1
        if failure is None:
            add(bucket.sketch, latency_ms)
            self._run = 0
        elif counts_for_circuit:
            bucket.failures[failure.value] = bucket.failures.get(failure.value, 0) + 1
            self._run += 1
        else:
            bucket.other_failures[failure.value] = bucket.other_failures.get(failure.value, 0) + 1
        if usage is not None:
            bucket.tokens_in += usage.tokens_in
            bucket.tokens_out += usage.tokens_out
        bucket.cost_microusd += cost_microusd

    def record_probe(self, epoch: int, passed: bool) -> None:
        """Count the result of a half-open probe, beside `record` of its call. Results of an older epoch are dropped."""
        known = self._probes if epoch == self._probes.epoch else Probes(epoch)
        if epoch >= self._probes.epoch:
            self._probes = Probes(epoch, known.passed + passed, known.failed + (not passed))

    def take(self, backend: str, reporter: str, sequence: int, at_ms: int) -> Observation | None:
        """What was gathered since the last take, or None when that is nothing (then `sequence` is not used up)."""
        bucket, probes, run = self._bucket, self._probes, self._run
        if not bucket.calls and not probes.passed and not probes.failed:
            return None
        self._clear()
        return Observation(
            backend=backend,
            reporter=reporter,
            sequence=sequence,
            at_ms=at_ms,
            calls=bucket.calls,
            failures={FailureClass(name): count for name, count in bucket.failures.items()},
            other_failures={FailureClass(name): count for name, count in bucket.other_failures.items()},
            consecutive_failures=run,
            probes_ok=probes.passed,
            probes_failed=probes.failed,
            probe_epoch=probes.epoch,
            latency_sketch=bucket.sketch,
            tokens_in=bucket.tokens_in,
            tokens_out=bucket.tokens_out,
            cost_microusd=bucket.cost_microusd,
        )
