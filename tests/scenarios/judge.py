"""Pure functions from the evidence of one scenario to checks. They see nothing that a caller, a provider or an auditor
could not see; above all they compare texts whole, so that no truncated answer can pass for one.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

from schemas.ledger import Attempt
from schemas.messages import Reason, Result, Status
from tests.scenarios.evidence import Check, Evidence, Side, Weight

Rule = Callable[[Evidence], Check]

GRACE_MS = 1_000
"""From the deadline to when an outside reader has the result: the way through the last stages of a busy machine."""


def judge(seen: Evidence, rules: Iterable[Rule]) -> list[Check]:
    """What holds of every scenario, then what its own rules ask."""
    return [rule(seen) for rule in (*ALWAYS, *rules)]


# --- What the caller gets ----------------------------------------------------------------------------------------------


def is_whole(seen: Evidence, result: Result) -> bool:
    """Whether this is the whole answer of the backend that it names."""
    answer = result.answer
    if result.status is not Status.DELIVERED or answer is None:
        return False
    return any(
        answer.backend == side.backend and answer.model_served == side.model and answer.text == side.whole
        and answer.finish == "stop"
        for side in (seen.primary, seen.fallback)
    )


def nothing_false(seen: Evidence) -> Check:
    """Delivered is a whole answer; anything else has a reason, a message, and no answer."""
    wrong = [_described(result) for result in seen.results() if not is_whole(seen, result) and not _is_clean_error(result)]
    return Check("no answer that is cut or wrong, no error without a reason", not wrong, "; ".join(wrong) or "none")


def one_result_in_time(seen: Evidence) -> Check:
    counts = [len(asked.seen) for asked in seen.asked]
    slowest_ms = max((asked.took_ms or 0 for asked in seen.asked), default=0)
    holds = bool(counts) and set(counts) == {1} and slowest_ms <= seen.deadline_ms + GRACE_MS
    figure = f"{counts.count(1)} of {len(counts)} have one, the slowest after {slowest_ms} ms"
    return Check("one result each, before the deadline", holds, figure)


def answered(seen: Evidence) -> Check:
    """Every request has the whole answer. A clean error instead is safe, but no answer."""
    missing = [_described(result) for result in seen.results() if not is_whole(seen, result)]
    missing += ["no result" for asked in seen.asked if not asked.seen]
    return Check("whole answers", not missing, "; ".join(missing) or "all", Weight.ANSWER)


def answered_by(side_of: Callable[[Evidence], Side], weight: Weight = Weight.HARD) -> Rule:
    """Those that are answered are answered by this backend."""

    def rule(seen: Evidence) -> Check:
        side = side_of(seen)
        others = {result.answer.backend for result in seen.results() if result.answer} - {side.backend}
        return Check(f"answered by {side.backend}", not others, ", ".join(sorted(others)) or "by no other", weight)

    return rule


def refused(words: str) -> Rule:
    """A clean error that gives the provider's own reason."""

    def rule(seen: Evidence) -> Check:
        others = [
            _described(result) for result in seen.results()
            if not _is_clean_error(result) or result.reason is not Reason.PROVIDER_REFUSED or words not in result.message
        ]
        holds = not others and bool(seen.results())
        return Check(f'a clean error that says "{words}"', holds, "; ".join(others) or "as it should")

    return rule


def within(limit_ms: int) -> Rule:
    def rule(seen: Evidence) -> Check:
        slowest_ms = max((asked.took_ms or 0 for asked in seen.asked), default=0)
        return Check(f"within {limit_ms} ms", 0 < slowest_ms <= limit_ms, f"{slowest_ms} ms")

    return rule


def usage_is_the_providers(seen: Evidence) -> Check:
    """The tokens of an answer are those that the provider charged for that very call."""
    billed = {line.attempt_id: line for line in seen.billed}
    good = {(a.request_id, a.backend): a for a in seen.finished().values() if a.failure is None}
    wrong = []
    for result in seen.results():
        if result.answer is None:
            continue
        attempt = good.get((result.request_id, result.answer.backend))
        line = billed.get(attempt.attempt_id) if attempt else None
        usage = result.answer.usage
        if line is None or usage.estimated or (usage.tokens_in, usage.tokens_out) != (line.tokens_in, line.tokens_out):
            charged = f"{line.tokens_in}+{line.tokens_out}" if line else "nothing"
            wrong.append(f"said {usage.tokens_in}+{usage.tokens_out}, charged {charged}")
    return Check("an answer's usage is what its provider charged", not wrong, "; ".join(wrong) or "the same")


