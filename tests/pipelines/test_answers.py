"""A pipeline's answer is under its tenant's policy as a plain one's: it may wait for a person, and a model may judge it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from schemas.checks import Sampling
from schemas.ledger import AttemptKind
from schemas.messages import ReviewAction, Status
from schemas.topology import COMPLETIONS, FEEDBACK, REVIEWS, VERDICTS
from services.cli.review import open_reviews
from services.quality_gate.sampling import is_sampled
from shared.broker import Output
from shared.codec import encode, headers_for
from shared.ids import judged_by
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing
from tests.unit.test_quality_gate_review import said, verdicts, waiting

TWO = """
p:
  sequence:
    - {name: a, step: {prompt: "draft {{ request.text }}", model: small}}
    - {step: {prompt: "polish {{ a }}", model: medium}}
"""
VOTE = "p: {parallel: {merge: vote, quorum: 2, branches: [{step: {prompt: a}}, {step: {prompt: b}}, {step: {prompt: slow}}]}}"
LOOP = "p: {loop: {at_most: 3, turns: [{model: small}, {model: medium}, {model: large}], body: {step: {prompt: x}}}}"
GRADES = orjson.dumps({"relevance": 5, "completeness": 4, "reason": "it answers"}).decode()
ANSWER = "The second key is at the front desk."
Play = Callable[[Orchestra], Coroutine[Any, Any, None]]


async def says(call: Call) -> str:
    await asyncio.sleep(20 if call.prompt == "slow" else 0.1)
    return GRADES if "response_format" in call.body else ANSWER


def played(pipeline: str, main: Play, provider: Any = says, **policy: Any) -> None:
    async def whole_play() -> None:
        async with playing(catalogue(pipeline, deadline_ms_max=3_600_000, **policy), provider) as orchestra:
            await main(orchestra)

    in_virtual_time(whole_play)


@pytest.mark.parametrize("action", [ReviewAction.ACCEPT, ReviewAction.REJECT])
def test_a_pipelines_answer_waits_for_a_person_who_sees_what_was_asked(action: ReviewAction) -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p", "Who has the second key?")
        await waiting(orchestra)
        await asyncio.sleep(5)
        assert verdicts(orchestra) == []
        (review,) = await open_reviews(orchestra.broker)
        assert review.payload.chat is not None
        assert review.payload.chat.messages[-1]["content"] == "Who has the second key?", "not what its last step was asked"
        await said(orchestra, action)
        result = await orchestra.result()
        assert (result.status is Status.DELIVERED) is (action is ReviewAction.ACCEPT)
        assert result.attempts == 2
        assert result.cost_microusd == sum(line.cost_microusd for line in orchestra.ledger() if line.finished_ms)

    played(TWO, main, review={"share": 1.0})


def test_a_loop_that_never_passes_parks_the_best_attempt_where_the_policy_wants_failed_ones_seen() -> None:
    async def best_first(call: Call) -> str:
        return "I cannot help with that." if call.model == "small" else ""

    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p")
        await waiting(orchestra)
        (review,) = await open_reviews(orchestra.broker)
        assert review.payload.reason == "fails not_refused", "the checks that the best attempt failed, which is not the last one"
        await said(orchestra, ReviewAction.EDIT, "Ask the front desk.")
        result = await orchestra.result()
        assert (result.status, result.answer and result.answer.text) == (Status.DELIVERED, "Ask the front desk.")

    played(LOOP, main, best_first, review={"failed_checks": True})


def test_the_score_of_the_answer_to_the_request_decides_and_not_that_of_the_last_step() -> None:
    async def parrot(call: Call) -> str:
        return "Bananas are yellow, and ripen in warm rooms within a few days."

    pipeline = 'p: {step: {prompt: "When are bananas ripe, in warm rooms, and are they yellow?"}}'

    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p", "Which of the three invoices of the harbour office were paid late, and by whom?")
        await waiting(orchestra)
        (review,) = await open_reviews(orchestra.broker)
        assert review.payload.reason.startswith("relevance ")

    played(pipeline, main, parrot, review={"score_below": {"relevance": 0.5}})


async def _come_in_late(orchestra: Orchestra, step: str) -> None:
    """The completion of a branch that was cut, but had answered by then: as its neighbour's, under its own path."""
    neighbour = orchestra.log(COMPLETIONS)[0]
    slip = neighbour.payload.slip.model_copy(update={"step": step})
    payload = neighbour.payload.model_copy(update={"slip": slip, "plan_id": f"r1/{step}/plan/0"})
    late = neighbour.model_copy(update={"id": f"r1/{step}/plan/0/completion", "payload": payload})
    producer = await orchestra.broker.producer()
    headers = headers_for(COMPLETIONS, "executor", late)
    await (await producer.send(Output(COMPLETIONS.name, late.key.encode(), encode(COMPLETIONS, late), headers)))


def test_a_branch_that_comes_in_while_the_answer_waits_opens_nothing_though_the_gate_has_died_since() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p", deadline_ms=orchestra.clock.now_ms() + 30_000)
        await waiting(orchestra)
        await asyncio.sleep(1)      # what led to the review is committed
        await orchestra.kill("quality-gate")
        await _come_in_late(orchestra, "p.2")
        orchestra.start("quality-gate")
        await asyncio.sleep(1)
        await said(orchestra, ReviewAction.ACCEPT)
        assert (await orchestra.result()).status is Status.DELIVERED
        await asyncio.sleep(40)     # past the deadline: held at its join, it would end the request a second time
        assert len(verdicts(orchestra)) == 1
        assert len(orchestra.log(REVIEWS)) == 2, "the answer, and what was said of it"

    played(VOTE, main, review={"share": 1.0})


def test_an_ordered_pipeline_never_waits_for_a_person() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p", ordered=True, key="acme/k")
        assert (await orchestra.result()).status is Status.DELIVERED
        assert orchestra.log(REVIEWS) == []

    played(TWO, main, review={"share": 1.0})


def test_a_judge_sees_the_request_and_the_answer_and_is_no_model_that_had_a_part_in_it() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask("p", "Where is the second key?")
        assert (await orchestra.result()).status is Status.DELIVERED
        async with asyncio.timeout(30):
            while not orchestra.log(FEEDBACK):
                await asyncio.sleep(0.05)
        (lesson,) = orchestra.log(FEEDBACK)
        assert (lesson.request_id, lesson.score) == ("r1", 0.875)
        judging = {(line.request_id, line.model) for line in orchestra.ledger() if line.kind is AttemptKind.JUDGE}
        assert judging == {("r1-judge", "large")}
        question = orjson.dumps(orchestra.calls[-1].body["messages"]).decode()
        assert "Where is the second key?" in question
        assert "polish" not in question, "not what its last step was asked"
        assert len(orchestra.log(VERDICTS)) == 1

    played(TWO, main, judge={"share": 1.0, "models": ["small", "medium", "large"]})


def test_of_many_pipelines_just_the_share_is_judged() -> None:
    async def main(orchestra: Orchestra) -> None:
        ids = [f"r{number}" for number in range(40)]
        for id in ids:
            await orchestra.ask("p", id=id)
        await orchestra.results(ids)
        await asyncio.sleep(5)
        judged = {judged_by(line.request_id) for line in orchestra.ledger() if line.kind is AttemptKind.JUDGE}
        assert judged == {id for id in ids if is_sampled(id, "medium", Sampling(share=0.3), "judge")}
        assert 4 <= len(judged) <= 20      # 12 expected

    played(TWO, main, judge={"share": 0.3, "models": ["large"]})
