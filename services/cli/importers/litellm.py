"""A LiteLLM proxy's config.yaml -> models, backends and a policy. Pure; keys are taken over as references only.

Entries of `model_list` with one `model_name` become one model with several backends. What is not understood is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from schemas.config import Policy
from services.cli.importers.imported import MODEL_NAME, Imported, LeftOutError, checked, decimal_of, whole_of
from services.cli.importers.litellm_prices import entry_of, is_price, is_read, priced, served_of
from services.cli.importers.providers import ANY, LITELLM, Endpoint, env_name, url_of

REFERENCE = "os.environ/"
LIMITS = {"rpm": "rpm", "tpm": "tpm", "max_parallel_requests": "concurrency_max"}
TIMEOUTS = {"timeout": "timeout_ms", "stream_timeout": "first_token_ms"}
SETTINGS = ("router_settings", "litellm_settings")
CHAINS = {"context_window_fallbacks": "on_context_length", "content_policy_fallbacks": "on_content_filtered"}
NO_KEYS = {
    "azure_ad_token": "signs in with a token that expires; give it an api_key",
    "litellm_credential_name": "its key is a named credential; write api_key: os.environ/NAME instead",
    "vertex_credentials": "signs in with a service account, which is not spoken here",
}
_PARAMS = {"model", "api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "region_name", "weight"}
_INFO = {"id", "base_model", "description"}
_ATTEMPTS_MAX = 10


def import_litellm(data: Any, prices: Mapping[str, Any], quality: float) -> Imported:
    """Everything of a config that can be had; `prices` is LiteLLM's price map, maybe empty."""
    imported = Imported(quality)
    config = data if isinstance(data, dict) else {}
    entries = config.get("model_list")
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        where = f"model_list[{number}]"
        try:
            _deployment(imported, entry if isinstance(entry, dict) else {}, where, prices)
        except LeftOutError as error:
            name = entry.get("model_name") if isinstance(entry, dict) else None
            imported.leave_out(f"{where} ({name})" if isinstance(name, str) else where, error)
    _settings(imported, config)
    for section in config:
        if section not in ("model_list", *SETTINGS):
            _name_fields(imported, section, config[section])
    return imported


def _deployment(imported: Imported, entry: Mapping[str, Any], where: str, prices: Mapping[str, Any]) -> None:
    params, given = entry.get("litellm_params"), entry.get("model_info") or {}
    model = entry.get("model_name")
    if not isinstance(params, dict) or not isinstance(given, dict) or not isinstance(model, str):
        raise LeftOutError("needs model_name and litellm_params, and model_info as a mapping if at all")
    if "*" in model or "*" in str(params.get("model")):
        raise LeftOutError("is a wildcard; name its models one by one")
    endpoint, name = _endpoint(params, prices)
    names = [given.get("base_model"), params.get("model"), f"{_word(params)}/{name}", name]
    known = entry_of(prices, [each for each in names if isinstance(each, str)])
    # Prices may stand in either place; whatever a config says beats the price map.
    stated = {key: value for key, value in given.items() if is_read(key)}
    info = {**known, **stated, **{key: value for key, value in params.items() if is_price(key)}}
    fields = {
        "model": model,
        **({"model_name": name} if name != model else {}),
        **endpoint.fields(),
        **_key(params, endpoint),
        **_version(imported, params, endpoint, where),
        **_limits(imported, {**entry, **params}, where),
        "prices": priced(info),
    }
    identity = given.get("id")
    usable = isinstance(identity, str) and MODEL_NAME.fullmatch(identity)
    imported.add(str(identity) if usable else f"{endpoint.provider}/{model}", fields, served_of(info))
    if not known and not any(field.startswith("supports_") for field in info):
        imported.note("no word on tools, images, JSON schema; give --prices FILE, or supports_… in model_info", where)
    for field in _unread(entry, params, given):
        imported.leave_out(f"{where}.{field}", "no field of ours")


