"""The catalogue of the stand-in: models with price, speed and quality, fleet profiles, and models that are faults.

The prices make the invoice and are meant to be independent of Baton's own catalogue: never derive one from the other.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

from services.simulator.faults import Fault, FaultKind


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model. Prices in nano-USD per token: 50 is 0.05 USD per 1M tokens. Quality: share of right answers."""

    name: str
    input_nanousd: int
    cached_nanousd: int
    output_nanousd: int
    quality: float
    ttft_ms_p50: float
    tokens_per_s: float
    context_tokens: int
    capabilities: frozenset[str] = frozenset()
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class FleetProfile:
    """How a provider behaves on the whole. Shares are of calls; `burst_*` describe hours when errors come in clusters.

    `slow_share` comes on top of the errors: a slow call still succeeds.
    """

    name: str
    error_share: float
    slow_share: float
    burst_error_share: float = 0.0
    burst_enter_share: float = 0.0
    burst_leave_share: float = 1.0


_ALL = frozenset({"tools", "json_schema"})
# fmt: off
_MODELS = (
    #             name         in  cached    out  quality ttft tok/s  context  capabilities
    ModelProfile("sim-nano",     50,   25,    200, 0.55,   60, 400,  16_000),
    ModelProfile("sim-small",   150,   75,    600, 0.70,  120, 250, 128_000, _ALL),
    ModelProfile("sim-large",  2500, 1250, 10_000, 0.90,  350, 120, 200_000, _ALL | {"vision"}),
    ModelProfile("sim-reason", 5000, 2500, 20_000, 0.95,  900,  90, 200_000, _ALL | {"reasoning"}),
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
FLEETS = MappingProxyType({fleet.name: fleet for fleet in (
    FleetProfile("steady",  error_share=0.0,   slow_share=0.0),
    FleetProfile("calm",    error_share=0.002, slow_share=0.001),
    FleetProfile("typical", error_share=0.018, slow_share=0.005),
    FleetProfile("bad_day", error_share=0.02,  slow_share=0.02,
                 burst_error_share=0.60, burst_enter_share=0.005, burst_leave_share=0.05),
)})

# What an error of a fleet profile is, by weight.
ERROR_MIX = (
    (0.30, Fault(kind=FaultKind.ERROR, status=500)),
    (0.25, Fault(kind=FaultKind.ERROR, status=503)),
    (0.30, Fault(kind=FaultKind.ERROR, status=429, retry_after_s=1)),
    (0.15, Fault(kind=FaultKind.RESET)),
)
SLOW = Fault(kind=FaultKind.SLOW, factor=8.0)
# fmt: on


def _catalogue() -> dict[str, ModelProfile]:
    models = {model.name: model for model in _MODELS}
    for name, fault in FAULT_MODELS.items():
        models[name] = replace(models["sim-small"], name=name, fault=fault)
    return models


MODELS = MappingProxyType(_catalogue())


def cost_microusd(model: ModelProfile, tokens_in: int, cached_tokens: int, tokens_out: int) -> int:
    """Cost of one call, rounded once, half up. `cached_tokens` are part of `tokens_in`."""
    nanousd = (
        (tokens_in - cached_tokens) * model.input_nanousd
        + cached_tokens * model.cached_nanousd
        + tokens_out * model.output_nanousd
    )
    return (nanousd + 500) // 1000
