"""A model judges delivered answers: beside the user's way, on the ledger as `judge`, at its own cost, learned from as feedback.

All stages run on a broker in memory, in virtual time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from schemas.ledger import AttemptKind, AttemptPhase
from schemas.messages import Lane, Status
from schemas.quality import Judge
from schemas.topology import FEEDBACK, REQUESTS, VERDICTS
from shared.ids import judged_by, judging_id
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing

GRADES = {"relevance": 5, "completeness": 4, "reason": "it answers"}
RULE: dict[str, Any] = {"share": 1.0, "models": ["small", "large"]}


def says(judgement: str, takes_s: float = 0.1) -> Callable[[Call], Coroutine[Any, Any, str]]:
    """A provider whose models answer; asked to judge, they say `judgement`."""

    async def answer(call: Call) -> str:
        is_judge = "response_format" in call.body
        await asyncio.sleep(takes_s if is_judge else 0.1)
        return judgement if is_judge else "The second key is at the front desk."

    return answer


def played(main: Callable[[Orchestra], Coroutine[Any, Any, None]], judgement: str, takes_s: float = 0.1, **rule: Any) -> None:
    async def whole_play() -> None:
        made = catalogue("p: {step: {prompt: never}}", judge=RULE | rule)
        async with playing(made, says(judgement, takes_s)) as orchestra:
            await main(orchestra)

    in_virtual_time(whole_play)


async def lessons(orchestra: Orchestra) -> list[Any]:
    async with asyncio.timeout(30):
        while not orchestra.log(FEEDBACK):
            await asyncio.sleep(0.05)
    return orchestra.log(FEEDBACK)


def test_a_judgement_is_a_request_of_its_own_and_becomes_feedback_on_the_judged_one() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, "Where is the second key?", body={"model": "small"})
        result = await orchestra.result()
        assert result.decided_ms - result.accepted_ms < 1_000, "the user waits for no judge"
        (lesson,) = await lessons(orchestra)
        assert (lesson.request_id, lesson.judge, lesson.score, lesson.tenant) == ("r1", Judge.MODEL, 0.875, "acme")
        assert lesson.accepted_ms == result.accepted_ms
        assert "large: relevance 1, completeness 0.75" in lesson.comment
        kinds = {(line.request_id, line.kind, line.model) for line in orchestra.ledger()}
        assert kinds == {("r1", AttemptKind.PRIMARY, "small"), ("r1-judge", AttemptKind.JUDGE, "large")}
        (paid,) = [line.cost_microusd for line in orchestra.ledger()
                   if line.kind is AttemptKind.JUDGE and line.phase is AttemptPhase.FINISHED]
        assert paid > 0
        question = orjson.dumps(orchestra.calls[-1].body["messages"]).decode()
        assert "Where is the second key?" in question
        assert "The second key is at the front desk." in question
        assert [envelope.request_id for envelope in orchestra.log(VERDICTS)] == ["r1"], "a judgement has no verdict"

    played(main, orjson.dumps(GRADES).decode(), takes_s=20)


@pytest.mark.parametrize("judgement", ["I would rather not.", '{"relevance": 9, "completeness": 4, "reason": ""}'])
def test_a_judge_that_does_not_answer_in_form_teaches_nothing(judgement: str) -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await orchestra.result()
        await asyncio.sleep(3)
        assert len(orchestra.calls) == 2
        assert orchestra.log(FEEDBACK) == []
        assert len(orchestra.log(VERDICTS)) == 1

    played(main, judgement)


def test_a_judge_never_judges_what_it_wrote_and_where_nobody_else_may_nothing_is_asked() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, id="own", body={"model": "small"})
        await orchestra.ask(None, id="other", body={"model": "medium"})
        await orchestra.results(["own", "other"])
        await lessons(orchestra)
        await asyncio.sleep(2)
        assert {line.request_id for line in orchestra.ledger() if line.kind is AttemptKind.JUDGE} == {judging_id("other")}

    played(main, orjson.dumps(GRADES).decode(), models=["small"])


def test_a_judgement_that_would_cost_more_than_it_may_is_not_made() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, body={"model": "small"})
        await orchestra.result()
        await asyncio.sleep(3)
        (judging,) = [each for each in orchestra.log(REQUESTS) if judged_by(each.request_id) is not None]
        assert (judging.budget_microusd, judging.lane, judging.ordered, judging.reply) == (1, Lane.BATCH, False, None)
        assert len(orchestra.calls) == 1
        assert orchestra.log(FEEDBACK) == []

    played(main, orjson.dumps(GRADES).decode(), max_cost_usd="0.000001")


def test_a_killed_gate_pays_for_no_judgement_twice() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, body={"model": "small"})
        await orchestra.result()
        await orchestra.kill("quality-gate")        # the completion may be read again, and the judge asked again under its id
        orchestra.start("quality-gate")
        await lessons(orchestra)
        await asyncio.sleep(2)
        assert len([call for call in orchestra.calls if call.model == "large"]) == 1

    played(main, orjson.dumps(GRADES).decode(), takes_s=2)


def test_only_delivered_answers_of_the_share_are_judged_and_a_judgement_is_not_judged_itself() -> None:
    async def main(orchestra: Orchestra) -> None:
        ids = [f"r{number}" for number in range(60)]
        for id in ids:
            await orchestra.ask(None, id=id, body={"model": "small"})
        for result in await orchestra.results(ids):
            assert result.status is Status.DELIVERED
        await asyncio.sleep(5)
        judged = {line.request_id for line in orchestra.ledger() if line.kind is AttemptKind.JUDGE}
        assert 8 <= len(judged) <= 28        # 18 expected, within three standard deviations
        assert {lesson.request_id for lesson in orchestra.log(FEEDBACK)} == {judged_by(id) for id in judged}
        assert judged_by(f"{ids[0]}") is None

    played(main, orjson.dumps(GRADES).decode(), share=0.3)
