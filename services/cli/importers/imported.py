"""What an import has found: models, backends, a policy, and everything that it did not understand. Pure.

It never holds a key, only references, and of what was not understood only the names, for the values may be secrets.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.config import Backend, ConfigFile, Model, Policy, Prices

Kind = TypeVar("Kind", bound=BaseModel)
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
CHAINS = ("on_context_length", "on_content_filtered")


class LeftOutError(Exception):
    """Something cannot be imported; the text says why and what would help, and quotes no value."""


@dataclass(frozen=True)
class Served:
    """What one backend can do. A model can do what every one of its backends can."""

    context_tokens: int
    output_tokens_max: int | None = None
    capabilities: frozenset[str] = frozenset()


@dataclass
class Imported:
    """The result of one import; `quality` stands in every model, since neither format knows better."""

    quality: float
    backends: dict[str, Backend] = field(default_factory=dict)
    served: dict[str, list[Served]] = field(default_factory=dict)
    chains: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, fields: Mapping[str, Any], served: Served) -> None:
        """One backend with what its model can do there. Raises LeftOutError when it is none."""
        for named in (name, fields["model"]):
            if not MODEL_NAME.fullmatch(named):
                raise LeftOutError("its name must start with a letter or digit, then also . _ : / and -, at most 128")
        backend = checked(Backend, fields)
        free = name
        number = 1
        while free in self.backends:
            number += 1
            free = f"{name}-{number}"
        self.backends[free] = backend
        self.served.setdefault(backend.model, []).append(served)
        if not (backend.prices.input or backend.prices.output):
            self.note("costs nothing, says the file; budgets rest on it, so make sure", free)

    def leave_out(self, what: str, why: object) -> None:
        self.left_out.setdefault(str(why), []).append(what)

    def note(self, what: str, where: str) -> None:
        self.notes.setdefault(what, []).append(where)

    def config(self) -> ConfigFile:
        """The whole as a config without tenants. Chains lead only to models that are there; others are left out."""
        for (model, chain), names in self.chains.items():
            missing = [name for name in names if name not in self.served]
            if missing or model not in self.served:
                self.leave_out(f"{chain} of {model}", f"no model {', '.join(missing) or model} was imported")
        models = {name: self._model(name, served) for name, served in self.served.items()}
        return ConfigFile(models=models, backends=self.backends, tenants={}, policies={"default": self.policy})

    def _model(self, name: str, served: list[Served]) -> Model:
        outputs = [each.output_tokens_max for each in served if each.output_tokens_max is not None]
        fields: dict[str, Any] = {
            "quality": self.quality,
            "context_tokens": min(each.context_tokens for each in served),
            "capabilities": tuple(sorted(frozenset.intersection(*(each.capabilities for each in served)))),
        }
        if outputs:
            fields["output_tokens_max"] = min(outputs)
        for chain in CHAINS:
            fields[chain] = tuple(each for each in self.chains.get((name, chain), ()) if each in self.served)
        return Model(**fields)

    def report(self) -> list[str]:
        """What was left out and what to look at, one line per reason."""
        lines = [f"not imported: {_listed(what)}: {why}" for why, what in self.left_out.items()]
        return lines + [f"look at: {_listed(where)}: {what}" for what, where in self.notes.items()]

    def summary(self) -> str:
        left_out = sum(len(what) for what in self.left_out.values())
        return f"{len(self.served)} models, {len(self.backends)} backends; {left_out} things not imported"


def checked(kind: type[Kind], fields: Mapping[str, Any]) -> Kind:
    """An object of the config. Raises LeftOutError that names fields, never values."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        raise LeftOutError(
            "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}" for problem in problems)
        ) from None


def prices_of(source: str, figures: Mapping[str, Any]) -> Prices:
    """Prices with a version that follows from their figures alone, so that it changes with them and only then."""
    bare = checked(Prices, figures)
    return bare.model_copy(update={"version": f"{source}-{hashlib.sha256(bare.model_dump_json().encode()).hexdigest()[:8]}"})


def decimal_of(value: Any) -> Decimal | None:
    """A number that is finite and not negative, as it is written; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number.normalize() if number.is_finite() and number >= 0 else None


def whole_of(value: Any) -> int | None:
    """A whole number above 0; None for everything else."""
    number = decimal_of(value)
    return int(number) if number and number == int(number) else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