def _is_clean_error(result: Result) -> bool:
    return result.status is not Status.DELIVERED and result.answer is None and result.reason is not None and bool(result.message)


def _described(result: Result) -> str:
    text = f", {len(result.answer.text)} characters of {result.answer.backend}" if result.answer else ""
    return f"{result.status} {result.reason or ''}{text}: {result.message}" if result.message else f"{result.status}{text}"


# --- The books ---------------------------------------------------------------------------------------------------------


def booked_before_called(seen: Evidence) -> Check:
    """Each call has a line that was in the log when it arrived."""
    started, problems = seen.started(), []
    for call in seen.calls:
        line = started.get(call.attempt_id)
        if line is None:
            problems.append(f"a call of {call.model} is on no line")
        elif max(line.logged_ms, line.attempt.started_ms) > call.at_ms:
            problems.append(f"a call of {call.model} came {max(line.logged_ms, line.attempt.started_ms) - call.at_ms} ms early")
        elif line.attempt.model_asked != call.model:
            problems.append(f"booked for {line.attempt.model_asked}, called {call.model}")
    return Check("every call was on the ledger before it came", not problems, _told(problems, f"{len(seen.calls)} calls"))


def called_once_booked(seen: Evidence) -> Check:
    """Each line has its one call, and an end."""
    calls = [call.attempt_id for call in seen.calls]
    started, finished = seen.started(), seen.finished()
    problems = [f"an attempt of {attempt.backend} has no beginning" for id, attempt in finished.items() if id not in started]
    for id, line in started.items():
        if calls.count(id) != 1:
            problems.append(f"{calls.count(id)} calls for a line of {line.attempt.backend}")
        if id not in finished:
            problems.append(f"an attempt of {line.attempt.backend} has no end")
    return Check("every attempt on the ledger is one call, and closed", not problems, _told(problems, f"{len(started)} attempts"))


def invoice_agrees(seen: Evidence) -> Check:
    """What is known costs what the provider charges; what is unknown lies within its bound; nothing else is charged."""
    finished, charged = seen.finished(), {line.attempt_id: line.cost_microusd for line in seen.billed}
    problems = [f"charged {cost} for no attempt" for id, cost in charged.items() if id not in finished]
    problems += ["one attempt charged twice"] * (len(seen.billed) - len(charged))
    for id, attempt in finished.items():
        cost = charged.get(id, 0)
        if attempt.cost_known and attempt.cost_microusd != cost:
            problems.append(f"{attempt.backend}: {attempt.cost_microusd} booked, {cost} charged")
        if not attempt.cost_known and not attempt.cost_microusd <= cost <= attempt.cost_max_microusd and id in charged:
            problems.append(f"{attempt.backend}: at most {attempt.cost_max_microusd} booked, {cost} charged")
    return Check("the ledger agrees with the invoice", not problems, _told(problems, f"{sum(charged.values())} micro-USD"))


def result_agrees(seen: Evidence) -> Check:
    """A result's attempts and cost are those of its lines."""
    by_request: dict[str, list[Attempt]] = {}
    for attempt in seen.finished().values():
        by_request.setdefault(attempt.request_id, []).append(attempt)
    problems = []
    for result in seen.results():
        attempts = by_request.get(result.request_id, [])
        cost = sum(attempt.cost_microusd for attempt in attempts if attempt.cost_known)
        if (result.attempts, result.cost_microusd) != (len(attempts), cost):
            problems.append(f"says {result.attempts} for {result.cost_microusd}, ledger {len(attempts)} for {cost}")
    return Check("a result's attempts and cost are the ledger's", not problems, _told(problems, "the same"))


def failures_are_free(seen: Evidence) -> Check:
    """Nothing is booked or charged for what the primary did not answer; the result costs what the answer did."""
    problems = [
        f"{attempt.failure} booked with {attempt.cost_microusd}{'' if attempt.cost_known else ' (unknown)'}"
        for attempt in seen.finished().values()
        if attempt.failure is not None and (attempt.cost_microusd or not attempt.cost_known)
    ]
    problems += [f"{line.cost_microusd} charged" for line in seen.billed if line.model == seen.primary.model]
    total = sum(line.cost_microusd for line in seen.billed)
    told = sum(result.cost_microusd for result in seen.results())
    problems += [f"results cost {told}, the provider charged {total}"] if told != total else []
    return Check("what failed costs nothing", not problems, _told(problems, f"{total} micro-USD for {len(seen.billed)} answers"))


