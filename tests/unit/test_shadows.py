"""A shadow: another model is asked the same once a request is answered. Nobody gets its answer or waits for it, its money is
bounded, what the checks say of it is learned. All stages but the monitor on a broker in memory, in virtual time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from schemas.ledger import AttemptKind, AttemptPhase
from schemas.messages import Lane, Plan, Reason, Result, Status
from schemas.quality import Judge
from schemas.spend import SpendEntry, Spent
from schemas.topology import COMPLETIONS, FEEDBACK, PLANS, REQUESTS, VERDICTS
from shared.ids import shadow_id, shadowed_by
from shared.spend import periods_at
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing
from tests.support.virtual import LoopClock

QUESTION = "Where is the second key?"
RULE: dict[str, Any] = {"model": "large", "share": 1.0}
CHECKS = ("not_empty", {"check": "length", "words_max": 8})
SHORT, LONG = "At the front desk.", "The second key is at the front desk, in the drawer below the telephone."
Main = Callable[[Orchestra], Coroutine[Any, Any, None]]


def played(main: Main, large: str | None = SHORT, takes_s: float = 20, day: dict[str, int] | None = None, **policy: Any) -> None:
    """`day`: what the tenant has spent today, a dollar if not said."""

    async def says(call: Call) -> str | None:
        await asyncio.sleep(takes_s if call.model == "large" else 0.1)
        return large if call.model == "large" else SHORT

    async def whole_play() -> None:
        spent = Spent(period=periods_at(LoopClock().now_ms()).day, **(day or {"microusd": 1_000_000}))
        spend = {"acme": SpendEntry(account="acme", day=spent)}
        shadow = RULE | policy.pop("shadow", {})
        made = catalogue("p: {step: {prompt: never}}", **({"shadow": shadow, "checks": CHECKS} | policy))
        async with playing(made, says, spend=spend) as orchestra:
            await main(orchestra)

    in_virtual_time(whole_play)


async def asked(orchestra: Orchestra, pipeline: str | None = None, **fields: Any) -> Result:
    """One request's result, and all that follows from it."""
    await orchestra.ask(pipeline, QUESTION, body={"model": "small"} | fields.pop("body", {}), **fields)
    result = await orchestra.result()
    await asyncio.sleep(60)
    return result


def shadow_plans(orchestra: Orchestra) -> list[Plan]:
    return [envelope.payload for envelope in orchestra.log(PLANS[Lane.BATCH]) if shadowed_by(envelope.request_id) is not None]


@pytest.mark.parametrize(("large", "score", "said"), [(SHORT, 1.0, "fails no check"), (LONG, 0.0, "fails length")])
def test_a_shadow_is_a_request_of_its_own_whose_answer_is_learned_from_and_never_delivered(
    large: str, score: float, said: str
) -> None:
    async def main(orchestra: Orchestra) -> None:
        result = await asked(orchestra)
        assert result.decided_ms - result.accepted_ms < 1_000, "the user waits for no shadow"
        assert result.answer is not None
        assert (result.answer.model, result.why and result.why.shadow) == ("small", "large")
        kinds = {(line.request_id, line.kind, line.model) for line in orchestra.ledger()}
        assert kinds == {("r1", AttemptKind.PRIMARY, "small"), ("r1-shadow", AttemptKind.SHADOW, "large")}
        (lesson,) = orchestra.log(FEEDBACK)
        assert (lesson.request_id, lesson.model, lesson.judge, lesson.score) == ("r1", "large", Judge.GATE, score)
        assert lesson.comment.endswith(said)
        assert [envelope.request_id for envelope in orchestra.log(VERDICTS)] == ["r1"]
        assert {call.prompt for call in orchestra.calls} == {QUESTION}

    played(main, large)


def test_a_shadow_asks_what_was_asked_but_for_who_shall_answer() -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    body = {"temperature": 0.5, "max_tokens": 70, "stop": ["."], "seed": 3, "session": "s1", "sort": "price", "deny": ["medium"]}

    async def main(orchestra: Orchestra) -> None:
        await asked(orchestra, body=body | {"tools": [tool]} | {"logprobs": True, "top_logprobs": 2})
        real, shadow = (call.body for call in orchestra.calls)
        for said in ("messages", "temperature", "max_tokens", "stop", "seed", "tools"):
            assert shadow[said] == real[said], said
        (request,) = [each for each in orchestra.log(REQUESTS) if shadowed_by(each.request_id) is not None]
        assert not {"session", "sort", "deny", "logprobs"} & request.payload.body.keys()
        assert (request.lane, request.ordered, request.reply) == (Lane.BATCH, False, None)

    played(main)


