"""What to do next with a plan: call a backend, wait, or finish. Pure: no clock, no I/O, no randomness of its own.

`main.py` performs the step, appends the finished attempt and asks again. Nothing here knows how a call is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from schemas.config import Prices
from schemas.ledger import Attempt, AttemptKind, FailureClass
from schemas.messages import Candidate, Failure, Plan, Reason
from services.executor.failures import FAILURES, Rules
from services.executor.reply import Reply
from shared.catalogue import cost_microusd

STAGE = "executor"
RETRY_BASE_MS = 500            # full jitter, as the SDKs of the providers do; doubled per retry
RETRY_BASE_THROTTLED_MS = 1000
RETRY_MS_MAX = 8_000
FAIR_MS_UNKNOWN = 10_000       # patience with a backend that nobody has measured yet
FAIR_P50S = 4                  # a call cut after 4 x p50 is the backend's fault: p99 of its usual latency (lognormal, sigma 0.56)


@dataclass(frozen=True, slots=True)
class Option:
    """A backend of the plan that is still in the catalogue. `load` orders usable ones; the lowest is the least busy."""

    backend: str
    usable: bool
    load: float
    p50_ms: int | None
    timeout_ms: int
    context_tokens: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the next step. `spent_microusd` is the upper bound of everything the request has cost so far."""

    now_ms: int
    deadline_ms: int
    budget_microusd: int | None
    spent_microusd: int
    p50_unknown_ms: int = 50

    def affords(self, cost_max_microusd: int) -> bool:
        return self.budget_microusd is None or self.spent_microusd + cost_max_microusd <= self.budget_microusd


@dataclass(frozen=True, slots=True)
class Call:
    """Call this backend. `is_fair`: it is given as long as it may need, so that a timeout is its own fault."""

    candidate: Candidate
    backend: str
    kind: AttemptKind
    timeout_ms: int
    is_fair: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be called now: ask again when the fleet changed, at the latest at this time."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Finish:
    """No call can follow any more."""

    failure: Failure


Step = Call | Wait | Finish


@dataclass(frozen=True, slots=True)
class _Opening:
    """Backends of one candidate that may be called, each from a time on."""

    candidate: Candidate
    options: tuple[tuple[Option, int], ...]


def next_step(
    plan: Plan,
    attempts: Sequence[Attempt],
    options: Mapping[str, Option],
    limits: Limits,
    draw: Callable[[], float],
) -> Step:
    """The next step of a plan after these finished attempts. `draw` yields uniform numbers in [0, 1).

    Backends not yet tried come first, candidate by candidate; then those whose failure allows another try.
    Attempts whose executor died count for the budget, never against the plan.
    """
    if plan.failure is not None:
        return Finish(plan.failure)
    if limits.now_ms >= limits.deadline_ms:
        return _finish(Reason.DEADLINE_PASSED, "the deadline passed before a provider answered")
    failed = [attempt for attempt in attempts if attempt.failure not in (None, FailureClass.ORPHANED)]
    if failed and (_is_final(failed[-1]) or len(failed) >= plan.attempts_max):
        return _gave_up(failed)
    openings = _fresh(plan, failed, options) if not failed else _chain(plan, failed, options)
    return _first_possible(plan, attempts, failed, openings, limits, draw)


def _is_final(attempt: Attempt) -> bool:
    rules = _rules(attempt)
    return not rules.retry_here and not rules.fail_over


def _rules(attempt: Attempt) -> Rules:
    return FAILURES[attempt.failure or FailureClass.UNKNOWN]


def _chain(plan: Plan, failed: Sequence[Attempt], options: Mapping[str, Option]) -> Iterator[_Opening]:
    yield from _fresh(plan, failed, options)
    yield from _again(plan, failed, options)


def _fresh(plan: Plan, failed: Sequence[Attempt], options: Mapping[str, Option]) -> Iterator[_Opening]:
    """Backends that have not failed this plan, in candidates whose window is bigger than any that was too small."""
    tried = {attempt.backend for attempt in failed}
    too_small = max(
        (
            options[attempt.backend].context_tokens
            for attempt in failed
            if _rules(attempt).wants_bigger_window and attempt.backend in options
        ),
        default=0,
    )
    for candidate in plan.candidates:
        known = (options[name] for name in candidate.backends if name in options and name not in tried)
        yield _Opening(candidate, tuple((option, 0) for option in known if option.context_tokens > too_small))


def _again(plan: Plan, failed: Sequence[Attempt], options: Mapping[str, Option]) -> Iterator[_Opening]:
    """Backends that failed, but in a way that may pass: each after a pause."""
    failures: dict[str, list[Attempt]] = {}
    for attempt in failed:
        failures.setdefault(attempt.backend, []).append(attempt)
    for candidate in plan.candidates:
        yield _Opening(
            candidate,
            tuple(
                (options[name], _retry_at_ms(failures[name]))
                for name in candidate.backends
                if name in options and name in failures and len(failures[name]) <= _rules(failures[name][-1]).retry_here
            ),
        )


