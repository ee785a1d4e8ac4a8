"""Lines of the ledger and verdicts to what each account has spent, per period, and to its price of money. Pure.

A line counts once: every account knows the offset up to which it counts, so that a replay adds nothing. What an account's
requests cost in all, as their verdicts say, moves its price of money (`shared/pacing.py`): the target is what a request may
cost for the budget to last until its period ends, at the rate at which requests come.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from schemas.config import Tenant
from schemas.fleet import Alert, AlertKind, Severity
from schemas.ledger import AttemptKind, AttemptPhase
from schemas.spend import SpendEntry, Spent
from shared.pacing import KEEP, PRICE_MAX, Pace, paced, target_of
from shared.spend import budgets, periods_at

TOTAL = "*"
"""The account of all accounts: no tenant can be called so."""

PRICE_INTERVAL_MS = 250
"""The price of money moves with a request, but four times a second at most: a step shows in the costs only after the routers
have heard of it."""

RATE_S = 600.0
"""Time constant of the rate of requests."""

ALERTS_AT = ((100, AlertKind.BUDGET_SPENT, Severity.CRITICAL), (80, AlertKind.BUDGET_NEAR, Severity.WARNING))
UNKNOWN_MAX = 10_000
"""Attempts of unknown cost that are remembered, in case a later line knows it."""


class Place(NamedTuple):
    """Where in the log a line stands, and the log's time of it."""

    source: str      # topic/partition
    offset: int
    at_ms: int


class Sum:
    """What was spent in one period; the sum of a later period begins at nothing, an earlier one's line is of no use any more."""

    __slots__ = (
        "alerted_percent", "calls", "microusd", "period", "shadow_microusd", "tokens_in", "tokens_out", "unknown_microusd",
    )

    def __init__(self, spent: Spent) -> None:
        self._begin(spent)

    def _begin(self, spent: Spent) -> None:
        self.period = spent.period
        self.microusd = spent.microusd
        self.unknown_microusd = spent.unknown_microusd
        self.shadow_microusd = spent.shadow_microusd
        self.tokens_in = spent.tokens_in
        self.tokens_out = spent.tokens_out
        self.calls = spent.calls
        self.alerted_percent = spent.alerted_percent

    def holds(self, period: str) -> bool:
        if period > self.period:
            self._begin(Spent(period=period))
        return period == self.period

    def spent(self) -> Spent:
        return Spent(**{name: getattr(self, name) for name in Sum.__slots__})


class Account:
    """One account as counted so far."""

    __slots__ = (
        "counted", "day", "hour", "month", "name", "paced_ms", "price", "rate", "request_microusd", "request_ms",
        "target_microusd",
    )

    def __init__(self, entry: SpendEntry) -> None:
        self.name = entry.account
        self.hour, self.day, self.month = Sum(entry.hour), Sum(entry.day), Sum(entry.month)
        self.request_microusd = entry.request_microusd
        self.rate = entry.requests_per_s
        self.target_microusd = entry.target_microusd
        self.price = entry.price
        self.paced_ms = entry.paced_ms
        self.request_ms = entry.request_ms
        self.counted = dict(entry.offsets)

    def is_new(self, place: Place) -> bool:
        return place.offset >= self.counted.get(place.source, 0)

    def sums_at(self, at_ms: int) -> list[Sum]:
        """Those of the periods that a moment lies in, where they are not over."""
        now = periods_at(at_ms)
        pairs = ((self.hour, now.hour), (self.day, now.day), (self.month, now.month))
        return [sum_ for sum_, period in pairs if sum_.holds(period)]

    def request(self, cost_microusd: int, at_ms: int, tenant: Tenant | None) -> None:
        """One request has ended and cost so much in all."""
        passed_s = max(at_ms - self.request_ms, 0) / 1000
        self.rate = self.rate * math.exp(-passed_s / RATE_S) + 1 / RATE_S
        is_first = not self.request_ms
        self.request_ms = max(at_ms, self.request_ms)
        before = cost_microusd if is_first else self.request_microusd
        self.request_microusd = KEEP * before + (1 - KEEP) * cost_microusd
        if at_ms - self.paced_ms >= PRICE_INTERVAL_MS:
            self.paced_ms = at_ms
            self.target_microusd = target = self._target(tenant, at_ms)
            if target:
                self.price = paced(Pace(before, self.price), cost_microusd, target).price
            else:
                self.price = 0.0 if target is None else PRICE_MAX

    def _target(self, tenant: Tenant | None, at_ms: int) -> float | None:
        """What a request may cost for every budget to last, micro-USD; None without a budget."""
        if tenant is None:
            return None
        return min(
            (
                target_of(budget.left_microusd, self.rate * (budget.ends_ms - at_ms) / 1000)
                for budget in budgets(tenant, self.day, self.month, at_ms)
            ),
            default=None,
        )

    def entry(self, offsets: Mapping[str, int], now_ms: int) -> SpendEntry:
        """As of these offsets; after a restart in the middle of a round of entries it may already count more."""
        return SpendEntry(
            account=self.name, hour=self.hour.spent(), day=self.day.spent(), month=self.month.spent(),
            request_microusd=round(self.request_microusd, 3), requests_per_s=round(self.rate, 6),
            target_microusd=self.target_microusd, price=round(self.price, 4), paced_ms=self.paced_ms,
            request_ms=self.request_ms, updated_ms=now_ms,
            offsets={source: max(offset, self.counted.get(source, 0)) for source, offset in offsets.items()},
        )  # fmt: skip


class Due(NamedTuple):
    """What the log must hear of one account."""

    entry: SpendEntry
    alerts: tuple[Alert, ...] = ()


