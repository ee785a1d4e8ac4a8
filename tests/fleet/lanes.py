"""A flood in `batch`, four times what the provider can do, beside a steady stream of interactive requests.

Judged on the results: the interactive ones with the flood, then the same alone. A call takes seconds, as real ones do.
"""

from collections.abc import Callable, Sequence

from schemas.ledger import Attempt
from schemas.messages import Lane
from services.simulator.calls import CallLine
from tests.support.findings import Finding
from tests.support.fleets import PLAIN, TENANT, fleet
from tests.support.system import Setup, evidence, running
from tests.support.traffic import Asked, Stream, latencies_ms, of_stream, quantile

PROVIDER, MODEL = "alpha", "sim-small"
CAPACITY = 100
LATENCY_SCALE = 24.0         # 6.8 s per call, so 15 calls a second: few enough for this machine to be no bottleneck
INTERACTIVE_S, FLOOD_S = 4, 60
FLOODED_S, ALONE_S = 110.0, 60.0
STARTING_S = 40.0
"""Of the flood, not judged: an executor that knows nothing of a provider tries small limits first."""

FLOOD_DEADLINE_MS = 48_000
PATIENCE_MS = 200_000
"""Of interactive requests: longer than this provider's longest call (60 times the median to the first token, 173 s, and the
answer), or its own tail would be taken for the flood's doing."""

SETTLE_S = 210.0
"""More than any deadline here: by then everything has its result."""

SLOWER_MAX = 1.2
BATCH_SHARE_MIN = 0.5
"""Of the capacity that the interactive requests leave."""

BODY = {"model": MODEL, "max_tokens": 40, "tenant": TENANT}
INTERACTIVE = {**BODY, "priority": Lane.INTERACTIVE, "deadline_ms": PATIENCE_MS}
BATCH = {**BODY, "priority": Lane.BATCH, "deadline_ms": FLOOD_DEADLINE_MS}


def run(say: Callable[[str], None]) -> list[Finding]:
    return evidence(_run(say))


async def _run(say: Callable[[str], None]) -> list[Finding]:
    policy = PLAIN.model_copy(update={"hedge": False, "attempt_timeout_ms": PATIENCE_MS})
    controls = ({"provider": PROVIDER, "capacity": CAPACITY},)
    setup = Setup(lambda url: fleet(url, (PROVIDER, MODEL), tenants={TENANT: policy}, timeout_ms=PATIENCE_MS), {"executor": 2},
                  latency_scale=LATENCY_SCALE, controls=controls)
    async with running(setup, say) as system:
        say(f"{INTERACTIVE_S} interactive requests/s beside {FLOOD_S} batch requests/s, four times what the provider can do")
        both = await system.answered(await system.send(
            Stream("interactive", INTERACTIVE_S, FLOODED_S, INTERACTIVE), Stream("batch", FLOOD_S, FLOODED_S, BATCH)
        ), SETTLE_S)
        say("the interactive ones alone")
        alone = await system.answered(await system.send(Stream("alone", INTERACTIVE_S, ALONE_S, INTERACTIVE)), SETTLE_S)
        calls, attempts = await system.simulator.calls(), await system.attempts()
        beside, batch = of_stream(both, "interactive"), of_stream(both, "batch")
        starting, flooded = beside[: round(STARTING_S * INTERACTIVE_S)], after(STARTING_S, beside)
        for name, some in {"starting, beside the flood": starting, "beside the flood": flooded, "alone": alone}.items():
            say(f"median and p95, ms, {name}: {parts(some, calls, attempts)}")
        say("calls at the provider at once, every 2 s of the flood: " + " ".join(map(str, at_once(calls, both))))
        for one in (*beside, *alone):
            if not one.is_delivered:
                say(fate(one, one.due_ms - both[0].due_ms, attempts))
        lonely_ms = [call.done_ms - call.at_ms for call in calls if call.at_ms >= alone[0].due_ms]
        return judge(alone, beside, batch, CAPACITY * 1_000 * len(lonely_ms) / sum(lonely_ms), system.late_ms)


