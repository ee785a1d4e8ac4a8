"""From an API key to its tenant, by the SHA-256 of the key: the tenant of an HTTP request follows from nothing else.

Secrets are resolved once per version of the config; a key that cannot be resolved opens nothing, and is logged by its reference.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping

from services.intake.decide import open_tenant
from shared.catalogue import Catalogue
from shared.errors import SettingsError

log = logging.getLogger(__name__)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Keyring:
    """Tenants by the hash of their keys, rebuilt when a new catalogue was applied."""

    def __init__(self, catalogue: Callable[[], Catalogue], resolve: Callable[[str], str]) -> None:
        self._catalogue = catalogue
        self._resolve = resolve
        self._built_from: Catalogue | None = None
        self._tenants: Mapping[bytes, str] = {}

    def tenant_of(self, authorization: str | None) -> str | None:
        """The tenant that an `Authorization` header, or its absence, stands for; None when it opens nothing.

        A wrong key is never the open tenant: whoever sends one means to be somebody else.
        """
        catalogue = self._catalogue()
        if authorization is None:
            return open_tenant(catalogue)
        if catalogue is not self._built_from:
            self._tenants = self._build(catalogue)
            self._built_from = catalogue
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return None
        return self._tenants.get(_digest(key.strip()))

    def _build(self, catalogue: Catalogue) -> Mapping[bytes, str]:
        """A key that two tenants share opens neither: which of them asks could only be guessed."""
        owners: dict[bytes, set[str]] = {}
        for name, tenant in catalogue.tenants.items():
            for reference in tenant.keys:
                try:
                    owners.setdefault(_digest(self._resolve(reference)), set()).add(name)
                except SettingsError as error:
                    log.warning("a key opens nothing", extra={"tenant": name, "error": str(error)})
        for names in owners.values():
            if len(names) > 1:
                log.warning("a key is shared and opens nothing", extra={"tenants": sorted(names)})
        return {digest: min(names) for digest, names in owners.items() if len(names) == 1}
