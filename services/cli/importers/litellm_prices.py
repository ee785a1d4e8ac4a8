"""Reads what LiteLLM knows of a model, in its price map or in a config's `model_info`: USD per token, as decimals. Pure."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from schemas.config import Prices
from services.cli.importers.imported import LeftOutError, Served, decimal_of, prices_of, whole_of

RATES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
}
TIER = re.compile(rf"({'|'.join(RATES)})_above_(\d+)k_tokens")
FLAGS = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_response_schema": "json_schema",
    "supports_reasoning": "reasoning",
}
KNOWN = {*FLAGS, "mode", "max_input_tokens", "max_output_tokens", "max_tokens", "supports_native_streaming"}
"""Fields that are read beside rates and tiers."""

_MILLION = 1_000_000
_FIX = "give --prices FILE, or set {} in model_info"


def is_price(name: str) -> bool:
    return name in RATES or TIER.fullmatch(name) is not None


def is_read(name: str) -> bool:
    """Whether a field of `model_info` or of the price map counts here."""
    return name in KNOWN or is_price(name)


def entry_of(prices: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    """The price map's entry for the first of these names that it has; empty where it has none."""
    return next((prices[name] for name in names if isinstance(prices.get(name), dict)), {})


def served_of(info: Mapping[str, Any]) -> Served:
    """What a model can do. Raises LeftOutError where that is no chat, or its context is unknown."""
    if info.get("mode") not in (None, "chat"):
        raise LeftOutError("is no chat model; Baton asks chat models only")
    context_tokens = whole_of(info.get("max_input_tokens"))
    if context_tokens is None:
        raise LeftOutError(f"its context is unknown; {_FIX.format('max_input_tokens')}")
    capabilities = {capability for flag, capability in FLAGS.items() if info.get(flag) is True}
    if info.get("supports_native_streaming") is not False:
        capabilities.add("streaming")
    output_tokens_max = whole_of(info.get("max_output_tokens")) or whole_of(info.get("max_tokens"))
    return Served(context_tokens, output_tokens_max, frozenset(capabilities))


def priced(info: Mapping[str, Any]) -> Prices:
    """What a model costs. Raises LeftOutError where it is not said: an unknown price is never 0."""
    rates = _rates(info, {name: name for name in RATES})
    if "input" not in rates or "output" not in rates:
        fields = "input_cost_per_token and output_cost_per_token"
        raise LeftOutError(f"its price is unknown; {_FIX.format(fields)}, 0 where it costs nothing")
    return prices_of("litellm", rates | {"tiers": _tiers(info, rates)})


def _tiers(info: Mapping[str, Any], basic: Mapping[str, Decimal]) -> list[dict[str, Any]]:
    """A tier says input or output at least; what it does not say of those two is as below it."""
    sizes = sorted({int(found[2]) for name in info if (found := TIER.fullmatch(name))})
    tiers: list[dict[str, Any]] = []
    for size in sizes:
        rates = _rates(info, {f"{name}_above_{size}k_tokens": name for name in RATES})
        if rates:
            below = tiers[-1] if tiers else basic
            tiers.append({"input": below["input"], "output": below["output"]} | rates | {"above_tokens": size * 1000})
    return tiers


def _rates(info: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Decimal]:
    """USD per million tokens, by our names, of the fields of these names."""
    rates = {}
    for given, name in names.items():
        if info.get(given) is not None:
            number = decimal_of(info[given])
            if number is None:
                raise LeftOutError(f"{given}: must be a number that is not negative")
            rates[RATES[name]] = (number * _MILLION).normalize()
    return rates
