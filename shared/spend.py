"""How an account stands to its budgets: what is left of the tightest one, and whether it is nearly used up. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from schemas.config import Tenant
from schemas.spend import SpendEntry

HOUR_MS = 3_600_000
NEAR_SHARE = 0.9
"""From here on only the cheapest able model is planned: after the first alert (80 %), before the end."""

MICRO = 1_000_000


class Periods(NamedTuple):
    """Names of the periods a moment lies in; they sort by time. `day_ends_ms` and `month_ends_ms` are the first moments after."""

    hour: str
    day: str
    month: str
    day_ends_ms: int
    month_ends_ms: int


class Counted(Protocol):
    """What is counted of one period: a `Spent`, or what the monitor makes one of."""

    @property
    def period(self) -> str: ...
    @property
    def microusd(self) -> int: ...
    @property
    def unknown_microusd(self) -> int: ...


class Budget(NamedTuple):
    """One budget of an account with what counts against it: micro-USD, the unknown ones at their upper bound."""

    field: str
    microusd: int
    spent_microusd: int
    period: str
    ends_ms: int

    @property
    def left_microusd(self) -> int:
        return max(self.microusd - self.spent_microusd, 0)

    @property
    def share(self) -> float:
        """Of the budget, or of a micro-USD where it is less than that, and so nothing: spending is counted in whole ones."""
        return self.spent_microusd / max(self.microusd, 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """`left_microusd` of the budget that binds, and the config's name of it; None: the account has no budget.

    `price` is that of money, λ, for requests whose target is to cost `target_microusd`.
    """

    left_microusd: int | None = None
    field: str = ""
    is_near: bool = False
    price: float = 0.0
    target_microusd: float | None = None


UNBOUNDED = Standing()


@lru_cache(maxsize=256)
def _periods_of_hour(hour: int) -> Periods:
    at = datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC)
    next_month = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1, day=1, hour=0)
    return Periods(
        at.strftime("%Y-%m-%dT%H"),
        at.strftime("%Y-%m-%d"),
        at.strftime("%Y-%m"),
        (hour // 24 + 1) * 24 * HOUR_MS,
        round(next_month.timestamp() * 1000),
    )


def periods_at(at_ms: int) -> Periods:
    """The periods of an epoch millisecond."""
    return _periods_of_hour(at_ms // HOUR_MS)


def budgets(tenant: Tenant, day: Counted, month: Counted, at_ms: int) -> Iterator[Budget]:
    """The budgets a tenant has, with what it has spent in the periods that `at_ms` lies in."""
    if tenant.budget_usd_per_day is None and tenant.budget_usd_per_month is None:
        return
    now = periods_at(at_ms)
    for field, usd, spent, period, ends_ms in (
        ("budget_usd_per_day", tenant.budget_usd_per_day, day, now.day, now.day_ends_ms),
        ("budget_usd_per_month", tenant.budget_usd_per_month, month, now.month, now.month_ends_ms),
    ):
        if usd is not None:
            spent_microusd = spent.microusd + spent.unknown_microusd if spent.period == period else 0
            yield Budget(field, int(usd * MICRO), spent_microusd, period, ends_ms)


def standing(name: str, tenant: Tenant | None, entry: SpendEntry | None, now_ms: int) -> Standing:
    """How the account stands now. One that nothing was heard of has spent nothing."""
    if tenant is None or (tenant.budget_usd_per_day is None and tenant.budget_usd_per_month is None):
        return UNBOUNDED
    known = entry or SpendEntry(account=name)
    found = list(budgets(tenant, known.day, known.month, now_ms))
    tightest = min(found, key=lambda budget: budget.left_microusd)
    return Standing(
        left_microusd=tightest.left_microusd,
        field=f"tenants.{name}.{tightest.field}",
        is_near=any(budget.share >= NEAR_SHARE for budget in found),
        price=known.price,
        target_microusd=known.target_microusd,
    )
