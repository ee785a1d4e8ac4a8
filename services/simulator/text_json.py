"""Builds a JSON value that conforms to a JSON Schema, with values taken from the prompt where it has them.

Covers what callers of language models send: types, enum, const, local $ref, anyOf/oneOf/allOf, formats, lengths,
ranges, item counts. `pattern` is met only by a word of the prompt; `not`, `if` and `patternProperties` are ignored.
"""

import re
from collections.abc import Mapping
from math import ceil, floor
from typing import Any

from services.simulator.draws import draw, pick
from services.simulator.facts import Facts

Schema = Mapping[str, Any]

_DEPTH_MAX = 12
_ITEMS_MAX = 3  # of an array, unless the schema or the prompt asks for more
_NUMBER = r"-?\d{1,15}(?:\.\d{1,6})?"
_WORDS = r"[^\s,.;:\n][^,.;:\n]{0,60}"
_FORMATS = {
    "email": "someone@example.com",
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}
_KINDS = (  # property name contains -> list of facts to take it from
    (("email", "e_mail", "mail"), "emails"),
    (("date", "day", "deadline", "birth", "datum", "fecha"), "dates"),
    (("phone", "mobile", "telefon"), "phones"),
    (("url", "link", "website"), "urls"),
    (("name", "person", "people", "customer", "author", "contact", "sender"), "names"),
    (("city", "country", "place", "location", "company", "product", "destination", "origin"), "proper"),
    (("keyword", "tag", "topic", "term"), "salient"),
)


def conforming(schema: Schema, facts: Facts, seed: int) -> Any:
    """A value for the schema: the same for the same prompt and seed."""
    return _Filler(schema, facts, seed).value(schema, "", 0)


def required_of(schema: Schema) -> list[str]:
    """The names a top-level object must have, for breaking one on purpose."""
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


