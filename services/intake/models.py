"""The models that a tenant may name, as OpenAI lists them. Pure."""

from typing import Any

from shared.catalogue import Catalogue

AUTO = "auto"


def models_of(catalogue: Catalogue, tenant: str) -> dict[str, Any]:
    """`auto` first, which leaves the choice to Baton; then what neither tenant nor policy rules out and a backend serves here.

    Whether a model must be certified depends on the request, so that leaves none out.
    """
    allowed, denied = catalogue.tenants[tenant].models, catalogue.policy_of(tenant).deny
    names = (name for name in sorted(catalogue.models) if name not in denied and (not allowed or name in allowed))
    owners = {name: _owner(catalogue, name) for name in names if catalogue.backends_of(name)}
    created_s = catalogue.version // 1000   # all are in force since the same apply
    data = [
        {"id": name, "object": "model", "created": created_s, "owned_by": owner}
        for name, owner in ({AUTO: "baton"} | owners).items()
    ]
    return {"object": "list", "data": data}


def _owner(catalogue: Catalogue, model: str) -> str:
    """Who serves it: whose weights they are, the catalogue does not know."""
    return ", ".join(sorted({catalogue.backends[backend].provider for backend in catalogue.backends_of(model)}))
