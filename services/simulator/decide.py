"""Turns (model, fleet profile, fault rule, moment, seed, call number) into how one call will go: its fault, its latency.

Pure: the seed and the call number are the only source of chance, so a run can be computed again without a server.
"""

from dataclasses import dataclass
from statistics import NormalDist

from services.simulator.draws import draw, lognormal
from services.simulator.faults import Fault, FaultKind
from services.simulator.profiles import DOWN_MIX, FLEETS, SLOW, TAIL_ALPHA, FleetProfile, Mix, ModelProfile
from services.simulator.scenarios import fault_now

_NORMAL = NormalDist()
_SIGMA = 0.56  # body of the time to first token, from p50 and p95 of public router data
_TAIL_SHARE = 0.025  # the rest of the calls follow a Pareto tail from 3 x p50, the body's own 97.5th percentile
_TAIL_FROM = 3.0
_TAIL_MAX = 60.0  # x p50: a drawn latency has a bound, endless ones are the hang fault's business
_DRAWS_PER_CALL = 8


@dataclass(frozen=True, slots=True)
class Moment:
    """What of a call depends on time: the provider's outage, seconds since the model's first call, the scenarios' scale."""

    is_down: bool = False
    age_s: float = 0.0
    scenario_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one call goes. Times are unscaled; `by_rule` says the fault came from the control rule, which counts hits."""

    fault: Fault | None
    by_rule: bool
    in_burst: bool
    ttft_ms: float
    ms_per_token: float


_NOW = Moment()
_IMMUNE = FLEETS["steady"]


def decide(
    model: ModelProfile,
    fleet: FleetProfile,
    rule: Fault | None,
    in_burst: bool,
    seed: int,
    call: int,
    moment: Moment = _NOW,
) -> Behaviour:
    """The fault is, in this order: the control rule's, the model's own, the fleet profile's, none."""
    if model.immune:
        fleet, in_burst = _IMMUNE, False
    is_down = moment.is_down and not model.immune
    base = call * _DRAWS_PER_CALL
    in_burst = _burst(fleet, in_burst, draw(seed, base))
    by_rule = rule is not None and (rule.share >= 1 or draw(seed, base + 1) < rule.share)
    weather = _weather(fleet, is_down, in_burst, draw(seed, base + 2), draw(seed, base + 3))
    fault = rule if by_rule else _own(model, call, moment) or weather
    ratio = latency_ratio(draw(seed, base + 4), draw(seed, base + 5), fleet.tail_alpha)
    ttft_ms = model.ttft_ms_p50 * ratio * fleet.ttft_factor
    ms_per_token = 1000 / model.tokens_per_s * (0.8 + 0.4 * draw(seed, base + 6))
    if fault is not None and fault.kind is FaultKind.SLOW:
        ttft_ms, ms_per_token = ttft_ms * fault.factor, ms_per_token * fault.factor
    return Behaviour(fault, by_rule, in_burst, ttft_ms, ms_per_token)


def latency_ratio(which: float, where: float, tail_alpha: float = TAIL_ALPHA) -> float:
    """Time to first token as a multiple of its median: log-normal body, Pareto tail."""
    if which < _TAIL_SHARE:
        return min(_TAIL_MAX, _TAIL_FROM * float((1 - where) ** (-1 / tail_alpha)))
    return lognormal(0.0, _SIGMA, where)


def is_right(quality: float, prompt_seed: int, answer_seed: int) -> bool:
    """Whether the model gets this prompt right: with probability `quality`, over prompts.

    Half of the variance belongs to the prompt and is shared by all models, so what a strong model fails, a weak one
    mostly fails too, and escalating an answer is worth something but never certain (a Gaussian copula, rho = 0.5).
    """
    hardness = _NORMAL.inv_cdf(max(draw(prompt_seed, 0), 1e-9))
    own = _NORMAL.inv_cdf(max(draw(answer_seed, 0), 1e-9))
    return _NORMAL.cdf((hardness + own) * 0.7071067811865476) < quality


def _burst(fleet: FleetProfile, in_burst: bool, chance: float) -> bool:
    return chance >= fleet.burst_leave_share if in_burst else chance < fleet.burst_enter_share


def _own(model: ModelProfile, call: int, moment: Moment) -> Fault | None:
    if model.scenario is None:
        return model.fault
    return fault_now(model.scenario, call, moment.age_s, moment.scenario_scale)


def _weather(fleet: FleetProfile, is_down: bool, in_burst: bool, chance: float, which: float) -> Fault | None:
    if is_down:
        return _of_mix(DOWN_MIX, which)
    if chance < (fleet.burst_error_share if in_burst else fleet.error_share):
        return _of_mix(fleet.mix, which)
    return SLOW if chance >= 1 - fleet.slow_share else None


def _of_mix(mix: Mix, which: float) -> Fault:
    for weight, fault in mix:
        which -= weight
        if which < 0:
            return fault
    return mix[-1][1]
