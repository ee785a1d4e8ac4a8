"""Reads a fail-over off the provider's log of calls, the ledger, the fleet's entries and the results. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.fleet import Circuit, FleetEntry, Transition
from schemas.ledger import Attempt, AttemptKind, AttemptPhase
from services.simulator.calls import CallLine
from shared.circuit import CircuitRules
from tests.support.findings import Finding
from tests.support.traffic import Asked

BIN_MS = 250
WINDOW_MS = 2_000
"""Of shares. A second, 100 calls, is too short: chance alone moves a half by a fifth."""

USUAL_MS = 6_000
"""What a backend had so long before it failed is its usual share."""

SETTLED_MS = 5_000
TOUCHING_SHARE_MAX = 0.01
REACTION_MS_MAX = 2_000
CALLS_PER_ROUTED_MAX = 1.2
CALLS_PER_REQUEST_MAX = 2.2
SUCCESS_MIN = 0.99
CHANCE = 0.1                # of the usual share: what a step of the ramp may seem to fall
OVERSHOOT_MAX = 1.15
BACK_SHARE = 0.9
BACK_MS_MAX = 5_000
PROBING_MS_MAX = 2_000


@dataclass(frozen=True)
class Outage:
    """One backend of one provider fails from `broke_ms` to `healed_ms`; what is seen until `end_ms` is judged."""

    backend: str
    provider: str
    broke_ms: int
    healed_ms: int
    end_ms: int
    ramp_ms: int


@dataclass(frozen=True)
class Seen:
    """Everything that a run left behind."""

    calls: Sequence[CallLine]
    attempts: Sequence[Attempt]
    entries: Sequence[FleetEntry]
    asked: Sequence[Asked]


def judge(outage: Outage, seen: Seen) -> list[Finding]:
    """Everything that a fail-over promises."""
    return [_reaction(outage, seen.attempts), *_calls(outage, seen), *_success(outage, seen.asked), *_recovery(outage, seen)]


# --- While it is down --------------------------------------------------------------------------------------------


def reaction_ms(attempts: Sequence[Attempt], backend: str, from_ms: int, to_ms: int) -> int | None:
    """Milliseconds from the first failed call to the end of the last bin in which ≥ 1 % of calls touched the backend.

    Probes are the recovery's cost, not the failure's, and are judged on their own. None: it never failed in that time.
    """
    failed = [a.finished_ms for a in attempts if a.backend == backend and a.failure and a.finished_ms]
    first_ms = min((finished_ms for finished_ms in failed if finished_ms >= from_ms), default=None)
    if first_ms is None:
        return None
    calls = [a for a in attempts if a.phase is AttemptPhase.STARTED and first_ms <= a.started_ms < to_ms]
    last_ms = first_ms
    for start_ms in range(first_ms, to_ms, BIN_MS):
        inside = [a for a in calls if start_ms <= a.started_ms < start_ms + BIN_MS]
        touching = [a for a in inside if a.backend == backend and a.kind is not AttemptKind.PROBE]
        if inside and len(touching) >= TOUCHING_SHARE_MAX * len(inside):
            last_ms = max(a.started_ms for a in touching)
    return last_ms - first_ms


def _reaction(outage: Outage, attempts: Sequence[Attempt]) -> Finding:
    reaction = reaction_ms(attempts, outage.backend, outage.broke_ms, outage.healed_ms)
    return Finding("from the first failure to < 1 % of requests touching it", f"{reaction} ms", f"≤ {REACTION_MS_MAX} ms",
                   reaction is not None and reaction <= REACTION_MS_MAX)


def calls_per_request(outage: Outage, seen: Seen) -> tuple[list[int], list[int]]:
    """Of the requests routed to the backend while it was down: calls of it, and calls of anyone, one figure per request.

    A request is routed to it when its plan had it and it called it at least once, a probe included. Counted by the provider.
    """
    request_of = {attempt.attempt_id: attempt.request_id for attempt in seen.attempts}
    of_it: Counter[str] = Counter()
    of_anyone: Counter[str] = Counter()
    for call in seen.calls:
        request = request_of.get(call.attempt_id, call.attempt_id)
        of_anyone[request] += 1
        if call.provider == outage.provider and outage.broke_ms <= call.at_ms < outage.healed_ms:
            of_it[request] += 1
    return list(of_it.values()), [of_anyone[request] for request in of_it]


def _calls(outage: Outage, seen: Seen) -> Iterator[Finding]:
    of_it, of_anyone = calls_per_request(outage, seen)
    promises = (
        ("calls of it per request routed to it (that called it at least once)", of_it, CALLS_PER_ROUTED_MAX),
        ("calls of any provider per such request", of_anyone, CALLS_PER_REQUEST_MAX),
    )
    for promise, counts, bound in promises:
        mean = sum(counts) / max(len(counts), 1)
        yield Finding(promise, f"{mean:.2f} (most {max(counts, default=0)}) of {len(counts)}", f"≤ {bound}",
                      bool(counts) and mean <= bound)
    known = {attempt.attempt_id for attempt in seen.attempts}
    unknown = sum(call.attempt_id not in known for call in seen.calls)
    yield Finding("calls that the provider saw and the ledger does not have", str(unknown), "0", not unknown)


def success_by_second(asked: Sequence[Asked], from_ms: int, to_ms: int) -> list[float]:
    """The share of delivered requests among those due in each second."""
    shares = []
    for start_ms in range(from_ms, to_ms - 999, 1_000):
        due = [one for one in asked if start_ms <= one.due_ms < start_ms + 1_000]
        shares.append(sum(one.is_delivered for one in due) / len(due) if due else 1.0)
    return shares


def _success(outage: Outage, asked: Sequence[Asked]) -> Iterator[Finding]:
    shares = success_by_second(asked, outage.broke_ms, outage.end_ms)
    bad = [second for second, share in enumerate(shares) if share < SUCCESS_MIN]
    after_s = bad[-1] + 1 if bad else 0
    yield Finding("from the outage's start until every second has ≥ 99 % success", f"{after_s} s (worst {min(shares):.1%})",
                  f"≤ {SETTLED_MS // 1000} s", after_s * 1_000 <= SETTLED_MS)


# --- The way back ------------------------------------------------------------------------------------------------


def transitions(entries: Sequence[FleetEntry], backend: str) -> list[Transition]:
    """Every change of the backend's circuit or gate, as its entries tell."""
    found = {(one.at_ms, one.circuit, one.reason): one for entry in entries if entry.backend == backend for one in entry.history}
    return sorted(found.values(), key=lambda one: one.at_ms)


