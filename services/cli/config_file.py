"""Turns `baton.yaml` into a ConfigFile, or into one error that names line, field and fix of everything wrong with it.

It never prints what stands in a field for keys: a secret pasted there by mistake must not reach a terminal or a log.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.checks import CheckSpec, Sampling
from schemas.config import Backend, ConfigFile, Model, Policy, Prices, Quirks, Strict, Tenant, Tier
from schemas.pipeline import Branch, Case, Condition, Gate, Loop, Map, Node, Parallel, Step, Turn
from shared.config import unresolved
from shared.errors import ConfigError
from shared.pipeline_check import problems_of

Location = tuple[str | int, ...]
"""Where a value stands: ("backends", "alpha-nano", "prices", "input")."""

_SECTIONS: Mapping[str, type[Strict]] = {
    "models": Model, "backends": Backend, "tenants": Tenant, "policies": Policy, "pipelines": Node
}
_NESTED: Mapping[str, type[Strict]] = {
    "prices": Prices, "price_changes": Prices, "tiers": Tier, "quirks": Quirks, "checks": CheckSpec, "scoring": Sampling,
    "step": Step, "reader": Step, "gate": Gate, "parallel": Parallel, "branch": Branch, "cases": Case, "when": Condition,
    "until": Condition, "loop": Loop, "turns": Turn, "map": Map,
    "sequence": Node, "branches": Node, "then": Node, "default": Node, "body": Node,
}
SECRET_FIELDS = frozenset({"key", "keys", "base_url", "headers", "query", "canaries"})
"""What stands in them is never shown: a URL may hold a password, a header a key, and a canary is worth what it is secret."""
_SHOWN_CHARS_MAX = 40
_MERGE = "tag:yaml.org,2002:merge"
_HINTS = {
    "input": "give USD per million tokens",
    "output": "give USD per million tokens",
    "cached_input": "give USD per million tokens",
    "cache_write": "give USD per million tokens",
    "reasoning": "give USD per million tokens",
    "above_tokens": "give the input tokens above which the tier holds",
    "effective_from": "give the first day, UTC, as YYYY-MM-DD",
    "prices": "give input and output in USD per million tokens",
    "base_url": "give http(s)://host/v1 or env:NAME",
    "key": "give a reference, env:NAME or file:/path",
    "keys": "give a list of references, env:NAME or file:/path",
    "context_tokens": "give how many tokens input and output may have together",
    "provider": "give a word for who runs it, as it shall stand on the ledger",
    "capabilities": "give a list, maybe empty: []",
}
_SHAPES = {
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "dict_type": "a mapping of names",
    "tuple_type": "a list",
}


def load(path: Path) -> ConfigFile:
    """Read a config file. Raises ConfigError with one line per problem, by line number."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a baton.yaml") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    return parse(text, path.name)


def parse(text: str, name: str = "baton.yaml") -> ConfigFile:
    """The config of a YAML text; `name` opens each line of the error. Raises ConfigError."""
    document = _read(text, name)
    problems = document.problems + _reference_problems(document.data)
    config = None
    try:
        config = ConfigFile.model_validate(document.data)
    except ValidationError as error:
        found = [_problem(dict(each)) for each in _told(error)]
        told = {problem.location for problem in problems}
        problems += [problem for problem in found if problem.location not in told and (problem.location or not told)]
    else:
        problems += _pipeline_problems(config)
    if config is None or problems:
        lines = {(problem.line or document.line_of(problem.location), problem.text) for problem in problems}
        raise ConfigError("\n".join(f"{name}:{line}: {sentence}" for line, sentence in sorted(lines)))
    return config


def _pipeline_problems(config: ConfigFile) -> list["_Problem"]:
    found = problems_of(config.pipelines, config.models, config.policies)
    places = [(("pipelines", *problem.place), problem.text) for problem in found]
    return [_Problem(place, f"{_dotted(place)}: {text}") for place, text in places]


@dataclass(frozen=True)
class Offered:
    """What of a config can be offered here, and a sentence about each thing that cannot, or may not work."""

    config: ConfigFile
    left_out: tuple[str, ...] = ()


def offered(config: ConfigFile, env: Mapping[str, str]) -> Offered:
    """Leave out backends whose environment is not set, and put the URL where a `base_url` names a variable.

    Keys that do not resolve here are reported only: the process that uses them may have another environment.
    Raises ConfigError when no backend is left.
    """
    left_out: dict[str, list[str]] = {}
    backends: dict[str, Backend] = {}
    for name, backend in config.backends.items():
        if unset := _unset(backend, env):
            left_out.setdefault(unset, []).append(name)
        else:
            backends[name] = backend.model_copy(update={"base_url": _url(name, backend, env)})
    notes = [f"left out: {', '.join(names)} ({unset} not set)" for unset, names in left_out.items()]
    if not backends:
        raise ConfigError("\n  ".join(["no backend can be offered; set what one of them needs:", *notes]))
    keys = [(f"backends.{name}.key", backend.key) for name, backend in backends.items() if backend.key]
    keys += [(f"tenants.{name}.keys", key) for name, tenant in config.tenants.items() for key in tenant.keys]
    notes += [f"{where}: {problem}" for where, key in keys for problem in unresolved([key], env)]
    return Offered(config.model_copy(update={"backends": backends}), tuple(notes))


