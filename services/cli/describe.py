"""Turns one record of any topic into one line to read. It shows no prompt, and of an answer only its beginning."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from schemas.config import ConfigRecord
from schemas.envelope import DeadHeader, Envelope, Header
from schemas.fleet import Alert, FleetEntry, Observation
from schemas.ledger import Attempt, AttemptPhase, Usage
from schemas.messages import (
    Answer,
    Claim,
    Completion,
    Escalation,
    Failure,
    Plan,
    Request,
    Result,
    Task,
    Tried,
    Verdict,
)
from schemas.quality import Feedback, QualityEntry
from schemas.review import Review, ReviewDecision
from schemas.spend import SpendEntry
from schemas.topology import DEAD_LETTERS, FEEDBACK, INTAKE, REVIEW_DECISIONS, Topic
from services.cli.results_table import explained, models, usd
from shared.broker import Record
from shared.codec import decode
from shared.errors import UndecodableError
from shared.ids import request_id_of_record

ANSWER_CHARS = 60


def describe(topic: Topic, record: Record) -> str:
    """What a record says, in printable characters: it may hold what a stranger wrote, and a terminal obeys control characters.

    One that cannot be read says so; nothing here raises.
    """
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in _described(topic, record))


def _described(topic: Topic, record: Record) -> str:
    if topic is INTAKE:
        return f"{len(record.value or b'')} bytes"
    if topic is DEAD_LETTERS:
        return _dead_letter(record)
    if record.value is None:
        return "removed"
    try:
        found = decode(topic, record.value)
    except UndecodableError as error:
        return f"cannot be read: {error}"
    payload = found.payload if isinstance(found, Envelope) else found
    return _DESCRIPTIONS[type(payload)](payload, found)


def request_of(topic: Topic, record: Record) -> str | None:
    """The request a record belongs to, where it belongs to one. What a user wrote is known by its place in `intake`."""
    if topic is INTAKE:
        return request_id_of_record(record.partition, record.offset, record.timestamp_ms)
    if topic is DEAD_LETTERS and record.header(DeadHeader.TOPIC) == INTAKE.name:
        place = [record.header(name) or "" for name in (DeadHeader.PARTITION, DeadHeader.OFFSET, DeadHeader.TIMESTAMP_MS)]
        return request_id_of_record(*map(int, place)) if all(map(str.isdecimal, place)) else None
    if topic in (FEEDBACK, REVIEW_DECISIONS):      # people write them, without headers
        return (record.key or b"").decode("utf-8", "replace") or None
    return record.header(Header.SUBJECT)


def _dead_letter(record: Record) -> str:
    stage, reason = record.header(DeadHeader.STAGE), record.header(DeadHeader.REASON)
    place = "/".join(str(record.header(name)) for name in (DeadHeader.TOPIC, DeadHeader.PARTITION, DeadHeader.OFFSET))
    return f"{reason} at {stage}, from {place}: {record.header(DeadHeader.ERROR)}"


def _failure(failure: Failure) -> str:
    return f"✗ {failure.reason.value} at {failure.stage}: {failure.message}"


def _answer(answer: Answer | None) -> str:
    if answer is None:
        return ""
    text = " ".join(answer.text.split())
    called = ", ".join(str(call.get("function", {}).get("name", "?")) for call in answer.tool_calls)
    return f"“{text[:ANSWER_CHARS]}{'…' if len(text) > ANSWER_CHARS else ''}”" + (f" calls {called}" if called else "")


def _request(request: Request, envelope: Envelope[Any]) -> str:
    if request.failure:
        return _failure(request.failure)
    left_ms, budget = envelope.deadline_ms - envelope.accepted_ms, envelope.budget_microusd
    limit = "" if budget is None else f", at most {usd(budget)} USD"
    return f"by {request.source}, tenant {envelope.tenant}, lane {envelope.lane}, within {left_ms} ms{limit}"


def _task(task: Task, _: Any) -> str:
    seen = task.features
    if task.failure or seen is None:
        return _failure(task.failure) if task.failure else "nothing"
    needs = f", needs {', '.join(seen.needs)}" if seen.needs else ""
    tokens = f"{seen.tokens_in} tokens in, {seen.tokens_out} out"
    return f"{seen.domain}, {seen.language}, complexity {seen.complexity:.2f}, {tokens}{needs}"


def _plan(plan: Plan, _: Any) -> str:
    if plan.failure:
        return _failure(plan.failure)
    candidates = ", ".join(f"{each.model} ({', '.join(each.backends)})" for each in plan.candidates)
    return f"plan {plan.number}: {candidates}; {plan.why.rule}"


def _attempt(attempt: Attempt, _: Any) -> str:
    served = f" → {attempt.model_served}" if attempt.model_served not in ("", attempt.model_asked) else ""
    call = f"{attempt.kind.value} call of {attempt.backend} ({attempt.model_asked or attempt.model}{served})"
    if attempt.phase is AttemptPhase.STARTED:
        return f"{call}, at most {usd(attempt.cost_max_microusd)} USD"
    took = f"{attempt.finished_ms - attempt.started_ms} ms" if attempt.finished_ms is not None else "unknown time"
    cost = usd(attempt.cost_microusd) if attempt.cost_known else f"0 to {usd(attempt.cost_max_microusd)}"
    facts = (
        f"{call} {_how(attempt)} in {took}",
        "" if attempt.first_token_ms is None else f"first token {attempt.first_token_ms} ms",
        "" if attempt.wait_ms is None else f"asked to wait {attempt.wait_ms} ms",
        _tokens(attempt.usage),
        f"{cost} USD",
    )
    return ", ".join(fact for fact in facts if fact)


def _how(attempt: Attempt) -> str:
    if attempt.failure is None:
        return "ok"
    return f"{attempt.failure.value} ({attempt.status})" if attempt.status else attempt.failure.value


def _tokens(usage: Usage | None) -> str:
    """Tokens by class, those of the cache and of reasoning as parts of their whole."""
    if usage is None:
        return ""
    parts = {"cached": usage.tokens_cached, "written": usage.tokens_cache_write}
    read = ", ".join(f"{tokens} {kind}" for kind, tokens in parts.items() if tokens)
    thought = f" ({usage.tokens_reasoning} reasoning)" if usage.tokens_reasoning else ""
    about = "about " if usage.estimated else ""
    return f"{about}{usage.tokens_in} tokens in{f' ({read})' if read else ''}, {usage.tokens_out} out{thought}"


def _completion(completion: Completion, _: Any) -> str:
    end = _failure(completion.failure) if completion.failure else _answer(completion.answer)
    return f"plan {completion.plan_number}: {end}, {completion.attempts} calls, {usd(completion.cost_microusd)} USD"


def held_against(tried: Tried) -> str:
    """Why an answer did not end its request."""
    if tried.confidence is not None:
        return f"{tried.model} was not sure enough ({tried.confidence:.2f})"
    return f"{tried.model} failed {', '.join(tried.failed_checks) or 'nothing'}"


def _escalation(escalation: Escalation, _: Any) -> str:
    held = "; ".join(map(held_against, escalation.tried))
    return f"a stronger model is wanted (plan {escalation.plan_number}): {held}"


def _verdict(verdict: Verdict, _: Any) -> str:
    checks = " ".join(f"{'✓' if check.passed else '✗'} {check.name}" for check in verdict.checks)
    reason = f" ({verdict.reason.value} at {verdict.stage})" if verdict.reason else ""
    return f"{verdict.status.value}{reason} {checks}".rstrip()


def _result(result: Result, _: Any) -> str:
    facts = (explained(result), models(result), f"{usd(result.cost_microusd)} USD", _answer(result.answer))
    return " · ".join(fact for fact in facts if fact)


def _observation(seen: Observation, _: Any) -> str:
    failed = ", ".join(f"{count} {failure.value}" for failure, count in {**seen.failures, **seen.other_failures}.items())
    return f"{seen.backend}: {seen.calls} calls{', ' + failed if failed else ''}, {usd(seen.cost_microusd)} USD"


def _fleet(entry: FleetEntry, _: Any) -> str:
    state = f"{entry.backend} {entry.circuit.value}{f' ({entry.reason})' if entry.reason else ''}"
    gate = [f"gated for {entry.gate.reason.value} until {entry.gate.until_ms}"] if entry.gate else []
    windows = [
        f"{each.seconds} s: {each.calls} calls, {each.error_rate:.0%} failed, p95 {each.p95_ms:.0f} ms" for each in entry.windows
    ]
    return "; ".join([state, *gate, *windows])


def _alert(alert: Alert, _: Any) -> str:
    return f"{alert.severity.value}: {alert.subject} {alert.kind.value}, {alert.message}"


def _config(record: ConfigRecord, _: Any) -> str:
    return f"{record.kind}/{record.name}, version {record.version}"


def _spend(entry: SpendEntry, _: Any) -> str:
    periods = (
        f"{spent.period}: {usd(spent.microusd)} USD, {spent.calls} calls, {spent.tokens_in} tokens in, {spent.tokens_out} out"
        for spent in (entry.hour, entry.day, entry.month)
        if spent.period
    )
    return "; ".join([entry.account, *periods, f"price of money {entry.price:.2f}"])


def _quality(entry: QualityEntry, _: Any) -> str:
    if entry.words:
        return f"{entry.model}: weights on words"
    count, score_sum = sum(cell.count for cell in entry.cells), sum(cell.score_sum for cell in entry.cells)
    mean = f"mean {score_sum / count:.2f} of {count:.1f} judgements" if count else "no judgements"
    return f"{entry.model} at {entry.domain}: {mean}, {entry.tokens_out:.0f} tokens out"


def _feedback(said: Feedback, _: Any) -> str:
    return f"{said.judge.value} of {said.tenant}: {said.score:.2f}"


def _review(review: Review, _: Any) -> str:
    if review.decision is not None:
        return _review_decision(review.decision, _)
    return f"waits for a person: {review.reason}; {review.default.value} by default at {review.until_ms}"


def _review_decision(decision: ReviewDecision, _: Any) -> str:
    return f"{decision.action.value}{f' by {decision.by}' if decision.by else ''}"


def _claim(claim: Claim, _: Any) -> str:
    return f"request {claim.request_id}"


_DESCRIPTIONS: Mapping[type[BaseModel], Callable[[Any, Any], str]] = {
    Request: _request,
    Task: _task,
    Plan: _plan,
    Attempt: _attempt,
    Completion: _completion,
    Escalation: _escalation,
    Verdict: _verdict,
    Result: _result,
    Observation: _observation,
    FleetEntry: _fleet,
    SpendEntry: _spend,
    QualityEntry: _quality,
    Feedback: _feedback,
    Alert: _alert,
    ConfigRecord: _config,
    Claim: _claim,
    Review: _review,
    ReviewDecision: _review_decision,
}
