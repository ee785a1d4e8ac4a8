"""The gate's checks on labelled answers, on texts made to be slow, and on what they say of what they found."""

from time import process_time

import orjson
import pytest

from schemas.checks import SCORES, SETTINGS, CheckSpec
from schemas.messages import Answer, Task
from services.quality_gate.checks import CHECKS, MENDED, judge
from services.quality_gate.checks.leaks import is_card, is_iban
from tests.gate.__main__ import Tally, tally
from tests.gate.labelled_set import Labelled, labelled
from tests.support.builders import a_chat, a_task, an_answer

CASES = [case for case in labelled() if case.check not in SCORES]
SETTINGS_FOR_ALL: dict[str, dict[str, object]] = {
    "format": {"regex": "(a|a)*b"},
    "length": {"words_max": 3, "chars_max": 20},
    "in_language": {"language": "de"},
    "no_leak": {"canaries": ["zx-canary-7719"]},
    "safe_content": {"phrases": ["acme corp"]},
    **{name: {"min": 0.5} for name in SCORES},
}
EVERY_CHECK = tuple(CheckSpec.model_validate({"check": name, **SETTINGS_FOR_ALL.get(name, {})}) for name in CHECKS)


def test_every_check_that_a_config_may_set_exists_and_the_other_way_round() -> None:
    assert set(SETTINGS) == set(CHECKS)


@pytest.mark.parametrize("check", [name for name in CHECKS if name not in SCORES])
def test_a_check_is_right_about_the_labelled_answers(check: str) -> None:
    found = tally(check, [case for case in CASES if case.check == check])
    assert found.good >= 8, "too few answers that are good"
    assert found.bad >= 8, "too few answers that are bad"
    assert found.is_met, found.row()


@pytest.mark.parametrize("blind", ["passes everything", "fails everything"])
def test_the_bars_tell_a_blind_check_from_a_seeing_one(blind: str) -> None:
    """A tally of a check that knows nothing must miss them, or they measure nothing."""
    good, bad = sum(case.is_good for case in CASES), sum(not case.is_good for case in CASES)
    fails = blind == "fails everything"
    assert not Tally("blind", good, bad, found=bad * fails, wronged=good * fails).is_met


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_what_a_check_says_never_quotes_the_answer(case: Labelled) -> None:
    (checked,) = judge(case.answer, case.task, (case.spec,)).checks
    told = [word for word in case.answer.text.split() if len(word) >= 15 or (len(word) >= 4 and any(map(str.isdigit, word)))]
    assert not [word for word in told if word in checked.detail]


def _seconds(text: str, task: Task) -> float:
    began = process_time()
    judge(Answer(text=text), task, EVERY_CHECK)
    return process_time() - began


SLOW = {
    "letters": "a" * 100_000,
    "spaces": " " * 100_000,
    "open brackets": "[" * 100_000,
    "open braces": '{"a":' * 20_000,
    "quotes": '"' * 100_000,
    "escaped quotes": '{"' + "\\" * 100_000,
    "fences": "```\n" * 25_000,
    "backticks": "`" * 99_999,
    "digits": "4" * 100_000,
    "digit groups": "4111 " * 20_000,
    "an iban that goes on": "DE89 " + "3704 " * 20_000,
    "addresses": "a@" * 50_000,
    "a long address": "a." * 50_000 + "@b",
    "sums": "1+1=2 " * 16_000,
    "a long sum": "1+" * 50_000 + "1=2",
    "powers of powers": "(((9^64)^64)^64)^8 = 1\n" * 40,
    "powers as large as may be": ("(((7^16)^2)^2)^2=" * 20 + "1\n") * 40,
    "sums on lines": ("(((((1+1)+1)+1)+1)+1)=" * 15 + "6\n") * 300,
    "citations": "[1]" * 33_000,
    "ranges": "[1" + "-2" * 50_000 + "]",
    "tags": "<a " * 33_000,
    "tags with attributes": "<img " + "on" * 50_000,
    "apologies": "I'm sorry, but " * 7_000,
    "dollars": "$" * 100_000,
    "bombs": "how to make a " * 7_000 + "bomb",
    "pieces of a token": "eyJ" * 33_000,
    "keys that never end": "sk-" * 33_000,
    "phones": "+1 " * 33_000,
    "python": "```python\n" + "x = [" * 15_000 + "\n```",
    "deep python": "```python\n" + "-" * 19_000 + "1\n```",
    "document names": "doc-" * 25_000,
    "many documents": " ".join(f"doc-{number}" for number in range(5_000)),
    "a refusal in empty lines": "I can't help with that." + "\n" * 3_970 + "x",
    "a refusal that is signed in spaces": "I can't help with that.\nLove" + " " * 3_900 + "\na\nb",
    "wide": "漢字" * 50_000,
    "lone surrogates": "\ud800" * 50_000,
}
SLOWEST_S = 2.0
"""Of CPU for all checks together on 100 KB. Half of them take under 10 ms, sums a quarter of a second and on a slow machine a
half; what backtracks takes minutes."""


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
def test_no_text_makes_the_checks_slow(text: str) -> None:
    task = a_task(a_chat(f"{text[:50_000]}\n[1] a source, doc-1, https://example.org", response_format={"type": "json_object"}))
    assert _seconds(text, task) < SLOWEST_S


