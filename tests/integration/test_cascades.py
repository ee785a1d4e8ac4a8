"""Cascades and shadows in a whole Baton on a real broker: what people say of a cheap model's answers decides whether the gate
keeps the next one of the kind, or asks the dear model; another tenant's requests have a shadow that is never delivered.
"""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import aiohttp
import click

from schemas.config import CascadeRule, ConfigFile, Model, Policy, ShadowRule, Tenant
from schemas.ledger import Attempt, AttemptKind, AttemptPhase
from schemas.messages import Lane, Plan, Result, Status
from schemas.quality import Feedback, Judge, QualityEntry
from schemas.topology import FEEDBACK, PLANS, QUALITY, SPEND, VERDICTS
from services.cli.explain import TOPICS, explained
from services.cli.trace import steps_of
from shared.codec import decode
from shared.ids import shadow_id, shadowed_by
from shared.quality import ANSWERS
from shared.table import Table
from tests.support.fleets import MODELS, backend
from tests.support.system import Setup, System, evidence, running
from tests.support.traffic import Stream

CHEAP, DEAR, SHADOW = "sim-nano", "sim-large", "sim-small"
LIKED, DISLIKED = "Lisbon", "Danube"
TAUGHT, ASKED, SHADOWED = 30, 8, 12
ROUNDS_MAX = 12
SPEND_SHARE = 0.2

COMMON: dict[str, Any] = {"quality_min": 0.3, "quality_min_hard": 0.3, "escalations_max": 0, "checks": ("not_empty",)}
CASCADE = Policy(**COMMON, cascade=CascadeRule(), answer_worth_usd=Decimal("0.0025"))
"""The dear model costs some 700 micro-USD, 0.28 of such an answer; so a cheap answer is kept that is right with 0.62 or more."""


def a_config(url: str) -> ConfigFile:
    return ConfigFile(
        models={name: Model(quality=quality, context_tokens=16_000) for name, (quality, _, _) in MODELS.items()},
        backends={f"alpha-{name.removeprefix('sim-')}": backend(url, "alpha", name) for name in MODELS},
        tenants={"thrifty": Tenant(policy="thrifty", open=True), "curious": Tenant(policy="curious")},
        policies={
            "default": Policy(**COMMON),
            "thrifty": CASCADE,
            "curious": Policy(**COMMON, shadow=ShadowRule(model=SHADOW, share=1.0, spend_share=SPEND_SHARE)),
        },
    )


async def until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.05)


async def ask(system: System, tenant: str, about: str, count: int, **body: Any) -> list[Result]:
    """So many requests within a second; all are answered."""
    fields = {"tenant": tenant, "max_tokens": 60, **body}
    stream = Stream(about, count, 1, fields, prompt=lambda number: f"Tell me about the {about}, {number}.")
    answered = await system.answered(await system.send(stream))
    return [one.result for one in answered if one.result is not None]


async def a_table(system: System, topic: Any) -> Table[Any]:
    table: Table[Any] = Table(system.broker, topic)
    await table.start()
    return table


# A cascade --------------------------------------------------------------------------------------------------------------


async def _taught(system: System) -> None:
    """People like every answer about one thing and dislike every one about the other, until the words of both are known."""
    quality = await a_table(system, QUALITY)

    def words_seen() -> float:
        entry: QualityEntry | None = quality.values.get(f"{CHEAP}/{ANSWERS}")
        return sum(cell.count for cell in entry.cells) if entry else 0.0

    for _ in range(ROUNDS_MAX):
        for about, score in ((LIKED, 1.0), (DISLIKED, 0.0)):
            results = await ask(system, "thrifty", about, 4, model=CHEAP)
            await _say(system, [result.request_id for result in results if result.status is Status.DELIVERED], score)
        if words_seen() >= TAUGHT:
            break
    await until(lambda: words_seen() >= TAUGHT / 2)     # published every ten seconds
    click.echo(f"the words of {words_seen():.0f} answers are known")
    await quality.close()


async def _say(system: System, ids: Sequence[str], score: float) -> None:
    async with aiohttp.ClientSession() as http:
        for id in ids:
            await asyncio.sleep(0.6)      # the monitor looks four texts a second up, two of each request
            async with http.post(f"{system.http_url}/v1/feedback", json={"request_id": id, "score": score}) as said:
                assert said.status == 202


async def _kept_and_escalated(system: System) -> None:
    """Once more where the gate has not read the newest words yet: it does so each second."""
    for _ in range(3):
        liked, disliked = [await ask(system, "thrifty", about, ASKED) for about in (LIKED, DISLIKED)]
        kept = [result for result in liked if not result.tried]
        escalated = [result for result in disliked if result.tried]
        if len(kept) >= ASKED // 2 and len(escalated) >= ASKED // 2:
            break
    click.echo(f"of {len(liked)} liked {len(kept)} kept, of {len(disliked)} disliked {len(escalated)} escalated")
    assert len(kept) >= ASKED // 2, "the simulated answers differ; most of a kind read alike"
    assert len(escalated) >= ASKED // 2
    ledger = [line for line in await system.attempts() if line.phase is AttemptPhase.FINISHED]
    plans = await _plans(system, Lane.STANDARD)
    for result in (*liked, *disliked):
        lines = [line for line in ledger if line.request_id == result.request_id]
        _is_consistent(result, plans[result.request_id], lines)
    text = await _explained(system, escalated[0].request_id)
    click.echo(text)
    for said in (f"{CHEAP} first, and {DEAR} if its answer will not do", f"cascade: model {CHEAP}", "plan 1", "primary",
                 f"{DEAR} is asked on, {CHEAP} was not sure enough", f"{CHEAP} was not sure enough ("):
        assert said in text, said
    assert "plan 1" not in await _explained(system, kept[0].request_id)


