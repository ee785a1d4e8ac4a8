"""The agreed latency, live: one model grows slow, and interactive requests leave it as soon as the fleet knows, while a batch
stays. All stages on a real broker, a simulated provider; judged by what plans and fleet entries say, and by their order.
"""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import click

from schemas.config import ConfigFile, Model, Policy, Tenant
from schemas.fleet import FleetEntry
from schemas.messages import Lane, Plan
from schemas.topology import FLEET, PLANS
from services.router.rank import WEIGHTS
from shared.codec import decode
from tests.support.fleets import backend
from tests.support.system import Setup, System, evidence, running
from tests.support.traffic import Asked, Stream, of_stream

CHEAP, OTHER = "sim-nano", "sim-small"
QUALITY = {CHEAP: 0.72, OTHER: 0.70}
"""As long as it is quick the cheap model is the better choice in every respect."""

ONE_MODEL = Policy(choose="utility", candidates_max=1, hedge=False, escalations_max=0, checks=())
"""One candidate a plan: what is called is what the router chose, though an executor might prefer the next one at the moment."""

WINDOW_S = 60
WANTED_MS = WEIGHTS["interactive"].target_ms
SLOW_MS = 7_000
SLOW = {"kind": "slow", "factor": 1, "delay_ms": SLOW_MS, "share": 0.5}
"""Half of its calls: were nearly all of them slow, its circuit would open, and a batch could not stay."""

LEFT_S_MAX = 1.0
WARM_S, DEGRADED_S = 6, 18
RATES_S = {Lane.INTERACTIVE: 6, Lane.BATCH: 3}


class Planned(NamedTuple):
    """A plan: when it was written, which model comes first, and the p95 of the cheap one as the router saw it."""

    at_ms: int
    first: str
    seen_ms: float


def a_config(url: str) -> ConfigFile:
    return ConfigFile(
        models={name: Model(quality=quality, context_tokens=16_000) for name, quality in QUALITY.items()},
        backends={name: backend(url, "alpha", name) for name in QUALITY},
        tenants={"acme": Tenant()},
        policies={"default": ONE_MODEL},
    )


def _streams(seconds: float) -> list[Stream]:
    return [Stream(lane.value, rate, seconds, {"tenant": "acme", "priority": lane.value, "max_tokens": 40})
            for lane, rate in RATES_S.items()]


async def _plans(system: System, lane: Lane) -> list[Planned]:
    """In the order of their time."""
    plans: list[tuple[int, Plan]] = [
        (record.timestamp_ms, decode(PLANS[lane], record.value).payload) for record in await system.records(PLANS[lane])
    ]
    return sorted(Planned(at_ms, plan.candidates[0].model, plan.why.scores[CHEAP][2]) for at_ms, plan in plans)


async def _degraded_ms(system: System) -> int:
    """When the first entry stood in the log whose window misses the wanted latency."""
    entries: Iterable[tuple[int, FleetEntry]] = [
        (record.timestamp_ms, decode(FLEET, record.value)) for record in await system.records(FLEET)
    ]
    return min(at_ms for at_ms, entry in entries if entry.backend == CHEAP and _p95_ms(entry) > WANTED_MS)


def _p95_ms(entry: FleetEntry) -> float:
    return next((window.p95_ms for window in entry.windows if window.seconds == WINDOW_S), 0.0)


async def _degrade(system: System) -> tuple[int, list[Asked]]:
    """One stream without a break, and half-way through it the model grows slow. Returns when, and everything with its result."""
    sending = asyncio.create_task(system.send(*_streams(WARM_S + DEGRADED_S)))
    await asyncio.sleep(WARM_S)
    began_ms = await system.simulator.control(model=CHEAP, fault=SLOW)
    return began_ms, await system.answered(await sending)


async def _all() -> None:
    async with running(Setup(a_config), click.echo) as system:
        began_ms, asked = await _degrade(system)
        degraded_ms, late_ms = await _degraded_ms(system), system.late_ms
        interactive, batch = await _plans(system, Lane.INTERACTIVE), await _plans(system, Lane.BATCH)
        assert len(interactive) + len(batch) == len(asked)
        assert all(one.is_delivered for one in asked), "slow is not failed"

        before = [plan for plan in interactive if plan.at_ms < began_ms]
        assert {plan.first for plan in before} == {CHEAP}
        assert {plan.first for plan in interactive if plan.seen_ms > WANTED_MS} == {OTHER}, "with the first plan that knew"
        stayed_ms = max(plan.at_ms for plan in interactive if plan.first == CHEAP)
        click.echo(f"interactive requests left {stayed_ms - degraded_ms} ms after the slow window stood in fleet, "
                   f"{stayed_ms - began_ms} ms after the model had grown slow by {SLOW_MS} ms; the sender was {late_ms} ms late")
        assert stayed_ms - degraded_ms <= LEFT_S_MAX * 1000 + late_ms, "a machine that stalls is no slow router"
        left = [plan for plan in interactive if plan.at_ms > stayed_ms]
        assert len(left) >= RATES_S[Lane.INTERACTIVE], "they left while they still came"

        assert {plan.first for plan in batch} == {CHEAP}, "the batch stays"
        assert any(plan.seen_ms > WANTED_MS for plan in batch), "though it knew"
        _answered_by(of_stream(asked, Lane.INTERACTIVE.value)[-RATES_S[Lane.INTERACTIVE] :], OTHER)
        _answered_by(of_stream(asked, Lane.BATCH.value), CHEAP)
        assert system.restarts() == 0


def _answered_by(asked: list[Asked], model: str) -> None:
    assert {one.result.answer.model for one in asked if one.result and one.result.answer} == {model}


def test_interactive_requests_leave_a_model_that_grows_slow_and_a_batch_stays() -> None:
    evidence(_all())
