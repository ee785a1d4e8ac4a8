"""Turns the records of the `config` topic into one catalogue of models, backends, tenants and policies. Pure.

A record that makes no sense is left out and reported; it never takes the others with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from schemas.certificate import Certificate
from schemas.config import Backend, ConfigRecord, Model, Policy, Strict, Tenant
from schemas.pipeline import Node

KINDS: Mapping[str, type[Strict]] = {
    "model": Model, "backend": Backend, "tenant": Tenant, "policy": Policy, "pipeline": Node, "certificate": Certificate,
}  # fmt: skip
VERSION_KEY = "version/current"
"""Key of the record that closes an apply."""

DEFAULT_POLICY = "default"


@dataclass(frozen=True)
class Catalogue:
    """What the fleet may do, as of one apply. `version` is that apply's epoch milliseconds, 0 before the first."""

    version: int = 0
    models: Mapping[str, Model] = field(default_factory=dict)
    backends: Mapping[str, Backend] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    pipelines: Mapping[str, Node] = field(default_factory=dict)   # references written out
    certificates: Mapping[str, Certificate] = field(default_factory=dict)     # by model
    problems: tuple[str, ...] = ()

    @classmethod
    def from_records(cls, records: Mapping[str, ConfigRecord]) -> "Catalogue":
        """The catalogue of a `config` table, keyed `kind/name`. What cannot be used is named in `problems`."""
        found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        problems = []
        for key, record in sorted(records.items()):
            if record.kind == "version":
                continue
            try:
                # Fields that a newer release added are ignored, so that releases can be mixed during a roll-out.
                found[record.kind][record.name] = KINDS[record.kind].model_validate(record.spec, extra="ignore")
            except ValidationError as error:
                problems.append(f"{key}: {_fields_of(error)}; run `baton apply` again")
        problems += _orphans(found)
        closing = records.get(VERSION_KEY)
        return cls(
            version=closing.version if closing else 0,
            models=found["model"],
            backends={name: backend for name, backend in found["backend"].items() if backend.model in found["model"]},
            tenants=found["tenant"],
            policies=found["policy"],
            pipelines=found["pipeline"],
            certificates=found["certificate"],
            problems=tuple(problems),
        )

    def backends_of(self, model: str) -> tuple[str, ...]:
        """Names of the backends that serve a model, sorted; none for an unknown model."""
        return self._backends_by_model.get(model, ())

    def policy_of(self, tenant: str) -> Policy:
        """The tenant's policy; the default one for an unknown tenant or policy."""
        known = self.tenants.get(tenant)
        policy = self.policies.get(known.policy) if known else None
        return policy or self.policies.get(DEFAULT_POLICY) or _BUILT_IN_POLICY

    @cached_property
    def _backends_by_model(self) -> Mapping[str, tuple[str, ...]]:
        names: dict[str, list[str]] = {}
        for name, backend in sorted(self.backends.items()):
            names.setdefault(backend.model, []).append(name)
        return {model: tuple(backends) for model, backends in names.items()}


_BUILT_IN_POLICY = Policy()
EMPTY = Catalogue()


def _orphans(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"backend/{name}: no model {backend.model!r}; define it under models"
        for name, backend in found["backend"].items()
        if backend.model not in found["model"]
    ]


def _fields_of(error: ValidationError) -> str:
    """Field and message of each problem, never the value."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'object'}: {problem['msg']}" for problem in problems)