def probes_per_period(outage: Outage, seen: Seen) -> list[int]:
    """Calls that the provider saw in each half-open period; they are the whole fleet's."""
    changes = [one for one in transitions(seen.entries, outage.backend) if outage.broke_ms <= one.at_ms < outage.end_ms]
    ends_ms = [one.at_ms for one in changes[1:]] + [outage.end_ms]
    return [
        sum(call.provider == outage.provider and change.at_ms <= call.at_ms < end_ms for call in seen.calls)
        for change, end_ms in zip(changes, ends_ms, strict=True)
        if change.circuit is Circuit.HALF_OPEN
    ]


def share(attempts: Sequence[Attempt], backend: str, from_ms: int, to_ms: int) -> float:
    """The backend's part of the ordinary calls that began in that time."""
    inside = [
        a for a in attempts
        if a.phase is AttemptPhase.STARTED and a.kind is not AttemptKind.PROBE and from_ms <= a.started_ms < to_ms
    ]
    return sum(a.backend == backend for a in inside) / len(inside) if inside else 0.0


def _recovery(outage: Outage, seen: Seen) -> Iterator[Finding]:
    most = CircuitRules().probes
    probes = probes_per_period(outage, seen)
    yield Finding("probes of the whole fleet in each half-open period", ", ".join(map(str, probes)) or "no period",
                  f"1 … {most}", bool(probes) and all(1 <= count <= most for count in probes))
    closed_ms = next((one.at_ms for one in transitions(seen.entries, outage.backend)
                      if one.circuit is Circuit.CLOSED and outage.healed_ms <= one.at_ms < outage.end_ms), None)
    if closed_ms is None:
        yield Finding("it comes back", "never", "it does", False)
        return
    yield _closing(outage, seen, closed_ms)
    yield from _ramp(outage, seen.attempts, closed_ms)


