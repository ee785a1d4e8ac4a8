"""The reporter's side of a window: what an executor gathers about one backend until it reports it. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from schemas.fleet import Gate, Observation, RateLimits
from schemas.ledger import FailureClass, Usage
from shared.sketch import Sketch, add, pace_ms
from shared.windows import NO_PROBES, Probes


class Seen(NamedTuple):
    """One finished call. `counts`: whether a failure of it counts for the circuit; the executor's table decides.

    A call that began before the circuit last closed tells of the outage that is over: its failure must not
    count. Only the executor can know, an observation has one time for all its calls.
    """

    latency_ms: float
    failure: FailureClass | None
    counts: bool
    usage: Usage | None = None
    cost_microusd: int = 0
    first_token_ms: float | None = None      # streams only


@dataclass(slots=True)
class _Gathered:
    calls: int = 0
    failures: Counter[FailureClass] = field(default_factory=Counter)
    other_failures: Counter[FailureClass] = field(default_factory=Counter)
    run: int = 0
    refusals: int = 0
    latency: Sketch = field(default_factory=dict)
    first_token: Sketch = field(default_factory=dict)
    pace: Sketch = field(default_factory=dict)
    probes: Probes = NO_PROBES
    gate: Gate | None = None
    limits: RateLimits | None = None
    hedges: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_microusd: int = 0


_NOTHING = _Gathered()


class Delta:
    """Mutable; one per backend and reporter. Only calls that succeeded are in the sketches."""

    __slots__ = ("_now",)

    def __init__(self) -> None:
        self._now = _Gathered()

    def record(self, seen: Seen) -> None:
        """Count a call. A failure that does not count for the circuit does not end a row of hard ones."""
        now = self._now
        now.calls += 1
        now.cost_microusd += seen.cost_microusd
        if seen.usage is not None:
            now.tokens_in += seen.usage.tokens_in
            now.tokens_out += seen.usage.tokens_out
        if seen.failure is None:
            self._succeeded(seen)
        elif seen.counts:
            now.failures[seen.failure] += 1
            now.run += 1
        else:
            now.other_failures[seen.failure] += 1

    def _succeeded(self, seen: Seen) -> None:
        now = self._now
        now.run = now.refusals = 0
        add(now.latency, seen.latency_ms)
        if seen.first_token_ms is not None:
            add(now.first_token, seen.first_token_ms)
        if seen.usage is not None:
            add(now.pace, pace_ms(seen.latency_ms, seen.usage.tokens_out))

    def record_probe(self, epoch: int, passed: bool) -> None:
        """Count the result of a half-open probe, beside `record` of its call. Results of an older epoch are dropped."""
        now = self._now
        known = now.probes if epoch == now.probes.epoch else Probes(epoch)
        if epoch >= now.probes.epoch:
            now.probes = Probes(epoch, known.passed + passed, known.failed + (not passed))

    def gated(self, gate: Gate) -> None:
        """The provider asked to be left alone. The later gate wins; `until_ms` 0: it did not say until when."""
        known = self._now.gate
        if known is None or (gate.until_ms or inf) > (known.until_ms or inf):
            self._now.gate = gate

    def limited(self, limits: RateLimits) -> None:
        """The provider said what it allows."""
        self._now.limits = limits

    def refused(self) -> None:
        """The provider refused the credential, beside `record` of the call. A success ends the row."""
        self._now.refusals += 1

    def hedged(self) -> None:
        """A call was made a second time, here."""
        self._now.hedges += 1

    def take(self, backend: str, reporter: str, sequence: int, at_ms: int, in_flight: int = 0) -> Observation | None:
        """What was gathered since the last take, or None when that is nothing (then `sequence` is not used up)."""
        now, self._now = self._now, _Gathered()
        if now == _NOTHING:
            return None
        return Observation(
            backend=backend,
            reporter=reporter,
            sequence=sequence,
            at_ms=at_ms,
            calls=now.calls,
            failures=dict(now.failures),
            other_failures=dict(now.other_failures),
            consecutive_failures=now.run,
            probes_ok=now.probes.passed,
            probes_failed=now.probes.failed,
            probe_epoch=now.probes.epoch,
            latency_sketch=now.latency,
            first_token_sketch=now.first_token,
            pace_sketch=now.pace,
            refused=now.refusals,
            gate=now.gate,
            limits=now.limits,
            in_flight=in_flight,
            hedges=now.hedges,
            tokens_in=now.tokens_in,
            tokens_out=now.tokens_out,
            cost_microusd=now.cost_microusd,
        )
