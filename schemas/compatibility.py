"""Compares two JSON Schemas of one topic: what in the new one breaks records in the log or readers in the field.

**Rule:** fields are only added, and are optional when added. A reader may be older or newer than the record.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_MISSING = object()
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """One sentence per breaking change, each with the field's path; empty when the new schema may replace the old."""
    return sorted(_Comparison(old, new).between(old, new, "record"))


class _Comparison:
    """Two documents, whose `$ref`s point into themselves."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._open: set[tuple[str, str]] = set()   # pairs of references being compared: classes may hold themselves

    def between(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        if old.get("default", _MISSING) != new.get("default", _MISSING) and "default" in old and "default" in new:
            # Writers leave defaults out, so another default changes the meaning of records already in the log.
            yield f"{path}: default changed from {old['default']!r} to {new['default']!r}"
        references = (str(old.get("$ref", "")), str(new.get("$ref", "")))
        if all(references) and references in self._open:
            return
        self._open.add(references)
        olds, news = dict(_variants(old, self._old)), dict(_variants(new, self._new))
        if olds.keys() != news.keys():
            yield f"{path}: retyped from {' | '.join(sorted(olds))} to {' | '.join(sorted(news))}"
        for kind in olds.keys() & news.keys():
            yield from self._same_kind(olds[kind], news[kind], path)
        self._open.discard(references)

    def _same_kind(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        yield from _enum_changes(old, new, path)
        yield from _narrowed(old, new, path)
        yield from self._property_changes(old, new, path)
        for word, suffix in (("items", "[]"), ("additionalProperties", ".*"), ("propertyNames", " (names)")):
            before, after = old.get(word, True), new.get(word, True)
            if isinstance(before, Mapping) and isinstance(after, Mapping):
                yield from self.between(before, after, path + suffix)
            elif before != after and before is not False:
                yield f"{path}{suffix}: narrowed, {word} is no longer what it was"

    def _property_changes(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        needed_before, needed_now = set(old.get("required", ())), set(new.get("required", ()))
        for name in olds.keys() - news.keys():
            yield f"{path}.{name}: removed"
        for name in needed_now - needed_before:
            yield f"{path}.{name}: {'now' if name in olds else 'added as'} required, records in the log lack it"
        for name in (needed_before - needed_now) & news.keys():
            yield f"{path}.{name}: no longer always written, readers in the field require it"
        for name in olds.keys() & news.keys():
            yield from self.between(olds[name], news[name], f"{path}.{name}")


def _variants(schema: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """The alternatives of a schema by JSON type: `string`, `null`, …; `any` where it does not say."""
    if reference := schema.get("$ref"):
        name = str(reference).removeprefix("#/$defs/")
        yield from _variants(root["$defs"][name], root)
    elif alternatives := schema.get("anyOf", schema.get("oneOf")):
        for alternative in alternatives:
            yield from _variants(alternative, root)
    else:
        yield str(schema.get("type", "any")), schema


def _enum_changes(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = _allowed(old), _allowed(new)
    if before is None and after is not None:
        yield f"{path}: narrowed to {', '.join(sorted(after))}"
    elif before is not None and after is not None:
        for value in before - after:
            yield f"{path}: enum value {value} removed"


def _allowed(schema: Schema) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else {repr(value) for value in values}


def _narrowed(old: Schema, new: Schema, path: str) -> Iterator[str]:
    def bound(words: tuple[str, ...], stricter: Callable[[float, float], bool]) -> Iterator[str]:
        for word in words:
            if word in new and (word not in old or stricter(new[word], old[word])):
                yield f"{path}: narrowed, {word} {old.get(word, 'none')} became {new[word]}"

    yield from bound(_LOWER_BOUNDS, lambda now, before: now > before)
    yield from bound(_UPPER_BOUNDS, lambda now, before: now < before)
    for word in ("pattern", "format"):
        if word in new and new[word] != old.get(word):
            yield f"{path}: narrowed, {word} {old.get(word, 'none')} became {new[word]}"
