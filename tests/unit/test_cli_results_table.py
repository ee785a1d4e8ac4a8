import io
from dataclasses import replace
from typing import Any

import orjson
import pytest
from rich.console import Console

from schemas.messages import Answer, Reason, Result, Status, Tried, Why
from services.cli.results_table import Example, Rows, Tally, examples_of, models, usd


def line(**fields: Any) -> bytes:
    return orjson.dumps({"prompt": "Hello"} | fields)


def result_of(example: Example, status: str = "delivered", **fields: Any) -> Result:
    metadata = orjson.loads(example.body).get("metadata", {}) if example.is_json else {}
    return Result(
        request_id="r", tenant="demo", status=Status(status), accepted_ms=1, decided_ms=2, **({"metadata": metadata} | fields)
    )


def test_a_line_keeps_what_it_says_and_gets_a_mark_in_its_metadata() -> None:
    (example,) = examples_of([line(priority="batch", metadata={"title": "t", "expect": "failed"})], "run")
    assert (example.title, example.expect, example.lane, example.mark) == ("t", "failed", "batch", "run/1")
    assert orjson.loads(example.body) == {
        "prompt": "Hello", "priority": "batch", "metadata": {"title": "t", "expect": "failed", "run": "run", "line": 1},
    }


def test_a_repeat_under_one_idempotency_key_is_byte_for_byte_the_same_request() -> None:
    other, first, repeat = examples_of([line(), line(idempotency_key="k"), line(idempotency_key="k")], "run")
    assert first.body == repeat.body
    assert first.mark == repeat.mark == "run/2" != other.mark
    assert orjson.loads(first.body)["idempotency_key"] == "k/run"


def test_a_line_that_is_no_json_is_sent_as_it_is_and_known_by_its_request_id() -> None:
    (example,) = examples_of([b'{"prompt": "cut o'], "run")
    assert (example.body, example.expect) == (b'{"prompt": "cut o', "rejected")
    tally = Tally([example], aliases={"r": example.mark})
    assert tally.take(result_of(example, "rejected")) is example
    assert tally.wrong() == []


def test_one_result_answers_both_lines_of_a_pair() -> None:
    examples = examples_of([line(idempotency_key="k"), line(idempotency_key="k")], "run")
    tally = Tally(examples)
    assert not tally.is_complete
    tally.take(result_of(examples[0]))
    assert (tally.is_complete, tally.answered, tally.wrong()) == (True, 2, [])


def test_somebody_elses_result_is_left_alone() -> None:
    (example,) = examples_of([line()], "run")
    tally = Tally([example])
    assert tally.take(result_of(example, metadata={"run": "other", "line": 1})) is None
    assert tally.take(result_of(example, metadata={})) is None
    assert not tally.is_complete


def test_what_is_wrong_names_the_line_and_the_reason() -> None:
    missing, refused, doubled = examples_of([line(), line(metadata={"title": "a sum"}), line()], "run")
    tally = Tally([missing, refused, doubled])
    tally.take(result_of(refused, "failed", reason=Reason.PROVIDERS_FAILED, message="alpha is down"))
    tally.take(result_of(doubled))
    tally.take(result_of(doubled))
    assert tally.wrong() == [
        "line 1 (line 1): no result",
        "line 2 (a sum): expected delivered, got failed (providers_failed: alpha is down); request r",
        "run/3: more than one result",
    ]


@pytest.mark.parametrize(("arriving", "is_wrong"), [((0, 1), False), ((1, 0), True)])
def test_results_of_one_ordering_key_must_come_in_order(arriving: tuple[int, ...], is_wrong: bool) -> None:
    examples = examples_of([line(ordering_key="k"), line(ordering_key="k")], "run")
    tally = Tally(examples)
    for place in arriving:
        tally.take(result_of(examples[place]))
    assert bool(tally.wrong()) is is_wrong


def test_a_row_holds_who_answered_why_and_what_it_cost() -> None:
    (example,) = examples_of([line(metadata={"title": "a sum"})], "run")
    out = io.StringIO()
    rows = Rows(Console(file=out, width=150))
    why = Why(policy="default", rule="cheapest of 3 able models")
    result = result_of(example, attempts=2, cost_microusd=1234, why=why, answer=Answer(text="4", model="sim-small"))
    rows.head()
    rows.row(example, replace_tried(result), 56)
    head, row = out.getvalue().splitlines()
    assert all(name in head for name in ("request", "lane", "model", "why", "calls", "ms", "USD", "result"))
    assert row.split() == [
        "✓", "a", "sum", "standard", "sim-nano", "→", "sim-small", "cheapest", "of", "3", "able", "models", "2", "56", "0.001234",
        "delivered",
    ]
    rows.row(replace(example, expect="rejected"), result, 56)
    assert out.getvalue().splitlines()[-1].startswith("✗")


def replace_tried(result: Result) -> Result:
    return result.model_copy(update={"tried": (Tried(model="sim-nano", backend="alpha-nano"),)})


def test_the_best_answer_of_a_model_that_was_tried_last_is_not_listed_twice() -> None:
    (example,) = examples_of([line()], "run")
    result = replace_tried(result_of(example, answer=Answer(text="", model="sim-nano")))
    assert models(result) == "sim-nano"


def test_money_keeps_all_its_digits() -> None:
    assert (usd(1), usd(1_500_000)) == ("0.000001", "1.500000")
