"""The agreed latency: when a model's window degrades, interactive requests leave it with the next decision; a batch stays."""

from collections.abc import Mapping
from typing import Any

import pytest

from schemas.fleet import FleetEntry, Window
from schemas.messages import Plan
from services.router.main import Router
from tests.support.builders import NOW_MS, ManualClock, a_backend, a_catalogue, a_context, a_model, a_task, an_envelope

WELL_MS, SLOW_MS = 900, 12_000
CATALOGUE = a_catalogue(
    models={"cheap": a_model(quality=0.7), "dear": a_model(quality=0.75)},
    backends={"cheap-a": a_backend("cheap", "0.2", "0.8"), "dear-a": a_backend("dear", "1", "4")},
    choose="utility",
)


def an_entry(backend: str, p50_ms: float) -> FleetEntry:
    window = Window(seconds=60, calls=200, p50_ms=p50_ms, p95_ms=2 * p50_ms, p99_ms=3 * p50_ms)
    return FleetEntry(backend=backend, windows=(window,), updated_ms=NOW_MS)


def a_fleet(cheap_ms: float = WELL_MS) -> dict[str, FleetEntry]:
    return {"cheap-a": an_entry("cheap-a", cheap_ms), "dear-a": an_entry("dear-a", WELL_MS)}


class Desk:
    """A router that sees the fleet as a test changes it."""

    def __init__(self, fleet: Mapping[str, FleetEntry]) -> None:
        self.clock = ManualClock()
        self.fleet = fleet
        self._router = Router(lambda: CATALOGUE, lambda: self.fleet, self.clock)

    def first(self, lane: str, **envelope: Any) -> str:
        asked = an_envelope(a_task(), lane=lane, deadline_ms=self.clock.ms + 60_000, **envelope)
        (out,) = self._router.handle(asked, a_context()).outputs
        plan: Plan = out.value.payload  # type: ignore[union-attr]
        return plan.candidates[0].model


@pytest.mark.parametrize("lane", ["interactive", "standard", "batch"])
def test_while_all_is_well_the_cheaper_model_is_worth_more(lane: str) -> None:
    assert Desk(a_fleet()).first(lane) == "cheap"


def test_interactive_requests_leave_a_slow_model_with_the_next_decision_and_a_batch_stays() -> None:
    desk = Desk(a_fleet())
    assert desk.first("interactive") == "cheap"
    desk.fleet = a_fleet(cheap_ms=SLOW_MS)     # the entry is replaced whole, as the table does within a second
    desk.clock.ms += 100
    assert desk.first("interactive") == "dear"
    assert desk.first("batch") == "cheap"


def test_they_come_back_when_it_is_quick_again() -> None:
    desk = Desk(a_fleet(cheap_ms=SLOW_MS))
    assert desk.first("interactive") == "dear"
    desk.fleet = a_fleet()
    assert desk.first("interactive") == "cheap"


def test_where_every_model_is_slow_the_cheaper_one_stays() -> None:
    slow = {"cheap-a": an_entry("cheap-a", SLOW_MS), "dear-a": an_entry("dear-a", SLOW_MS)}
    assert Desk(slow).first("interactive") == "cheap"


def test_a_model_that_would_miss_an_interactive_deadline_is_left_out_and_a_batch_may_still_wait_for_it() -> None:
    desk = Desk(a_fleet(cheap_ms=25_000))       # p99 75 s, p50 25 s; 60 s are left
    assert desk.first("interactive") == "dear"
    assert desk.first("batch") == "cheap"
