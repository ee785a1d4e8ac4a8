"""Holds an answer to the JSON, or the JSON Schema, that the caller asked for, and mends slips of form where nothing is lost.

Mending is for form only: a fence, prose around it, quotes, commas, comments. What was cut off stays cut off, because whoever
reads the mended text could not know that something is missing.
"""

import re
from typing import Any

import json_repair
import orjson

from schemas.checks import CheckSpec
from schemas.messages import Answer, Task
from services.quality_gate.subject import Subject
from shared.json_schema import compiled

MEND_BYTES_MAX = 65_536
"""The mender is plain Python, about 1 µs per character (measured); longer texts go to another model instead."""
DEPTH_MAX = 50
"""Deeper nesting than any schema asks for; the mender recurses."""
PLACES_MAX = 20_000
"""Subschemas times characters up to which the place of a violation is looked up. For it, jsonschema-rs first collects what
is wrong with every value in every alternative: up to 16 µs each (measured), and exponentially many in a recursive schema."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FENCE_OPEN = re.compile(r"(?m)^[ \t]*```[\w-]*[ \t]*$")


def wanted_form(task: Task) -> dict[str, Any] | None:
    """The `response_format` of a task, where it asks for JSON."""
    wanted = task.chat.response_format if task.chat else None
    return wanted if wanted is not None and wanted.get("type") in ("json_object", "json_schema") else None


def mended(answer: Answer, task: Task) -> Answer:
    """The answer with its JSON in a form that parses and meets the schema; the same answer where nothing can be mended."""
    wanted = wanted_form(task)
    if wanted is None or answer.tool_calls or off_form(answer.text, wanted) is None:
        return answer
    if answer.finish == "length" or len(answer.text) > MEND_BYTES_MAX:
        return answer
    text = _mended_text(answer.text)
    if text is None or off_form(text, wanted) is not None:
        return answer
    return answer.model_copy(update={"text": text})


def _mended_text(text: str) -> str | None:
    """Canonical JSON of the one object or list in a text; None where there is none, several, or one that was cut off."""
    body = _body(text)
    if body is None or _depth(body) > DEPTH_MAX:
        return None
    try:
        value = json_repair.loads(body, skip_json_loads=False)
        is_read = isinstance(value, dict | list) and (value or not body[1:-1].strip())  # of what it cannot read, nothing is left
        return orjson.dumps(value).decode() if is_read else None
    except (RecursionError, ValueError, TypeError):
        return None


def _body(text: str) -> str | None:
    """From the first opening brace or bracket to the closing one that matches it; None where that never comes."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    start = min(starts)
    plain = _STRINGS.sub(lambda found: " " * len(found[0]), text[start:])
    depth = 0
    for found in re.finditer(r"[{}\[\]]", plain):
        depth += 1 if found[0] in "{[" else -1
        if depth == 0:
            rest = plain[found.end() :]
            return None if "{" in rest or "[" in rest else text[start : start + found.end()]
    return None


def _depth(body: str) -> int:
    depth = deepest = 0
    for found in re.finditer(r"[{}\[\]]", body):
        depth += 1 if found[0] in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


def off_schema(subject: Subject, spec: CheckSpec) -> str | None:
    wanted = wanted_form(subject.task)
    return None if wanted is None or subject.answer.tool_calls else off_form(subject.text, wanted)


def off_form(text: str, wanted: dict[str, Any]) -> str | None:
    """What is wrong with a text that should be JSON, in the schema's terms; None: nothing."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "not JSON: wrapped in a code fence" if _FENCE_OPEN.match(text.lstrip()) else "not JSON"
    if wanted["type"] == "json_object":
        return None if isinstance(value, dict) else "JSON, but not an object"
    return _violation(value, len(text), wanted["json_schema"]["schema"])


def _violation(value: Any, chars: int, schema: dict[str, Any]) -> str | None:
    validator, _, subschemas = compiled(schema)
    if validator is None or validator.is_valid(value):
        return None  # a schema that does not compile was rejected long before; its answer is not to blame
    if subschemas * chars > PLACES_MAX:
        return "violates the schema"
    error = next(validator.iter_errors(value), None)
    place = "/".join(str(part) for part in error.schema_path)[:200] if error else ""
    return f"violates the schema at {place}"
