"""Observations for tests of windows, circuits and the monitor."""

from schemas.fleet import Gate, GateReason, Observation, RateLimits
from schemas.ledger import FailureClass, Usage
from shared.delta import Delta, Seen

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
    first_token_ms: float | None = None,
    tokens_out: int | None = None,
    refused: int = 0,
    gate: Gate | None = None,
    limits: RateLimits | None = None,
) -> Observation:
    """Calls in the order: others, successes, hard failures (or failures first), refusals. `probes` is epoch, passed, failed.

    Every success has the given tokens and time to the first of them.
    """
    usage = None if tokens_out is None else Usage(tokens_out=tokens_out)
    delta = Delta()
    for _ in range(others):
        delta.record(Seen(1.0, FailureClass.INVALID, counts=False))
    good = [Seen(latency_ms, None, counts=True, usage=usage, first_token_ms=first_token_ms) for latency_ms in latencies_ms]
    hard = [Seen(0.0, FailureClass.SERVER_ERROR, counts=True)] * failures
    for seen in (*good, *hard) if failures_last else (*hard, *good):
        delta.record(seen)
    for _ in range(refused):
        delta.record(Seen(1.0, FailureClass.AUTH, counts=False))
        delta.refused()
    epoch, passed, failed = probes
    for has_passed in (True,) * passed + (False,) * failed:
        delta.record_probe(epoch, has_passed)
    if gate is not None:
        delta.gated(gate)
    if limits is not None:
        delta.limited(limits)
    taken = delta.take(backend, reporter, sequence, at_ms)
    return taken or Observation(backend=backend, reporter=reporter, sequence=sequence, at_ms=at_ms)


def a_gate(until_ms: int, reason: GateReason = GateReason.RATE_LIMITED) -> Gate:
    return Gate(until_ms=until_ms, reason=reason)
