"""The catalogue of the stand-in: models with price, speed and quality, fleet profiles, and models that are faults.

The prices make the invoice and are meant to be independent of Baton's own catalogue: never derive one from the other.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

from services.simulator.faults import Fault, FaultKind
from services.simulator.outages import Phase
from services.simulator.scenarios import SCENARIOS, STORY, Scenario

INSTANCE = "@"  # `sim-s01@run7`: the model before it, with a memory of its own
Mix = tuple[tuple[float, Fault], ...]


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model. Prices in nano-USD per token: 50 is 0.05 USD per 1M tokens. Quality: share of right answers.

    An immune model has no fault but its own: fleet profiles do not touch it. The afterword follows every prose answer.
    """

    name: str
    input_nanousd: int
    cached_nanousd: int
    cache_write_nanousd: int  # instead of the input price, for tokens that were put into the prompt cache
    output_nanousd: int
    quality: float
    ttft_ms_p50: float
    tokens_per_s: float
    context_tokens: int
    capabilities: frozenset[str] = frozenset()
    fault: Fault | None = None
    scenario: Scenario | None = None
    immune: bool = False
    afterword: str = ""


# What an error of a fleet profile is, by weight.
# fmt: off
ERROR_MIX: Mix = (
    (0.30, Fault(kind=FaultKind.ERROR, status=500)),
    (0.25, Fault(kind=FaultKind.ERROR, status=503)),
    (0.30, Fault(kind=FaultKind.ERROR, status=429, retry_after_s=1)),
    (0.15, Fault(kind=FaultKind.RESET)),
)
DOWN_MIX: Mix = (
    (0.60, Fault(kind=FaultKind.ERROR, status=503)),
    (0.25, Fault(kind=FaultKind.ERROR, status=500)),
    (0.15, Fault(kind=FaultKind.RESET)),
)
_STORM_MIX: Mix = (
    (0.50, Fault(kind=FaultKind.ERROR, status=429, retry_after_s=2)),
    (0.50, Fault(kind=FaultKind.ERROR, status=429)),
)
_CUTTER_MIX: Mix = (
    (0.20, Fault(kind=FaultKind.CUT_STREAM, after_tokens=20)),
    (0.20, Fault(kind=FaultKind.STALL_STREAM, after_tokens=20)),
    (0.20, Fault(kind=FaultKind.DRIP, after_tokens=20, stall_s=10)),
    (0.20, Fault(kind=FaultKind.MALFORMED)),
    (0.20, Fault(kind=FaultKind.DUPLICATE)),
)
_LIAR_MIX: Mix = (
    (0.40, Fault(kind=FaultKind.WRONG_USAGE)),
    (0.30, Fault(kind=FaultKind.ERROR_IN_200)),
    (0.30, Fault(kind=FaultKind.NO_DONE)),
)
_QUOTA_MIX: Mix = ((1.0, Fault(kind=FaultKind.ERROR, error_class="quota_exhausted")),)
_REVOKED_MIX: Mix = ((1.0, Fault(kind=FaultKind.ERROR, error_class="auth")),)
# fmt: on
TAIL_ALPHA = 1.8


@dataclass(frozen=True, slots=True)
class FleetProfile:
    """How a provider behaves on the whole. Shares are of calls; `burst_*` describe hours when errors come in clusters.

    `slow_share` comes on top of the errors: a slow call still succeeds. While the phase says down, every call fails.
    `ttft_factor` multiplies the time to first token; `tail_alpha` shapes its Pareto tail, smaller is heavier.
    """

    name: str
    error_share: float = 0.0
    slow_share: float = 0.0
    burst_error_share: float = 0.0
    burst_enter_share: float = 0.0
    burst_leave_share: float = 1.0
    mix: Mix = ERROR_MIX
    phase: Phase = Phase.NEVER
    ttft_factor: float = 1.0
    tail_alpha: float = TAIL_ALPHA


_ALL = frozenset({"tools", "json_schema"})
# fmt: off
_MODELS = (
    #             name         in  cached  write    out  quality ttft tok/s  context  capabilities
    ModelProfile("sim-nano",     50,   25,     63,    200, 0.55,   60, 400,  16_000),
    ModelProfile("sim-small",   150,   75,    188,    600, 0.70,  120, 250, 128_000, _ALL),
    ModelProfile("sim-large",  2500, 1250,  3_125, 10_000, 0.90,  350, 120, 200_000, _ALL | {"vision"}),
    ModelProfile("sim-reason", 5000, 2500,  6_250, 20_000, 0.95,  900,  90, 200_000, _ALL | {"reasoning"}),
)

