"""What to do next with a plan: call a backend, wait, or finish. Pure: no clock, no I/O, no randomness of its own.

`walk.py` performs the step, appends the finished attempt and asks again. Nothing here knows how a call is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from schemas.ledger import Attempt, AttemptKind, FailureClass
from schemas.messages import Candidate, Failure, Plan, Reason
from services.executor.failures import FAILURES, Rules

STAGE = "executor"
_NOT_HELD = (None, FailureClass.ORPHANED, FailureClass.CANCELLED)
RETRY_BASE_MS = 500            # full jitter, as the SDKs of the providers do; doubled per retry
RETRY_BASE_THROTTLED_MS = 1000
RETRY_MS_MAX = 8_000
FAIR_MS_UNKNOWN = 10_000       # patience with a backend that nobody has measured yet
FAIR_P50S = 4                  # a call cut after 4 x p50 is the backend's fault: p99 of its usual latency (lognormal, sigma 0.56)
RESERVE_SHARE = 1 / 3          # of the time left, kept for another backend while there is one: a silent call must not take it all
CROWD_MARGIN = 1.15            # over p95, so that of the calls made in a crowd some 3 % end too late
EXPLORE_SHARE = 0.02           # of the choices are by chance, so that no backend's figures go stale


class Option(NamedTuple):
    """A backend of the plan that is still in the catalogue. `load` orders usable ones; the lowest is the least busy.

    `usable`: its circuit lets this attempt pass. `full`: it does, but there is no free place. `ready_at_ms`: a gate or a
    rate limit is in force until then. `retryable`: the retry budget allows asking it again after it failed.
    """

    backend: str
    usable: bool
    load: float
    p50_ms: int | None
    timeout_ms: int
    context_tokens: int
    p95_ms: int | None = None
    probe: bool = False
    full: bool = False
    ready_at_ms: int = 0
    retryable: bool = True
    is_near: bool = True            # in the region the policy prefers, or the policy prefers none


class Limits(NamedTuple):
    """What bounds the next step. `spent_microusd` is the upper bound of everything the request has cost so far.

    `may_overflow`: whether a model that has no free place is passed over for the next one, which may cost more.
    `has_queued`: the plan has waited in a crowd, so a call must fit even if it is slow (a little over p95, not p50): under
    overload a bet on the median would waste every second call.
    """

    now_ms: int
    deadline_ms: int
    budget_microusd: int | None
    spent_microusd: int
    may_overflow: bool = True
    has_queued: bool = False
    session: str = ""
    p50_unknown_ms: int = 50

    def affords(self, cost_max_microusd: int) -> bool:
        return self.budget_microusd is None or self.spent_microusd + cost_max_microusd <= self.budget_microusd


class Call(NamedTuple):
    """Call this backend. `is_fair`: it is given as long as it may need, so that a timeout is its own fault."""

    candidate: Candidate
    backend: str
    kind: AttemptKind
    timeout_ms: int
    is_fair: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be called now: wait until one of `backends` has a place, at the latest until `until_ms`; then ask again.

    After it even a usual call would end too late, or a pause before a retry is over.
    """

    backends: tuple[str, ...]
    until_ms: int


@dataclass(frozen=True, slots=True)
class Finish:
    """No call can follow any more."""

    failure: Failure


Step = Call | Wait | Finish


class _Opening(NamedTuple):
    """Backends of one candidate that may be called, each from a time on."""

    candidate: Candidate
    options: tuple[tuple[Option, int], ...]


def next_step(
    plan: Plan, attempts: Sequence[Attempt], options: Mapping[str, Option], limits: Limits, draw: Callable[[], float]
) -> Step:
    """The next step of a plan. `attempts` are its finished ones, oldest first; `draw` yields numbers in [0, 1).

    Order: the fallbacks configured for this very failure, then backends that have not failed this plan, candidate by
    candidate, then those that failed in a way that may pass, if the retry budget allows. Nothing starts that cannot end
    before the deadline or that the budget cannot bear.
    """
    if plan.failure is not None:
        return Finish(plan.failure)
    if limits.now_ms >= limits.deadline_ms:
        return _finish(Reason.DEADLINE_PASSED, "the deadline passed before a provider answered")
    failed = failed_attempts(attempts)
    if failed and (_is_final(plan, failed) or len(failed) >= plan.attempts_max):
        return _gave_up(failed)
    openings = _chain(plan, failed, options) if failed else _fresh(plan.candidates, failed, options)
    step = _first_possible(plan, attempts, failed, openings, options, limits, draw)
    if failed and _rules(failed[-1]).wants_other_model and not isinstance(step, Call):
        return _gave_up(failed)   # most likely the request is wrong: that is no reason to wait, and the caller should know
    return step


