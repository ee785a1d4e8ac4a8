"""What accounts have spent so far, per period, and how dear money is to them now: folded from the ledger by the monitor."""

from pydantic import Field

from schemas.envelope import Fact


class Spent(Fact):
    """One account in one period, by the log's clock in UTC. A period that is over counts for nothing."""

    period: str = Field("", description="the hour 2026-11-26T14, the day 2026-11-26 or the month 2026-11")
    microusd: int = Field(0, description="known cost of the calls that ended in it")
    unknown_microusd: int = Field(0, description="upper bound of the calls whose cost nobody knows")
    shadow_microusd: int = Field(0, description="cost of the shadows among them, unknown ones at their upper bound")
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0
    alerted_percent: int = Field(0, description="the highest share of its budget that an alert has told of: 0, 80 or 100")


class SpendEntry(Fact):
    """One account, replaced whole. The entry of the account `*` is all of them together and is written last: what it counts,
    every other entry counts too.

    `price` is the price of money λ in [0, 5]: 0 while the account spends more slowly than its budget allows.
    """

    account: str = Field(description="a tenant")
    hour: Spent = Spent()
    day: Spent = Spent()
    month: Spent = Spent()
    request_microusd: float = Field(0.0, description="moving mean of what a request costs")
    requests_per_s: float = Field(0.0, description="moving mean over ten minutes")
    target_microusd: float | None = Field(None, description="what a request may cost for the budget to last; null: no budget")
    price: float = 0.0
    paced_ms: int = Field(0, description="when `price` was moved last")
    request_ms: int = Field(0, description="when the last counted request ended")
    offsets: dict[str, int] = Field(default_factory=dict, description="topic/partition → offset up to which this counts")
    updated_ms: int = 0