def _unset(backend: Backend, env: Mapping[str, str]) -> str:
    """Names of environment variables that a backend needs and that are not set; empty: it can be offered."""
    needed = {backend.requires or "", backend.base_url.removeprefix("env:") if _names_variable(backend) else ""}
    return " and ".join(sorted(name for name in needed if name and not env.get(name, "").strip()))


def _url(name: str, backend: Backend, env: Mapping[str, str]) -> str:
    if not _names_variable(backend):
        return backend.base_url
    variable = backend.base_url.removeprefix("env:")
    url = env[variable].strip()
    if not re.match(r"https?://", url):
        raise ConfigError(f"backends.{name}.base_url: {variable} must hold http(s)://host/v1")
    return url


def _names_variable(backend: Backend) -> bool:
    return backend.base_url.startswith("env:")


# YAML to data, lines remembered ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    location: Location
    text: str
    line: int = 0  # where it is not the location's


@dataclass
class _Document:
    """Data of a YAML document, and the line of everything in it, counted from 1."""

    data: Any = None
    lines: dict[Location, int] = field(default_factory=lambda: {(): 1})
    problems: list[_Problem] = field(default_factory=list)

    def line_of(self, location: Location) -> int:
        """Line of a value; of what is missing, the line of the object that lacks it."""
        while location not in self.lines:
            location = location[:-1]
        return self.lines[location]

    def add(self, location: Location, text: str) -> None:
        self.problems.append(_Problem(location, f"{_dotted(location)}: {text}"))


def _read(text: str, name: str) -> _Document:
    document = _Document()
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not YAML: {error.problem}; look for a tab, a colon or an indent") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}:1: not YAML: it holds characters that YAML forbids") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{name}:1: expected {', '.join(f'{section}:' for section in ConfigFile.model_fields)}")
    document.data = _value(document, root, (), ())
    return document


def _value(document: _Document, node: yaml.Node, at: Location, above: tuple[yaml.Node, ...]) -> Any:
    if node in above:
        document.add(at, "an alias that holds itself; write the value out")
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, at, (*above, node))
    if isinstance(node, yaml.SequenceNode):
        items = []
        for number, item in enumerate(node.value):
            document.lines[(*at, number)] = item.start_mark.line + 1
            items.append(_value(document, item, (*at, number), (*above, node)))
        return items
    return _scalar(document, node, at)


def _scalar(document: _Document, node: yaml.Node, at: Location) -> Any:
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError):
        document.add(at, f"cannot be read as {node.tag.rpartition(':')[2]}; write it in quotes if it is text")
        return None
    if isinstance(value, float) and not isfinite(value):
        document.add(at, "must be a finite number")
        return None
    return value


def _mapping(document: _Document, node: yaml.MappingNode, at: Location, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
    """A mapping's data; what `<<` names comes first, so that the mapping's own fields win. Names are always text."""
    data = _inherited(document, node, at, above)
    own: set[str] = set()
    for key, value in node.value:
        if key.tag == _MERGE:
            continue
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "(a list or mapping as a name)"
        here, line = (*at, name), key.start_mark.line + 1
        if name in own:
            again = f"{_dotted(here)}: defined in line {document.lines[here]} and again here; remove one of them"
            document.problems.append(_Problem(here, again, line))
            continue
        own.add(name)
        document.lines[here] = line
        data[name] = _value(document, value, here, above)
    return data


def _inherited(
    document: _Document, node: yaml.MappingNode, at: Location, above: tuple[yaml.Node, ...]
) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):  # the first of several wins
                merged = _value(document, source, at, above)
                data |= merged if isinstance(merged, dict) else {"<<": merged}
    return data


# Problems as sentences ------------------------------------------------------------------------------------------------


def _told(error: ValidationError) -> list[Any]:
    """Its problems, without lists that are too short only because an item of theirs is wrong."""
    errors = error.errors(include_url=False)
    above = {other["loc"][:length] for other in errors for length in range(len(other["loc"]))}
    return [each for each in errors if each["type"] != "too_short" or each["loc"] not in above]


