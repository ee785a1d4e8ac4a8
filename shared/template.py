"""Templates of pipelines: a small part of Jinja's language, run in its sandbox. Pure.

Texts of users and models come in as values and leave as text: nothing of them is ever read as a template. What a template may
say is a list of what is allowed, chosen so that its work and its output are bounded: no calls, no macros, no assignments, no
arithmetic, and no loop within a loop.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.pipeline_values import Output

PROMPT_BYTES_MAX = 524_288
"""Of one rendered text: half of what an envelope may have."""

FILTERS = ("trim", "lower", "upper", "title", "capitalize", "truncate", "length", "first", "last", "join", "default", "tojson")
TESTS = ("defined", "none", "string", "number", "mapping", "sequence")
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.If, nodes.For,
    nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr,
)


_ATTRIBUTES = ((Output, frozenset({"text", "json"})), (LoopContext, frozenset({"index", "first", "last", "length"})))
"""All that the language reads of values that are no data themselves."""


class BrokenTemplateError(ValueError):
    """A template that cannot be read or filled in. The text names the place and the fix and quotes no value."""


class _Environment(ImmutableSandboxedEnvironment):
    """Reads fields of data, never methods of Python: Jinja takes a dict's `items` for the method, whatever an answer calls so."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        is_read = any(isinstance(obj, kind) and attribute in names for kind, names in _ATTRIBUTES)
        if is_read or isinstance(obj, Undefined):   # what is not there has no fields either, and says so itself
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self.getattr(obj, argument) if isinstance(argument, str) else super().getitem(obj, argument)


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, autoescape=False, optimized=False)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS} | {"tojson": _as_json}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


def _as_json(value: Any) -> str:
    """Plain JSON; Jinja's own writes for HTML."""
    return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=str).decode()


_ENVIRONMENT = _environment()


def names_of(source: str) -> frozenset[str]:
    """Every name that the template takes from outside. Raises BrokenTemplateError for what the language does not have."""
    try:
        tree = _ENVIRONMENT.parse(source)
        problem = next(_problems(tree, within_loop=False), None)
        if problem is None:
            _ENVIRONMENT.compile(source)   # finds filters and tests that are not there
    except TemplateSyntaxError as error:
        problem = f"line {error.lineno} of the template: {error.message}"
    if problem is not None:
        raise BrokenTemplateError(problem)
    return frozenset(meta.find_undeclared_variables(tree))


def _problems(node: nodes.Node, within_loop: bool) -> Iterator[str]:
    if not isinstance(node, _ALLOWED):
        kind = type(node).__name__.lower()
        yield f"line {node.lineno} of the template: {kind} is not part of the language; see schemas/PIPELINES.md"
    is_loop = isinstance(node, nodes.For)
    if is_loop and within_loop:
        yield f"line {node.lineno} of the template: a loop within a loop; take the inner one out"
    for child in node.iter_child_nodes():
        yield from _problems(child, within_loop or is_loop)


@lru_cache(maxsize=1_024)
def _compiled(source: str) -> Template:
    names_of(source)
    return _ENVIRONMENT.from_string(source)


def filled_in(source: str, values: Mapping[str, Any], bytes_max: int = PROMPT_BYTES_MAX) -> str:
    """The template's text. Raises BrokenTemplateError; never gives more than `bytes_max` bytes of UTF-8."""
    try:
        return _joined(_compiled(source).generate(values), bytes_max)
    except TemplateError as error:
        raise BrokenTemplateError(f"the template cannot be filled in: {type(error).__name__}; is every value there?") from None
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, BrokenTemplateError):
            raise
        raise BrokenTemplateError(f"the template cannot be filled in: {type(error).__name__}; see what its values are") from None


def _joined(pieces: Iterable[str], bytes_max: int) -> str:
    found: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))
        if size > bytes_max:
            raise BrokenTemplateError(f"the template makes more than {bytes_max} bytes; use truncate, or a shorter list")
        found.append(piece)
    return "".join(found)