# The model's name chooses the fault, so any client can drive it. Add a line to add a scenario.
FAULT_MODELS = MappingProxyType({
    "sim-fault-500":      Fault(kind=FaultKind.ERROR, status=500),
    "sim-fault-429":      Fault(kind=FaultKind.ERROR, status=429, retry_after_s=2),
    "sim-fault-hang":     Fault(kind=FaultKind.HANG),
    "sim-fault-refuse":   Fault(kind=FaultKind.REFUSE),
    "sim-fault-empty":    Fault(kind=FaultKind.EMPTY),
    "sim-fault-truncate": Fault(kind=FaultKind.TRUNCATE),
})

# Shares of failed calls as counted in public traces: 1.78 %, 1.92 % and 7.26 % (HPMLL/BurstGPT).
# bad_day spends 9.1 % of its calls in bursts of 20 on average: .909 * .02 + .091 * .60 = .073.
# heavy_tail: 2.5 % of calls wait 3 x p50 / (1 - u)^(1 / 0.9), at most 60 x p50; at p99 1 - u is .4: 8.3 x p50.
FLEETS = MappingProxyType({fleet.name: fleet for fleet in (
    FleetProfile("steady"),
    FleetProfile("calm",            error_share=0.002, slow_share=0.001),
    FleetProfile("typical",         error_share=0.018, slow_share=0.005),
    FleetProfile("bad_day",         error_share=0.02,  slow_share=0.02,
                 burst_error_share=0.60, burst_enter_share=0.005, burst_leave_share=0.05),
    FleetProfile("storm_429",       error_share=0.8, mix=_STORM_MIX),
    FleetProfile("brownout",        ttft_factor=8.0),
    FleetProfile("outage",          phase=Phase.OUTAGE),
    FleetProfile("flapping",        phase=Phase.FLAPPING),
    FleetProfile("joint_outage",    phase=Phase.JOINT),
    FleetProfile("quota_exhausted", error_share=1.0, mix=_QUOTA_MIX),
    FleetProfile("key_revoked",     error_share=1.0, mix=_REVOKED_MIX),
    FleetProfile("stream_cutter",   error_share=0.5, mix=_CUTTER_MIX),
    FleetProfile("liar",            error_share=0.5, mix=_LIAR_MIX),
    FleetProfile("heavy_tail",      tail_alpha=0.9),
)})

SLOW = Fault(kind=FaultKind.SLOW, factor=8.0)
# fmt: on


def _catalogue() -> dict[str, ModelProfile]:
    models = {model.name: model for model in _MODELS}
    for name, fault in FAULT_MODELS.items():
        models[name] = replace(models["sim-small"], name=name, fault=fault)
    healthy = replace(models["sim-small"], quality=1.0, immune=True, capabilities=_ALL | {"vision"})
    for name, scenario in SCENARIOS.items():
        models[name] = replace(healthy, name=name, scenario=scenario, afterword=STORY if scenario.long else "")
    for name in ("sim-scenario-fallback", "sim-noprefill"):
        models[name] = replace(healthy, name=name, context_tokens=200_000)
    return models


MODELS = MappingProxyType(_catalogue())


def model_named(name: str) -> ModelProfile | None:
    """The model, or the instance of one: `sim-s01@run7` is `sim-s01` under that name. None: there is no such model."""
    model = MODELS.get(name)
    if model is None and INSTANCE in name:
        original = MODELS.get(name.partition(INSTANCE)[0])
        model = original and replace(original, name=name)
    return model


def cost_microusd(model: ModelProfile, tokens_in: int, cached_tokens: int, tokens_out: int, cache_write_tokens: int = 0) -> int:
    """Cost of one call, rounded once, half up. Tokens read from and written to the cache are part of `tokens_in`."""
    nanousd = (
        (tokens_in - cached_tokens - cache_write_tokens) * model.input_nanousd
        + cached_tokens * model.cached_nanousd
        + cache_write_tokens * model.cache_write_nanousd
        + tokens_out * model.output_nanousd
    )
    return (nanousd + 500) // 1000
