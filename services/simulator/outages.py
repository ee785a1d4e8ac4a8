"""Turns a seed into when a provider is down: incidents drawn from published histories, or a steady on and off.

Pure: the time is passed in. Two providers with the same seed are down at the same time.
"""

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from math import floor, log
from types import MappingProxyType

from services.simulator.draws import draw, lognormal

FLAP_S = 20.0
TIME_SCALE = 0.1  # the median incident of 75 minutes lasts 7.5 s of the run


class Phase(StrEnum):
    """What decides whether a provider is down now."""

    NEVER = "never"
    OUTAGE = "outage"  # its own timeline
    JOINT = "joint"  # one timeline for all providers with this phase
    FLAPPING = "flapping"  # FLAP_S up, FLAP_S down


@dataclass(frozen=True, slots=True)
class Incidents:
    """How long a provider is down and how long it is up: two log-normals, mu and sigma of minutes."""

    down_mu: float
    down_sigma: float
    up_mu: float
    up_sigma: float


# Lengths: log-normals fitted to the incident histories of OpenAI's API (222, 2021 to 2024) and Anthropic's (72, 2023 to
# 2024), atlarge-research/llm-service-analysis. Gaps: mean and median of the same histories (133 and 48 h, 125 and 50 h)
# determine one log-normal: mu = ln median, sigma = sqrt(2 ln(mean / median)). Its standard deviation is 2.6 and 2.3 times
# its mean (1 for a Poisson process): many incidents soon after another, few after weeks, which is how they cluster.
PUBLISHED = MappingProxyType(
    {
        "openai": Incidents(4.32, 1.17, log(48 * 60), 1.428),
        "anthropic": Incidents(3.92, 1.40, log(50 * 60), 1.354),
    }
)


def incidents_of(provider: str) -> Incidents:
    """The history that fits the provider's name; OpenAI's for any other name."""
    return PUBLISHED.get(provider, PUBLISHED["openai"])


class Timeline:
    """When one provider is down. Seconds count from the moment the weather was put in force.

    `time_scale` is seconds of the run per published minute. `first_at_s` sets the beginning of the first incident.
    """

    def __init__(self, incidents: Incidents, seed: int, time_scale: float, first_at_s: float | None = None) -> None:
        self._incidents, self._seed, self._time_scale = incidents, seed, time_scale
        self._edges = [] if first_at_s is None else [first_at_s]  # up to down, down to up, up to down …

    def is_down(self, at_s: float) -> bool:
        """Whether an incident is going on."""
        return self._edges_until(at_s) % 2 == 1

    def changes_in_s(self, at_s: float) -> float:
        """Time until the incident ends, or until the next one begins."""
        return self._edges[self._edges_until(at_s)] - at_s

    def _edges_until(self, at_s: float) -> int:
        while not self._edges or self._edges[-1] <= at_s:
            before = self._edges[-1] if self._edges else 0.0
            self._edges.append(before + self._length_s(len(self._edges)))
        return bisect_right(self._edges, at_s)

    def _length_s(self, index: int) -> float:
        one, chance = self._incidents, draw(self._seed, index)
        is_up = index % 2 == 0
        minutes = lognormal(one.up_mu, one.up_sigma, chance) if is_up else lognormal(one.down_mu, one.down_sigma, chance)
        return minutes * self._time_scale


def flaps(at_s: float) -> bool:
    """Whether a flapping provider is down: up first, then down, FLAP_S each."""
    return floor(at_s / FLAP_S) % 2 == 1


def flaps_in_s(at_s: float) -> float:
    """Time until a flapping provider changes."""
    return (floor(at_s / FLAP_S) + 1) * FLAP_S - at_s
