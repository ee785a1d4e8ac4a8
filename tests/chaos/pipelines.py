"""A pipeline for the kill test, and what its records must say when all is over. Pure but for `landed`, which reads the log.

The request ends with everything its branches said, so whoever reads the completions by path knows what the result must be.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import orjson

from schemas.ledger import AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Completion, Reason, Result
from schemas.pipeline import Node
from schemas.topology import COMPLETIONS, RESULTS
from shared.broker import Record
from shared.codec import decode
from tests.chaos.auditor import Finding, LedgerLine, finding

NAME = "chaos"
ITEMS = 3

_SCHEMA = {"type": "object", "required": ["items"], "properties": {
    "items": {"type": "array", "minItems": ITEMS, "maxItems": ITEMS, "items": {"type": "string"}}}}


def _step(prompt: str, **fields: Any) -> dict[str, Any]:
    """The gate lets everything pass: what is broken here is processes, not answers."""
    return {"step": {"prompt": prompt, "gate": {"checks": []}, **fields}}


# Six calls, or a few more: of ten lists that a model is asked for, one is not what the schema says.
TREE = Node.model_validate({"sequence": [
    {"name": "todo", "loop": {"at_most": 5, "criticism": True, "body": _step(
        "List three things to say about this: {{ request.text }}", output=_SCHEMA, model="sim-large",
        gate={"checks": ["matches_schema"]},
    )}},
    {"parallel": {"merge": "all", "branches": [
        {"map": {"over": "todo.json.items", "width": 2, "body": _step("Say in a sentence: {{ item }}")}},
        _step("When does this hurt? {{ request.text }}"),
        _step("Name two uses of this. {{ request.text }}"),
    ]}},
]})


@dataclass(frozen=True, slots=True)
class Landed:
    """One completion of a step."""

    request_id: str
    step: str
    plan_id: str
    plan_number: int
    logged_ms: int
    text: str | None


def landed(records: Sequence[Record]) -> list[Landed]:
    """The completions that pipelines' steps left."""
    found = []
    for record in records:
        envelope = decode(COMPLETIONS, record.value)
        completion: Completion = envelope.payload
        if completion.slip is not None and not (completion.failure and completion.failure.reason is Reason.CANCELLED):
            text = completion.answer.text if completion.answer is not None else None
            found.append(Landed(envelope.request_id, completion.slip.step, completion.plan_id, completion.plan_number,
                                record.timestamp_ms, text))
    return found


def findings(steps: Sequence[Landed], ledger: Sequence[LedgerLine], results: Sequence[Record]) -> Iterator[Finding]:
    """What holds of pipelines beyond what holds of every request."""
    first: dict[str, int] = {}
    for step in sorted(steps, key=lambda step: step.logged_ms):
        first.setdefault(step.plan_id, step.logged_ms)
    given_up = {line.attempt.plan_id: line.logged_ms for line in ledger if line.attempt.failure is FailureClass.ORPHANED}
    # Two things may cross: a hedge begins in the moment of the answer, and an executor that slept hands in what it had after
    # its successor has looked and closed its attempt.
    started = [
        line for line in ledger
        if line.attempt.phase is AttemptPhase.STARTED and line.attempt.kind is not AttemptKind.HEDGE
        and line.attempt.plan_id in first and given_up.get(line.attempt.plan_id, inf) > first[line.attempt.plan_id]
    ]
    plans: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for step in steps:
        plans[step.request_id, step.step, step.plan_number].add(step.plan_id)
    broken = [f"{line.attempt.attempt_id}: {line.logged_ms - first[line.attempt.plan_id]} ms after the completion"
              for line in started if line.logged_ms > first[line.attempt.plan_id]]
    broken += [f"{', '.join(sorted(ids))}: one step" for ids in plans.values() if len(ids) > 1]
    yield finding("no-step-paid-twice", "no step whose completion is in the log is called again", len(started), broken)
    known: dict[str, dict[str, Landed]] = defaultdict(dict)
    for step in steps:
        before = known[step.request_id].get(step.step)
        if before is None or step.plan_number > before.plan_number:
            known[step.request_id][step.step] = step
    delivered = [result for record in results if (result := decode(RESULTS, record.value)).answer and result.reason is None]
    yield finding("joins-complete", "a result holds what each branch and item said, in their order", len(delivered),
                  (f"{result.request_id}: {why}" for result in delivered if (why := _wrong(result, known[result.request_id]))))


def _wrong(result: Result, steps: Mapping[str, Landed]) -> str:
    said = {path: step.text for path, step in steps.items()}
    items = [said.get(f"p.1.0.{number}") for number in range(ITEMS)]
    expected = [items, said.get("p.1.1"), said.get("p.1.2")]
    if None in (*items, *expected):
        return "a branch or item has no completion"
    assert result.answer is not None
    return "" if _plain(orjson.loads(result.answer.text)) == _plain(expected) else "something else than its branches said"


def _plain(value: object) -> object:
    """Texts that are JSON lists or objects stand in a list as such."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return _plain(orjson.loads(value))
        except orjson.JSONDecodeError:
            return value
    return value