@pytest.mark.parametrize(
    ("day", "policy", "field"),
    [
        ({"microusd": 0}, {}, "policies.default.shadow.spend_share"),
        ({"microusd": 1_000_000, "shadow_microusd": 100_000}, {}, "policies.default.shadow.spend_share"),
        ({"microusd": 1_000_000}, {"shadow": {"max_cost_usd": "0.000001"}}, "every able model could cost more"),
    ],
)
def test_a_shadow_beyond_its_money_is_not_asked_and_its_plan_names_the_field(
    day: dict[str, int], policy: dict[str, Any], field: str
) -> None:
    async def main(orchestra: Orchestra) -> None:
        assert (await asked(orchestra)).status is Status.DELIVERED
        (plan,) = shadow_plans(orchestra)
        assert plan.failure is not None
        assert plan.failure.reason is Reason.OVER_BUDGET
        assert plan.failure.message.startswith(field)
        assert [call.model for call in orchestra.calls] == ["small"]
        assert orchestra.log(FEEDBACK) == []

    played(main, day=day, **policy)


def test_a_shadow_that_fails_teaches_nothing_of_answers_and_harms_nobody() -> None:
    async def main(orchestra: Orchestra) -> None:
        assert (await asked(orchestra)).status is Status.DELIVERED
        assert {line.failure for line in orchestra.ledger() if line.model == "large"} >= {None, "server_error"}
        assert orchestra.log(FEEDBACK) == []
        assert len(orchestra.log(VERDICTS)) == 1

    played(main, large=None, takes_s=0.1)


def test_where_the_shadows_model_has_answered_itself_it_is_not_asked_again() -> None:
    async def main(orchestra: Orchestra) -> None:
        await asked(orchestra, body={"model": "large"})
        assert [call.model for call in orchestra.calls] == ["large"]

    played(main, takes_s=0.1)


def test_an_answer_that_fails_its_checks_has_a_shadow_too_and_one_that_never_came_has_none() -> None:
    async def main(orchestra: Orchestra) -> None:
        result = await asked(orchestra)
        assert result.reason is Reason.QUALITY_NOT_MET
        (lesson,) = orchestra.log(FEEDBACK)
        assert (lesson.model, lesson.score) == ("large", 1.0)
        await orchestra.ask(None, QUESTION, id="r2", deadline_ms=orchestra.clock.now_ms() - 1)
        assert (await orchestra.result("r2")).status is Status.EXPIRED
        assert not any(each.request_id == shadow_id("r2") for each in orchestra.log(REQUESTS))

    played(main, large=LONG, checks=({"check": "length", "words_min": 8},))


def test_a_pipelines_request_and_a_shadow_itself_have_none() -> None:
    async def main(orchestra: Orchestra) -> None:
        await asked(orchestra, "p")
        assert {envelope.request_id for envelope in orchestra.log(COMPLETIONS)} == {"r1"}
        await orchestra.ask(None, QUESTION, id="r2", body={"model": "small"})
        await orchestra.result("r2")
        await asyncio.sleep(60)
        assert {envelope.request_id for envelope in orchestra.log(COMPLETIONS)} == {"r1", "r2", shadow_id("r2")}

    played(main)


def test_a_killed_gate_pays_for_no_shadow_twice() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, QUESTION, body={"model": "small"})
        await orchestra.result()
        await orchestra.kill("quality-gate")        # the completion may be read again, and the shadow asked again under its id
        orchestra.start("quality-gate")
        await asyncio.sleep(60)
        paid = [line for line in orchestra.ledger() if line.kind is AttemptKind.SHADOW and line.phase is AttemptPhase.FINISHED]
        assert len(paid) == 1
        assert paid[0].cost_microusd > 0

    played(main, takes_s=2)


def test_only_the_policys_share_of_requests_has_one() -> None:
    async def main(orchestra: Orchestra) -> None:
        ids = [f"r{number}" for number in range(60)]
        for id in ids:
            await orchestra.ask(None, QUESTION, id=id, body={"model": "small"})
        await orchestra.results(ids)
        await asyncio.sleep(60)
        assert 8 <= len({line.request_id for line in orchestra.ledger() if line.kind is AttemptKind.SHADOW}) <= 28

    played(main, shadow={"share": 0.3})
