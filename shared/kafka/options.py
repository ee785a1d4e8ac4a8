"""How to reach a cluster, and how long to wait for what."""

import ssl
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KafkaOptions:
    """Connection and timing; milliseconds throughout. Defaults are those of production."""

    bootstrap_servers: str
    client_id: str = "baton"
    security: tuple[tuple[str, Any], ...] = ()     # client arguments: security_protocol, sasl_*, ssl_cafile
    session_timeout_ms: int = 15_000
    heartbeat_interval_ms: int = 1_000
    rebalance_timeout_ms: int = 45_000
    transaction_timeout_ms: int = 15_000
    request_timeout_ms: int = 30_000
    replication_factor: int = 1

    def client(self) -> dict[str, Any]:
        """Arguments that every client of the library takes."""
        extra = dict(self.security)
        cafile = extra.pop("ssl_cafile", None)
        if "SSL" in extra.get("security_protocol", ""):
            extra["ssl_context"] = ssl.create_default_context(cafile=cafile)
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            **extra,
        }