def at_once(calls: Sequence[CallLine], asked: Sequence[Asked]) -> list[int]:
    """How many calls were with the provider, at the end of each two seconds of this load."""
    return [
        sum(call.at_ms <= at_ms < call.done_ms for call in calls)
        for at_ms in range(asked[0].due_ms + 2_000, asked[-1].due_ms + 1, 2_000)
    ]


def fate(one: Asked, at_ms: int, attempts: Sequence[Attempt]) -> str:
    """How a request ended that was not answered, and what was tried for it."""
    if one.result is None:
        return f"asked at {at_ms} ms: no result"
    tried = ", ".join(
        f"{line.failure} after {line.started_ms - one.due_ms} … {line.finished_ms - one.due_ms} ms" for line in attempts
        if line.request_id == one.result.request_id and line.finished_ms is not None
    )
    return f"asked at {at_ms} ms: {one.result.reason} after {one.latency_ms} ms, {one.result.message} [{tried or 'no call'}]"


def parts(asked: Sequence[Asked], calls: Sequence[CallLine], attempts: Sequence[Attempt]) -> str:
    """Where the time of these requests goes."""
    started_ms = {line.attempt_id: line.started_ms for line in attempts}
    request_of = {line.attempt_id: line.request_id for line in attempts}
    mine = {one.result.request_id: one for one in asked if one.result is not None}
    pairs = [(mine[request_of[call.attempt_id]], call) for call in calls if request_of.get(call.attempt_id) in mine]
    waits = sorted(started_ms[call.attempt_id] - one.due_ms for one, call in pairs)
    sends = sorted(call.at_ms - started_ms[call.attempt_id] for _, call in pairs)
    serves = sorted(call.done_ms - call.at_ms for _, call in pairs)
    ends = sorted((one.ended_ms or 0) - call.done_ms for one, call in pairs)
    names = (("until its turn", waits), ("to the provider", sends), ("there", serves), ("back", ends))
    return ", ".join(f"{name} {quantile(values, 0.5):.0f} {quantile(values, 0.95):.0f}" for name, values in names)


def judge(
    alone: Sequence[Asked], beside: Sequence[Asked], batch: Sequence[Asked], ceiling_s: float, late_ms: int
) -> list[Finding]:
    findings = [
        _slower(name, latencies_ms(alone), latencies_ms(after(STARTING_S, beside)), part)
        for name, part in (("median", 0.5), ("p95", 0.95))
    ]
    unanswered = sum(not one.is_delivered for one in (*alone, *beside))
    begin_ms, end_ms = batch[0].due_ms + int(STARTING_S * 1000), batch[-1].due_ms
    done = sum(one.is_in_time and begin_ms <= (one.ended_ms or 0) < end_ms for one in batch) * 1000 / (end_ms - begin_ms)
    left_s = ceiling_s - INTERACTIVE_S
    lost = sum(one.result is None for one in batch)
    return [
        *findings,
        Finding("interactive requests that were not answered", f"{unanswered} of {len(alone) + len(beside)}", "0",
                not unanswered),
        Finding("batch goes on: in time per second, of what is left to it", f"{done:.1f} of {left_s:.1f}",
                f"≥ {BATCH_SHARE_MIN:.0%}", done >= BATCH_SHARE_MIN * left_s),
        Finding("batch requests without a result", f"{lost} of {len(batch)}", "0", not lost),
        Finding("how late the sender was, at the worst", f"{late_ms} ms", "≤ 200 ms", late_ms <= 200),
    ]


def after(seconds: float, asked: Sequence[Asked]) -> list[Asked]:
    """Without those of the first seconds."""
    return [one for one in asked if one.due_ms >= asked[0].due_ms + seconds * 1000]


def _slower(name: str, alone_ms: Sequence[int], beside_ms: Sequence[int], part: float) -> Finding:
    before, now = quantile(alone_ms, part), quantile(beside_ms, part)
    figure = f"{now:.0f} : {before:.0f} ({now / before - 1:+.0%})"
    return Finding(f"{name} of interactive requests beside the flood, ms, against alone", figure, f"≤ {SLOWER_MAX - 1:+.0%}",
                   now <= SLOWER_MAX * before)
