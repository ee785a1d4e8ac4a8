"""models.dev's api.json -> models and backends. Pure.

Models of one id are one model, whoever serves it. What only describes a model (family, dates, weights …) is passed over.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from schemas.config import Prices
from services.cli.importers.imported import MODEL_NAME, Imported, LeftOutError, Served, decimal_of, prices_of, whole_of
from services.cli.importers.providers import DIALECT_OF_NPM, MODELS_DEV, Endpoint, env_name, url_of

RATES = {
    "input": "input", "output": "output", "cache_read": "cached_input", "cache_write": "cache_write", "reasoning": "reasoning",
}
FLAGS = {"tool_call": "tools", "structured_output": "json_schema", "reasoning": "reasoning"}
OVER_200K = "context_over_200k"
_COST = {*RATES, "tiers", OVER_200K}
_DESCRIBES = {"id", "name", "description", "family", "attachment", "knowledge", "release_date", "last_updated", "open_weights"}
_READ = {*FLAGS, "temperature", "modalities", "limit", "cost", "status", "provider"}
_PROVIDER = {"id", "name", "doc", "env", "npm", "api", "models"}
_OPENAIS = re.compile(r"o\d|gpt-")
"""Models of which the executor knows itself what they refuse; a `drop` would stand in the place of that."""
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PAT$")


def import_modelsdev(data: Any, providers: Collection[str], quality: float) -> Imported:
    """Everything that can be had of these providers, of all where none is named."""
    imported = Imported(quality)
    catalogue = data if isinstance(data, dict) else {}
    for name in providers:
        if name not in catalogue:
            imported.leave_out(name, "no such provider in the file")
    unread: Counter[str] = Counter()
    for word, provider in catalogue.items():
        if not providers or word in providers:
            _provider(imported, word, provider if isinstance(provider, dict) else {}, unread)
    for field, times in unread.items():
        imported.leave_out(f"{field} ({times} times)", "no field of ours")
    return imported


def _provider(imported: Imported, word: str, provider: Mapping[str, Any], unread: Counter[str]) -> None:
    models = provider.get("models")
    unread.update(field for field in provider if field not in _PROVIDER)
    try:
        endpoint = _endpoint(word, provider, MODELS_DEV.get(word))
    except LeftOutError as error:
        imported.leave_out(f"{word} ({len(models) if isinstance(models, dict) else 'no'} models)", error)
        return
    for name, model in models.items() if isinstance(models, dict) else ():
        try:
            _model(imported, word, name, model if isinstance(model, dict) else {}, endpoint, provider)
        except LeftOutError as error:
            imported.leave_out(f"{word}/{name}", error)
        else:
            unread.update(field for field in model if field not in _READ | _DESCRIBES)
            unread.update(f"cost.{field}" for field in model["cost"] if field not in _COST)


def _endpoint(word: str, provider: Mapping[str, Any], known: Endpoint | None) -> Endpoint:
    env = provider.get("env")
    names = [name for name in env if isinstance(name, str)] if isinstance(env, list) else []
    if known is not None and not provider.get("api"):
        return known if known.key_env in names or not names else replace(known, key_env=env_name(names[0]))
    dialect, given = DIALECT_OF_NPM.get(str(provider.get("npm"))), provider.get("api")
    if known is None and (dialect is None or not isinstance(given, str)):
        raise LeftOutError("is spoken to in a way that is not known here")
    endpoint = known or Endpoint(word, dialect=str(dialect), path="/v1" if dialect == "anthropic" else "")
    key_env = next((name for name in names if _SECRET_NAME.search(name)), endpoint.key_env)
    if "$" in str(given):
        raise LeftOutError("its URL differs from account to account; write the backend by hand")
    return replace(endpoint, base_url=url_of(endpoint, str(given)), key_env=env_name(key_env) if key_env else "")


def _model(
    imported: Imported, word: str, name: str, model: Mapping[str, Any], usual: Endpoint, provider: Mapping[str, Any]
) -> None:
    if model.get("status") == "deprecated":
        raise LeftOutError("is deprecated")
    own = model.get("provider")
    if own is not None:
        if not isinstance(own, dict) or not own.keys() <= {"npm", "api"}:
            raise LeftOutError("is spoken to in a way of its own; write the backend by hand")
        usual = _endpoint(word, {**provider, **own}, None)
    served = _served(model)
    slug = re.sub(r"[^A-Za-z0-9._:/-]", "-", name).lstrip("-._:/")
    fields: dict[str, Any] = {"model": slug, **usual.fields(), "prices": _prices(model.get("cost"))}
    if slug != name or not MODEL_NAME.fullmatch(name):
        fields["model_name"] = name
    if usual.key_env:
        fields |= {"key": f"env:{usual.key_env}", "requires": usual.key_env}
    cold = model.get("temperature") is False
    if cold and not usual.flavour and not _OPENAIS.match(name):
        fields["quirks"] = {"drop": ("temperature",)}
    imported.add(f"{usual.provider}/{slug}", fields, served)
    if cold and usual.flavour not in ("", "openai"):
        imported.note("takes no temperature, says the file; if that is so, list it in quirks.drop", f"{word}/{name}")
    if isinstance(model.get("status"), str):
        imported.note(f"its status is {model['status']}", f"{word}/{name}")


def _served(model: Mapping[str, Any]) -> Served:
    modalities, limit = model.get("modalities"), model.get("limit")
    takes, gives = (_listed(modalities, side) for side in ("input", "output"))
    if "text" not in takes or "text" not in gives:
        raise LeftOutError("is no chat model: text in and text out")
    limits = limit if isinstance(limit, dict) else {}
    context_tokens, output_tokens_max = whole_of(limits.get("context")), whole_of(limits.get("output"))
    if context_tokens is None:
        raise LeftOutError("its context is unknown")
    most_in = whole_of(limits.get("input"))
    if most_in is not None:
        context_tokens = min(context_tokens, most_in + (output_tokens_max or 0))
    capabilities = [capability for flag, capability in FLAGS.items() if model.get(flag) is True]
    seeing = ["vision"] if "image" in takes else []
    return Served(context_tokens, output_tokens_max, frozenset([*capabilities, *seeing, "streaming"]))


def _listed(value: Any, field: str) -> list[Any]:
    listed = value.get(field) if isinstance(value, dict) else None
    return listed if isinstance(listed, list) else []


def _prices(cost: Any) -> Prices:
    rates = _rates(cost)
    if "input" not in rates or "output" not in rates:
        raise LeftOutError("its price is unknown; write the backend by hand, with its prices")
    tiers = [_tier(tier) for tier in _listed(cost, "tiers")]
    if OVER_200K in cost and not any(tier["above_tokens"] == 200_000 for tier in tiers):
        tiers.append(_rates(cost[OVER_200K]) | {"above_tokens": 200_000})
    basic = {"input": rates["input"], "output": rates["output"]}
    return prices_of("models.dev", rates | {"tiers": [basic | tier for tier in tiers]})


def _tier(given: Any) -> dict[str, Any]:
    size = given.get("tier") if isinstance(given, dict) else None
    above_tokens = whole_of(size.get("size")) if isinstance(size, dict) and size.get("type") == "context" else None
    if above_tokens is None:
        raise LeftOutError("cost.tiers: each needs the size of its context")
    return _rates(given) | {"above_tokens": above_tokens}


def _rates(given: Any) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for name, ours in RATES.items():
        if isinstance(given, dict) and given.get(name) is not None:
            number = decimal_of(given[name])
            if number is None:
                raise LeftOutError(f"cost.{name}: must be a number that is not negative")
            rates[ours] = number
    return rates