def hedge_step(
    plan: Plan,
    attempts: Sequence[Attempt],
    running: Call,
    options: Mapping[str, Option],
    limits: Limits,
    draw: Callable[[], float],
) -> Call | None:
    """A second call beside one that takes unusually long: another backend, free now, within every limit; else None.

    `limits.spent_microusd` must include the running call's upper bound. Never a probe, never the same backend.
    """
    failed = failed_attempts(attempts)
    if len(failed) + 2 > plan.attempts_max:
        return None
    for opening in _fresh(plan.candidates, failed, options):
        if not limits.affords(opening.candidate.cost_max_microusd):
            continue
        ready = [
            option for option, _ in opening.options
            if option.backend != running.backend and not option.probe and _is_ready(option, limits)
        ]
        if ready:
            chosen = choose(ready, limits.session, draw)
            return _call(opening.candidate, chosen, AttemptKind.HEDGE, plan, options, (running.backend,), limits)
    return None


def failed_attempts(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those that are held against the plan: not one whose executor died, nor one that was given up or never sent."""
    return [attempt for attempt in attempts if attempt.failure not in _NOT_HELD]


def _rules(attempt: Attempt) -> Rules:
    return FAILURES[attempt.failure or FailureClass.UNKNOWN]


def _is_final(plan: Plan, failed: Sequence[Attempt]) -> bool:
    rules = _rules(failed[-1])
    if rules.wants_other_model:
        return len(_refusing(failed)) > 1
    return not rules.retry_here and not rules.fail_over and not _configured(plan, failed[-1])


def _refusing(failed: Sequence[Attempt]) -> set[str]:
    """The models that refused the request as it is; their other backends would, too."""
    return {attempt.model for attempt in failed if _rules(attempt).wants_other_model}


def _configured(plan: Plan, attempt: Attempt) -> tuple[Candidate, ...]:
    """The fallbacks that somebody configured for this model failing in this way."""
    return next(
        (
            fallback.candidates
            for fallback in plan.fallbacks
            if fallback.model == attempt.model and fallback.failure is attempt.failure
        ),
        (),
    )


# --- What could be called, in order ------------------------------------------------------------------------------


def _chain(plan: Plan, failed: Sequence[Attempt], options: Mapping[str, Option]) -> Iterator[_Opening]:
    for attempt in reversed(failed):
        if configured := _configured(plan, attempt):
            yield from _fresh(configured, failed, options)
            break
    if FAILURES[failed[-1].failure or FailureClass.UNKNOWN].fail_over:
        yield from _fresh(plan.candidates, failed, options)
    yield from _again(plan, failed, options)


def _fresh(
    candidates: Sequence[Candidate], failed: Sequence[Attempt], options: Mapping[str, Option]
) -> Iterator[_Opening]:
    """Backends that have not failed this plan, of models that did not refuse it, their window bigger than any too small."""
    tried, refusing = {attempt.backend for attempt in failed}, _refusing(failed)
    too_small = max(
        (
            options[attempt.backend].context_tokens
            for attempt in failed
            if _rules(attempt).wants_bigger_window and attempt.backend in options
        ),
        default=0,
    ) if failed else 0
    for candidate in candidates:
        if candidate.model in refusing:
            continue
        known = filter(None, [options.get(name) for name in candidate.backends if name not in tried])
        yield _Opening(candidate, tuple([(option, 0) for option in known if option.context_tokens > too_small]))


def _again(plan: Plan, failed: Sequence[Attempt], options: Mapping[str, Option]) -> Iterator[_Opening]:
    """Backends that failed, but in a way that may pass: each after a pause, and at the cost of retry tokens."""
    failures: dict[str, list[Attempt]] = {}
    for attempt in failed:
        failures.setdefault(attempt.backend, []).append(attempt)
    for candidate in plan.candidates:
        yield _Opening(
            candidate,
            tuple(
                (options[name], _retry_at_ms(failures[name]))
                for name in candidate.backends
                if name in options and name in failures and options[name].retryable
                and len(failures[name]) <= _rules(failures[name][-1]).retry_here
            ),
        )


def _retry_at_ms(failures: Sequence[Attempt]) -> int:
    """Full jitter, drawn from the attempt's id, so that asking twice gives the same time; not before the provider allows."""
    last = failures[-1]
    base_ms = RETRY_BASE_THROTTLED_MS if last.failure is FailureClass.RATE_LIMITED else RETRY_BASE_MS
    pause_ms = int(min(RETRY_MS_MAX, base_ms << len(failures) - 1) * fraction_of(last.attempt_id))
    return (last.finished_ms or last.started_ms) + max(pause_ms, last.wait_ms or 0)


def fraction_of(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, evenly spread."""
    return crc32(text.encode()) / 4294967296.0


# --- The first that is possible ----------------------------------------------------------------------------------


def _first_possible(
    plan: Plan,
    attempts: Sequence[Attempt],
    failed: Sequence[Attempt],
    openings: Iterator[_Opening],
    options: Mapping[str, Option],
    limits: Limits,
    draw: Callable[[], float],
) -> Step:
    waiting: dict[str, None] = {}
    wait_until_ms, latest_ms = limits.deadline_ms, 0
    late = over_budget = 0
    for opening in openings:
        if opening.options and not limits.affords(opening.candidate.cost_max_microusd):
            over_budget += 1
            continue
        ready, is_crowded = [], False
        for option, pause_until_ms in opening.options:
            from_ms = max(option.ready_at_ms, pause_until_ms)
            if not _has_time(option, max(from_ms, limits.now_ms), limits):
                late += 1
            elif pause_until_ms > limits.now_ms:
                wait_until_ms = min(wait_until_ms, from_ms)
                waiting.setdefault("")
            elif _is_ready(option, limits):
                ready.append(option)
            else:
                waiting[option.backend] = None
                latest_ms = max(latest_ms, limits.deadline_ms - _usual_ms(option, limits, is_slow=True))
                is_crowded = is_crowded or (option.full and option.usable and option.ready_at_ms <= limits.now_ms)
        if ready:
            chosen = choose(ready, limits.session, draw)
            kind = _kind(plan, attempts, chosen)
            return _call(opening.candidate, chosen, kind, plan, options, tuple(a.backend for a in failed), limits)
        if is_crowded and not limits.may_overflow:
            break
    if waiting:
        return Wait(tuple(filter(None, waiting)), min(wait_until_ms, latest_ms or wait_until_ms))
    return _nothing_possible(failed, late, over_budget)


def _is_ready(option: Option, limits: Limits) -> bool:
    return (
        option.usable and not option.full and option.ready_at_ms <= limits.now_ms
        and _has_time(option, limits.now_ms, limits)
    )


def _has_time(option: Option, at_ms: int, limits: Limits) -> bool:
    return limits.deadline_ms - at_ms >= _usual_ms(option, limits, limits.has_queued)


def _usual_ms(option: Option, limits: Limits, is_slow: bool) -> int:
    if is_slow and option.p95_ms is not None:
        return int(option.p95_ms * CROWD_MARGIN)
    return limits.p50_unknown_ms if option.p50_ms is None else option.p50_ms


def choose(ready: Sequence[Option], session: str, draw: Callable[[], float]) -> Option:
    """A probe if one is due; else, among the near ones, the session's own backend, or the less loaded of two drawn at random.

    Two choices herd on no favourite (Mitzenmacher 2001). A session keeps its backend (rendezvous hashing), and with it
    the provider's prompt cache, unless that is twice as loaded as the least loaded one.
    """
    if len(ready) == 1:
        return ready[0]
    for option in ready:
        if option.probe:
            return option
    near = [option for option in ready if option.is_near] or ready
    if session:
        own = max(near, key=lambda option: crc32(f"{session}/{option.backend}".encode()))
        if own.load <= 2 * min(option.load for option in near):
            return own
    first = int(draw() * len(near))
    if len(near) == 1 or draw() < EXPLORE_SHARE:
        return near[first]
    second = (first + 1 + int(draw() * (len(near) - 1))) % len(near)
    return near[first] if near[first].load <= near[second].load else near[second]


def _call(
    candidate: Candidate,
    option: Option,
    kind: AttemptKind,
    plan: Plan,
    options: Mapping[str, Option],
    tried: tuple[str, ...],
    limits: Limits,
) -> Call:
    left_ms = limits.deadline_ms - limits.now_ms
    granted_ms = min(plan.attempt_timeout_ms, option.timeout_ms)
    timeout_ms = min(granted_ms, left_ms - int(left_ms * RESERVE_SHARE))
    if timeout_ms < granted_ms and not any(
        other.usable and other.backend != option.backend and other.backend not in tried for other in options.values()
    ):
        timeout_ms = min(granted_ms, left_ms)
    fair_ms = FAIR_MS_UNKNOWN if option.p50_ms is None else FAIR_P50S * option.p50_ms
    is_fair = timeout_ms >= min(granted_ms, fair_ms)
    return Call(candidate, option.backend, kind, timeout_ms, is_fair)


def _kind(plan: Plan, attempts: Sequence[Attempt], option: Option) -> AttemptKind:
    attempts = [attempt for attempt in attempts if attempt.failure is not FailureClass.CANCELLED]   # called off, so no try
    if option.probe:
        return AttemptKind.PROBE
    if not attempts:
        return AttemptKind.ESCALATION if plan.number else AttemptKind.PRIMARY
    if any(attempt.backend == option.backend for attempt in attempts):
        return AttemptKind.RETRY
    return AttemptKind.FAILOVER


# --- The end -----------------------------------------------------------------------------------------------------


def _nothing_possible(failed: Sequence[Attempt], late: int, over_budget: int) -> Finish:
    if over_budget:
        return _finish(Reason.OVER_BUDGET, "another call could cost more than the budget has left; raise max_cost_usd")
    if late:
        return _finish(Reason.NO_TIME_LEFT, "less time is left than a provider usually takes; allow a longer deadline_ms")
    return _gave_up(failed)


def _gave_up(failed: Sequence[Attempt]) -> Finish:
    if not failed:
        return _finish(Reason.PROVIDERS_FAILED, "no backend of the plan is in the catalogue any more")
    story = ", ".join(f"{attempt.backend} {attempt.failure}" for attempt in failed)
    return _finish(_rules(failed[-1]).reason, f"attempts: {story}")


def _finish(reason: Reason, message: str) -> Finish:
    return Finish(Failure(reason=reason, stage=STAGE, message=message))
