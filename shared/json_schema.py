"""Turns a caller's JSON Schema into a compiled validator. Never fetches anything, and never lets a schema cost more than it may.

Callers write these schemas, so each of the limits closes a hole: a `$ref` to a URL or a file would make this process
read it; references that double at each level would take hours to check; a pattern may backtrack for ever.
"""

from functools import lru_cache
from math import inf
from typing import Any, NamedTuple
from urllib.parse import unquote

import jsonschema_rs
import orjson

SCHEMA_BYTES_MAX = 65_536
EXPANSION_MAX = 10_000
"""Subschemas with every reference written out; jsonschema-rs takes 0.2 s for the 2^24 of 24 doubling levels (measured)."""
DEPTH_MAX = 100

_CACHE_SIZE = 128  # × SCHEMA_BYTES_MAX: 8 MB of keys at the very most
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=262_144)


class Compiled(NamedTuple):
    """A validator, or the problem that stands in its way: names the place in the schema, for the caller to mend."""

    validator: jsonschema_rs.Validator | None
    problem: str = ""
    subschemas: float = 0
    """With every reference written out: infinitely many where one leads back to itself."""


def compiled(schema: Any) -> Compiled:
    """The validator of a schema, remembered by the schema's canonical bytes."""
    try:
        canonical = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return Compiled(None, "must be plain JSON with integers of at most 64 bits")
    if len(canonical) > SCHEMA_BYTES_MAX:
        return Compiled(None, f"must be at most {SCHEMA_BYTES_MAX} bytes, is {len(canonical)}")
    return _compiled(canonical)


@lru_cache(maxsize=_CACHE_SIZE)
def _compiled(canonical: bytes) -> Compiled:
    schema = orjson.loads(canonical)
    if not isinstance(schema, dict):
        return Compiled(None, "must be an object")
    try:
        expansion = _Expansion(schema)
        size = expansion.of(schema)
        if size > EXPANSION_MAX:
            return Compiled(None, f"must not expand to more than {EXPANSION_MAX} subschemas; use fewer nested $ref")
        validator = jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)
        return Compiled(validator, subschemas=inf if expansion.is_recursive else size)
    except _ReferenceError as error:
        return Compiled(None, str(error))
    except jsonschema_rs.ValidationError as error:
        place = "/".join(str(part) for part in error.instance_path)
        return Compiled(None, f"is not a valid JSON Schema at {place or 'its top'} ({error.kind.name})")
    except ValueError:  # jsonschema-rs raises it for what it cannot even read, such as too deep a nesting
        return Compiled(None, "is not a valid JSON Schema")


class _ReferenceError(Exception):
    """A reference that is refused; says which are allowed."""


class _Expansion:
    """Counts the subschemas of a schema, each reference as often as it is used; a cycle ends at its first repetition."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._sizes: dict[str, int] = {}
        self._open: set[str] = set()
        self.is_recursive = False

    def of(self, node: Any, depth: int = 0) -> int:
        if depth > DEPTH_MAX:
            raise _ReferenceError(f"must not be nested deeper than {DEPTH_MAX} levels, references included")
        if isinstance(node, list):
            return sum(self.of(item, depth + 1) for item in node if isinstance(item, (dict, list)))
        size = 1
        for keyword, value in node.items():
            if isinstance(value, (dict, list)):
                size += self.of(value, depth + 1)
            elif keyword in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                size += self._referred(value, depth)
        return size

    def _referred(self, reference: str, depth: int) -> int:
        if reference in self._open:
            self.is_recursive = True
            return 1
        if reference not in self._sizes:
            self._open.add(reference)
            target = self._target(reference)
            self._sizes[reference] = self.of(target, depth + 1) if isinstance(target, (dict, list)) else 1
            self._open.remove(reference)
        return self._sizes[reference]

    def _target(self, reference: str) -> Any:
        node: Any = self._root
        parts = unquote(reference).split("/")
        try:
            if parts[0] != "#":
                raise KeyError(reference)
            for part in parts[1:]:
                step = part.replace("~1", "/").replace("~0", "~")
                node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise _ReferenceError("has a $ref that leads nowhere in it; refer within the schema, as #/$defs/name") from None
        return node