def _closing(outage: Outage, seen: Seen, closed_ms: int) -> Finding:
    cooled_ms = max((entry.cooldown_until_ms for entry in seen.entries if entry.backend == outage.backend
                     and entry.circuit is Circuit.OPEN and entry.since_ms < closed_ms), default=0)
    waited_ms = closed_ms - max(outage.healed_ms, cooled_ms)
    return Finding("from well and cooled down to closed again", f"{waited_ms} ms", f"≤ {PROBING_MS_MAX} ms",
                   waited_ms <= PROBING_MS_MAX)


def _ramp(outage: Outage, attempts: Sequence[Attempt], closed_ms: int) -> Iterator[Finding]:
    usual = share(attempts, outage.backend, outage.broke_ms - USUAL_MS, outage.broke_ms)
    steps = steps_of_ramp(outage, attempts, closed_ms, usual)
    shown = " → ".join(f"{step:.0%}" for step in steps)
    yield Finding("share of its usual traffic in each step of the ramp, and after it", shown, "rising from < 50 %",
                  steps[0] < 0.5 and all(before <= after + CHANCE for before, after in pairwise(steps)) and steps[-1] > 0.5)
    ramped_ms = closed_ms + outage.ramp_ms
    ramping = _highest(outage, attempts, closed_ms, ramped_ms) / (usual or 1.0)
    yield Finding("while ramping, its highest share, of its usual one", f"{ramping:.0%}", f"≤ {OVERSHOOT_MAX:.0%}",
                  0 < ramping <= OVERSHOOT_MAX)
    after = _highest(outage, attempts, ramped_ms, min(ramped_ms + BACK_MS_MAX, outage.end_ms))
    before = _highest(outage, attempts, outage.broke_ms - USUAL_MS, outage.broke_ms)
    yield Finding("after it, its highest share", f"{after:.0%}, usually {before:.0%}",
                  f"≤ {OVERSHOOT_MAX:.0%} of that", 0 < after <= OVERSHOOT_MAX * before)
    back_ms = _back_ms(outage, attempts, closed_ms, BACK_SHARE * usual) if usual else None
    bound_ms = outage.ramp_ms + BACK_MS_MAX
    yield Finding(f"from closed to {BACK_SHARE:.0%} of its usual share", f"{back_ms} ms", f"≤ {bound_ms} ms",
                  back_ms is not None and back_ms <= bound_ms)


def _highest(outage: Outage, attempts: Sequence[Attempt], from_ms: int, to_ms: int) -> float:
    starts_ms = range(from_ms, to_ms - WINDOW_MS + 1, BIN_MS)
    return max((share(attempts, outage.backend, start_ms, start_ms + WINDOW_MS) for start_ms in starts_ms), default=0.0)


def _back_ms(outage: Outage, attempts: Sequence[Attempt], closed_ms: int, wanted: float) -> int | None:
    """From closed to the end of the first window with the wanted share."""
    for start_ms in range(closed_ms, outage.end_ms - WINDOW_MS + 1, BIN_MS):
        if share(attempts, outage.backend, start_ms, start_ms + WINDOW_MS) >= wanted:
            return start_ms + WINDOW_MS - closed_ms
    return None


def steps_of_ramp(outage: Outage, attempts: Sequence[Attempt], closed_ms: int, usual: float) -> list[float]:
    """Of its usual share: what it had in each step of the ramp, and from its end on."""
    count = len(CircuitRules().ramp_shares)
    bounds_ms = [closed_ms + outage.ramp_ms * step // count for step in range(count + 1)] + [outage.end_ms]
    return [
        share(attempts, outage.backend, start_ms, end_ms) / (usual or 1.0)
        for start_ms, end_ms in pairwise(bounds_ms)
    ]
