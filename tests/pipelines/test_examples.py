"""Every example of the pipelines' page is run, on real stages, with a provider that says what a model might."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from schemas.messages import Reason, Result, Status
from schemas.pipeline import KINDS
from services.cli.config_file import load
from shared.pipeline_check import problems_of
from tests.pipelines.orchestra import Call, catalogue, in_virtual_time, playing
from tests.pipelines.test_patterns import text_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "schemas" / "PIPELINES.md"
MODELS = {"sim-nano": "small", "sim-small": "small", "sim-large": "large"}
Answers = Mapping[str, str | Sequence[str]]
EVENT = '{"name": "Apollo 11", "year": 1969}'
HARD = "Prove the theorem: solve the equation x^2 = 2, explain why the integral converges, and compare both proofs."

SAYS: Answers = {
    "Give this text a title": "Logs are enough",
    "Answer in three sentences": "One. Two. Three.",
    "What is missing": "A reason.",
    "Write the answer anew": "One, for a reason.",
    "Is this spam?": "Yes.",
    "Classify this message": '{"kind": "billing"}',
    "Answer as the billing desk": "We refund it.",
    "Give name and year": EVENT,
    "Name the sections": '{"sections": ["Why", "How"]}',
    "List two facts about": "Two facts.",
    "Write a paragraph about Why": "Why.",
    "Write a paragraph about How": "How.",
    "Make one text": "Why. How.",
}
ENDS = {"title": ("Logs are enough", 1), "polished": ("One, for a reason.", 3), "panel": ("Yes.", 3),
        "desk": ("We refund it.", 2), "careful": (EVENT, 1), "article": ("Why. How.", 6)}


def examples() -> dict[str, Any]:
    """The pipelines of the page, by name."""
    found: dict[str, Any] = {}
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        found |= yaml.safe_load(block)["pipelines"]
    return found


def _with_models_of_the_bench(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: MODELS[value] if key == "model" and value in MODELS else _with_models_of_the_bench(value)
                for key, value in node.items()}
    return [_with_models_of_the_bench(each) for each in node] if isinstance(node, list) else node


def test_the_page_has_an_example_of_every_kind() -> None:
    text = orjson.dumps(examples()).decode()
    assert all(f'"{kind}":' in text for kind in KINDS if kind != "pipeline")
    assert examples().keys() == ENDS.keys()


def test_the_examples_hold_in_the_config_that_comes_along() -> None:
    config = load(ROOT / "baton.yaml")
    config = type(config).model_validate({**config.model_dump(), "pipelines": examples()})
    assert problems_of(config.pipelines, config.models, config.policies) == []


def _played(name: str, prompt: str = "Why logs?", answers: Answers | None = None, **fields: Any) -> tuple[Result, list[Call]]:
    """One request to an example. `answers` are given instead of those of `SAYS`, one after the other; the last one stays."""
    given = {**SAYS, **(answers or {})}
    left = {begin: [texts] if isinstance(texts, str) else list(texts) for begin, texts in given.items()}

    async def says(call: Call) -> str:
        question = call.body["messages"][0]["content"]
        said = next(texts for begin, texts in left.items() if question.startswith(begin))
        return said.pop(0) if len(said) > 1 else said[0]

    async def main() -> tuple[Result, list[Call]]:
        async with playing(catalogue(_with_models_of_the_bench(examples())), says) as orchestra:
            await orchestra.ask(name, prompt, **fields)
            return await orchestra.result(), orchestra.calls

    return in_virtual_time(main)


@pytest.mark.parametrize("name", ENDS)
def test_an_example_does_what_the_page_says(name: str) -> None:
    result, _ = _played(name)
    text, calls = ENDS[name]
    assert text_of(result) == text
    assert result.attempts == calls


def test_a_title_that_was_refused_is_asked_of_one_other_model_and_no_more() -> None:
    result, calls = _played("title", answers={"Give this text a title": ["I cannot help with that.", "Logs are enough"]})
    assert text_of(result) == "Logs are enough"
    assert [call.body["temperature"] for call in calls] == [0.3, 0.3]
    assert len({call.model for call in calls}) == 2
    refused, calls = _played("title", answers={"Give this text a title": "I cannot help with that."})
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert len(calls) == 2


def test_polished_hands_the_draft_and_the_criticism_on_and_ends_where_a_part_fails() -> None:
    _, calls = _played("polished")
    assert calls[1].prompt == "What is missing in this answer to 'Why logs?'? One. Two. Three."
    assert calls[2].prompt == "Write the answer anew. Answer: One. Two. Three. Criticism: A reason."
    result, calls = _played("polished", answers={"What is missing": ""})
    assert (result.status, result.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert not any(call.prompt.startswith("Write") for call in calls)


def test_the_panel_gives_the_answer_that_most_gave() -> None:
    result, _ = _played("panel", answers={"Is this spam?": ["No.", "yes", "Yes."]})
    assert text_of(result).casefold().rstrip(".") == "yes"


@pytest.mark.parametrize(("budget_microusd", "models"), [(None, {"small", "large"}), (60_000, {"small"})])
def test_the_panel_votes_without_a_model_that_a_third_of_the_budget_cannot_pay(
    budget_microusd: int | None, models: set[str]
) -> None:
    result, calls = _played("panel", budget_microusd=budget_microusd)
    assert text_of(result) == "Yes."
    assert {call.model for call in calls} == models


def test_a_panel_whose_budget_pays_for_none_ends_over_budget() -> None:
    result, calls = _played("panel", budget_microusd=3)
    assert (result.status, result.reason, calls) == (Status.OVER_BUDGET, Reason.OVER_BUDGET, [])


@pytest.mark.parametrize(("kind", "prompt", "begins", "model"), [
    ("billing", "Why logs?", "Answer as the billing desk: Why logs?", None),
    ("technical", HARD, "Answer with care: ", "large"),
    ("other", "Why logs?", "Answer briefly: Why logs?", None),
])
def test_the_desk_answers_by_kind_then_by_complexity_then_briefly(kind: str, prompt: str, begins: str, model: str | None) -> None:
    said = {"Classify this message": f'{{"kind": "{kind}"}}', "Answer with care": "Carefully.", "Answer briefly": "Briefly."}
    result, calls = _played("desk", prompt, said)
    assert calls[-1].prompt.startswith(begins)
    assert model in (None, calls[-1].model)
    assert (result.status, len(calls)) == (Status.DELIVERED, 2)


def test_a_kind_that_the_desk_does_not_know_is_not_answered() -> None:
    result, calls = _played("desk", answers={"Classify this message": '{"kind": "praise"}'})
    assert (result.status, result.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert all(call.prompt.startswith("Classify") for call in calls)


def test_careful_asks_again_with_the_criticism_and_the_changes_of_each_turn() -> None:
    result, calls = _played("careful", answers={"Give name and year": ["Apollo 11", '{"name": "Apollo 11"}', EVENT]})
    assert text_of(result) == EVENT
    assert [(call.model, call.body.get("temperature")) for call in calls] == [("small", None), ("small", 0.9), ("large", None)]
    assert ["matches_schema" in call.prompt for call in calls] == [False, True, True]


def test_careful_fails_after_three_turns_with_its_best_attempt() -> None:
    result, calls = _played("careful", answers={"Give name and year": ["", "Apollo 11", ""]})
    assert (result.status, result.reason, len(calls)) == (Status.FAILED, Reason.QUALITY_NOT_MET, 3)
    assert result.answer is not None
    assert result.answer.text == "Apollo 11"


def test_the_article_is_made_of_the_paragraphs_in_the_order_of_its_outline() -> None:
    _, calls = _played("article")
    assert calls[-1].prompt == "Make one text of these paragraphs: Why. How. "
    assert {call.prompt for call in calls[1:-1]} == {
        f"{begin}{section}{end}" for section in ("Why", "How")
        for begin, end in (("List two facts about ", "."), ("Write a paragraph about ", " from these facts: Two facts."))
    }


@pytest.mark.parametrize(
    ("answers", "last"),
    [({"Name the sections": '{"sections": ["Why"]}'}, "Name the sections"),
     ({"Write a paragraph about How": ""}, "Write a paragraph")],
)
def test_an_article_with_too_short_an_outline_or_without_a_paragraph_fails(answers: dict[str, str], last: str) -> None:
    result, calls = _played("article", answers=answers)
    assert (result.status, result.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert calls[-1].prompt.startswith(last)
