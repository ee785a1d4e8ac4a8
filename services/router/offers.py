"""Turns the catalogue and the fleet into what can be chosen now: one `Offer` per model, one `Option` per offer. Pure.

An offer holds everything that does not depend on the request or the moment and is made once per catalogue version; an
option adds the circuits and windows of this moment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from schemas.config import Backend
from schemas.fleet import Circuit, FleetEntry
from shared.catalogue import Catalogue

PICO = 1_000_000
"""Prices are kept as whole pico-USD per token, rounded up, so that bounds are exact integers."""

TOKENS_IN_SAFETY_PERCENT = 250
"""Upper bound of input tokens over the estimate: the worst measured text (base64) has 2.2 times its estimate, and
tokenisers differ. Input is the cheap side, so the wide margin costs a request little of its budget."""

WINDOW_S = 60
CALLS_MIN = 5
"""A p95 of fewer calls says nothing; such a backend's latency counts as unknown."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One model of the catalogue. `*_mean` prices are the weighted mean of its backends, `*_max` the dearest one's."""

    model: str
    quality: float
    context_tokens: int
    output_tokens_max: int
    capabilities: frozenset[str]
    backends: tuple[str, ...]
    input_mean: int
    output_mean: int
    input_max: int
    output_max: int

    def tokens_out_max(self, allowed: int) -> int:
        """Output tokens one call may yield: the executor never asks for more."""
        return min(allowed, self.output_tokens_max)

    def cost_microusd(self, tokens_in: int, tokens_out: int) -> int:
        """Expected cost of one call, rounded half up."""
        tokens_out = self.tokens_out_max(tokens_out)
        return (tokens_in * self.input_mean + tokens_out * self.output_mean + PICO // 2) // PICO

    def cost_max_microusd(self, tokens_in: int, tokens_out_max: int) -> int:
        """No honest provider charges more for one call: see TOKENS_IN_SAFETY_PERCENT. Rounded up."""
        tokens_in_max = -(-tokens_in * TOKENS_IN_SAFETY_PERCENT // 100)
        return -(-(tokens_in_max * self.input_max + self.tokens_out_max(tokens_out_max) * self.output_max) // PICO)


@dataclass(frozen=True, slots=True)
class Option:
    """An offer at this moment. `usable`: backends whose circuit is not open; `probing`: all of those are half-open.

    `latency_ms` is the lowest p95 among them, 0 when none has one; `untried`: one of them has no figure yet.
    """

    offer: Offer
    usable: tuple[str, ...]
    probing: bool = False
    latency_ms: int = 0
    untried: bool = False


def offers_of(catalogue: Catalogue) -> tuple[Offer, ...]:
    """Every model of the catalogue, by name. One without a backend is offered too, so that a plan can say why not."""
    return tuple(
        _offer(catalogue, model, [catalogue.backends[name] for name in catalogue.backends_of(model)])
        for model in sorted(catalogue.models)
    )


def options_of(offers: Iterable[Offer], fleet: Mapping[str, FleetEntry]) -> list[Option]:
    """The offers as the fleet sees them now. A backend the fleet has never heard of is usable, its latency unknown."""
    return [_option(offer, fleet) for offer in offers]


def _offer(catalogue: Catalogue, name: str, backends: list[Backend]) -> Offer:
    model = catalogue.models[name]
    inputs = [max(backend.prices.input, backend.prices.cached_input or Decimal(0)) for backend in backends]
    weight = sum(Decimal(str(backend.weight)) for backend in backends)
    shares = [Decimal(str(backend.weight)) / weight for backend in backends]
    zero = Decimal(0)
    return Offer(
        model=name,
        quality=model.quality,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        capabilities=frozenset(model.capabilities),
        backends=catalogue.backends_of(name),
        input_mean=_pico(sum((b.prices.input * s for b, s in zip(backends, shares, strict=True)), zero)),
        output_mean=_pico(sum((b.prices.output * s for b, s in zip(backends, shares, strict=True)), zero)),
        input_max=_pico(max(inputs, default=zero)),
        output_max=_pico(max((backend.prices.output for backend in backends), default=zero)),
    )


def _pico(microusd: Decimal) -> int:
    return int((microusd * PICO).to_integral_value(ROUND_CEILING))


def _option(offer: Offer, fleet: Mapping[str, FleetEntry]) -> Option:
    usable = []
    probing = True
    latencies: list[int] = []
    for name in offer.backends:
        entry = fleet.get(name)
        if entry is None:
            probing = False
            usable.append(name)
        elif entry.circuit is not Circuit.OPEN:
            probing = probing and entry.circuit is Circuit.HALF_OPEN
            usable.append(name)
            latency_ms = _p95_ms(entry)
            if latency_ms is not None:
                latencies.append(latency_ms)
    return Option(offer, tuple(usable), probing and bool(usable), min(latencies, default=0), untried=len(latencies) < len(usable))


def _p95_ms(entry: FleetEntry) -> int | None:
    for window in entry.windows:
        if window.seconds == WINDOW_S:
            return round(window.p95_ms) if window.calls - window.failed >= CALLS_MIN else None
    return None
