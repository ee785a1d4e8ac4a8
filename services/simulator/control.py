"""The control plane: what is in force per provider, model and key, changed at run time. The time is passed in.

A body changes only what it holds, and what it does not name (`*`) it changes for all.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.simulator.capacity import UNLIMITED, Capacity
from services.simulator.faults import Fault
from services.simulator.limits import Limit
from services.simulator.profiles import FLEETS, MODELS, model_named
from services.simulator.scopes import ANY, Scope, key_start, narrowest
from services.simulator.weather import Sky, Weather


class Control(BaseModel):
    """The body of `POST /control`. What is left out stays as it is; `fault: null` clears every matching rule.

    `key` is a literal key or the first 4 to 12 digits of its hash, as `GET /calls` shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = ANY
    model: str = ANY
    key: str = ANY
    fault: Fault | None = None
    profile: str | None = None
    outage_at_s: float | None = Field(default=None, ge=0)  # from now to the first incident; None: drawn
    time_scale: float | None = Field(default=None, ge=0.001)  # seconds per published minute of an incident
    latency_scale: float | None = Field(default=None, ge=0, le=1000)
    scenario_scale: float | None = Field(default=None, ge=0)
    capacity: int | None = Field(default=None, ge=0)
    queue_max: int | None = Field(default=None, ge=0)
    rpm: int | None = Field(default=None, ge=0)
    tpm: int | None = Field(default=None, ge=0)
    revoked: bool | None = None


class ControlError(Exception):
    """The control body is wrong. `field` is a dotted path into it; the message says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


@dataclass(slots=True)
class Rule:
    """A fault and how many hits are left (None: no end)."""

    fault: Fault
    hits_left: int | None


@dataclass(slots=True)
class Controls:
    """What is in force. Rules and limits are looked up from the narrowest to the widest scope."""

    latency_scale: float
    weather: Weather
    scenario_scale: float = 1.0
    capacity: Capacity = UNLIMITED
    capacities: dict[str, Capacity] = field(default_factory=dict)
    rules: dict[Scope, Rule] = field(default_factory=dict)
    limits: dict[Scope, Limit] = field(default_factory=dict)
    revoked: set[Scope] = field(default_factory=set)

    def rule(self, provider: str, model: str, key: str = "") -> Rule | None:
        """The fault rule for one call, if any."""
        return narrowest(self.rules, provider, model, key) if self.rules else None

    def hit(self, rule: Rule) -> None:
        """Count one hit of a rule; a rule without hits left is gone."""
        if rule.hits_left is not None:
            rule.hits_left -= 1
            if rule.hits_left <= 0:
                self.rules = {scope: one for scope, one in self.rules.items() if one is not rule}

    def limit(self, provider: str, model: str, key: str = "") -> Limit | None:
        """The rate limit of one (provider, key, model), if any."""
        return narrowest(self.limits, provider, model, key) if self.limits else None

    def is_revoked(self, provider: str, key: str) -> bool:
        """Whether the provider no longer takes this key."""
        return bool(self.revoked) and any(scope.covers(provider, ANY, key) for scope in self.revoked)

    def capacity_of(self, provider: str) -> Capacity:
        """How much the provider works on at once."""
        return self.capacities.get(provider, self.capacity)

    def apply(self, control: Control, now_s: float) -> None:
        """Put one control body in force."""
        if control.latency_scale is not None:
            self.latency_scale = control.latency_scale
        if control.scenario_scale is not None:
            self.scenario_scale = control.scenario_scale
        if control.time_scale is not None:
            self.weather.scale(control.time_scale)
        if control.profile is not None:
            sky = Sky(FLEETS[control.profile], now_s, control.outage_at_s)
            self.weather.put(None if control.provider == ANY else control.provider, sky)
        self._apply_capacity(control)
        scope = Scope(control.provider, control.model, key_start(control.key))
        self._apply_fault(control, scope)
        self._apply_limit(control, scope)
        self._apply_revocation(control, scope)

    def _apply_capacity(self, control: Control) -> None:
        fields = {"calls": control.capacity, "queue_max": control.queue_max}
        changes = {name: value for name, value in fields.items() if value is not None}
        if not changes:
            return
        if control.provider == ANY:
            self.capacity = replace(self.capacity, **changes)
            self.capacities.clear()
        else:
            self.capacities[control.provider] = replace(self.capacity_of(control.provider), **changes)

    def _apply_fault(self, control: Control, scope: Scope) -> None:
        if control.fault is not None:
            self.rules[scope] = Rule(control.fault, control.fault.times or None)
        elif "fault" in control.model_fields_set:
            self.rules = {one: rule for one, rule in self.rules.items() if not scope.covers(*one)}

    def _apply_limit(self, control: Control, scope: Scope) -> None:
        fields = {"rpm": control.rpm, "tpm": control.tpm}
        changes = {name: value for name, value in fields.items() if value is not None}
        if not changes:
            return
        limit = replace(self.limits.get(scope, Limit()), **changes)
        if limit == Limit():
            self.limits = {one: other for one, other in self.limits.items() if not scope.covers(*one)}
        if limit != Limit() or self.limits:  # no limit is an entry only where it makes an exception
            self.limits[scope] = limit

    def _apply_revocation(self, control: Control, scope: Scope) -> None:
        if control.revoked:
            self.revoked.add(scope)
        elif control.revoked is False:
            self.revoked = {one for one in self.revoked if not scope.covers(*one)}

    def as_dict(self, now_s: float) -> dict[str, Any]:
        """What is in force, for `GET /control`."""
        return {
            "latency_scale": self.latency_scale,
            "scenario_scale": self.scenario_scale,
            "time_scale": self.weather.time_scale,
            "profile": self.weather.overall.fleet.name,
            "profiles": {provider: sky.fleet.name for provider, sky in self.weather.own.items()},
            "weather": {provider: self.weather.as_dict(provider, now_s) for provider in self.weather.providers()},
            "capacity": _capacity(self.capacity),
            "capacities": {provider: _capacity(capacity) for provider, capacity in self.capacities.items()},
            "faults": [
                {**scope._asdict(), "hits_left": rule.hits_left, "fault": rule.fault.model_dump(mode="json")}
                for scope, rule in self.rules.items()
            ],
            "limits": [{**scope._asdict(), "rpm": limit.rpm, "tpm": limit.tpm} for scope, limit in self.limits.items()],
            "revoked": [{"provider": scope.provider, "key": scope.key} for scope in sorted(self.revoked)],
        }


def read_control(raw: bytes | str) -> Control:
    """Read and check a control body. Raises ControlError naming the field."""
    try:
        control = Control.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise ControlError("body", f"not JSON: {error}; send an object such as {{'latency_scale': 0}}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ControlError(".".join(map(str, first["loc"])) or "body", first["msg"]) from None
    if control.profile is not None and control.profile not in FLEETS:
        raise ControlError("profile", f"{control.profile!r} is unknown; use one of {', '.join(FLEETS)}")
    if control.model != ANY and model_named(control.model) is None:
        raise ControlError("model", f"{control.model!r} is unknown; use * or one of {', '.join(MODELS)}")
    if control.outage_at_s is not None and control.profile is None:
        raise ControlError("outage_at_s", "it goes with the profile whose first incident it sets; add the profile")
    if control.revoked and control.key == ANY:
        raise ControlError("key", "say which key is revoked; for all keys use the profile key_revoked")
    return control


def _capacity(capacity: Capacity) -> dict[str, int]:
    return {"capacity": capacity.calls, "queue_max": capacity.queue_max}
