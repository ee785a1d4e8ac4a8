"""What was published of a backend, as metrics. Where several replicas judge, each shows its own backends."""

from schemas.fleet import AlertKind, Circuit
from services.monitor.decide import Due
from shared import metrics

CIRCUITS = {Circuit.CLOSED: 0.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 1.0}
GAUGES = (metrics.BACKEND_CIRCUIT, metrics.BACKEND_SHARE, metrics.BACKEND_GATED_UNTIL)


def show(due: Due) -> None:
    """Of a backend that is gone, nothing is shown any more."""
    if due.entry is None:
        for gauge in GAUGES:
            gauge.remove(due.backend)
        return
    metrics.BACKEND_CIRCUIT.labels(due.backend).set(CIRCUITS[due.entry.circuit])
    metrics.BACKEND_SHARE.labels(due.backend).set(due.entry.share)
    metrics.BACKEND_GATED_UNTIL.labels(due.backend).set(due.entry.gate.until_ms / 1000 if due.entry.gate else 0)
    for told in due.alerts:
        if told.kind is not AlertKind.ALL_OUT:
            metrics.BACKEND_CHANGES.labels(due.backend, told.kind.value).inc()
