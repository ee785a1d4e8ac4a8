"""Which calls a rule of the control plane covers: a provider, a model and a key, each of them one or any."""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from services.simulator.calls import key_hash
from services.simulator.profiles import INSTANCE

ANY = "*"
T = TypeVar("T")
_HASH_START = re.compile(r"[0-9a-f]{4,12}")


class Scope(NamedTuple):
    """`key` is the start of a key's hash. A model's name covers its instances: `sim-s01` covers `sim-s01@run7`."""

    provider: str = ANY
    model: str = ANY
    key: str = ANY

    def covers(self, provider: str, model: str, key: str) -> bool:
        """Whether the scope holds for such a call."""
        return (
            self.provider in (ANY, provider)
            and (self.model in (ANY, model) or self.model == model.partition(INSTANCE)[0])
            and (self.key == ANY or (bool(key) and key.startswith(self.key)))
        )

    def rank(self, model: str) -> tuple[bool, bool, int]:
        """Orders scopes from wide to narrow: a key counts more than a provider, a provider more than a model."""
        return self.key != ANY, self.provider != ANY, (self.model != ANY) + (self.model == model)


def narrowest(table: Mapping[Scope, T], provider: str, model: str, key: str) -> T | None:
    """The entry of the narrowest scope that covers the call."""
    covering = [scope for scope in table if scope.covers(provider, model, key)]
    return table[max(covering, key=lambda scope: scope.rank(model))] if covering else None


def key_start(key: str) -> str:
    """A key as a scope holds it: 4 to 12 hexadecimal digits are the start of a hash, anything else a literal key."""
    return key if key == ANY or _HASH_START.fullmatch(key) else key_hash(key)