MANY = {
    "telephones": [f"+49 30 {number}" for number in range(1_000_000, 1_020_000)],
    "e-mail addresses": [f"a{number}@b.de" for number in range(50_000)],
}


@pytest.mark.parametrize("given", MANY.values(), ids=MANY.keys())
def test_an_answer_that_repeats_a_long_prompt_is_looked_up_in_it_quickly(given: list[str]) -> None:
    text = "\n".join(given)
    assert _seconds(text, a_task(a_chat(text))) < SLOWEST_S


def _schema_of_sums() -> dict[str, object]:
    term: dict[str, object] = {"$ref": "#/$defs/sum"}
    kinds = [{"properties": {"op": {"const": op}, "left": term, "right": term}, "required": ["op", "left"]} for op in "+-*/"]
    return term | {"$defs": {"sum": {"anyOf": [*({"type": "object"} | kind for kind in kinds), {"type": "number"}]}}}


OF_SCHEMAS: dict[str, tuple[dict[str, object], str]] = {
    "one that refers to itself": (_schema_of_sums(), '{"op":"+","left":' * 40 + '"x"' + ',"right":1}' * 40),
    "many alternatives": ({"items": {"anyOf": [{"required": ["a"], "type": "object"}] * 800}}, f"[{'1,' * 2_000}1]"),
}


@pytest.mark.parametrize(("schema", "text"), OF_SCHEMAS.values(), ids=OF_SCHEMAS.keys())
def test_no_schema_makes_saying_what_is_wrong_slow(schema: dict[str, object], text: str) -> None:
    task = a_task(a_chat(response_format={"type": "json_schema", "json_schema": {"name": "asked", "schema": schema}}))
    began = process_time()
    (checked,) = judge(an_answer(text), task, (CheckSpec(check="matches_schema"),)).checks
    assert process_time() - began < SLOWEST_S
    assert (checked.passed, checked.detail) == (False, "violates the schema")


def test_mended_json_is_delivered_as_json_and_says_so() -> None:
    task = a_task(a_chat(response_format={"type": "json_object"}))
    mended = judge(an_answer("Here you are:\n```json\n{'price': 3,}\n```"), task, (CheckSpec(check="matches_schema"),))
    assert orjson.loads(mended.answer.text) == {"price": 3}
    assert mended.checks[0].detail == MENDED


def test_a_policy_may_forbid_mending() -> None:
    task = a_task(a_chat(response_format={"type": "json_object"}))
    answer = an_answer("{'price': 3}")
    judged = judge(answer, task, (CheckSpec(check="matches_schema", repair=False),))
    assert (judged.answer, judged.checks[0].passed) == (answer, False)


@pytest.mark.parametrize(
    "text", ['{"a": [1, 2', '{"a": "b', '{"a": 1} and {"b": 2}', "{" * 60 + "}" * 60, '{"a": ' + "9" * 70_000 + ",}"]
)
def test_json_is_not_mended_where_something_may_be_lost(text: str) -> None:
    task = a_task(a_chat(response_format={"type": "json_object"}))
    assert judge(an_answer(text), task, (CheckSpec(check="matches_schema"),)).answer.text == text


def test_numbers_of_cards_and_accounts_are_known_by_their_check_digits() -> None:
    assert is_card("4111 1111 1111 1111")
    assert not is_card("4111 1111 1111 1112")
    assert is_iban("DE89 3704 0044 0532 0130 00")
    assert not is_iban("DE88 3704 0044 0532 0130 00")


def test_two_checks_of_one_name_are_both_judged() -> None:
    specs = (CheckSpec(check="format", regex="[0-9]+"), CheckSpec(check="format", min=0, max=5))
    assert [check.passed for check in judge(an_answer("7"), a_task(), specs).checks] == [True, False]
