"""Turns the catalogue and the fleet into what can be chosen now: one `Offer` per model, one `Option` per offer. Pure.

An offer holds everything that depends neither on the request nor on the moment, but for the day's prices; it is made once
per apply and day. An option adds the circuits, gates and windows of this moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

from schemas.config import Model, Prices, Rates
from schemas.fleet import Circuit, FleetEntry, Window
from shared.catalogue import Catalogue
from shared.prices import dearest, prices_at, rates_for

PICO = 1_000_000
"""Prices are kept as whole pico-USD per token, rounded up, so that bounds are exact integers."""

TOKENS_IN_SAFETY_PERCENT = 250
"""Upper bound of input tokens over the estimate: the worst measured text (base64) has 2.2 times its estimate, and
tokenisers differ. Input is the cheap side, so the wide margin costs a request little of its budget."""

WINDOW_S = 60
FAILING_PRIOR = 0.02
FAILING_LEAN = 20
"""Calls that the prior counts for: as many as a window needs before it says more than that."""

CALLS_MIN = 5
"""A p95 of fewer calls says nothing; such a backend's latency counts as unknown."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Pico-USD per token of a call with more input than `above_tokens`.

    `*_mean`: the weighted mean of the model's backends. `*_max`: the dearest kind of token of the dearest backend, at this
    size of input or any smaller one: an estimate may be too high as well.
    """

    above_tokens: int
    input_mean: int
    output_mean: int
    cached_mean: int
    input_max: int
    output_max: int


@dataclass(frozen=True, slots=True)
class Offer:
    """One model of the catalogue. `tariffs` rise by the input they are for; the first is for any."""

    model: str
    quality: float
    context_tokens: int
    output_tokens_max: int
    capabilities: frozenset[str]
    backends: tuple[str, ...]
    tariffs: tuple[Tariff, ...]
    on_context_length: tuple[str, ...] = ()
    on_content_filtered: tuple[str, ...] = ()
    certified: frozenset[str] = frozenset()

    def tokens_out_max(self, allowed: int) -> int:
        """Output tokens one call may yield: the executor never asks for more."""
        return allowed if allowed < self.output_tokens_max else self.output_tokens_max

    def cost_microusd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> int:
        """Expected cost of one call, rounded half up. `tokens_cached`: input a provider's cache is expected to hold."""
        tariff = self.tariffs[0] if len(self.tariffs) == 1 else self._tariff(tokens_in)
        tokens_out = tokens_out if tokens_out < self.output_tokens_max else self.output_tokens_max
        exact = tokens_in * tariff.input_mean + tokens_out * tariff.output_mean + PICO // 2
        return (exact + tokens_cached * (tariff.cached_mean - tariff.input_mean)) // PICO

    def charges_at_most(self, input_usd: float, output_usd: float) -> bool:
        """Whether its mean prices, USD per million tokens of a short call, are within these."""
        return self.tariffs[0].input_mean <= input_usd * PICO and self.tariffs[0].output_mean <= output_usd * PICO

    def cost_max_microusd(self, tokens_in: int, tokens_out_max: int) -> int:
        """No honest provider charges more for one call: see TOKENS_IN_SAFETY_PERCENT. Rounded up."""
        tokens_in_max = -(-tokens_in * TOKENS_IN_SAFETY_PERCENT // 100)
        tariff = self._tariff(tokens_in_max)
        return -(-(tokens_in_max * tariff.input_max + self.tokens_out_max(tokens_out_max) * tariff.output_max) // PICO)

    def _tariff(self, tokens_in: int) -> Tariff:
        found = self.tariffs[0]
        for tariff in self.tariffs[1:]:
            if tokens_in > tariff.above_tokens:
                found = tariff
        return found


@dataclass(frozen=True, slots=True)
class Option:
    """An offer at this moment. `usable`: backends that may be called; `firm`: one of them at once, and not as a probe.

    `latency_ms` is the lowest p95 among them, 0 when none has one, `p50_ms` and `p99_ms` are that backend's; `failing`: the
    share of calls that fail at the best of them, leaning on FAILING_PRIOR; `untried`: one of them has no figure yet. `gated`:
    those that must not be called before a time. `open`: others whose circuit is open, with the earliest time of a probe.
    """

    offer: Offer
    usable: tuple[str, ...]
    firm: bool = True
    latency_ms: int = 0
    p50_ms: int = 0
    p99_ms: int = 0
    failing: float = 0.0
    untried: bool = False
    gated: tuple[tuple[str, int], ...] = ()
    open: tuple[tuple[str, int], ...] = ()

    def until(self, deadline_ms: int) -> "Option":
        """Without the backends whose gate stays shut until the deadline: nobody will be able to call them in time."""
        if not self.gated:
            return self
        shut = {name for name, until_ms in self.gated if until_ms >= deadline_ms}
        return replace(self, usable=tuple(name for name in self.usable if name not in shut)) if shut else self

    def waiting(self, deadline_ms: int) -> "Option":
        """With the backends whose circuit may be probed before the deadline, where no other one is left."""
        cooling = tuple(name for name, until_ms in self.open if until_ms < deadline_ms)
        return self if self.usable or not cooling else replace(self, usable=cooling, firm=False, untried=True)


def offers_of(catalogue: Catalogue, at_ms: int) -> tuple[Offer, ...]:
    """Every model of the catalogue, by name, at the prices of a day: epoch milliseconds within it.

    One without a backend is offered too, so that a plan can say why not.
    """
    return tuple(_offer(catalogue, name, catalogue.models[name], at_ms) for name in sorted(catalogue.models))


def options_of(offers: Iterable[Offer], fleet: Mapping[str, FleetEntry]) -> list[Option]:
    """The offers as the fleet sees them now. A backend the fleet has never heard of is usable, its latency unknown."""
    return [_option(offer, fleet) for offer in offers]


def _offer(catalogue: Catalogue, name: str, model: Model, at_ms: int) -> Offer:
    backends = [catalogue.backends[backend] for backend in catalogue.backends_of(name)]
    weights = [Decimal(str(backend.weight)) for backend in backends]
    return Offer(
        model=name,
        quality=model.quality,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        capabilities=frozenset(model.capabilities),
        backends=catalogue.backends_of(name),
        tariffs=_tariffs([prices_at(backend, at_ms) for backend in backends], [weight / sum(weights) for weight in weights]),
        on_context_length=model.on_context_length,
        on_content_filtered=model.on_content_filtered,
        certified=catalogue.certificates[name].certified if name in catalogue.certificates else frozenset(),
    )


def _tariffs(prices: Sequence[Prices], shares: Sequence[Decimal]) -> tuple[Tariff, ...]:
    """One for any input, and one more wherever the rates of a backend change."""
    tariffs: list[Tariff] = []
    for above_tokens in sorted({0, *(tier.above_tokens for each in prices for tier in each.tiers)}):
        rates = [rates_for(each, above_tokens + 1) for each in prices]
        most = [dearest(rate) for rate in rates]
        below = tariffs[-1:]
        tariffs.append(
            Tariff(
                above_tokens=above_tokens,
                input_mean=_pico(sum((rate.input * share for rate, share in zip(rates, shares, strict=True)), Decimal(0))),
                cached_mean=_pico(sum((_cached(rate) * share for rate, share in zip(rates, shares, strict=True)), Decimal(0))),
                output_mean=_pico(sum((rate.output * share for rate, share in zip(rates, shares, strict=True)), Decimal(0))),
                input_max=max([_pico(rate_in) for rate_in, _ in most] + [tariff.input_max for tariff in below], default=0),
                output_max=max([_pico(rate_out) for _, rate_out in most] + [tariff.output_max for tariff in below], default=0),
            )
        )
    return tuple(tariffs)


def _cached(rates: Rates) -> Decimal:
    return rates.input if rates.cached_input is None else rates.cached_input


def _pico(microusd: Decimal) -> int:
    return int((microusd * PICO).to_integral_value(ROUND_CEILING))


def _option(offer: Offer, fleet: Mapping[str, FleetEntry]) -> Option:
    usable, gated, opened = [], [], []
    firm = False
    windows: list[Window | None] = []
    for name in offer.backends:
        entry = fleet.get(name)
        if entry is None:
            firm = True
            usable.append(name)
            windows.append(None)
            continue
        gate_ms = entry.gate.until_ms if entry.gate else 0
        if entry.circuit is Circuit.OPEN:
            opened.append((name, max(entry.cooldown_until_ms, gate_ms)))
            continue
        firm = firm or (entry.circuit is Circuit.CLOSED and not gate_ms)
        usable.append(name)
        if gate_ms:
            gated.append((name, gate_ms))
        windows.append(_window(entry))
    timed = [window for window in windows if window and window.calls - window.failed >= CALLS_MIN]
    best = min(timed, key=lambda window: window.p95_ms, default=_NO_WINDOW)
    return Option(
        offer,
        tuple(usable),
        firm=firm,
        latency_ms=round(best.p95_ms),
        p50_ms=round(best.p50_ms),
        p99_ms=round(best.p99_ms),
        failing=round(min((_failing(window) for window in windows), default=FAILING_PRIOR), 4),
        untried=len(timed) < len(usable),
        gated=tuple(gated),
        open=tuple(opened),
    )


_NO_WINDOW = Window(seconds=WINDOW_S)


def _window(entry: FleetEntry) -> Window | None:
    return next((window for window in entry.windows if window.seconds == WINDOW_S), None)


def _failing(window: Window | None) -> float:
    """Share of calls that fail, (failed + κ·prior)/(calls + κ): no calls are not no failures."""
    if window is None:
        return FAILING_PRIOR
    return (window.failed + FAILING_LEAN * FAILING_PRIOR) / (window.calls + FAILING_LEAN)
