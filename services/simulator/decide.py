"""Turns (model, fleet profile, fault rule, seed, call number) into how one call will go: its fault and its latency.

Pure: the seed and the call number are the only source of chance, so a run can be computed again without a server.
"""

from dataclasses import dataclass
from math import exp
from statistics import NormalDist

from services.simulator.draws import draw
from services.simulator.faults import Fault, FaultKind
from services.simulator.profiles import ERROR_MIX, SLOW, FleetProfile, ModelProfile

_NORMAL = NormalDist()
_SIGMA = 0.56  # body of the time to first token, from p50 and p95 of public router data
_TAIL_SHARE = 0.025  # the rest of the calls follow a Pareto tail from 3 x p50, the body's own 97.5th percentile
_TAIL_FROM = 3.0
_TAIL_ALPHA = 1.8
_TAIL_MAX = 60.0  # x p50: a drawn latency has a bound, endless ones are the hang fault's business
_DRAWS_PER_CALL = 8


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one call goes. Times are unscaled; `by_rule` says the fault came from the control rule, which counts hits."""

    fault: Fault | None
    by_rule: bool
    in_burst: bool
    ttft_ms: float
    ms_per_token: float


def decide(model: ModelProfile, fleet: FleetProfile, rule: Fault | None, in_burst: bool, seed: int, call: int) -> Behaviour:
    """The fault is, in this order: the control rule's, the model's own, the fleet profile's, none."""
    base = call * _DRAWS_PER_CALL
    in_burst = _burst(fleet, in_burst, draw(seed, base))
    by_rule = rule is not None and (rule.share >= 1 or draw(seed, base + 1) < rule.share)
    fault = rule if by_rule else model.fault or _weather(fleet, in_burst, draw(seed, base + 2), draw(seed, base + 3))
    ttft_ms = model.ttft_ms_p50 * latency_ratio(draw(seed, base + 4), draw(seed, base + 5))
    ms_per_token = 1000 / model.tokens_per_s * (0.8 + 0.4 * draw(seed, base + 6))
    if fault is not None and fault.kind is FaultKind.SLOW:
        ttft_ms, ms_per_token = ttft_ms * fault.factor, ms_per_token * fault.factor
    return Behaviour(fault, by_rule, in_burst, ttft_ms, ms_per_token)


def latency_ratio(which: float, where: float) -> float:
    """Time to first token as a multiple of its median: log-normal body, Pareto tail."""
    if which < _TAIL_SHARE:
        return min(_TAIL_MAX, _TAIL_FROM * float((1 - where) ** (-1 / _TAIL_ALPHA)))
    return exp(_SIGMA * _NORMAL.inv_cdf(min(max(where, 1e-9), 1 - 1e-9)))


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


def _weather(fleet: FleetProfile, in_burst: bool, chance: float, mix: float) -> Fault | None:
    errors = fleet.burst_error_share if in_burst else fleet.error_share
    if chance >= errors:
        return SLOW if chance >= 1 - fleet.slow_share else None
    for weight, fault in ERROR_MIX:
        mix -= weight
        if mix < 0:
            return fault
    return ERROR_MIX[-1][1]