def streamed_as_configured(seen: Evidence) -> Check:
    others = [call.model for call in seen.calls if call.streamed is not seen.streamed]
    return Check("streamed" if seen.streamed else "not streamed", not others, ", ".join(others) or f"{len(seen.calls)} calls")


def stayed_up(seen: Evidence) -> Check:
    return Check("every process stayed up", not seen.restarted, ", ".join(seen.restarted) or "all")


def _told(problems: list[str], otherwise: str) -> str:
    return "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "") if problems else otherwise


ALWAYS: tuple[Rule, ...] = (
    nothing_false, one_result_in_time, usage_is_the_providers, booked_before_called, called_once_booked, invoice_agrees,
    result_agrees, streamed_as_configured, stayed_up,
)


# --- How it is tried ---------------------------------------------------------------------------------------------------


def primary(seen: Evidence) -> Side:
    return seen.primary


def fallback(seen: Evidence) -> Side:
    return seen.fallback


def attempts_at_most(most: int, within_ms: int | None = None) -> Rule:
    """Of each request, counted from its first call; without `within_ms` in all."""

    def rule(seen: Evidence) -> Check:
        counts = [
            sum(within_ms is None or call.at_ms - calls[0].at_ms <= within_ms for call in calls)
            for calls in seen.calls_by_request().values()
        ]
        name = f"at most {most} attempts" + (f" in {within_ms} ms" if within_ms is not None else "")
        return Check(name, 0 < max(counts, default=0) <= most, str(max(counts, default=0)))

    return rule


def asked_exactly(side_of: Callable[[Evidence], Side], times: int) -> Rule:
    """So many calls of this backend per request."""

    def rule(seen: Evidence) -> Check:
        side = side_of(seen)
        found = len(seen.calls_of(side))
        return Check(f"{times} call(s) of {side.backend} per request", found == times * len(seen.asked), str(found))

    return rule


def left_alone(wait_ms: int) -> Rule:
    """No two calls of the primary closer than this."""

    def rule(seen: Evidence) -> Check:
        gaps = [later.at_ms - earlier.at_ms for earlier, later in pairwise(seen.calls_of(seen.primary))]
        figure = f"{min(gaps)} ms" if gaps else "not called again"
        return Check(f"the primary is left alone for {wait_ms} ms", min(gaps, default=wait_ms) >= wait_ms, figure)

    return rule


def never_refuses(seen: Evidence) -> Check:
    """The fallback is sent nothing that it rejects."""
    rejected = [call.status for call in seen.calls_of(seen.fallback) if call.status != 200]
    return Check("the fallback rejects nothing", not rejected, ", ".join(map(str, rejected)) or "nothing", Weight.ADVISORY)


def returns(down_ms: int, limit_ms: int) -> Rule:
    """After an outage that began with its first call, the primary answers again."""

    def rule(seen: Evidence) -> Check:
        calls = seen.calls_of(seen.primary)
        name = f"answers again within {limit_ms} ms of its recovery"
        if not calls:
            return Check(name, False, "never called")
        well_ms = calls[0].at_ms + down_ms
        offsets = ", ".join(f"{(call.at_ms - calls[0].at_ms) / 1000:.0f}" for call in calls)
        called = f"called {offsets} s after its first call"
        good_ms = next((call.at_ms for call in calls if not call.error_class), None)
        by_primary = any(r.answer and r.answer.backend == seen.primary.backend for r in seen.results())
        if good_ms is None or not by_primary:
            return Check(name, False, f"not at all; {called}")
        return Check(name, good_ms - well_ms <= limit_ms, f"after {good_ms - well_ms} ms; {called}", is_notable=True)

    return rule


def spares(down_ms: int, probes_max: int) -> Rule:
    """While it is down, the primary gets at most one call per request, and some probes."""

    def rule(seen: Evidence) -> Check:
        calls = seen.calls_of(seen.primary)
        until_ms = calls[0].at_ms + down_ms if calls else 0
        made = sum(call.at_ms < until_ms for call in calls)
        asked = sum(asked.sent_ms < until_ms for asked in seen.asked)
        return Check("while down it is spared", made <= asked + probes_max, f"{made} calls, {asked} requests", Weight.ADVISORY)

    return rule
