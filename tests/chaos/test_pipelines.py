"""The kill test of pipelines in short, and two faults planted in how they move on. `make chaos ARGS=--pipelines` is longer."""

import logging

import pytest

from tests.chaos.mutants import MUTANTS, Mutant, caught
from tests.chaos.scenario import Plan, run

SEED = 3
DELIVERED_MIN = 0.95   # one in a hundred has a deadline that it may well miss


@pytest.fixture(autouse=True)
def _quiet_client() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)   # an outage of the broker is what is wanted


async def test_joins_complete_and_no_answered_step_is_paid_again_while_processes_are_killed() -> None:
    outcome = await run(Plan("pipelines-short", 400, 10.0, faults=6, bounces=0, seed=SEED, pipelines=True), print)
    print("\n".join(outcome.report.lines()), outcome.figures)
    assert outcome.report.broken == ()
    assert outcome.holds, "not settled"
    assert outcome.report.figures["results_delivered"] >= DELIVERED_MIN * 400, "this measures pipelines, not the models' mistakes"


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.pipelines], ids=lambda each: each.name)
async def test_a_fault_planted_in_a_pipelines_way_is_caught(mutant: Mutant) -> None:
    outcome = await run(mutant.plan(SEED), print)
    assert caught(mutant, outcome), "\n".join(outcome.report.lines())
