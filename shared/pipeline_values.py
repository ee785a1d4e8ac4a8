"""What templates and conditions of a pipeline see, and how the outputs of branches become one. Pure.

Values are data: texts, numbers, lists, mappings. Nothing here runs what a user or a model wrote.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from schemas.checks import LINEAR
from schemas.messages import BETWEEN_MODELS, Task
from schemas.pipeline import Condition, Merge
from schemas.slips import Yield

TESTED_CHARS_MAX = 100_000
"""Of a text that a condition looks at: its beginning decides."""

BETWEEN_PARTS = "\n\n"


class Output(str):
    """A step's output: its text, with `.text`, and `.json` where it is JSON."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return str(self)

    @property
    def json(self) -> Any:
        """Raises AttributeError where the text is not JSON: to a template the value is then not there."""
        try:
            return orjson.loads(str(self))   # it takes no subclass
        except orjson.JSONDecodeError:
            raise AttributeError("not JSON") from None


def values_of(task: Task) -> dict[str, Any]:
    """What every step of a request may use."""
    messages = task.chat.messages if task.chat else ()
    texts = {role: [_text_of(message) for message in messages if message["role"] == role] for role in ("system", "user")}
    features = task.features.model_dump(include={"language", "domain", "complexity", "tokens_in"}) if task.features else {}
    return {
        "request": {"text": texts["user"][-1] if texts["user"] else "", "system": texts["system"][0] if texts["system"] else ""},
        "features": features,
    }


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if part["type"] == "text")


def looked_up(reference: str, values: Mapping[str, Any]) -> Any:
    """The value of a dotted reference. Raises LookupError where there is none."""
    found: Any = values
    for part in reference.split("."):
        if isinstance(found, Output):
            if part not in ("text", "json"):
                raise LookupError(part)
            try:
                found = getattr(found, part)
            except AttributeError:
                raise LookupError(part) from None
        elif isinstance(found, Mapping):
            found = found[part]
        elif isinstance(found, Sequence) and not isinstance(found, str) and part.isdigit():
            found = found[int(part)]
        else:
            raise LookupError(part)
    return found


def holds(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Whether a condition's test passes. A value that is not there passes no test but `exists: false`."""
    try:
        value = looked_up(condition.value, values)
    except LookupError:
        return condition.exists is False
    if condition.exists is not None:
        return condition.exists
    if condition.at_least is not None or condition.at_most is not None:
        return _within(value, condition)
    if isinstance(condition.equals, bool | float):
        if isinstance(value, str) and not isinstance(condition.equals, bool):
            value = _number(value)   # a model's "5" is a text, and YAML's 5 is none
        return bool(value == condition.equals)
    return _text_passes(_as_text(value)[:TESTED_CHARS_MAX], condition)


def _within(value: Any, condition: Condition) -> bool:
    number = _number(value)
    if number is None:
        return False
    if condition.at_least is not None:
        return number >= condition.at_least
    return condition.at_most is not None and number <= condition.at_most


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text_passes(text: str, condition: Condition) -> bool:
    plain = text.strip().casefold()
    if condition.equals is not None:
        return plain == str(condition.equals).strip().casefold()
    if condition.one_of:
        return plain in {each.strip().casefold() for each in condition.one_of}
    if condition.contains:
        return any(each.casefold() in plain for each in condition.contains)
    return condition.matches is not None and pattern_of(condition.matches).is_valid(text)


@lru_cache(maxsize=256)
def pattern_of(regex: str) -> jsonschema_rs.Validator:
    """What tells whether a pattern stands somewhere in a text. Raises ValueError for one outside RE2's syntax."""
    try:
        return jsonschema_rs.validator_for({"type": "string", "pattern": regex}, pattern_options=LINEAR)
    except (jsonschema_rs.ValidationError, ValueError):
        raise ValueError("not in RE2 syntax (no look-around, no back-references), or too large") from None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


# Many outputs become one ----------------------------------------------------------------------------------------------


def listed(texts: Sequence[str]) -> str:
    """A JSON list; an item that is itself a JSON object or list stands in it as such, all else as text."""
    return orjson.dumps([_item(text) for text in texts]).decode()


def _item(text: str) -> Any:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def merged(merge: Merge, chosen: Sequence[Yield]) -> Yield:
    """The output of the branches that count, given in their order; its path and costs are still those of one of them."""
    first = chosen[0]
    if merge in ("first", "best"):
        return max(chosen, key=lambda each: each.score) if merge == "best" else first   # max: the earliest of equals
    if merge == "vote":
        votes = Counter(_ballot(each.text) for each in chosen)
        most = max(votes.values())
        return next(each for each in chosen if votes[_ballot(each.text)] == most)
    texts = [each.text for each in chosen]
    text = BETWEEN_PARTS.join(texts) if merge == "concatenate" else listed(texts)
    models = BETWEEN_MODELS.join(dict.fromkeys(each.model for each in chosen if each.model))
    return first.model_copy(update={"text": text, "text_at": None, "model": models, "backend": ""})


def _ballot(text: str) -> str:
    """Two answers are one vote if they differ only in case, space, a final stop, or how their JSON is written."""
    item = _item(text)
    if not isinstance(item, str):
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()
    return " ".join(text.split()).casefold().rstrip(".!")
