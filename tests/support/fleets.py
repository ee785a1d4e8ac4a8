"""Small catalogues for evidence: models of the simulator, each at one or more of its providers, at the simulator's prices."""

from collections.abc import Mapping
from decimal import Decimal

from schemas.config import Backend, ConfigFile, Model, Policy, Prices, Tenant

TENANT = "evidence"
PLAIN = Policy(quality_min_hard=0.0, escalations_max=0, checks=())
"""One call per request where nothing fails: what an answer says is not what these runs are about."""

# name: (quality, USD per million tokens in, out)
MODELS = {
    "sim-nano": (0.55, "0.05", "0.20"),
    "sim-small": (0.70, "0.15", "0.60"),
    "sim-large": (0.90, "2.50", "10"),
}


def backend(url: str, provider: str, model: str, **fields: object) -> Backend:
    _, price_in, price_out = MODELS[model]
    prices = Prices(input=Decimal(price_in), output=Decimal(price_out))
    return Backend.model_validate(
        {"model": model, "provider": provider, "base_url": f"{url}/{provider}/v1", "prices": prices, **fields}
    )


def fleet(url: str, *backends: tuple[str, str], tenants: Mapping[str, Policy] | None = None, **fields: object) -> ConfigFile:
    """Backends by (provider, model), named `provider-model` without the `sim-`. `fields` are those of every backend; each
    tenant has a policy of its own."""
    tenants = tenants or {TENANT: PLAIN}
    names = {model for _, model in backends}
    return ConfigFile(
        models={name: Model(quality=MODELS[name][0], context_tokens=16_000) for name in sorted(names)},
        backends={
            f"{provider}-{model.removeprefix('sim-')}": backend(url, provider, model, **fields) for provider, model in backends
        },
        tenants={name: Tenant(policy=name) for name in tenants},
        policies={"default": PLAIN, **tenants},
    )
