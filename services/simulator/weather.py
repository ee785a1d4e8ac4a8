"""The fleet profile of every provider since when it is in force, and whether it says the provider is down now.

The time is passed in. One timeline serves all providers under `joint_outage`, so that they go down together.
"""

from dataclasses import dataclass, field
from typing import Any

from services.simulator.draws import seed_of
from services.simulator.outages import PUBLISHED, TIME_SCALE, Phase, Timeline, flaps, flaps_in_s, incidents_of
from services.simulator.profiles import FleetProfile


@dataclass(frozen=True, slots=True)
class Sky:
    """A fleet profile in force. `outage_at_s`: when its first incident begins, from `since_s` on; None is drawn."""

    fleet: FleetProfile
    since_s: float = 0.0
    outage_at_s: float | None = None


@dataclass(slots=True)
class Weather:
    """The sky over each provider; `overall` is that of all which have none of their own."""

    overall: Sky
    seed: int = 0
    time_scale: float = TIME_SCALE
    own: dict[str, Sky] = field(default_factory=dict)
    _timelines: dict[str, Timeline] = field(default_factory=dict)
    _joint: tuple[Sky, Timeline] | None = None

    def of(self, provider: str) -> Sky:
        """The sky over one provider."""
        return self.own.get(provider, self.overall)

    def put(self, provider: str | None, sky: Sky) -> None:
        """Put a sky in force for one provider, or (None) for all of them."""
        if provider is None:
            self.overall = sky
            self.own.clear()
            self._timelines.clear()
        else:
            self.own[provider] = sky
            self._timelines.pop(provider, None)
        if not any(one.fleet.phase is Phase.JOINT for one in (self.overall, *self.own.values())):
            self._joint = None

    def scale(self, time_scale: float) -> None:
        """Draw all timelines anew: so many seconds of the run per published minute."""
        self.time_scale, self._joint = time_scale, None
        self._timelines.clear()

    def is_down(self, provider: str, now_s: float) -> bool:
        """Whether every call of the provider fails now."""
        sky = self.of(provider)
        if sky.fleet.phase is Phase.NEVER:
            return False
        if sky.fleet.phase is Phase.FLAPPING:
            return flaps(now_s - sky.since_s)
        since_s, timeline = self._timeline(provider, sky)
        return timeline.is_down(now_s - since_s)

    def providers(self) -> tuple[str, ...]:
        """Those with a sky of their own or a timeline in use."""
        return tuple(dict.fromkeys((*self.own, *self._timelines)))

    def as_dict(self, provider: str, now_s: float) -> dict[str, Any]:
        """What the provider's callers meet now, and for how long."""
        sky = self.of(provider)
        report: dict[str, Any] = {"profile": sky.fleet.name, "is_down": self.is_down(provider, now_s)}
        if sky.fleet.phase is Phase.FLAPPING:
            report["changes_in_s"] = flaps_in_s(now_s - sky.since_s)
        elif sky.fleet.phase is not Phase.NEVER:
            since_s, timeline = self._timeline(provider, sky)
            report["changes_in_s"] = timeline.changes_in_s(now_s - since_s)
        return report

    def _timeline(self, provider: str, sky: Sky) -> tuple[float, Timeline]:
        if sky.fleet.phase is Phase.JOINT:
            if self._joint is None:
                seed = seed_of(self.seed, "joint")
                self._joint = sky, Timeline(PUBLISHED["openai"], seed, self.time_scale, sky.outage_at_s)
            return self._joint[0].since_s, self._joint[1]
        timeline = self._timelines.get(provider)
        if timeline is None:
            seed = seed_of(self.seed, "outage", provider)
            timeline = Timeline(incidents_of(provider), seed, self.time_scale, sky.outage_at_s)
            self._timelines[provider] = timeline
        return sky.since_s, timeline
