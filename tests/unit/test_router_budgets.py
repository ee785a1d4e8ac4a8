"""An account near its limit gets the cheapest able model, at the limit `over_budget` with the field to raise, never silence."""

from decimal import Decimal

import pytest

from schemas.config import Tenant
from schemas.messages import Plan, Reason
from schemas.spend import SpendEntry, Spent
from services.router.main import Router
from shared.spend import periods_at
from tests.support.builders import NOW_MS, ManualClock, a_catalogue, a_context, a_task, an_envelope, an_escalation

BUDGET_MICROUSD = 1_000_000


def planned(spent_microusd: int, tenant: Tenant | None = None, asked: object = None, **envelope: object) -> Plan:
    """The plan of a hard task, for which only the large model is good enough."""
    now = periods_at(NOW_MS)
    entry = SpendEntry(account="acme", day=Spent(period=now.day, microusd=spent_microusd))
    catalogue = a_catalogue(tenant=tenant or Tenant(budget_usd_per_day=Decimal(1)), quality_min_hard=0.9)
    router = Router(lambda: catalogue, dict, ManualClock(), spend=lambda: {"acme": entry})
    task = asked or a_task(complexity=1.0, tokens_in=100, tokens_out_max=1000)
    (out,) = router.handle(an_envelope(task, **envelope), a_context()).outputs  # type: ignore[type-var, arg-type]
    plan: Plan = out.value.payload  # type: ignore[union-attr]
    return plan


def test_an_account_with_money_gets_the_model_it_needs() -> None:
    assert planned(0).candidates[0].model == "large"


def test_an_account_near_its_limit_gets_the_cheapest_able_model_and_the_plan_says_why() -> None:
    plan = planned(BUDGET_MICROUSD * 95 // 100)
    assert plan.candidates[0].model == "small"
    assert plan.why.rule.endswith("tenants.acme.budget_usd_per_day is nearly spent")


@pytest.mark.parametrize("spent_microusd", [BUDGET_MICROUSD - 1, BUDGET_MICROUSD, 2 * BUDGET_MICROUSD])
def test_an_account_at_its_limit_ends_over_budget_with_the_field_to_raise(spent_microusd: int) -> None:
    plan = planned(spent_microusd)
    assert plan.candidates == ()
    assert plan.failure is not None
    assert plan.failure.reason is Reason.OVER_BUDGET
    assert plan.failure.message.startswith("tenants.acme.budget_usd_per_day: ")


def test_an_account_near_its_limit_has_no_shadows() -> None:
    plan = planned(BUDGET_MICROUSD * 95 // 100, request_id="r1-shadow")
    assert plan.candidates == ()
    assert plan.failure is not None
    assert plan.failure.message.startswith("tenants.acme.budget_usd_per_day: ")


def test_where_the_requests_own_limit_binds_that_is_the_field() -> None:
    plan = planned(0, budget_microusd=1)
    assert plan.failure is not None
    assert "max_cost_usd" in plan.failure.message
    assert "tenants" not in plan.failure.message


def test_the_months_budget_binds_like_the_days() -> None:
    plan = planned(0, Tenant(budget_usd_per_month=Decimal("0.000001")))
    assert plan.failure is not None
    assert plan.failure.message.startswith("tenants.acme.budget_usd_per_month: ")


def test_an_account_at_its_limit_gets_no_stronger_model_either() -> None:
    plan = planned(BUDGET_MICROUSD, asked=an_escalation("small"))
    assert plan.candidates == ()
    assert plan.failure is not None
    assert plan.failure.reason is Reason.NO_STRONGER_MODEL