class _Filler:
    """One walk through one schema. `used` makes the second `name` take the second name of the prompt."""

    def __init__(self, root: Schema, facts: Facts, seed: int) -> None:
        self.root, self.facts, self.seed = root, facts, seed
        self.used: dict[str, int] = {}
        self.draws = 0

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._chosen(schema["enum"])
        kind = self._kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("number", "integer"):
            return self._number(schema, name, whole=kind == "integer")
        if kind == "boolean":
            return self._boolean(name)
        return None if kind == "null" else self._string(schema, name)

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        for _ in range(_DEPTH_MAX):
            if isinstance(ref := schema.get("$ref"), str):
                schema = {**self._target(ref), **{key: part for key, part in schema.items() if key != "$ref"}}
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                simple = depth >= _DEPTH_MAX // 2 and [o for o in options if o.get("type") not in ("object", "array")]
                rest = {key: part for key, part in schema.items() if key not in ("anyOf", "oneOf")}
                schema = {**rest, **(simple or options)[0]}
            elif parts := schema.get("allOf"):
                schema = _merged([{key: part for key, part in schema.items() if key != "allOf"}, *parts])
            else:
                break
        return schema

    def _target(self, ref: str) -> Schema:
        found: Any = self.root
        for step in ref.removeprefix("#").strip("/").split("/") if ref != "#" else ():
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}

    def _kind(self, schema: Schema) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if isinstance(kind, str):
            return kind
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties") or {}, required_of(schema)
        names = required if depth >= _DEPTH_MAX // 2 else [*properties, *(n for n in required if n not in properties)]
        if depth >= _DEPTH_MAX:
            return {}
        return {name: self.value(properties.get(name, {}), name, depth + 1) for name in names}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 10**6))
        items = schema.get("items", {})
        if isinstance(items, Mapping) and items.get("enum"):
            return self._ranked(items["enum"])[: max(least, min(most, self._mentioned(items["enum"]) or 1))]
        wanted = max(least, min(most, self._known(items, name) or _ITEMS_MAX))
        if depth >= _DEPTH_MAX // 2:
            wanted = least
        found: list[Any] = []
        for _ in range(wanted * 3):
            value = self.value(items, name, depth + 1)
            if len(found) < wanted and not (value in found and (schema.get("uniqueItems") or len(found) >= least)):
                found.append(value)
        return found

    def _known(self, items: Any, name: str) -> int:
        """How many values of this kind the prompt holds."""
        if not isinstance(items, Mapping):
            return 0
        if items.get("type") in ("number", "integer"):
            return len(self.facts.numbers)
        return len(self._candidates(name)) if items.get("type") == "string" and "enum" not in items else 0

    def _chosen(self, options: list[Any]) -> Any:
        """The option the prompt mentions, else any: the same for every model, since the seed is the prompt's."""
        ranked = self._ranked(options)
        return ranked[0] if self._mentioned(options) else pick(self.seed, self._next(), ranked)

    def _ranked(self, options: list[Any]) -> list[Any]:
        text = self.facts.text.lower()
        return sorted(options, key=lambda option: -text.count(str(option).lower()))

    def _mentioned(self, options: list[Any]) -> int:
        text = self.facts.text.lower()
        return sum(str(option).lower() in text for option in options)

    def _boolean(self, name: str) -> bool:
        spaced = name.replace("_", " ").removeprefix("is ").removeprefix("has ")
        return f"not {spaced}" not in self.facts.text.lower() and draw(self.seed, self._next()) < 0.7

    def _number(self, schema: Schema, name: str, whole: bool) -> float | int:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        value = self._number_from_prompt(name, whole, low, high)
        if value is None:
            bottom = float(low) if low is not None else 0.0 if high is None or high > 0 else float(high) - 100
            top = float(high) if high is not None else bottom + 100
            value = bottom + (top - bottom) * (0.5 + 0.4 * draw(self.seed, self._next()))
            value = round(value, 2) if bottom < round(value, 2) < top else value
        step = schema.get("multipleOf") or (1 if whole else None)
        if step:
            value = (floor if high is not None else ceil)(value / step) * step
            value = value + step if "exclusiveMinimum" in schema and value <= float(low or 0) else value
        return int(value) if whole else value

    def _number_from_prompt(self, name: str, whole: bool, low: Any, high: Any) -> float | None:
        def fits(value: float) -> bool:
            above = low is None or value > low or (value == low and value != 0)
            return above and (high is None or value < high) and (not whole or value == int(value))

        if self.facts.computed and fits(float(self.facts.computed[1])):
            return float(self.facts.computed[1])
        labelled = self.facts.labelled(name, _NUMBER) if name else None
        if labelled is not None and fits(float(labelled)):
            return float(labelled)
        fitting = [value for value in self.facts.numbers if fits(value)]
        return self._take("numbers", fitting) if fitting else None

    def _string(self, schema: Schema, name: str) -> str:
        kind = schema.get("format")
        if kind in _FORMATS:
            text = self._formatted(kind)
        elif isinstance(pattern := schema.get("pattern"), str):
            text = self._matching(pattern)
        else:
            text = self._named(name)
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        while len(text) < least:
            text = f"{text} {self.facts.language.fillers[0]}"
        return text[: int(most)] if most is not None else text

    def _formatted(self, kind: str) -> str:
        found = {"email": self.facts.emails, "date": self.facts.dates, "uri": self.facts.urls}.get(kind, [])
        if kind == "date-time" and self.facts.dates:
            return f"{self._take('dates', self.facts.dates)}T00:00:00Z"
        return str(self._take(kind, found)) if found else _FORMATS[kind]

    def _matching(self, pattern: str) -> str:
        try:
            compiled = re.compile(pattern)
        except re.error:
            return ""
        words = (word.strip(".,;:!?()\"'") for word in self.facts.source.split()[:400])
        return next((word for word in words if len(word) <= 64 and compiled.search(word)), "")

    def _named(self, name: str) -> str:
        candidates = self._candidates(name)
        if candidates:
            return str(self._take(name, candidates))
        labelled = self.facts.labelled(name, _WORDS) if name else None
        if labelled:
            return labelled
        if "lang" in name.lower():
            return self.facts.language.code
        if self.facts.computed and name.lower() in ("answer", "result", "value"):
            return str(self.facts.computed[1])
        words = [*self.facts.salient, *self.facts.language.fillers]
        template = pick(self.seed, self._next(), self.facts.language.templates)
        a, b, c = (words[i % len(words)] for i in range(3))
        return template.format(a=a, b=b, c=c, C=c.capitalize())

    def _candidates(self, name: str) -> list[str]:
        lowered = name.lower()
        for parts, source in _KINDS:
            if any(part in lowered for part in parts):
                found: list[str] = getattr(self.facts, source)
                return found
        return []

    def _take(self, key: str, candidates: list[Any]) -> Any:
        at = self.used.get(key, 0)
        self.used[key] = at + 1
        return candidates[at % len(candidates)]

    def _next(self) -> int:
        self.draws += 1
        return self.draws


def _merged(parts: list[Schema]) -> Schema:
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged
