"""Cascades: begun only where they pay, continued only where the next answer is expected to be worth its cost."""

import pytest

from shared.cascade import Call, answer_sketch, asks_on, confidence, gain, pays
from shared.words import Words, sketch

CHEAP, DEAR = Call(0.6, 10, 500), Call(0.8, 140, 2_000)


def test_a_cascade_begins_where_the_first_call_is_cheap_beside_the_next_one() -> None:
    assert pays(CHEAP, DEAR, 10_000, None)
    assert not pays(Call(0.6, 40, 500), DEAR, 10_000, None)


@pytest.mark.parametrize(
    ("first", "following", "left_ms", "left", "depth"),
    [
        (CHEAP, DEAR, 2_400, None, 1),
        (CHEAP, DEAR, 10_000, 149, 1),
        (CHEAP, DEAR, 10_000, None, 3),
        (Call(0.9, 10, 500), DEAR, 10_000, None, 1),
    ],
    ids=("no time for both", "no money for both", "deep enough", "the next one is no better"),
)
def test_a_cascade_is_declined(first: Call, following: Call, left_ms: float, left: float | None, depth: int) -> None:
    assert not pays(first, following, left_ms, left, depth)


def test_a_doubtful_answer_goes_on_and_a_sure_one_does_not() -> None:
    assert asks_on(0.3, DEAR, 0.001, 10_000, None)
    assert not asks_on(0.75, DEAR, 0.001, 10_000, None)


def test_a_hopeless_question_is_not_asked_again_though_nobody_trusts_its_answer() -> None:
    hopeless = Call(0.15, 140, 2_000)
    assert not asks_on(0.1, hopeless, 0.001, 10_000, None)
    assert asks_on(0.1, hopeless, 0.001, 10_000, None, threshold=0.5)


def test_the_dearer_money_is_the_more_must_be_gained() -> None:
    assert gain(0.5, DEAR, 0.0) == pytest.approx(0.3)
    assert asks_on(0.5, DEAR, 0.002, 10_000, None)
    assert not asks_on(0.5, DEAR, 0.003, 10_000, None)


def test_neither_time_nor_budget_is_overdrawn_whatever_would_be_gained() -> None:
    for threshold in (None, 0.9):
        assert not asks_on(0.0, DEAR, 0.0, 1_999, None, threshold)
        assert not asks_on(0.0, DEAR, 0.0, 10_000, 139, threshold)


def test_confidence_is_what_was_believed_moved_by_the_words_of_the_answer() -> None:
    assert confidence(0.6, 0.0) == pytest.approx(0.6)
    assert confidence(0.6, -2.0) < 0.3 < 0.8 < confidence(0.6, 2.0)


def test_what_others_taught_moves_a_confidence_by_no_more_than_it_may() -> None:
    assert confidence(0.6, -4.0, move_max=0.1) == pytest.approx(0.5)
    assert confidence(0.6, 4.0, move_max=0.1) == pytest.approx(0.7)


def test_log_probabilities_tell_answers_of_the_same_words_apart() -> None:
    sure, unsure = ([{"token": "x", "logprob": each}] * 20 for each in (-0.01, -1.6))
    assert answer_sketch("It is so.") == answer_sketch("It is so.", [{"token": "x"}]) == sketch("It is so.")
    words = Words()
    for _ in range(60):
        words.learn(answer_sketch("It is so.", sure), 0.5, 1.0)
        words.learn(answer_sketch("It is so.", unsure), 0.5, 0.0)
    assert words.logit(answer_sketch("It is so.", unsure)) < 0 < words.logit(answer_sketch("It is so.", sure))