def _problem(error: Mapping[str, Any]) -> _Problem:
    """A pydantic error as a sentence: field, what is wrong, what was found, the fix."""
    location: Location = error["loc"]
    kind: str = error["type"]
    hint = _hint(location)
    if kind == "missing":
        return _Problem(location, f"{_dotted(location)}: missing; {hint}")
    if location[-1:] == ("[key]",):
        location = location[:-1]
        return _Problem(location, f"{_dotted(location)}: names start with a letter or digit, then also . _ : / and -")
    if kind == "extra_forbidden":
        return _Problem(location, f"{_dotted(location)}: unknown field; {_known_fields(location)}")
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        if named := re.match(r"(\w+): (.*)", message):  # a model's own check starts with the field it is about
            location, message = (*location, named[1]), named[2]
        return _Problem(location, f"{_dotted(location)}: {message}")
    if kind in _SHAPES:
        wrong = f"input should be {_SHAPES[kind]}"
    else:
        wrong = error["msg"][0].lower() + error["msg"][1:] + _found(location, error["input"])
    return _Problem(location, f"{_dotted(location)}: {wrong}{hint and f'; {hint}'}")


def _found(location: Location, value: Any) -> str:
    """What stands there, where it can be no secret and is short."""
    secret = any(part in SECRET_FIELDS for part in location)
    if secret or isinstance(value, (dict, list)) or len(str(value)) > _SHOWN_CHARS_MAX:
        return ""
    return " (found nothing)" if value is None else f' (found "{value}")'


def _hint(location: Location) -> str:
    """The fix for a field: what to give. Nothing where the location is no field of ours."""
    names = [part for part in location if isinstance(part, str)]
    known = _class_at(tuple(names[:-1])).model_fields.get(names[-1]) if names else None
    return (_HINTS.get(names[-1]) or known.description or f"give {names[-1]}") if known else ""


def _class_at(location: Location) -> type[Strict]:
    """The class whose fields may stand at a location."""
    if len(location) < 2:
        return ConfigFile
    nested = [_NESTED[part] for part in location[2:] if isinstance(part, str) and part in _NESTED]
    return nested[-1] if nested else _SECTIONS.get(str(location[0]), ConfigFile)


def _known_fields(location: Location) -> str:
    known = list(_class_at(location[:-1]).model_fields)
    return _nearest(str(location[-1]), known) or f"known: {', '.join(known)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f'did you mean "{close[0]}"?' if close else ""


def _reference_problems(data: Any) -> list[_Problem]:
    """Names that nothing defines. ConfigFile checks them too, but only once every field is right, and without lines."""
    models, policies = _names(data, "models"), _names(data, "policies", {"default": {}})
    problems = []
    for name, model in _objects(data, "models"):
        for chain in ("on_context_length", "on_content_filtered"):
            problems += _undefined_each(("models", name, chain), model.get(chain), models)
    for name, backend in _objects(data, "backends"):
        problems += _undefined(("backends", name, "model"), backend.get("model"), "model", models)
    for name, tenant in _objects(data, "tenants"):
        problems += _undefined(("tenants", name, "policy"), tenant.get("policy"), "policy", policies)
        problems += _undefined_each(("tenants", name, "models"), tenant.get("models"), models)
    pipelines = _names(data, "pipelines", {})
    for name, policy in _objects(data, "policies"):
        problems += _undefined(("policies", name, "pipeline"), policy.get("pipeline"), "pipeline", pipelines)
    if policies is not None and "default" not in policies:
        problems.append(_Problem(("policies",), "policies.default: missing; every tenant falls back to it"))
    return problems


def _undefined_each(location: Location, listed: Any, models: list[str] | None) -> list[_Problem]:
    names = listed if isinstance(listed, list) else ()
    return [
        problem for number, name in enumerate(names) for problem in _undefined((*location, number), name, "model", models)
    ]


def _undefined(location: Location, name: Any, kind: str, known: list[str] | None) -> list[_Problem]:
    if known is None or not isinstance(name, str) or name in known:
        return []
    section = {"model": "models", "policy": "policies", "pipeline": "pipelines"}[kind]
    fix = _nearest(name, known) or f"define it under {section}"
    return [_Problem(location, f'{_dotted(location)}: no {kind} "{name}"; {fix}')]


def _names(data: Any, section: str, default: Mapping[str, Any] | None = None) -> list[str] | None:
    """Names that a section defines; None when it is so wrong that nothing can be said about references to it."""
    objects = data.get(section, default)
    return list(objects) if isinstance(objects, dict) else None


def _objects(data: Any, section: str) -> list[tuple[str, Any]]:
    objects = data.get(section)
    if not isinstance(objects, dict):
        return []
    return [(name, spec) for name, spec in objects.items() if isinstance(spec, dict)]


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location) or "the file"
