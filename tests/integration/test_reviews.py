"""Reviews and judges in a whole Baton on a real broker: the gate is killed while answers wait and while they are decided.

Half of the requests are plain, half take a pipeline with a join.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import click

from schemas.checks import JudgeRule, ReviewRule
from schemas.config import ConfigFile, Model, Policy, Tenant
from schemas.envelope import Envelope
from schemas.ledger import AttemptKind
from schemas.messages import Result, ReviewAction, Status, Verdict
from schemas.pipeline import Node
from schemas.quality import Feedback, Judge
from schemas.review import Review
from schemas.topology import COMPLETIONS, FEEDBACK, VERDICTS
from services.cli.review import decide, open_reviews
from services.quality_gate.judge import grades_of
from shared.codec import decode
from shared.ids import judged_by
from tests.support.fleets import MODELS, backend
from tests.support.system import Setup, System, evidence, now_ms, running
from tests.support.traffic import Stream

REVIEWED = 30
LEFT_ALONE = 2
JUDGED = 12
STEP = {"step": {"prompt": "Say it better: {{ request.text }}", "max_tokens": 40}}
PANEL = {"sequence": [STEP, {"parallel": {"merge": "vote", "quorum": 2, "branches": [STEP, STEP, STEP]}}]}
PLAIN: dict[str, Any] = {"quality_min": 0.3, "quality_min_hard": 0.3, "escalations_max": 0, "checks": ()}
REVIEW = ReviewRule(share=1.0, deadline_ms=110_000, default="reject")    # far beyond the time that deciding takes
LEFT = ReviewRule(share=1.0, deadline_ms=8_000, default="reject")
JUDGE = JudgeRule(share=1.0, models=("sim-large", "sim-small"), rubric=("relevance",), max_cost_usd=Decimal("0.10"))


def a_config(url: str) -> ConfigFile:
    return ConfigFile(
        models={name: Model(quality=quality, context_tokens=64_000, capabilities=("json_schema",))
                for name, (quality, _, _) in MODELS.items()},
        backends={f"alpha-{name.removeprefix('sim-')}": backend(url, "alpha", name) for name in MODELS},
        tenants={name: Tenant(policy=name) for name in ("reviewed", "left", "judged")},
        policies={"default": Policy(**PLAIN), "reviewed": Policy(**PLAIN, deadline_ms=120_000, review=REVIEW),
                  "left": Policy(**PLAIN, deadline_ms=120_000, review=LEFT), "judged": Policy(**PLAIN, judge=JUDGE)},
        pipelines={"panel": Node.model_validate(PANEL)},
    )  # fmt: skip


def _streams(tenant: str, count: int, prompt: Callable[[int], str]) -> list[Stream]:
    """So many requests in a second; every other one through the pipeline."""
    body = {"tenant": tenant, "max_tokens": 40}
    return [Stream(f"{tenant}{way}", count / 2, 1, body | fields, prompt=prompt)
            for way, fields in (("", {}), (" by panel", {"pipeline": "panel"}))]


async def _verdicts_of(system: System, tenant: str) -> list[Envelope[Verdict]]:
    found = [decode(VERDICTS, record.value) for record in await system.records(VERDICTS)]
    return [envelope for envelope in found if envelope.tenant == tenant]


async def _open(system: System, count: int) -> list[Envelope[Review]]:
    async with asyncio.timeout(60):
        while True:
            waiting = [review for review in await open_reviews(system.broker) if review.tenant == "reviewed"]
            if len(waiting) >= count:
                return waiting
            await asyncio.sleep(0.2)


async def _decide_twice(system: System, waiting: Sequence[Envelope[Review]]) -> dict[str, ReviewAction]:
    """Each decision is followed by its opposite; the gate is killed again and again meanwhile."""
    wanted: dict[str, ReviewAction] = {}
    for place, review in enumerate(waiting):
        first, second = (ReviewAction.ACCEPT, ReviewAction.REJECT)[:: 1 if place % 2 else -1]
        wanted[review.request_id] = first
        for action in (first, second):
            await decide(system.broker, review, action, None, "ann", now_ms())
        if place % 8 == 0:
            await asyncio.to_thread(system.processes.kill, "quality-gate-0")
    return wanted


async def _one_verdict_each(system: System) -> None:
    def prompt(number: int) -> str:
        return f"Say something about number {number}, {secrets.token_hex(2)}."

    asked = await system.send(*_streams("reviewed", REVIEWED, prompt), *_streams("left", LEFT_ALONE, prompt))
    await _open(system, REVIEWED // 2)
    await asyncio.to_thread(system.processes.kill, "quality-gate-0")        # while some wait, and others are on their way
    waiting = await _open(system, REVIEWED)
    assert await _verdicts_of(system, "reviewed") == []
    wanted = await _decide_twice(system, waiting)
    answered = await system.answered(asked, timeout_s=100)
    results: dict[str, Result] = {one.result.request_id: one.result for one in answered if one.result is not None}
    for id, action in wanted.items():
        is_accepted = action is ReviewAction.ACCEPT
        assert results[id].status is (Status.DELIVERED if is_accepted else Status.FAILED), action
        assert (results[id].answer is not None) is is_accepted
    left = {id: result for id, result in results.items() if id not in wanted}
    assert len(left) == LEFT_ALONE
    by_default = {(each.status, each.reviewed and each.reviewed.by) for each in left.values()}
    assert by_default == {(Status.FAILED, "")}
    verdicts = [*await _verdicts_of(system, "reviewed"), *await _verdicts_of(system, "left")]
    assert sorted(verdict.request_id for verdict in verdicts) == sorted([*wanted, *left]), "exactly one each"
    click.echo(f"{len(verdicts)} reviews, {system.processes.restarts('quality-gate-0')} kills of the gate: one verdict each")


async def _graded(system: System) -> dict[str, bool]:
    """By judged request: whether its judge answered in the form that was asked for. A simulated one errs, too."""
    found = [decode(COMPLETIONS, record.value) for record in await system.records(COMPLETIONS)]
    judged = {judged_by(envelope.request_id): envelope.payload.answer for envelope in found}
    return {id: answer is not None and grades_of(answer.text, JUDGE.rubric) is not None
            for id, answer in judged.items() if id is not None}


async def _judgements_are_learned_from(system: System) -> None:
    """The simulated judge answers the schema with points of its own: what counts is that they come back as feedback."""
    streams = _streams("judged", JUDGED, lambda number: f"Say something about number {number}.")
    answered = await system.answered(await system.send(*streams))
    delivered = {one.result.request_id for one in answered if one.result is not None and one.result.status is Status.DELIVERED}
    assert delivered

    async def lessons() -> list[Feedback]:
        found = [decode(FEEDBACK, record.value) for record in await system.records(FEEDBACK)]
        return [said for said in found if said.judge is Judge.MODEL]

    async with asyncio.timeout(60):
        while (graded := await _graded(system)).keys() != delivered:
            await asyncio.sleep(0.2)
        while {said.request_id for said in await lessons()} != {id for id, is_in_form in graded.items() if is_in_form}:
            await asyncio.sleep(0.2)
    assert sum(graded.values()) >= JUDGED / 2
    assert all(0 <= said.score <= 1 for said in await lessons())
    judging = [line for line in await system.attempts() if line.kind is AttemptKind.JUDGE]
    assert {judged_by(line.request_id) for line in judging} == delivered
    wrote = {one.result.request_id: one.result.answer.model for one in answered if one.result and one.result.answer}
    assert all(line.model != wrote[judged_by(line.request_id) or ""] for line in judging)
    assert len(await _verdicts_of(system, "judged")) == len(answered), "a judgement has no verdict and no result"


async def _all() -> None:
    async with running(Setup(a_config, latency_scale=0.1), click.echo) as system:
        await _judgements_are_learned_from(system)
        await _one_verdict_each(system)


def test_a_killed_gate_gives_one_verdict_on_each_review_and_judgements_come_back_as_feedback() -> None:
    evidence(_all())
