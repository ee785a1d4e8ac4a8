"""The gate's checks: each looks at one answer to one task and passes or fails it. Pure, cheap first.

A check is named and versioned: raise its version whenever it could judge an old answer differently. `detail` says what
is wrong in the caller's or the schema's terms and never quotes the answer.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from schemas.checks import CheckSpec
from schemas.messages import Answer, Check, Score, Task
from services.quality_gate.checks.arithmetic import wrong_sum
from services.quality_gate.checks.citations import absent_citation
from services.quality_gate.checks.code import broken_code
from services.quality_gate.checks.endings import cut_off
from services.quality_gate.checks.json_form import mended, off_schema
from services.quality_gate.checks.language import foreign
from services.quality_gate.checks.leaks import leaked
from services.quality_gate.checks.refusal import refused
from services.quality_gate.checks.repetition import repetitive
from services.quality_gate.checks.safety import unsafe
from services.quality_gate.checks.shape import cut_note, empty, off_format, off_length, truncated
from services.quality_gate.scores import SCORERS, scores
from services.quality_gate.subject import Subject

MENDED = "mended: the model's JSON had slips of form"


class Rule(NamedTuple):
    """`find` returns what is wrong, or None. `note` says something about an answer that passed."""

    version: int
    find: Callable[[Subject, CheckSpec], str | None]
    note: Callable[[Subject, CheckSpec], str] = lambda subject, spec: ""


def too_low(subject: Subject, spec: CheckSpec) -> str | None:
    """What cannot be known does not fail: a policy that wants to know asks a judge."""
    value = subject.scores[spec.check].value
    return f"{value:g} is below {spec.min:g}" if value is not None and spec.min is not None and value < spec.min else None


def unknown_note(subject: Subject, spec: CheckSpec) -> str:
    found = subject.scores[spec.check]
    return f"unknown: {found.detail}" if found.value is None else ""


CHECKS: dict[str, Rule] = {
    "not_empty": Rule(2, empty),
    "not_truncated": Rule(1, truncated, cut_note),
    "length": Rule(1, off_length),
    "format": Rule(2, off_format),
    "ends_whole": Rule(2, cut_off),
    "not_refused": Rule(3, refused),
    "matches_schema": Rule(3, off_schema),
    "not_repetitive": Rule(2, repetitive),
    "in_language": Rule(2, foreign),
    "citations_exist": Rule(1, absent_citation),
    "safe_content": Rule(1, unsafe),
    "no_leak": Rule(1, leaked),
    "arithmetic_adds_up": Rule(2, wrong_sum),
    "code_parses": Rule(1, broken_code),
    **{name: Rule(version, too_low, unknown_note) for name, (version, _) in SCORERS.items()},
}
"""Cheap first; the order in which a verdict lists them."""

_PASSED = {name: Check(name=name, version=rule.version, passed=True) for name, rule in CHECKS.items()}
"""Nearly every check of nearly every answer: made once."""

_PLACE = {name: place for place, name in enumerate(CHECKS)}


class Judged(NamedTuple):
    """An answer, mended where its form could be, with the checks that ran on it and the scores that were computed."""

    answer: Answer
    checks: tuple[Check, ...]
    scores: tuple[Score, ...] = ()


def judge(answer: Answer, task: Task, specs: Iterable[CheckSpec], is_sampled: bool = False) -> Judged:
    """The asked-for checks in the order of the table. One that is not in it was written for a newer release: it passes.

    Scores are computed where a check sets a least one, and all of them for an answer that `is_sampled`.
    """
    ordered = sorted(specs, key=lambda spec: _PLACE.get(spec.check, len(_PLACE)))
    mend = any(spec.check == "matches_schema" and spec.repair for spec in ordered)
    kept = mended(answer, task) if mend else answer
    names = tuple(SCORERS) if is_sampled else tuple(spec.check for spec in ordered if spec.check in SCORERS)
    computed = scores(kept, task, names) if names else ()
    subject = Subject(kept, task, computed)
    return Judged(kept, tuple(_checked(subject, spec, kept is not answer) for spec in ordered), computed)


def _checked(subject: Subject, spec: CheckSpec, was_mended: bool) -> Check:
    rule = CHECKS.get(spec.check)
    if rule is None:
        return Check(name=spec.check, version=0, passed=True, detail="not known to this release")
    wrong = rule.find(subject, spec)
    detail = rule.note(subject, spec) if wrong is None else wrong
    if was_mended and spec.check == "matches_schema":
        detail = MENDED
    if detail:
        return Check(name=spec.check, version=rule.version, passed=wrong is None, detail=detail)
    return _PASSED[spec.check]
