"""A cascade through the real stages on a broker in memory: begun by the router, judged by the gate, and declined."""

from typing import Any

import pytest

from schemas.messages import Completion, Plan, Result, Status
from schemas.quality import QualityEntry
from schemas.topology import COMPLETIONS, ESCALATIONS, PLANS
from shared.cascade import answer_sketch
from shared.quality import Judged, Knowledge, keys_of
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing

GOOD, BAD, BEST = "Certainly, it is Paris.", "Perhaps some town or other?", "Paris, the capital of France."
BY_GAIN: dict[str, Any] = {"cascade": {}, "candidates_max": 2}


def learned() -> dict[str, QualityEntry]:
    """What the monitor publishes of the small model after forty judged answers."""
    knowledge = Knowledge()
    for offset in range(40):
        said, score = (GOOD, 1.0) if offset % 2 else (BAD, 0.0)
        knowledge.fold(Judged(
            model="small", domain="chat", tier=0, tenant="acme", score=score, source="feedback/0", offset=offset, at_ms=0,
            answer_buckets=answer_sketch(said),
        ), 0.5)  # fmt: skip
    return keys_of(map(knowledge.entry, knowledge.known()))


def asked(
    small_says: str | None,
    policy: dict[str, Any],
    large_says: str | None = BEST,
    pipeline: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Result, Orchestra]:
    async def says(call: Call) -> str | None:
        return small_says if call.model == "small" else large_says

    async def main() -> tuple[Result, Orchestra]:
        made = catalogue({"p": pipeline} if pipeline else {}, **policy)
        async with playing(made, says, learned()) as orchestra:
            await orchestra.ask("p" if pipeline else None, "What is the capital of France?", **fields)
            return await orchestra.result(), orchestra

    return in_virtual_time(main)


def called(orchestra: Orchestra) -> list[str]:
    return [call.model for call in orchestra.calls]


def first_plan(orchestra: Orchestra) -> Plan:
    plan: Plan = next(envelope.payload for topic in PLANS.values() for envelope in orchestra.log(topic))
    return plan


def test_a_weak_answer_that_reads_like_wrong_ones_goes_on_to_the_stronger_model() -> None:
    result, orchestra = asked(BAD, BY_GAIN)
    assert called(orchestra) == ["small", "large"]
    assert result.status is Status.DELIVERED
    assert result.answer is not None
    assert result.answer.text == BEST
    (doubted,) = result.tried
    assert (doubted.model, doubted.failed_checks) == ("small", ())
    assert doubted.confidence is not None
    assert doubted.confidence < 0.4
    completion: Completion = orchestra.log(COMPLETIONS)[0].payload
    assert completion.cascade == first_plan(orchestra).cascade


def test_a_weak_answer_that_reads_like_right_ones_is_delivered() -> None:
    result, orchestra = asked(GOOD, BY_GAIN)
    assert called(orchestra) == ["small"]
    assert result.answer is not None
    assert result.answer.text == GOOD
    assert orchestra.log(ESCALATIONS) == []


def test_the_threshold_is_the_simple_form() -> None:
    for threshold, models in ((0.05, ["small"]), (0.6, ["small", "large"])):
        _, orchestra = asked(BAD, {"cascade": {"threshold": threshold}})
        assert called(orchestra) == models


def test_a_cascade_is_declined_where_it_does_not_pay() -> None:
    for policy, fields in (
        ({"cascade": {}, "deny": ["large"]}, {}),                               # medium costs but five times as much
        ({"cascade": {}, "answer_worth_usd": "0.000001"}, {}),                  # no answer is worth the dear one
        ({"cascade": {}}, {"body": {"sort": "price"}}),                         # the caller has chosen
        ({}, {}),                                                               # the policy has none
    ):
        result, orchestra = asked(BAD, policy, **fields)
        assert called(orchestra) == ["small"], policy
        assert first_plan(orchestra).cascade is None
        assert result.answer is not None
        assert result.answer.text == BAD


def test_a_dear_model_that_would_be_asked_directly_is_asked_after_a_cheap_one() -> None:
    _, orchestra = asked(GOOD, BY_GAIN | {"quality_min": 0.85})
    assert called(orchestra) == ["small"]
    cascade = first_plan(orchestra).cascade
    assert cascade is not None
    assert (cascade.model, cascade.following) == ("small", "large")
    assert first_plan(orchestra).why.rule.endswith("; small first, and large if its answer will not do")


def test_the_doubted_answer_is_delivered_where_no_other_can_be_had() -> None:
    result, orchestra = asked(BAD, BY_GAIN | {"attempts_max": 1}, large_says=None)
    assert called(orchestra) == ["small", "large"]
    assert result.status is Status.DELIVERED
    assert result.answer is not None
    assert result.answer.text == BAD


def test_the_doubted_answer_is_delivered_where_the_stronger_one_fails_its_checks() -> None:
    result, orchestra = asked(BAD, BY_GAIN, large_says="")
    assert called(orchestra) == ["small", "large"]
    assert result.status is Status.DELIVERED
    assert result.answer is not None
    assert result.answer.text == BAD
    assert [tried.model for tried in result.tried] == ["small", "large"]


def test_what_a_request_may_cost_binds_the_cascade_too() -> None:
    result, orchestra = asked(BAD, BY_GAIN, budget_microusd=1_000, body={"max_tokens": 100})
    assert called(orchestra) == ["small"]
    assert result.status is Status.DELIVERED


STEP: dict[str, Any] = {"step": {}}
TWO_STEPS = {"sequence": [STEP | {"name": "found"}, {"step": {"prompt": "Is it {{ found }}?", "model": "large"}}]}


@pytest.mark.parametrize(("small_says", "models"), [(BAD, ["small", "large"]), (GOOD, ["small"])])
def test_a_step_of_a_pipeline_begins_a_cascade_as_a_plain_request_does(small_says: str, models: list[str]) -> None:
    result, orchestra = asked(small_says, BY_GAIN, pipeline=TWO_STEPS)
    assert called(orchestra) == [*models, "large"]
    assert orchestra.calls[-1].prompt == f"Is it {small_says if len(models) == 1 else BEST}?"
    assert result.status is Status.DELIVERED
    assert result.attempts == len(models) + 1
    assert result.cost_microusd == sum(line.cost_microusd for line in orchestra.ledger())


@pytest.mark.parametrize(
    ("pipeline", "fields"),
    [
        ({"parallel": {"branches": [STEP, STEP], "merge": "first"}}, {}),
        ({"loop": {"body": STEP, "at_most": 2}}, {}),
        (STEP, {"ordered": True, "key": "one after the other"}),
    ],
)
def test_where_a_steps_end_is_looked_at_again_it_begins_no_cascade(pipeline: dict[str, Any], fields: dict[str, Any]) -> None:
    result, orchestra = asked(BAD, BY_GAIN, pipeline=pipeline, **fields)
    assert set(called(orchestra)) == {"small"}
    assert first_plan(orchestra).cascade is None
    assert result.status is Status.DELIVERED
