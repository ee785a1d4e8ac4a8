"""Spending at a target: the price of money follows what was spent."""

import random

import pytest

from shared.pacing import PRICE_MAX, START, paced, target_of


def test_money_has_no_price_while_less_than_the_target_is_spent() -> None:
    pace = START
    for _ in range(100):
        pace = paced(pace, 10, 100)
    assert pace.price == 0.0


def test_the_price_rises_while_more_is_spent_stops_at_its_most_and_falls_again() -> None:
    pace = START
    for _ in range(300):
        pace = paced(pace, 1_000, 100)
    assert pace.price == PRICE_MAX
    for _ in range(400):
        pace = paced(pace, 0, 100)
    assert pace.price == 0.0


@pytest.mark.parametrize("dear", [200, 1_000])
def test_a_buyer_who_minds_the_price_spends_the_target_in_the_long_run(dear: int) -> None:
    rng, pace, spent = random.Random(4), START, 0
    for _ in range(4_000):
        gain = rng.random()         # what the dear model would be better by
        cost = dear if gain > pace.price * dear / 100 else 0
        pace = paced(pace, cost, 100)
        spent += cost
    assert spent / 4_000 == pytest.approx(100, rel=0.03)


def test_what_was_saved_raises_the_target_and_what_was_overspent_lowers_it() -> None:
    assert target_of(900.0, 10.0) == 90.0
    assert target_of(1_100.0, 10.0) == pytest.approx(110.0)
    assert target_of(40.0, 0.0) == 40.0


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="target_microusd"):
        paced(START, 1, 0)
