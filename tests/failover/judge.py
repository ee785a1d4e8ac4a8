"""Reads a fail-over off the ledger: who touched the failing backend when, how it was probed, how it came back. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from schemas.ledger import Attempt, AttemptKind, AttemptPhase
from schemas.messages import Reason, Result

BIN_MS = 250
TOUCHING_SHARE_MAX = 0.01
REACTION_MS_MAX = 2_000
PROBES_MAX = 3
HURT = (Reason.PROVIDERS_FAILED, Reason.DEADLINE_PASSED, Reason.NO_TIME_LEFT, Reason.NO_ABLE_MODEL)
"""Reasons of a failed request that the provider's outage may have caused; the gate's doubts are not among them."""


@dataclass(frozen=True)
class Finding:
    """One promise, the figure, its bound, and whether it holds."""

    promise: str
    figure: str
    bound: str
    holds: bool


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


def probes_before_return(attempts: Sequence[Attempt], backend: str, healed_ms: int) -> int:
    """Probes that found the backend well, made before its first ordinary call after it healed."""
    calls = [a for a in attempts if a.phase is AttemptPhase.STARTED and a.backend == backend and a.started_ms >= healed_ms]
    ordinary = [a.started_ms for a in calls if a.kind is not AttemptKind.PROBE]
    until_ms = min(ordinary, default=healed_ms + 3_600_000)
    return sum(a.kind is AttemptKind.PROBE and a.started_ms <= until_ms for a in calls)


def shares(attempts: Sequence[Attempt], backend: str, from_ms: int, to_ms: int, bin_ms: int = 1_000) -> list[float]:
    """The backend's share of ordinary calls, bin by bin."""
    calls = [a for a in attempts if a.phase is AttemptPhase.STARTED and a.kind is not AttemptKind.PROBE]
    found = []
    for start_ms in range(from_ms, to_ms, bin_ms):
        inside = [a for a in calls if start_ms <= a.started_ms < start_ms + bin_ms]
        found.append(sum(a.backend == backend for a in inside) / len(inside) if inside else 0.0)
    return found


def _ramp(rising: Sequence[float], usual_share: float) -> Finding:
    """The median of five seconds counts, and not the very last one: it may hold a handful of calls."""
    promise, bound = "it ramps up: first and last seconds' share of its usual one", "< 60 % → ≥ 70 %"
    if not rising or not usual_share:
        return Finding(promise, "never came back", bound, False)
    first, last = rising[0] / usual_share, median(rising[-6:-1] or rising) / usual_share
    return Finding(promise, f"{first:.0%} → {last:.0%}", bound, first < 0.6 and last >= 0.7)


def judge(
    attempts: Sequence[Attempt], results: Sequence[Result], sent: int, backend: str, broke_ms: int, healed_ms: int, end_ms: int
) -> list[Finding]:
    """Everything that a fail-over promises."""
    reaction = reaction_ms(attempts, backend, broke_ms, healed_ms)
    probes = probes_before_return(attempts, backend, healed_ms)
    back = shares(attempts, backend, healed_ms, end_ms)
    usual = shares(attempts, backend, broke_ms - 4_000, broke_ms)
    usual_share = sum(usual) / max(len(usual), 1)
    rising = [share for share in back if share > 0]
    ids = {result.request_id for result in results}
    hurt = sum(result.reason in HURT for result in results)
    return [
        Finding("from the first failure to < 1 % of requests touching it", f"{reaction} ms", f"≤ {REACTION_MS_MAX} ms",
                reaction is not None and reaction <= REACTION_MS_MAX),
        Finding("probes of the recovered backend before it takes traffic", str(probes), f"1 … {PROBES_MAX}",
                1 <= probes <= PROBES_MAX),
        _ramp(rising, usual_share),
        Finding("requests with exactly one result", f"{len(ids)} of {sent}", "all", len(ids) == sent == len(results)),
        Finding("requests that the failing backend cost their answer", str(hurt), "0", hurt == 0),
    ]
