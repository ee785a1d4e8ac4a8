"""Accounts: every line of the ledger counts once, budgets are told of once, and the price of money follows the pace."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from schemas.config import Tenant
from schemas.fleet import AlertKind
from schemas.spend import SpendEntry, Spent
from services.monitor.accounts import TOTAL, Accounts, Place
from shared.spend import NEAR_SHARE, periods_at, standing

DAY_MS = 86_400_000
NOON_MS = 1_800_014_400_000      # 2027-01-15 12:00 UTC
TENANT = Tenant(budget_usd_per_day=Decimal("0.01"), budget_usd_per_month=Decimal("0.2"))


def a_line(cost=100, attempt="r/plan/0/1-x", tenant="acme", **fields):
    usage = {"tokens_in": 10, "tokens_out": 5}
    return {"phase": "finished", "attempt_id": attempt, "tenant": tenant, "cost_microusd": cost, "usage": usage} | fields


def an_unknown(bound, attempt="r/plan/0/1-x"):
    return a_line(0, attempt, cost_known=False, cost_max_microusd=bound, usage=None)


def at(offset, partition=0, ms=NOON_MS, topic="attempts"):
    return Place(f"{topic}/{partition}", offset, ms)


def some_accounts(tenant=TENANT, entries=()):
    return Accounts(lambda: {"acme": tenant}, entries)


def entries_of(accounts):
    return {due.entry.account: due.entry for due in accounts.due(NOON_MS)}


def test_a_line_counts_in_its_hour_day_and_month_for_its_account_and_for_all_together():
    accounts = some_accounts()
    accounts.attempt(at(0), a_line(100))
    accounts.attempt(at(1), a_line(50, tenant="beta"))
    found = entries_of(accounts)
    assert [found["acme"].hour.period, found["acme"].day.period, found["acme"].month.period] == [
        "2027-01-15T12", "2027-01-15", "2027-01"
    ]
    assert [(name, entry.day.microusd, entry.day.calls) for name, entry in found.items()] == [
        ("acme", 100, 1), ("beta", 50, 1), (TOTAL, 150, 2)
    ]
    assert (found["acme"].month.tokens_in, found["acme"].month.tokens_out) == (10, 5)


def test_the_entry_of_all_accounts_is_written_last_and_nothing_is_due_twice():
    accounts = some_accounts()
    accounts.attempt(at(0), a_line(tenant="zeta"))
    assert [due.entry.account for due in accounts.due(NOON_MS)] == ["zeta", TOTAL]
    assert accounts.due(NOON_MS) == []


def test_a_started_line_counts_nothing_but_moves_the_offset():
    accounts = some_accounts()
    accounts.attempt(at(4), a_line() | {"phase": "started"})
    assert accounts.due(NOON_MS) == []
    assert accounts.offsets == {"attempts/0": 5}


def test_a_replay_after_a_round_that_was_cut_short_adds_nothing_twice():
    first = some_accounts()
    first.attempt(at(0), a_line(100))
    checkpoint = entries_of(first)
    first.attempt(at(1), a_line(7))
    first.attempt(at(0, partition=1), a_line(9, tenant="beta"))
    cut_short = {**checkpoint, "acme": entries_of(first)["acme"]}     # beta and the total were not written any more

    again = some_accounts(entries=cut_short.values())
    assert again.offsets == checkpoint[TOTAL].offsets
    again.attempt(at(1), a_line(7))
    again.attempt(at(0, partition=1), a_line(9, tenant="beta"))
    found = entries_of(again)
    assert found[TOTAL].day.microusd == 116
    assert found["beta"].day.microusd == 9
    assert "acme" not in found, "its entry counted the line already"


def test_an_entry_never_says_that_it_counts_less_than_it_does():
    ahead = SpendEntry(account="acme", offsets={"attempts/0": 9})
    accounts = some_accounts(entries=(ahead, SpendEntry(account=TOTAL, offsets={"attempts/0": 2})))
    accounts.attempt(at(2), a_line(5))
    accounts.attempt(at(0, partition=1), a_line(5))
    assert entries_of(accounts)["acme"].offsets == {"attempts/0": 9, "attempts/1": 1}


def test_a_period_that_is_over_counts_for_nothing_and_its_late_lines_neither():
    accounts = some_accounts()
    accounts.attempt(at(0), a_line(100))
    accounts.attempt(at(1, ms=NOON_MS + DAY_MS), a_line(30))
    accounts.attempt(at(2, ms=NOON_MS), a_line(5))
    acme = entries_of(accounts)["acme"]
    assert (acme.day.period, acme.day.microusd) == ("2027-01-16", 30)
    assert acme.month.microusd == 135


def test_a_call_of_unknown_cost_counts_at_its_bound_until_a_later_line_knows_better():
    accounts = some_accounts()
    accounts.attempt(at(0), an_unknown(400))
    accounts.attempt(at(1), an_unknown(400))
    day = entries_of(accounts)["acme"].day
    assert (day.microusd, day.unknown_microusd, day.calls) == (0, 400, 1)
    accounts.attempt(at(2), a_line(120))
    day = entries_of(accounts)["acme"].day
    assert (day.microusd, day.unknown_microusd, day.calls) == (120, 0, 1)


def test_each_budget_is_told_of_at_80_and_100_percent_once_per_period_also_across_a_restart():
    accounts = some_accounts()
    accounts.attempt(at(0), a_line(7_900))
    assert [due.alerts for due in accounts.due(NOON_MS)] == [(), ()]
    accounts.attempt(at(1), a_line(200))
    told = [alert for due in accounts.due(NOON_MS) for alert in due.alerts]
    assert [(alert.kind, alert.subject) for alert in told] == [(AlertKind.BUDGET_NEAR, "acme")]
    assert "tenants.acme.budget_usd_per_day" in told[0].message
    accounts.attempt(at(2), a_line(2_000))
    due = accounts.due(NOON_MS)
    assert [alert.kind for each in due for alert in each.alerts] == [AlertKind.BUDGET_SPENT]

    again = some_accounts(entries=[each.entry for each in due])
    again.attempt(at(3), a_line(10))
    assert [alert for each in again.due(NOON_MS) for alert in each.alerts] == []


def paced(cost_microusd, seconds, budget="0.864", per_s=1):
    """The account after so many seconds of requests of one cost; the budget allows 0.864 USD a day: 10 micro-USD a second."""
    accounts = some_accounts(Tenant(budget_usd_per_day=Decimal(budget)))
    midnight_ms = NOON_MS - DAY_MS // 2
    for number in range(seconds * per_s):
        ms = midnight_ms + number * 1000 // per_s
        accounts.attempt(at(number, ms=ms), a_line(cost_microusd, f"a{number}"))
        accounts.verdict(at(number, ms=ms, topic="verdicts"), "acme", cost_microusd)
    return entries_of(accounts)["acme"]


def test_money_has_no_price_while_the_budget_lasts_and_a_rising_one_while_it_would_not():
    assert paced(5, 1_800).price == 0.0
    dear = paced(20, 1_800)
    assert dear.price > 1.0
    assert dear.target_microusd == pytest.approx(10, rel=0.15), "at one request a second it may cost what the budget allows"
    assert dear.requests_per_s == pytest.approx(1.0, rel=0.1)
    assert paced(200, 1_800).price == 5.0, "it is clipped"


def test_the_price_of_money_moves_at_most_four_times_a_second():
    slow, fast = paced(20, 60, per_s=4), paced(20, 60, per_s=40)      # the targets differ, 2.5 and 0.25, so does the price
    assert fast.paced_ms - slow.paced_ms < 1_000
    assert slow.price < fast.price <= 5.0


def test_without_a_budget_money_has_no_price():
    accounts = some_accounts(Tenant())
    accounts.verdict(at(0, topic="verdicts"), "acme", 10**9)
    acme = entries_of(accounts)["acme"]
    assert (acme.price, acme.target_microusd, acme.request_microusd) == (0.0, None, 10**9)


def an_entry(day_microusd, ms=NOON_MS, **fields):
    spent = Spent(period=periods_at(ms).day, microusd=day_microusd)
    return SpendEntry(account="acme", day=spent, month=Spent(period=periods_at(ms).month, microusd=day_microusd), **fields)


def test_an_account_stands_to_its_tightest_budget():
    now = standing("acme", TENANT, an_entry(4_000), NOON_MS)
    assert (now.left_microusd, now.field, now.is_near) == (6_000, "tenants.acme.budget_usd_per_day", False)
    monthly = Tenant(budget_usd_per_day=Decimal("0.01"), budget_usd_per_month=Decimal("0.01"))
    entry = an_entry(2_000).model_copy(update={"month": Spent(period="2027-01", microusd=9_500)})
    now = standing("acme", monthly, entry, NOON_MS)
    assert (now.left_microusd, now.field, now.is_near) == (500, "tenants.acme.budget_usd_per_month", True)


def test_an_account_is_near_its_limit_from_a_share_on_and_has_nothing_left_beyond():
    near = round(NEAR_SHARE * 10_000)
    assert not standing("acme", TENANT, an_entry(near - 1), NOON_MS).is_near
    assert standing("acme", TENANT, an_entry(near), NOON_MS).is_near
    assert standing("acme", TENANT, an_entry(10_500), NOON_MS).left_microusd == 0


def test_a_budget_of_less_than_is_counted_is_a_budget_of_nothing():
    tenant = Tenant(budget_usd_per_day=Decimal("0.0000005"))
    assert standing("acme", tenant, None, NOON_MS).left_microusd == 0
    assert standing("acme", tenant, an_entry(1), NOON_MS).is_near
    accounts = some_accounts(tenant)
    accounts.attempt(at(0), a_line(0))
    assert [due.alerts for due in accounts.due(NOON_MS)] == [(), ()]


def test_yesterdays_spending_leaves_todays_budget_whole():
    assert standing("acme", TENANT, an_entry(10_000), NOON_MS + DAY_MS).left_microusd == 10_000


def test_a_tenant_without_budget_or_unknown_is_unbounded():
    for tenant in (None, Tenant()):
        assert standing("acme", tenant, an_entry(10**9), NOON_MS).left_microusd is None


def test_what_shadows_cost_is_told_apart_and_counts_with_the_rest():
    accounts = some_accounts()
    accounts.attempt(at(0), a_line(100))
    accounts.attempt(at(1), a_line(30, "r-shadow/plan/0/1-x", kind="shadow"))
    accounts.attempt(at(2), an_unknown(400, "s-shadow/plan/0/1-x") | {"kind": "shadow"})
    day = entries_of(accounts)["acme"].day
    assert (day.microusd, day.unknown_microusd, day.shadow_microusd) == (130, 400, 430)
    accounts.attempt(at(3), a_line(20, "s-shadow/plan/0/1-x", kind="shadow"))
    day = entries_of(accounts)["acme"].day
    assert (day.microusd, day.unknown_microusd, day.shadow_microusd) == (150, 0, 50)


def test_periods_end_when_the_next_begin():
    december = periods_at(1_798_761_599_999)      # 2026-12-31 23:59:59.999 UTC
    assert (december.hour, december.day, december.month) == ("2026-12-31T23", "2026-12-31", "2026-12")
    assert december.day_ends_ms == december.month_ends_ms == 1_798_761_600_000
    assert periods_at(december.month_ends_ms).month == "2027-01"


def test_a_days_budget_above_the_months_is_refused_with_the_field_and_the_fix():
    with pytest.raises(ValidationError, match="budget_usd_per_day: above budget_usd_per_month; lower it"):
        Tenant(budget_usd_per_day=Decimal(2), budget_usd_per_month=Decimal(1))