def _unread(entry: Mapping[str, Any], params: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    known = _PARAMS | LIMITS.keys() | TIMEOUTS.keys()
    yield from (key for key in entry if key not in ("model_name", "litellm_params", "model_info", *LIMITS))
    yield from (f"litellm_params.{key}" for key in params if key not in known and not is_price(key))
    yield from (f"model_info.{key}" for key in info if key not in _INFO and not is_read(key))


def _word(params: Mapping[str, Any]) -> str:
    """LiteLLM's word for the provider; empty where the model's name has none."""
    word = params.get("custom_llm_provider")
    model = str(params.get("model", ""))
    return word if isinstance(word, str) else model.split("/")[0] if "/" in model else ""


def _endpoint(params: Mapping[str, Any], prices: Mapping[str, Any]) -> tuple[Endpoint, str]:
    """Where a deployment is, and the provider's name of its model."""
    model = params.get("model")
    if not isinstance(model, str) or not model:
        raise LeftOutError("litellm_params.model: missing")
    word = _word(params) or str(entry_of(prices, [model]).get("litellm_provider", "")) or _guess(model)
    endpoint = LITELLM.get(word)
    if endpoint is None:
        raise LeftOutError(f"no provider {word!r} is known here" if word else "its provider is unknown; write provider/model")
    name = model.removeprefix(f"{word}/")
    given = params.get("api_base", params.get("base_url"))
    if given is None:
        if not endpoint.base_url:
            raise LeftOutError("api_base: missing, and this provider has no usual one")
        return endpoint, name
    if not isinstance(given, str):
        raise LeftOutError("api_base: must be a text")
    if given.startswith(REFERENCE):
        return replace(endpoint, base_url=f"env:{env_name(given.removeprefix(REFERENCE))}"), name
    url = url_of(endpoint, given)
    if endpoint.flavour == "openai" and url != endpoint.base_url:
        endpoint = replace(ANY, key_env=endpoint.key_env)
    return replace(endpoint, base_url=url), name


def _guess(model: str) -> str:
    """As LiteLLM takes a bare name without its price map."""
    families = {"gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "claude-": "anthropic"}
    return next((word for start, word in families.items() if model.startswith(start)), "")


def _key(params: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """The key as a reference. A key itself is refused: it would stand in our file, too."""
    for field, why in NO_KEYS.items():
        if params.get(field) is not None:
            raise LeftOutError(f"{field}: {why}")
    given = params.get("api_key")
    if given in (None, ""):
        name = endpoint.key_env
    elif isinstance(given, str) and given.startswith(REFERENCE):
        name = env_name(given.removeprefix(REFERENCE))
    else:
        raise LeftOutError("api_key: holds a key itself; set an environment variable to it, and write os.environ/NAME")
    return {"key": f"env:{name}", "requires": name} if name else {}


def _version(imported: Imported, params: Mapping[str, Any], endpoint: Endpoint, where: str) -> dict[str, Any]:
    """Azure's date of the API, where it stands in the file itself."""
    version = params.get("api_version")
    if version is None:
        return {}
    if endpoint.flavour == "azure" and isinstance(version, str) and not version.startswith(REFERENCE):
        return {"quirks": {"query": {"api-version": version}}}
    imported.leave_out(f"{where}.litellm_params.api_version", "only Azure's, and only as a text; see quirks.query of a backend")
    return {}


def _limits(imported: Imported, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Limits, weights and timeouts. One that is no number is named and left out; the backend comes without it."""
    fields: dict[str, Any] = {}
    for name, ours in LIMITS.items():
        fields[ours] = whole_of(given.get(name))
    for name, ours in TIMEOUTS.items():
        seconds = decimal_of(given.get(name))
        fields[ours] = int(seconds * 1000) if seconds else None
    fields["weight"] = decimal_of(given.get("weight")) or None
    region = given.get("region_name")
    fields["region"] = region if isinstance(region, str) else None
    names = {**LIMITS, **TIMEOUTS, "weight": "weight", "region_name": "region"}
    for name, ours in names.items():
        if given.get(name) is not None and fields[ours] is None:
            imported.leave_out(f"{where}.{name}", "must be a text" if ours == "region" else "must be a number above 0")
    return {name: value for name, value in fields.items() if value is not None}


# The settings beside the list ------------------------------------------------------------------------------------------


def _settings(imported: Imported, config: Mapping[str, Any]) -> None:
    found: dict[str, tuple[str, Any]] = {}
    for section in reversed(SETTINGS):    # the router's own settings win
        settings = config.get(section)
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if name in found:
                imported.leave_out(f"{found[name][0]}.{name}", f"{section} says it, too")
            found[name] = (section, value)
    if "timeout" not in found and "request_timeout" in found:
        found["timeout"] = found.pop("request_timeout")
    for name in ("model_group_alias", *CHAINS, "fallbacks", "num_retries", "timeout"):
        if name in found:
            section, value = found.pop(name)
            _setting(imported, name, f"{section}.{name}", value)
    for name, (section, _) in found.items():
        imported.leave_out(f"{section}.{name}", "no field of ours")


def _setting(imported: Imported, name: str, where: str, value: Any) -> None:
    if name == "model_group_alias":
        _aliases(imported, where, value)
    elif name in CHAINS:
        for model, chain in _chains(imported, where, value):
            imported.chains[(model, CHAINS[name])] = chain
    elif name == "fallbacks":
        for model, chain in _chains(imported, where, value):
            why = "a failing provider is left for the model's other backends, then, where no model was pinned, for other models"
            imported.leave_out(f"{where} ({model} to {', '.join(chain)})", why)
    else:
        _policy(imported, name, where, value)


def _policy(imported: Imported, name: str, where: str, value: Any) -> None:
    number = decimal_of(value)
    fields = imported.policy.model_dump()
    if number is None or number > 86_400:
        imported.leave_out(where, "must be a number that is not negative, and at most 86400")
    elif name == "num_retries":
        imported.policy = checked(Policy, fields | {"attempts_max": min(_ATTEMPTS_MAX, int(number) + 1)})
    elif int(number * 1000) == 0:
        imported.leave_out(where, "must be at least a millisecond")
    else:
        # A caller who waited that long there expects an answer within that time here.
        timeout_ms = int(number * 1000)
        deadline_ms = min(max(fields["deadline_ms"], timeout_ms), fields["deadline_ms_max"])
        imported.policy = checked(Policy, fields | {"attempt_timeout_ms": timeout_ms, "deadline_ms": deadline_ms})


def _chains(imported: Imported, where: str, value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Model and chain of each item of a list `- model: [other, …]`."""
    for number, item in enumerate(value if isinstance(value, list) else [value]):
        pairs = item.items() if isinstance(item, dict) else [(None, None)]
        for model, chain in pairs:
            if isinstance(model, str) and isinstance(chain, list) and all(isinstance(each, str) for each in chain):
                yield model, tuple(chain)
            else:
                imported.leave_out(f"{where}[{number}]", "must be a model with the list of its fallbacks")


def _aliases(imported: Imported, where: str, value: Any) -> None:
    """An alias becomes a model of its own, so that callers may go on asking for it."""
    for alias, target in value.items() if isinstance(value, dict) else [(None, None)]:
        model = target.get("model") if isinstance(target, dict) else target
        if not isinstance(alias, str) or alias in imported.served or model not in imported.served:
            imported.leave_out(f"{where}.{alias}", "must lead from a name that is no model to a model that was imported")
            continue
        copies = [(name, backend) for name, backend in imported.backends.items() if backend.model == model]
        for (name, backend), served in zip(copies, list(imported.served[model]), strict=True):
            given = {"model": alias, "model_name": backend.model_name or model}
            imported.add(f"{name}/{alias}", {**backend.model_dump(exclude_defaults=True), **given}, served)
        imported.note(f"stands beside {model} with backends of its own: their rate limits and circuits count apart", alias)


def _name_fields(imported: Imported, section: str, value: Any) -> None:
    """Names only: what stands there may be secret."""
    for name in value if isinstance(value, dict) else ("",):
        imported.leave_out(f"{section}.{name}".rstrip("."), "no field of ours")
