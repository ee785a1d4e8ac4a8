"""The control plane: which fault and which fleet profile are in force, per provider and model, changed at run time."""

from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.simulator.faults import Fault
from services.simulator.profiles import FLEETS, MODELS, FleetProfile

ANY = "*"


class Control(BaseModel):
    """The body of `POST /control`. What is left out stays as it is; `fault: null` clears every matching rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = ANY
    model: str = ANY
    fault: Fault | None = None
    profile: str | None = None
    latency_scale: float | None = Field(default=None, ge=0, le=1000)


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
    """What is in force. Rules are looked up from the most to the least specific pair of provider and model."""

    latency_scale: float
    fleet: FleetProfile
    fleets: dict[str, FleetProfile] = field(default_factory=dict)
    rules: dict[tuple[str, str], Rule] = field(default_factory=dict)

    def rule(self, provider: str, model: str) -> Rule | None:
        """The rule for one backend, if any."""
        if not self.rules:
            return None
        pairs = ((provider, model), (provider, ANY), (ANY, model), (ANY, ANY))
        return next((self.rules[pair] for pair in pairs if pair in self.rules), None)

    def hit(self, provider: str, model: str) -> None:
        """Count one hit of the backend's rule; a rule without hits left is gone."""
        rule = self.rule(provider, model)
        if rule is not None and rule.hits_left is not None:
            rule.hits_left -= 1
            if rule.hits_left <= 0:
                self.rules = {pair: one for pair, one in self.rules.items() if one is not rule}

    def fleet_of(self, provider: str) -> FleetProfile:
        """The provider's fleet profile."""
        return self.fleets.get(provider, self.fleet)

    def apply(self, control: Control) -> None:
        """Put one control body in force."""
        if control.latency_scale is not None:
            self.latency_scale = control.latency_scale
        if control.profile is not None and control.provider == ANY:
            self.fleet = FLEETS[control.profile]
            self.fleets.clear()
        elif control.profile is not None:
            self.fleets[control.provider] = FLEETS[control.profile]
        if control.fault is not None:
            self.rules[control.provider, control.model] = Rule(control.fault, control.fault.times or None)
        elif "fault" in control.model_fields_set:
            self.rules = {pair: rule for pair, rule in self.rules.items() if not _covers(control, pair)}

    def as_dict(self) -> dict[str, Any]:
        """What is in force, for `GET /control`."""
        return {
            "latency_scale": self.latency_scale,
            "profile": self.fleet.name,
            "profiles": {provider: fleet.name for provider, fleet in self.fleets.items()},
            "faults": [
                {
                    "provider": provider,
                    "model": model,
                    "hits_left": rule.hits_left,
                    "fault": rule.fault.model_dump(mode="json"),
                }
                for (provider, model), rule in self.rules.items()
            ],
        }


def read_control(raw: bytes) -> Control:
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
    if control.model != ANY and control.model not in MODELS:
        raise ControlError("model", f"{control.model!r} is unknown; use * or one of {', '.join(MODELS)}")
    return control


def _covers(control: Control, pair: tuple[str, str]) -> bool:
    provider, model = pair
    return control.provider in (ANY, provider) and control.model in (ANY, model)
