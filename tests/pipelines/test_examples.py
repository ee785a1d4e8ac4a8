"""Every example of the pipelines' page is run, on real stages, with a provider that says what a model might."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from schemas.messages import Result
from schemas.pipeline import KINDS
from services.cli.config_file import load
from shared.catalogue import Catalogue
from shared.pipeline_check import problems_of
from tests.pipelines.orchestra import Call, catalogue, in_virtual_time, playing
from tests.pipelines.test_patterns import text_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "schemas" / "PIPELINES.md"
MODELS = {"sim-nano": "small", "sim-small": "small", "sim-large": "large"}

SAYS = {
    "Give this text a title": "Logs are enough",
    "Answer in three sentences": "One. Two. Three.",
    "What is missing": "A reason.",
    "Write the answer anew": "One, for a reason.",
    "Is this spam?": "Yes.",
    "Classify this message": '{"kind": "billing"}',
    "Answer as the billing desk": "We refund it.",
    "Give name and year": '{"name": "Apollo 11", "year": 1969}',
    "Name the sections": '{"sections": ["Why", "How"]}',
    "List two facts about": "Two facts.",
    "Write a paragraph about Why": "Why.",
    "Write a paragraph about How": "How.",
    "Make one text": "Why. How.",
}
ENDS = {"title": ("Logs are enough", 1), "polished": ("One, for a reason.", 3), "panel": ("Yes.", 3),
        "desk": ("We refund it.", 2), "careful": ('{"name": "Apollo 11", "year": 1969}', 1), "article": ("Why. How.", 6)}


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


@pytest.mark.parametrize("name", ENDS)
def test_an_example_does_what_the_page_says(name: str) -> None:
    made: Catalogue = catalogue(_with_models_of_the_bench(examples()))

    async def says(call: Call) -> str:
        return next(answer for begin, answer in SAYS.items() if call.prompt.startswith(begin))

    async def main() -> Result:
        async with playing(made, says) as orchestra:
            await orchestra.ask(name, "Why logs?")
            return await orchestra.result()

    result = in_virtual_time(main)
    text, calls = ENDS[name]
    assert text_of(result) == text
    assert result.attempts == calls