class Accounts:
    """All accounts of the ledger. `tenants` names their budgets, as configured now."""

    def __init__(self, tenants: Callable[[], Mapping[str, Tenant]], entries: Iterable[SpendEntry] = ()) -> None:
        self._tenants = tenants
        self._accounts = {entry.account: Account(entry) for entry in entries}
        self._unknown: OrderedDict[str, tuple[int, int]] = OrderedDict()    # attempt → upper bound, time
        self._dirty: set[str] = set()
        total = self._accounts.get(TOTAL)
        self.offsets: dict[str, int] = dict(total.counted) if total else {}

    def attempt(self, place: Place, line: Mapping[str, Any]) -> None:
        """One line of the ledger, as plain data. Raises KeyError or TypeError for one that is none, before it counts anywhere."""
        self.offsets[place.source] = place.offset + 1
        if line["phase"] != AttemptPhase.FINISHED:
            return
        is_known = line.get("cost_known", True)
        cost_microusd = _whole(line.get("cost_microusd", 0) if is_known else line.get("cost_max_microusd", 0))
        usage = line.get("usage") or {}
        tokens = _whole(usage.get("tokens_in", 0)), _whole(usage.get("tokens_out", 0))
        earlier = self._earlier(line["attempt_id"], is_known, cost_microusd, place.at_ms)
        if earlier is not None and not is_known:
            return
        is_shadow = line.get("kind") == AttemptKind.SHADOW
        for account in (self._of(line["tenant"]), self._of(TOTAL)):
            if account.is_new(place):
                self._count(account, place.at_ms, cost_microusd, is_known, is_shadow, tokens, earlier)

    def _count(
        self,
        account: Account,
        at_ms: int,
        cost_microusd: int,
        is_known: bool,
        is_shadow: bool,
        tokens: tuple[int, int],
        earlier: tuple[int, int] | None,
    ) -> None:
        self._dirty.add(account.name)
        for each in account.sums_at(at_ms):
            if is_known:
                each.microusd += cost_microusd
            else:
                each.unknown_microusd += cost_microusd
            each.shadow_microusd += is_shadow * cost_microusd
            each.tokens_in += tokens[0]
            each.tokens_out += tokens[1]
            each.calls += earlier is None
        if earlier is not None:
            bound_microusd, then_ms = earlier
            for each in account.sums_at(then_ms):
                each.unknown_microusd = max(each.unknown_microusd - bound_microusd, 0)
                each.shadow_microusd = max(each.shadow_microusd - is_shadow * bound_microusd, 0)

    def _earlier(self, attempt_id: str, is_known: bool, cost_microusd: int, at_ms: int) -> tuple[int, int] | None:
        """The upper bound that stands for an attempt, if it was of unknown cost; a known line takes its place."""
        if is_known:
            return self._unknown.pop(attempt_id, None)
        if attempt_id in self._unknown:
            return self._unknown[attempt_id]
        self._unknown[attempt_id] = cost_microusd, at_ms
        if len(self._unknown) > UNKNOWN_MAX:
            self._unknown.popitem(last=False)
        return None

    def verdict(self, place: Place, tenant: str, cost_microusd: int) -> None:
        """A request of the tenant has ended and cost so much in all. Raises TypeError where that is no number of micro-USD."""
        self.offsets[place.source] = place.offset + 1
        account = self._of(tenant)
        if account.is_new(place):
            account.request(_whole(cost_microusd), place.at_ms, self._tenants().get(tenant))
            self._dirty.add(tenant)
            self._dirty.add(TOTAL)

    def passed(self, place: Place, is_told: bool = False) -> None:
        """A record that counts for no account. `is_told`: it changes another entry of the next round, so the total follows."""
        self.offsets[place.source] = place.offset + 1
        if is_told:
            self._dirty.add(TOTAL)

    def _of(self, name: str) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(SpendEntry(account=name))
        return account

    def due(self, now_ms: int) -> list[Due]:
        """Entries of the accounts that changed since the last time, each with its alerts; that of all of them last."""
        names, self._dirty = sorted(self._dirty - {TOTAL}) + [TOTAL] * bool(self._dirty), set()
        return [Due(alerts=self._alerts(name, now_ms), entry=self._of(name).entry(self.offsets, now_ms)) for name in names]

    def _alerts(self, name: str, now_ms: int) -> tuple[Alert, ...]:
        """One for each budget whose share passed 80 or 100 %, once per period."""
        tenant = self._tenants().get(name)
        if tenant is None:
            return ()
        account, told = self._accounts[name], []
        for budget in budgets(tenant, account.day, account.month, now_ms):
            kept = account.day if budget.field.endswith("day") else account.month
            for percent, kind, severity in ALERTS_AT:
                if budget.share * 100 >= percent > kept.alerted_percent:
                    kept.alerted_percent = percent
                    told.append(_alert(name, budget.field, budget.period, kind, severity, percent, now_ms))
                    break
        return tuple(told)


def _whole(count: object) -> int:
    """A whole number as it is. Raises TypeError for anything else: half a token in a sum makes an entry that cannot be written,
    and whoever keeps the books next would read the same line and end the same way.
    """
    if type(count) is not int:
        raise TypeError("not a whole number")
    return count


def _alert(name: str, field: str, period: str, kind: AlertKind, severity: Severity, percent: int, now_ms: int) -> Alert:
    return Alert(
        alert_id=f"{name}/{field}/{period}/{percent}",
        kind=kind,
        severity=severity,
        subject=name,
        message=f"tenants.{name}.{field}: {percent} % of it is spent in {period}"
        + (": requests end as over_budget until it is raised or the period ends" if percent == 100 else ""),
        at_ms=now_ms,
    )