def _retry_at_ms(failures: Sequence[Attempt]) -> int:
    """Full jitter, drawn from the attempt's id, so that asking twice gives the same time."""
    last = failures[-1]
    base_ms = RETRY_BASE_THROTTLED_MS if last.failure is FailureClass.RATE_LIMITED else RETRY_BASE_MS
    pause_ms = min(RETRY_MS_MAX, base_ms << len(failures) - 1)
    return (last.finished_ms or last.started_ms) + int(pause_ms * fraction_of(last.attempt_id))


def fraction_of(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, evenly spread."""
    return crc32(text.encode()) / 4294967296.0


def _first_possible(
    plan: Plan,
    attempts: Sequence[Attempt],
    failed: Sequence[Attempt],
    openings: Iterator[_Opening],
    limits: Limits,
    draw: Callable[[], float],
) -> Step:
    wait_until_ms = late_by = over_budget = 0
    for opening in openings:
        if opening.options and not limits.affords(opening.candidate.cost_max_microusd):
            over_budget += 1
            continue
        ready = []
        for option, from_ms in opening.options:
            if not _has_time(option, max(from_ms, limits.now_ms), limits):
                late_by += 1
            elif from_ms > limits.now_ms or not option.usable:
                until_ms = from_ms if from_ms > limits.now_ms else limits.deadline_ms
                wait_until_ms = min(wait_until_ms or until_ms, until_ms)
            else:
                ready.append(option)
        if ready:
            return _call(plan, attempts, opening.candidate, choose(ready, draw), limits)
    if wait_until_ms:
        return Wait(wait_until_ms)
    if over_budget:
        return _finish(Reason.OVER_BUDGET, "another call could cost more than the budget has left; raise max_cost_usd")
    if late_by:
        return _finish(Reason.NO_TIME_LEFT, "less time is left than a provider usually takes; allow a longer deadline_ms")
    return _gave_up(failed)


def _has_time(option: Option, at_ms: int, limits: Limits) -> bool:
    usual_ms = limits.p50_unknown_ms if option.p50_ms is None else option.p50_ms
    return limits.deadline_ms - at_ms >= usual_ms


def choose(ready: Sequence[Option], draw: Callable[[], float]) -> Option:
    """A probe if one is due, else the less loaded of two drawn at random: no herding on one favourite."""
    if len(ready) == 1:
        return ready[0]
    for option in ready:
        if option.probe:
            return option
    first = int(draw() * len(ready))
    second = (first + 1 + int(draw() * (len(ready) - 1))) % len(ready)
    return ready[first] if ready[first].load <= ready[second].load else ready[second]


def _call(
    plan: Plan, attempts: Sequence[Attempt], candidate: Candidate, option: Option, limits: Limits
) -> Call:
    granted_ms = min(plan.attempt_timeout_ms, option.timeout_ms)
    timeout_ms = min(granted_ms, limits.deadline_ms - limits.now_ms)
    fair_ms = FAIR_MS_UNKNOWN if option.p50_ms is None else FAIR_P50S * option.p50_ms
    is_fair = option.probe or timeout_ms >= min(granted_ms, fair_ms)
    return Call(candidate, option.backend, _kind(plan, attempts, option), timeout_ms, is_fair)


def _kind(plan: Plan, attempts: Sequence[Attempt], option: Option) -> AttemptKind:
    if option.probe:
        return AttemptKind.PROBE
    if not attempts:
        return AttemptKind.ESCALATION if plan.number else AttemptKind.PRIMARY
    if any(attempt.backend == option.backend for attempt in attempts):
        return AttemptKind.RETRY
    return AttemptKind.FAILOVER


def _gave_up(failed: Sequence[Attempt]) -> Finish:
    if not failed:
        return _finish(Reason.PROVIDERS_FAILED, "no backend of the plan is in the catalogue any more")
    story = ", ".join(f"{attempt.backend} {attempt.failure}" for attempt in failed)
    return _finish(_rules(failed[-1]).reason, f"attempts: {story}")


def _finish(reason: Reason, message: str) -> Finish:
    return Finish(Failure(reason=reason, stage=STAGE, message=message))


def counts_for_circuit(reply: Reply, call: Call) -> bool:
    """Whether the backend is to blame. A caller who had no patience never trips a circuit."""
    if reply.failure is None or (reply.failure is FailureClass.TIMEOUT and not call.is_fair):
        return False
    return FAILURES[reply.failure].counts_for_circuit


def cost_of(reply: Reply, prices: Prices) -> int | None:
    """Micro-USD of a call, rounded once; None when nobody can tell: then it lies within 0 and the candidate's maximum.

    Without a usage only what surely made no tokens is free: no request sent, or an error that providers do not bill.
    """
    if reply.usage is not None and not reply.usage.estimated:
        usage = reply.usage
        return cost_microusd(prices, usage.tokens_in, usage.tokens_out, usage.tokens_cached)
    if not reply.sent:
        return 0
    if reply.failure is None or reply.status in (0, 200) or FAILURES[reply.failure].maybe_billed:
        return None
    return 0


def cost_upper_microusd(attempt: Attempt) -> int:
    """The most this attempt may have cost."""
    return attempt.cost_microusd if attempt.cost_known else max(attempt.cost_microusd, attempt.cost_max_microusd)
