"""What `make fleet` shows at length, as far as it is quick: the simulated sections, each judged as there."""

import pytest

from tests.fleet import balance, circuits

QUICK = (
    circuits.an_outage, circuits.probing, circuits.nothing_else_to_call,
    balance.a_slow_one, balance.long_answers, balance.a_newcomer, balance.a_quick_failure, balance.a_crowd,
)  # fmt: skip


@pytest.mark.parametrize("section", QUICK, ids=lambda section: section.__name__)
def test_what_the_fleet_promises_holds(section):
    broken = [finding for finding in section() if not finding.holds]
    assert not broken, broken
