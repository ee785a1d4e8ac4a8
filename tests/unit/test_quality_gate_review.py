"""Answers that wait for a person: what is parked, what each decision leads to, and exactly one verdict whatever dies when.

All stages run on a broker in memory, in virtual time; the operator is the code behind `baton review`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.checks import ReviewRule
from schemas.config import Policy
from schemas.messages import Reason, Result, ReviewAction, Status, Verdict
from schemas.quality import Judge
from schemas.review import ReviewDecision
from schemas.topology import FEEDBACK, REVIEW_DECISIONS, REVIEWS, VERDICTS
from services.cli.review import decide, line, open_reviews, whole
from services.quality_gate.decide import Limits
from services.quality_gate.decide import decide as decided
from services.quality_gate.review import MARGIN_MS, parked
from services.quality_gate.reviews import GRACE_MS
from shared.broker import Output
from shared.codec import encode
from tests.pipelines.orchestra import PARTITIONS, Call, Orchestra, catalogue, in_virtual_time, playing
from tests.support.builders import NOW_MS, a_completion, an_answer, an_envelope

EVERY = {"share": 1.0}
ANSWER = "The second key is at the front desk."


async def says(_: Call) -> str:
    return ANSWER


def played(main: Callable[[Orchestra], Coroutine[Any, Any, None]], **rule: Any) -> None:
    async def whole_play() -> None:
        async with playing(catalogue({}, review=EVERY | rule, deadline_ms_max=3_600_000), says) as orchestra:
            await main(orchestra)

    in_virtual_time(whole_play)


async def waiting(orchestra: Orchestra, count: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(await open_reviews(orchestra.broker)) < count:
            await asyncio.sleep(0.05)


async def said(orchestra: Orchestra, action: ReviewAction, text: str | None = None, id: str = "r1") -> None:
    (review,) = [each for each in await open_reviews(orchestra.broker) if each.request_id == id]
    await decide(orchestra.broker, review, action, text, "ann", orchestra.clock.now_ms())


def verdicts(orchestra: Orchestra) -> list[Verdict]:
    return [envelope.payload for envelope in orchestra.log(VERDICTS)]


def test_an_answer_waits_until_a_person_accepts_it_and_the_person_is_learned_from() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, "Who has the second key?")
        await waiting(orchestra)
        await asyncio.sleep(5)
        assert verdicts(orchestra) == []
        (review,) = await open_reviews(orchestra.broker)
        shown = whole(review)
        assert "user: Who has the second key?" in shown
        assert ANSWER in shown
        assert "reject in 5" in line(review, orchestra.clock.now_ms())
        await said(orchestra, ReviewAction.ACCEPT)
        result = await orchestra.result()
        assert (result.status, result.answer and result.answer.text) == (Status.DELIVERED, ANSWER)
        assert result.reviewed is not None
        assert (result.reviewed.action, result.reviewed.by) == (ReviewAction.ACCEPT, "ann")
        (lesson,) = orchestra.log(FEEDBACK)
        assert (lesson.request_id, lesson.judge, lesson.score) == ("r1", Judge.PERSON, 1.0)
        assert await open_reviews(orchestra.broker) == []

    played(main)


@pytest.mark.parametrize(("action", "text", "status", "answered"), [
    (ReviewAction.REJECT, None, Status.FAILED, None),
    (ReviewAction.EDIT, "Ask the front desk.", Status.DELIVERED, "Ask the front desk."),
])
def test_a_rejected_answer_goes_nowhere_and_an_edited_one_as_the_person_wrote_it(
    action: ReviewAction, text: str | None, status: Status, answered: str | None
) -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        await said(orchestra, action, text)
        result = await orchestra.result()
        assert (result.status, result.answer.text if result.answer else None) == (status, answered)
        assert result.cost_microusd > 0
        assert action is ReviewAction.EDIT or result.reason is Reason.QUALITY_NOT_MET

    played(main)


@pytest.mark.parametrize(("rule", "status", "after_ms"), [
    ({"default": "accept", "deadline_ms": 5_000}, Status.DELIVERED, 5_000),
    ({"default": "reject", "deadline_ms": 5_000}, Status.FAILED, 5_000),
    ({"default": "accept"}, Status.DELIVERED, 10_000 - MARGIN_MS),
])
def test_nobody_decides_and_the_default_applies_at_the_reviews_deadline_or_before_the_requests(
    rule: dict[str, Any], status: Status, after_ms: int
) -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, deadline_ms=orchestra.clock.now_ms() + 10_000)
        result = await orchestra.result()
        assert result.status is status
        assert after_ms <= result.decided_ms - result.accepted_ms < after_ms + 900
        assert result.reviewed is not None
        assert result.reviewed.by == ""
        assert orchestra.log(FEEDBACK) == [], "nobody said anything"

    played(main, **rule)


def test_the_first_decision_counts_whether_others_come_twice_or_late_or_name_what_is_not_there() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        (review,) = await open_reviews(orchestra.broker)
        now_ms = orchestra.clock.now_ms()
        for action in (ReviewAction.ACCEPT, ReviewAction.ACCEPT, ReviewAction.REJECT):
            await decide(orchestra.broker, review, action, None, "ann", now_ms)
        await orchestra.result()
        await decide(orchestra.broker, review, ReviewAction.REJECT, None, "late", now_ms)
        stranger = review.model_copy(update={"request_id": "r2", "key": "r2"})
        await decide(orchestra.broker, stranger, ReviewAction.ACCEPT, None, "ann", now_ms)
        await asyncio.sleep(5)
        (verdict,) = verdicts(orchestra)
        assert verdict.status is Status.DELIVERED

    played(main)


def test_a_killed_gate_asks_for_no_second_review_and_gives_no_second_verdict() -> None:
    """Killed while an answer waits; between a decision and its verdict; and after the verdict, before its commit."""

    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        await orchestra.kill("quality-gate")
        await said(orchestra, ReviewAction.ACCEPT)
        orchestra.start("quality-gate")
        result = await orchestra.result()
        assert result.status is Status.DELIVERED
        for _ in range(3):
            await orchestra.kill("quality-gate")
            orchestra.start("quality-gate")
            await asyncio.sleep(0.3)
        assert len(verdicts(orchestra)) == 1

    played(main)


def test_every_moment_of_a_kill_leaves_one_verdict_for_each_of_many_reviews() -> None:
    async def main(orchestra: Orchestra) -> None:
        ids = [f"r{number}" for number in range(40)]
        for id in ids:
            await orchestra.ask(None, id=id)
        await waiting(orchestra, len(ids))
        for place, id in enumerate(ids):
            await said(orchestra, ReviewAction.REJECT if place % 3 else ReviewAction.ACCEPT, id=id)
            if place % 4 == 0:
                await asyncio.sleep(place * 0.003)      # from before the decision is read to after its commit
                await orchestra.kill("quality-gate")
                orchestra.start("quality-gate")
        await orchestra.results(ids)
        await asyncio.sleep(3)
        found = [envelope.request_id for envelope in orchestra.log(VERDICTS)]
        assert sorted(found) == sorted(ids)
        accepted = {envelope.request_id for envelope in orchestra.log(VERDICTS) if envelope.payload.status is Status.DELIVERED}
        assert accepted == {f"r{number}" for number in range(0, 40, 3)}

    played(main, deadline_ms=50_000)


def test_a_gate_that_was_down_past_the_reviews_deadline_still_hears_the_decision_that_was_given() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        await orchestra.kill("quality-gate")
        await said(orchestra, ReviewAction.ACCEPT)
        await asyncio.sleep(10)
        orchestra.start("quality-gate")
        result = await orchestra.result()
        assert result.status is Status.DELIVERED
        assert result.reviewed is not None
        assert result.reviewed.by == "ann"
        assert result.decided_ms - result.accepted_ms < 12_000 + GRACE_MS

    played(main, deadline_ms=5_000)


def test_an_ordered_request_never_waits_for_a_person() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None, ordered=True, key="acme/k")
        result: Result = await orchestra.result()
        assert result.status is Status.DELIVERED
        assert orchestra.log(REVIEWS) == []

    played(main)


def test_a_garbled_decision_is_a_dead_letter_and_the_answer_waits_on() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        producer = await orchestra.broker.producer()
        for value in (b"{", b'{"request_id": "r1", "action": "burn"}', b'{"request_id": "r1", "action": "edit"}'):
            await (await producer.send(Output(REVIEW_DECISIONS.name, b"r1", value)))
        await asyncio.sleep(2)
        assert verdicts(orchestra) == []
        await said(orchestra, ReviewAction.ACCEPT)
        await orchestra.result()

    played(main)


def test_however_many_decisions_are_garbled_everybodys_requests_go_on() -> None:
    async def main(orchestra: Orchestra) -> None:
        producer = await orchestra.broker.producer()
        for number in range(50):
            await producer.send(Output(REVIEW_DECISIONS.name, b"r%d" % number, b'{"request": "r1", "action": "accept"}'))
        await orchestra.ask(None)
        await waiting(orchestra)
        await said(orchestra, ReviewAction.ACCEPT)
        assert (await orchestra.result()).status is Status.DELIVERED

    played(main)


def test_a_decision_is_heard_on_whichever_partition_another_clients_partitioner_has_put_it() -> None:
    async def main(orchestra: Orchestra) -> None:
        await orchestra.ask(None)
        await waiting(orchestra)
        (at,) = [record.partition for log in orchestra.broker.logs[REVIEWS.name] for record in log]
        decision = ReviewDecision(request_id="r1", action=ReviewAction.ACCEPT, by="ann", at_ms=orchestra.clock.now_ms())
        producer = await orchestra.broker.producer()
        value = encode(REVIEW_DECISIONS, decision)
        await (await producer.send(Output(REVIEW_DECISIONS.name, b"r1", value, partition=(at + 1) % PARTITIONS)))
        assert (await orchestra.result()).status is Status.DELIVERED

    played(main)


def judged(text: str = ANSWER, **fields: Any) -> Any:
    completion = a_completion(an_answer(text))
    policy = Policy(**fields)
    limits = Limits(policy.checks, 0, is_late=False, now_ms=NOW_MS, is_sampled=True)
    verdict = decided(completion, limits)
    assert isinstance(verdict, Verdict)
    assert policy.review is not None
    return parked(an_envelope(completion), verdict, policy.review, NOW_MS)


def test_what_is_parked_is_what_the_policy_names() -> None:
    assert judged("", review={"failed_checks": True}).reason == "fails not_empty"
    assert judged("", review={"failed_checks": ["not_empty"]}).reason == "fails not_empty"
    assert judged("", review={"failed_checks": ["no_leak"]}) is None
    assert judged(review={"failed_checks": True}) is None
    assert judged("Bananas are yellow and ripen in warm rooms.", review={"score_below": {"relevance": 0.9}}).reason.startswith(
        "relevance ")
    assert judged(review={"share": 1.0, "deadline_ms": 7}).until_ms == NOW_MS + 7


def test_a_rule_that_parks_nothing_and_an_edit_without_text_are_refused_with_the_fix() -> None:
    with pytest.raises(ValidationError, match="set failed_checks, score_below or share"):
        ReviewRule()
    with pytest.raises(ValidationError, match="an edit needs it"):
        ReviewDecision(request_id="r", action=ReviewAction.EDIT)
    assert encode(REVIEW_DECISIONS, ReviewDecision(request_id="r", action=ReviewAction.ACCEPT))