def _is_consistent(result: Result, plans: Sequence[Plan], lines: Sequence[Attempt]) -> None:
    """A cascade was begun; its outcome is what the gate's confidence says, and the ledger has the calls of it, by their kinds."""
    first = plans[0].cascade
    assert first is not None
    assert (first.model, first.following) == (CHEAP, DEAR)
    assert result.status is Status.DELIVERED
    assert result.answer is not None
    asked = [(line.kind, line.model) for line in lines]
    if result.tried:
        (doubted,) = result.tried
        assert doubted.confidence is not None
        assert first.quality - doubted.confidence - first.microusd_price * first.cost_microusd > 0, "the expected gain"
        assert (doubted.model, result.answer.model, plans[1].number) == (CHEAP, DEAR, 1)
        assert asked == [(AttemptKind.PRIMARY, CHEAP), (AttemptKind.ESCALATION, DEAR)]
    else:
        assert (result.answer.model, len(plans)) == (CHEAP, 1)
        assert asked == [(AttemptKind.PRIMARY, CHEAP)]
    assert result.cost_microusd == sum(line.cost_microusd for line in lines)


async def _plans(system: System, lane: Lane) -> dict[str, list[Plan]]:
    found: dict[str, list[Plan]] = {}
    for record in await system.records(PLANS[lane]):
        envelope = decode(PLANS[lane], record.value)
        found.setdefault(envelope.request_id, []).append(envelope.payload)
    return found


async def _explained(system: System, request_id: str) -> str:
    return "\n".join(explained(await steps_of(system.broker, request_id, TOPICS), {}))


# Shadows ----------------------------------------------------------------------------------------------------------------


async def _shadows(system: System) -> None:
    spend = await a_table(system, SPEND)
    first = await ask(system, "curious", LIKED, SHADOWED, model=DEAR)
    await until(lambda: "curious" in spend.values and spend.values["curious"].day.calls >= len(first))
    results = await ask(system, "curious", DISLIKED, SHADOWED, model=DEAR)
    delivered = {result.request_id for result in results if result.status is Status.DELIVERED}

    async with asyncio.timeout(60):
        while not await _shadows_ended(system, delivered):
            await asyncio.sleep(0.2)
    lines = [line for line in await system.attempts() if line.kind is AttemptKind.SHADOW and line.phase is AttemptPhase.FINISHED]
    assert lines
    assert {(line.tenant, line.model) for line in lines} == {("curious", SHADOW)}
    lessons = [said for said in await _lessons(system) if said.judge is Judge.GATE]
    assert {said.model for said in lessons} == {SHADOW}
    assert {shadow_id(said.request_id) for said in lessons} == {line.request_id for line in lines if line.failure is None}
    verdicts = [decode(VERDICTS, record.value).request_id for record in await system.records(VERDICTS)]
    assert not any(shadowed_by(id) for id in verdicts), "no verdict, so no result"
    assert {result.answer.model for result in results if result.answer} == {DEAR}
    await until(lambda: spend.values["curious"].day.shadow_microusd == sum(line.cost_microusd for line in lines))
    day = spend.values["curious"].day
    assert day.shadow_microusd <= SPEND_SHARE * day.microusd
    click.echo(f"{len(lines)} shadows cost {day.shadow_microusd} of {day.microusd} micro-USD, {len(lessons)} lessons")
    assert f"feedback of a gate on {SHADOW}" in await _explained(system, lessons[0].request_id)
    await spend.close()


async def _shadows_ended(system: System, ids: set[str]) -> bool:
    """Each one's plan has failed for its money, or its call has ended."""
    plans = await _plans(system, Lane.BATCH)
    ended = {line.request_id for line in await system.attempts() if line.phase is AttemptPhase.FINISHED}
    has_failed = {id for id, made in plans.items() if made[0].failure is not None}
    return {shadow_id(id) for id in ids} <= ended | has_failed


async def _lessons(system: System) -> list[Feedback]:
    return [decode(FEEDBACK, record.value) for record in await system.records(FEEDBACK)]


async def _all() -> None:
    async with running(Setup(a_config, latency_scale=0.1), click.echo) as system:
        await _shadows(system)
        await _taught(system)
        await _kept_and_escalated(system)
        assert system.restarts() == 0


def test_a_cascade_keeps_or_asks_on_as_was_learned_and_shadows_are_paid_learned_from_and_never_delivered() -> None:
    evidence(_all())
