"""Observations for tests of windows, circuits and the monitor."""

from schemas.fleet import Observation
from schemas.ledger import FailureClass
from shared.windows import Delta

NOW_MS = 1_700_000_000_000


def an_observation(
    backend: str = "a",
    reporter: str = "r1",
    sequence: int = 1,
    at_ms: int = NOW_MS,
    latencies_ms: tuple[float, ...] = (),
    failures: int = 0,
    others: int = 0,
    failures_last: bool = True,
    probes: tuple[int, int, int] = (0, 0, 0),
) -> Observation:
    """Calls in the order: others, successes, hard failures (or failures first). `probes` is epoch, passed, failed."""
    delta = Delta()
    for _ in range(others):
        delta.record(1.0, FailureClass.INVALID, False, None, 0)
    hard = [None] * failures
    for latency_ms in (*latencies_ms, *hard) if failures_last else (*hard, *latencies_ms):
        delta.record(latency_ms or 0.0, FailureClass.SERVER_ERROR if latency_ms is None else None, True, None, 0)
    epoch, passed, failed = probes
    for has_passed in (True,) * passed + (False,) * failed:
        delta.record_probe(epoch, has_passed)
    seen = delta.take(backend, reporter, sequence, at_ms)
    return seen or Observation(backend=backend, reporter=reporter, sequence=sequence, at_ms=at_ms)
