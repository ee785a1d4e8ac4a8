"""An import as the text of a baton.yaml, and as the difference it would make to one. Pure."""

import textwrap
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import yaml

from schemas.config import Backend, ConfigFile, Strict

HEADER = """\
# Made by `baton import {command}` from {file} (SHA-256 {digest}). Take over what you want of it, then `baton apply`.
#
#   quality     {quality} stands in every model as a placeholder: the file does not say how good a model is. Put in what you
#               know, between 0 and 1: requests go to the cheapest model that is good enough
#   prices      compare them with your provider's list: budgets and the ledger rest on them
#   key         only names of environment variables; a backend is offered where the variable is set
"""
_WIDTH = 130
_SAME = frozenset({"model", "provider", "base_url", "key", "requires", "prices.version"})
"""Where a backend is and by what key: either the same, or another backend."""


def written(config: ConfigFile, command: str, file: str, digest: str, quality: float) -> str:
    """The whole text. It says nothing that changes from run to run."""
    sections: Mapping[str, Mapping[str, Strict]] = {
        "models": config.models,
        "backends": config.backends,
        "policies": {name: policy for name, policy in config.policies.items() if policy.model_dump(exclude_defaults=True)},
    }
    text = HEADER.format(command=command, file=file, digest=digest, quality=quality)
    for section, objects in sections.items():
        if objects:
            text += f"\n{section}:\n" + "".join(_object(name, spec) for name, spec in objects.items())
    return text + "\n# Who may ask. A tenant needs keys of its own: see baton.yaml.\ntenants: {}\n"


def _object(name: str, spec: Strict) -> str:
    found = {name: spec.model_dump(exclude_defaults=True)}
    dumped = yaml.dump(found, Dumper=_Dumper, default_flow_style=None, sort_keys=False, allow_unicode=True, width=_WIDTH - 2)
    return textwrap.indent(dumped, "  ")


class _Dumper(yaml.SafeDumper):
    """Writes decimals as they are, and everything as often as it occurs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _decimal(dumper: yaml.SafeDumper, number: Decimal) -> yaml.ScalarNode:
    text = f"{number.normalize():f}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text if "." in text else f"{text}.0")


_Dumper.add_representer(Decimal, _decimal)
_Dumper.add_representer(tuple, lambda dumper, items: dumper.represent_list(items))


# The difference to a config --------------------------------------------------------------------------------------------


def differences(config: ConfigFile, imported: ConfigFile) -> list[str]:
    """`+` only in the import, `~` in both but not the same, `-` only in the config though its provider is in the import.

    Only what the import says is compared, quality never. A backend is known by its name, else by its URL and model.
    """
    others = {_place(backend): name for name, backend in config.backends.items() if name not in imported.backends}
    pairs = {name: name if name in config.backends else others.get(_place(each)) for name, each in imported.backends.items()}
    lines = list(_changes("model", {name: name for name in imported.models if name in config.models}, config, imported))
    lines += [f"+ model {name}" for name in imported.models if name not in config.models]
    lines += _changes("backend", {name: ours for name, ours in pairs.items() if ours}, config, imported)
    lines += [f"+ backend {name}" for name, ours in pairs.items() if not ours]
    gone = _gone(config, imported, {ours for ours in pairs.values() if ours})
    left = {config.backends[name].model for name in config.backends if name not in gone}
    lost = {config.backends[name].model for name in gone} - left - imported.models.keys()
    return lines + [f"- model {name}" for name in sorted(lost)] + [f"- backend {name}" for name in gone]


def _gone(config: ConfigFile, imported: ConfigFile, found: set[str]) -> list[str]:
    providers = {backend.provider for backend in imported.backends.values()}
    return [name for name, backend in config.backends.items() if backend.provider in providers and name not in found]


def _place(backend: Backend) -> tuple[str, str]:
    return backend.base_url, backend.model_name or backend.model


def _changes(kind: str, pairs: Mapping[str, str], config: ConfigFile, imported: ConfigFile) -> Iterator[str]:
    for theirs, ours in pairs.items():
        before: Strict = config.models[ours] if kind == "model" else config.backends[ours]
        after: Strict = imported.models[theirs] if kind == "model" else imported.backends[theirs]
        old, new = _flat(before.model_dump()), _flat(after.model_dump())
        said = {name for name in _flat(after.model_dump(exclude_defaults=True)) if name not in _SAME}
        said |= {name for name in old if name.startswith("prices.") and name not in _SAME}
        names = [name for name in new if name in said - {"quality"} and old.get(name) != new[name]]
        if names:
            told = ", ".join(f"{name} {_shown(old.get(name))} -> {_shown(new[name])}" for name in names)
            yield f"~ {kind} {ours}: {told}"


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(each)}" for name, each in value.items() if each is not None) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    return "none" if value is None else str(value)
