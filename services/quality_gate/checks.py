"""The gate's checks: each looks at one answer to one task and passes or fails it. Pure, cheap first.

A check is named and versioned: raise its version whenever it could judge an old answer differently. `detail` says what
is wrong in the caller's or the schema's terms and never quotes the answer.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jsonschema_rs
import orjson

from schemas.checks import CheckSpec
from schemas.messages import Answer, Check, Task
from shared.json_schema import compiled

REFUSAL_CHARS_MAX = 600
"""A refusal is short; a longer text that begins with an apology usually goes on to answer."""
REFUSAL_HEAD_CHARS = 200

_HELP_EN = "help|assist|do|provide|fulfil|fulfill|comply|answer|create|generate|support|continue|discuss|share"
_CANNOT_EN = r"(?:i can(?:not|'t| not)|i(?: am|'m) (?:unable|not able) to|i won't|i must decline to)"
_REFUSALS = re.compile(
    "|".join(
        (
            rf"\b(?:sorry|i apologi[sz]e|unfortunately)\b[^.!?]{{0,40}}?\b{_CANNOT_EN} (?:{_HELP_EN})\b",
            rf"^\W*{_CANNOT_EN} (?:{_HELP_EN})\b",
            r"^\W*as an ai\b[^.!?]{0,60}\bi (?:can(?:not|'t)|(?:am|'m) (?:unable|not able))\b",
            r"\btut mir leid\b[^.!?]{0,60}\bkann\b[^.!?]{0,60}\b(?:nicht|keine)\b[^.!?]{0,40}\b(?:helfen|beantworten|erfüllen)",
            r"^\W*(?:dabei|damit) kann ich (?:ihnen |dir )?(?:leider )?nicht (?:helfen|dienen)",
            r"\blo siento\b[^.!?]{0,30}\bno puedo (?:ayudar|cumplir|responder|proporcionar|asistir)",
            r"\bdésolée?\b[^.!?]{0,30}\bje ne (?:peux|suis) pas\b[^.!?]{0,30}\b(?:aider|répondre|fournir|satisfaire|mesure)",
        )
    )
)


class _Rule(NamedTuple):
    """`find` returns what is wrong, or None. `note` says something about an answer that passed."""

    version: int
    find: Callable[[Answer, Task], str | None]
    note: Callable[[Answer, Task], str] = lambda answer, task: ""


def check(answer: Answer, task: Task, specs: Iterable[CheckSpec]) -> tuple[Check, ...]:
    """The named checks, in the order of the table. A name that is not in it was written for a newer release: it passes."""
    wanted = frozenset(spec.check for spec in specs)
    known = [_judged(name, rule, answer, task) for name, rule in CHECKS.items() if name in wanted]
    unknown = [_unknown(name) for name in sorted(wanted.difference(CHECKS))]
    return tuple(known + unknown)


def _unknown(name: str) -> Check:
    return Check(name=name, version=0, passed=True, detail="not known to this release")


def _judged(name: str, rule: _Rule, answer: Answer, task: Task) -> Check:
    wrong = rule.find(answer, task)
    detail = rule.note(answer, task) if wrong is None else wrong
    return Check(name=name, version=rule.version, passed=wrong is None, detail=detail)


def _empty(answer: Answer, task: Task) -> str | None:
    return None if answer.tool_calls or answer.text.strip() else "no text and no tool call"


def _truncated(answer: Answer, task: Task) -> str | None:
    if answer.finish != "length" or _is_callers_limit(answer, task):
        return None
    return "the model ran into its output limit"


def _is_callers_limit(answer: Answer, task: Task) -> bool:
    """Whether the answer used up the caller's own max_tokens: then it is what was asked for.

    Nine tenths, because some providers count the last tokens or the reasoning apart.
    """
    asked = task.chat.max_tokens if task.chat else None
    if answer.finish != "length" or asked is None:
        return False
    usage = answer.usage
    return usage.estimated or usage.tokens_out == 0 or usage.tokens_out * 10 >= asked * 9


def _cut_note(answer: Answer, task: Task) -> str:
    return "cut at the caller's max_tokens" if _is_callers_limit(answer, task) else ""


def _refused(answer: Answer, task: Task) -> str | None:
    if answer.finish == "content_filter":
        return "the provider filtered the answer"
    if answer.tool_calls or len(answer.text) > REFUSAL_CHARS_MAX:
        return None
    head = answer.text[:REFUSAL_HEAD_CHARS].lower().replace("’", "'")
    return "reads as a refusal" if _REFUSALS.search(head) else None


def _off_schema(answer: Answer, task: Task) -> str | None:
    """Code fences are not taken off: the caller gets the text as it is, and it would not parse there either."""
    wanted = task.chat.response_format if task.chat else None
    if wanted is None or answer.tool_calls:
        return None
    try:
        value = orjson.loads(answer.text)
    except orjson.JSONDecodeError:
        return "not JSON: wrapped in a code fence" if answer.text.lstrip().startswith("```") else "not JSON"
    if wanted["type"] == "json_object":
        return None if isinstance(value, dict) else "JSON, but not an object"
    return _violation(value, wanted["json_schema"]["schema"])


def _violation(value: Any, schema: dict[str, Any]) -> str | None:
    validator = compiled(schema).validator
    if validator is None or validator.is_valid(value):
        return None  # a schema that does not compile was rejected long before; its answer is not to blame
    error: jsonschema_rs.ValidationError | None = next(validator.iter_errors(value), None)
    place = "/".join(str(part) for part in error.schema_path)[:200] if error else ""
    return f"violates the schema at {place}"


CHECKS: dict[str, _Rule] = {
    "not_empty": _Rule(1, _empty),
    "not_truncated": _Rule(1, _truncated, _cut_note),
    "not_refused": _Rule(1, _refused),
    "matches_schema": _Rule(1, _off_schema),
}
