"""Lanes share the places by weight, none is forgotten, none pays for another's flood, and late calls cost nothing."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

import pytest

from schemas.messages import Lane
from services.executor.lanes import CROWDED_FOR_MS, CROWDED_MS, Ticket, Turnstile
from tests.support.queueing import quantile

NEVER_MS = 10**15
INTERACTIVE, STANDARD, BATCH = Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH
SERVICE_MS = 1000.0


def enter(
    turnstile: Turnstile, lane: Lane, order: int = 0, backends: str = "a", latest_ms: int = NEVER_MS, now_ms: int = 0
) -> Ticket:
    return turnstile.enter(lane, backends, order, latest_ms, now_ms)


def served(turnstile: Turnstile, places: int, backend: str = "a", now_ms: int = 0) -> list[Ticket]:
    found = (turnstile.offer(backend, now_ms) for _ in range(places))
    return [ticket for ticket in found if ticket is not None]


def test_a_lane_is_served_in_order_of_arrival_and_a_retry_keeps_its_place() -> None:
    turnstile = Turnstile()
    orders = [10, 20, 30, 15, 5]
    for order in orders:
        enter(turnstile, INTERACTIVE, order)
    assert [ticket.order for ticket in served(turnstile, 9)] == sorted(orders)


def test_lanes_share_the_places_by_weight() -> None:
    turnstile = Turnstile()
    for lane in (BATCH, STANDARD, INTERACTIVE):
        for order in range(200):
            enter(turnstile, lane, order)
    counts = Counter(ticket.lane for ticket in served(turnstile, 210))
    assert counts == {INTERACTIVE: 160, STANDARD: 40, BATCH: 10}


def test_a_lane_alone_has_every_place() -> None:
    turnstile = Turnstile()
    for order in range(100):
        enter(turnstile, BATCH, order)
    assert len(served(turnstile, 100)) == 100


def test_a_lane_that_was_empty_has_no_credit_for_it() -> None:
    turnstile = Turnstile()
    for order in range(2000):
        enter(turnstile, BATCH, order)
    served(turnstile, 1000)
    for order in range(100):
        enter(turnstile, STANDARD, order)
    counts = Counter(ticket.lane for ticket in served(turnstile, 50))
    assert counts[BATCH] >= 9


def test_each_backend_is_shared_out_for_itself() -> None:
    """Batch tickets that can go nowhere else get their share of `a`, however much batch gets of `b`."""
    turnstile = Turnstile()
    for order in range(1000):
        enter(turnstile, INTERACTIVE, order, "a")
        enter(turnstile, BATCH, order, "a")
        enter(turnstile, BATCH, order, "b")
    assert len(served(turnstile, 500, "b")) == 500
    assert Counter(ticket.lane for ticket in served(turnstile, 170, "a"))[BATCH] == 10


def test_a_ticket_goes_to_any_of_its_backends_once() -> None:
    turnstile = Turnstile()
    first, second = enter(turnstile, INTERACTIVE, 1, "ab"), enter(turnstile, INTERACTIVE, 2, "b")
    assert set(turnstile.wanted()) == {"a", "b"}
    assert turnstile.offer("c", 0) is None
    assert turnstile.offer("b", 0) is first
    assert turnstile.offer("a", 0) is None
    assert not turnstile.is_wanted("a")
    assert turnstile.is_wanted("b")
    assert turnstile.offer("b", 0) is second
    assert not turnstile.wanted()


def test_who_left_is_not_served_and_may_leave_twice() -> None:
    turnstile = Turnstile()
    tickets = [enter(turnstile, STANDARD, order, "ab") for order in range(5)]
    for index in (2, 0, 4, 2):
        turnstile.leave(tickets[index])
    assert turnstile.waiting(STANDARD) == len(turnstile) == 2
    assert served(turnstile, 5) == [tickets[1], tickets[3]]
    turnstile.leave(tickets[1])
    assert len(turnstile) == 0


def test_who_can_no_longer_make_it_is_told_once_and_never_served() -> None:
    turnstile = Turnstile()
    late = [enter(turnstile, STANDARD, order, latest_ms=100 + order) for order in range(3)]
    good = enter(turnstile, STANDARD, 9, latest_ms=500)
    assert turnstile.expired(99) == []
    assert turnstile.expired(101) == late[:2]
    assert turnstile.offer("a", 200) is good
    assert turnstile.expired(200) == late[2:]
    assert turnstile.expired(1000) == []


def test_a_lane_that_is_not_let_in_waits_until_it_is() -> None:
    turnstile = Turnstile()
    enter(turnstile, BATCH, 1)
    enter(turnstile, STANDARD, 2)
    assert turnstile.offer("a", 0, lanes=1) is None
    enter(turnstile, INTERACTIVE, 3)
    assert turnstile.offer("a", 0, lanes=1).lane is INTERACTIVE
    assert turnstile.offer("a", 0, lanes=1) is None
    assert turnstile.offer("a", 0, lanes=2).lane is STANDARD


def test_a_lane_that_is_not_let_in_has_its_turns_while_a_higher_one_waits() -> None:
    turnstile = Turnstile()
    for lane in (BATCH, STANDARD, INTERACTIVE):
        for order in range(200):
            enter(turnstile, lane, order)
    counts = Counter(turnstile.offer("a", 0, lanes=1).lane for _ in range(210))
    assert counts == {INTERACTIVE: 160, STANDARD: 40, BATCH: 10}


def test_waits_and_counts_are_known_per_lane() -> None:
    turnstile = Turnstile()
    enter(turnstile, BATCH, now_ms=1000)
    enter(turnstile, BATCH, backends="b", now_ms=400)
    assert turnstile.oldest_wait_ms(BATCH, 1500) == 1100
    assert turnstile.oldest_wait_ms(STANDARD, 1500) == 0
    assert (turnstile.waiting(BATCH), turnstile.waiting(STANDARD)) == (2, 0)


@pytest.mark.parametrize(("lane", "is_newest_first"), [(INTERACTIVE, True), (STANDARD, True), (BATCH, False)])
def test_calls_that_somebody_waits_for_too_long_are_served_newest_first(lane: Lane, is_newest_first: bool) -> None:
    turnstile = Turnstile()
    for order in range(1000):
        enter(turnstile, lane, order)
    served_first = []
    for now_ms in (0, CROWDED_MS - 1, CROWDED_MS, CROWDED_MS + CROWDED_FOR_MS - 1):
        served_first.append(turnstile.offer("a", now_ms).order)
    assert served_first == [0, 1, 2, 3], "a burst is no overload"
    then = turnstile.offer("a", CROWDED_MS + CROWDED_FOR_MS)
    assert then.order == (999 if is_newest_first else 4)


def test_when_the_crowd_is_gone_order_returns() -> None:
    turnstile = Turnstile()
    for order in range(2):
        enter(turnstile, INTERACTIVE, order)
    turnstile.offer("a", CROWDED_MS)
    turnstile.offer("a", CROWDED_MS + CROWDED_FOR_MS)
    for order in (10, 11):
        enter(turnstile, INTERACTIVE, order, now_ms=9_000)
    assert [ticket.order for ticket in served(turnstile, 2, now_ms=9_900)] == [10, 11]


def test_an_earlier_crowd_says_nothing_about_the_next_burst() -> None:
    turnstile = Turnstile()
    enter(turnstile, INTERACTIVE)
    turnstile.offer("a", CROWDED_MS)
    for order in (10, 11):
        enter(turnstile, INTERACTIVE, order, now_ms=100_000)
    assert turnstile.offer("a", 100_000 + CROWDED_MS).order == 10


def test_deadlines_of_tickets_long_gone_are_forgotten() -> None:
    turnstile = Turnstile()
    for order in range(10_000):
        enter(turnstile, BATCH, order)
        turnstile.offer("a", 0)
    assert len(turnstile._deadlines) < 200


# --- In simulated time ------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """Calls of one lane: so many per second at random, each useful only before its deadline."""

    lane: Lane
    per_s: float
    deadline_ms: float = float(NEVER_MS)

    def arrivals(self, rng: random.Random, until_ms: float) -> Iterator[float]:
        at_ms = 0.0
        while (at_ms := at_ms + rng.expovariate(self.per_s / 1000)) < until_ms:
            yield at_ms


@dataclass
class Day:
    """A backend of `places`, calls of one second on average. `usual_ms` is what a call is expected to take at the most."""

    places: int
    usual_ms: float = 2000.0
    waits_ms: dict[Lane, list[float]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    good: int = 0
    wasted: int = 0

    def run(
        self, seconds: int, *traffic: Traffic, choose: Callable[[], Turnstile] = Turnstile, knows_deadlines: bool = True
    ) -> "Day":
        rng, turnstile, free = random.Random(5), choose(), self.places
        events: list[tuple[float, int, Traffic | None]] = []
        for number, one in enumerate(traffic):
            for at_ms in one.arrivals(rng, seconds * 1000):
                heappush(events, (at_ms, number, one))
        deadlines: dict[Ticket, float] = {}
        while events and events[0][0] < seconds * 1000:
            now_ms, _, one = heappop(events)
            if one is None:
                free += 1
            else:
                by_ms = now_ms + one.deadline_ms
                latest_ms = by_ms - self.usual_ms if knows_deadlines else NEVER_MS
                ticket = turnstile.enter(one.lane, "a", int(now_ms), int(latest_ms), int(now_ms))
                deadlines[ticket] = by_ms
            for ticket in turnstile.expired(int(now_ms)):
                del deadlines[ticket]
            while free and (ticket := turnstile.offer("a", int(now_ms))) is not None:
                free -= 1
                end_ms = now_ms + SERVICE_MS * rng.lognormvariate(-0.125, 0.5)
                heappush(events, (end_ms, len(traffic), None))
                self.waits_ms[ticket.lane].append(now_ms - ticket.since_ms)
                is_good = end_ms <= deadlines.pop(ticket)
                self.good += is_good
                self.wasted += not is_good
        return self


class InOrder(Turnstile):
    """What a plain queue does: everybody in one lane that never turns round."""

    def enter(self, lane, backends, order, latest_start_ms, now_ms):
        return super().enter(BATCH, backends, order, latest_start_ms, now_ms)


def test_a_flood_of_batch_does_not_delay_interactive_calls() -> None:
    """They wait for the next place that comes free, a 40th of a call, where a plain queue makes them wait for the flood."""
    usual, flood = Traffic(INTERACTIVE, 10), Traffic(BATCH, 1000)
    alone, flooded = Day(40).run(40, usual), Day(40).run(40, usual, flood)
    delay_ms = quantile(flooded.waits_ms[INTERACTIVE], 0.95) - quantile(alone.waits_ms[INTERACTIVE], 0.95)
    assert delay_ms <= 0.2 * SERVICE_MS
    assert len(flooded.waits_ms[BATCH]) > 0.9 * (40 - 10) * 40, "and batch has all that is left"
    plain = Day(40).run(40, usual, flood, choose=InOrder)
    assert quantile(plain.waits_ms[BATCH], 0.95) > 10 * SERVICE_MS


def test_batch_goes_on_below_a_flood_of_interactive_calls() -> None:
    day = Day(20).run(120, Traffic(INTERACTIVE, 100), Traffic(STANDARD, 100), Traffic(BATCH, 100))
    batch, all_calls = len(day.waits_ms[BATCH]), sum(map(len, day.waits_ms.values()))
    assert batch >= 0.95 * all_calls / 21


@pytest.mark.parametrize("lane", [INTERACTIVE, STANDARD])
def test_at_five_times_the_capacity_nearly_every_call_made_is_of_use(lane: Lane) -> None:
    rush = Traffic(lane, 100, deadline_ms=6000)
    day = Day(20).run(120, rush)
    capacity = 20 * 120
    assert day.good >= 0.9 * capacity
    assert quantile(day.waits_ms[lane], 0.5) < 0.5 * SERVICE_MS, "who is served is served soon"
    assert day.wasted <= 0.01 * capacity
    plain = Day(20).run(120, rush, choose=InOrder, knows_deadlines=False)
    assert plain.good < 0.2 * capacity, "a plain queue serves everybody too late"
