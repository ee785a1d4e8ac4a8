"""A gate that an answer fails asks another model, in a pipeline's step as in a plain request, whatever was learned of them."""

from typing import Any

import pytest

from schemas.messages import Reason, Result, Status
from schemas.quality import QualityEntry
from shared.quality import Judged, Knowledge, keys_of
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing

WAYS = [None, "step", "branch"]
PIPELINES = """
step: {step: {prompt: "Say it: {{ request.text }}"}}
branch: {parallel: {merge: all, quorum: 1, limit_ms: 20000, branches: [{step: {prompt: "one"}}, {step: {prompt: "two"}}]}}
"""


def learned(**good: float) -> dict[str, QualityEntry]:
    """What the monitor publishes after a hundred judgements of each model, of which this share were good."""
    knowledge = Knowledge()
    for model, share in good.items():
        for offset in range(100):
            knowledge.fold(Judged(model=model, domain="chat", tier=0, tenant="acme", score=float(offset < 100 * share),
                                  source=f"{model}/0", offset=offset, at_ms=0), 0.5)
    return keys_of(map(knowledge.entry, knowledge.known()))


def asked(pipeline: str | None, failing: set[str], **policy: Any) -> tuple[Result, Orchestra]:
    """Small is cheapest, and is believed to be best by far."""

    async def says(call: Call) -> str:
        return "" if call.model in failing else f"{call.model} says so."

    async def main() -> tuple[Result, Orchestra]:
        believed = learned(small=0.98, medium=0.4, large=0.6)
        async with playing(catalogue(PIPELINES, **policy), says, believed) as orchestra:
            await orchestra.ask(pipeline, "What is the capital of France?")
            return await orchestra.result(), orchestra

    return in_virtual_time(main)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_fails_goes_to_another_model_though_the_failed_one_is_believed_to_be_the_best(way: str | None) -> None:
    result, orchestra = asked(way, {"small"})
    assert result.status is Status.DELIVERED, result.message
    models = [call.model for call in orchestra.calls]
    assert set(models[: len(models) // 2]) == {"small"}
    assert "small" not in models[len(models) // 2 :]


@pytest.mark.parametrize("way", WAYS[:2])
def test_each_model_that_failed_is_asked_once_and_then_the_best_answer_is_what_there_is(way: str | None) -> None:
    result, orchestra = asked(way, {"small", "medium", "large"}, escalations_max=5)
    assert (result.status, result.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert sorted(call.model for call in orchestra.calls) == ["large", "medium", "small"]


@pytest.mark.parametrize("way", WAYS[:2])
def test_no_more_models_are_asked_than_the_policy_allows(way: str | None) -> None:
    _, orchestra = asked(way, {"small", "medium", "large"}, escalations_max=1)
    assert len(orchestra.calls) == 2
