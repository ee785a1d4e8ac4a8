"""Which backends may be called right now, and what this replica tells the fleet about them."""

import asyncio

import pytest

from schemas.fleet import Circuit, FleetEntry
from schemas.ledger import AttemptKind, FailureClass, Usage
from services.executor.backends import CIRCUIT_RULES, PRESENCE_MS, Backends, Local, may_call
from services.executor.decide import (
    Call,
    fraction_of,
)
from tests.support.builders_executor import INSTANCE, T0_MS, a_candidate, a_catalogue, a_plan, an_entry

OK = None


class Fleet:
    """A replica's backends with a fleet that a test writes."""

    def __init__(self, *entries: FleetEntry) -> None:
        self.entries = {entry.backend: entry for entry in entries}
        self.catalogue = a_catalogue()
        self.backends = Backends(lambda: self.catalogue, lambda: self.entries, INSTANCE)

    def usable(self, attempt_id: str = "r/plan/0/0-x", now_ms: int = T0_MS) -> set[str]:
        options = self.backends.options(a_plan(), attempt_id, now_ms)
        return {name for name, option in options.items() if option.usable}

    def call(
        self, backend: str, failure: FailureClass | None, latency_ms: float = 100.0, probe: bool = False, now_ms: int = T0_MS
    ) -> None:
        kind = AttemptKind.PROBE if probe else AttemptKind.PRIMARY
        call = Call(a_candidate(), backend, kind, 1000, is_fair=True)
        epoch = self.backends.begin(call)
        self.backends.end(call)
        counts = failure in (FailureClass.SERVER_ERROR, FailureClass.TIMEOUT)
        self.backends.record(call, epoch, latency_ms, failure, counts, Usage(tokens_in=3), 7, now_ms)


def test_an_open_circuit_keeps_everybody_away() -> None:
    assert Fleet(an_entry("a", Circuit.OPEN)).usable() == {"b", "c"}


def test_a_backend_the_fleet_does_not_know_yet_is_usable() -> None:
    assert Fleet().usable() == {"a", "b", "c"}


def test_backends_that_cannot_be_called_from_here_are_no_options() -> None:
    fleet = Fleet()
    backends = Backends(lambda: fleet.catalogue, dict, INSTANCE, lambda name, backend: name != "a")
    assert set(backends.options(a_plan(), "x", T0_MS)) == {"b", "c"}


def test_a_half_open_backend_takes_no_more_probes_than_were_leased() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 2}))
    assert "a" in fleet.usable()
    assert fleet.backends.options(a_plan(), "x", T0_MS)["a"].probe
    fleet.call("a", OK, probe=True)
    assert "a" in fleet.usable()
    fleet.call("a", OK, probe=True)
    assert "a" not in fleet.usable()
    fleet.entries["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=4, probe_leases={INSTANCE: 1})
    assert "a" in fleet.usable()


def test_without_a_lease_nobody_probes() -> None:
    assert "a" not in Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={"another": 3})).usable()


def test_a_lease_counts_from_the_moment_a_probe_is_decided() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 1}))
    fleet.backends.begin(Call(a_candidate(), "a", AttemptKind.PROBE, 1000, is_fair=True))
    assert "a" not in fleet.usable()


def test_a_recovering_backend_takes_its_share_of_attempts() -> None:
    entry = an_entry("a", share=0.25)
    ids = [f"r{number}/plan/0/0-x" for number in range(2000)]
    admitted = [id for id in ids if may_call(entry, Local(), id, INSTANCE, T0_MS)]
    assert 400 < len(admitted) < 600
    assert all(fraction_of(id) < 0.25 for id in admitted)


def test_eight_hard_failures_in_a_row_trip_the_backend_here_at_once() -> None:
    fleet = Fleet()
    for _ in range(CIRCUIT_RULES.run_max - 1):
        fleet.call("a", FailureClass.SERVER_ERROR)
    assert "a" in fleet.usable()
    assert not fleet.backends.tripped.is_set()
    fleet.call("a", FailureClass.SERVER_ERROR)
    assert "a" not in fleet.usable()
    assert fleet.backends.tripped.is_set()
    assert "a" in fleet.usable(now_ms=T0_MS + CIRCUIT_RULES.local_hold_ms)


def test_failures_that_are_not_the_backends_fault_never_trip_it() -> None:
    fleet = Fleet()
    for _ in range(50):
        fleet.call("a", FailureClass.RATE_LIMITED)
    assert "a" in fleet.usable()


def test_the_fleets_word_replaces_a_local_trip() -> None:
    fleet = Fleet()
    for _ in range(8):
        fleet.call("a", FailureClass.TIMEOUT)
    fleet.entries["a"] = an_entry("a", Circuit.OPEN)
    assert "a" not in fleet.usable()
    fleet.entries["a"] = an_entry("a", Circuit.CLOSED)
    assert "a" in fleet.usable()


def test_load_is_latency_times_calls_in_flight_over_weight() -> None:
    local = Local()
    local.observe(200, T0_MS)
    local.in_flight = 2
    assert local.load(weight=2.0) == 300


def test_a_slow_call_counts_at_once_and_fades() -> None:
    local = Local()
    local.observe(100, T0_MS)
    local.observe(900, T0_MS + 1)
    assert local.latency_ms == 900
    local.observe(100, T0_MS + 10_001)
    assert 380 < local.latency_ms < 410


def test_a_backend_that_fails_quickly_does_not_look_quick() -> None:
    fleet = Fleet()
    fleet.call("a", FailureClass.SERVER_ERROR, latency_ms=1)
    fleet.call("b", OK, latency_ms=300)
    options = fleet.backends.options(a_plan(), "x", T0_MS)
    assert options["a"].load > options["b"].load


def test_the_median_comes_from_the_fleets_shortest_window() -> None:
    options = Fleet(an_entry("a", p50_ms=321.4)).backends.options(a_plan(), "x", T0_MS)
    assert options["a"].p50_ms == 321
    assert options["b"].p50_ms is None


def test_what_was_seen_is_reported_once_with_a_rising_sequence() -> None:
    fleet = Fleet()
    fleet.call("a", OK)
    fleet.call("a", FailureClass.SERVER_ERROR)
    (seen,) = fleet.backends.take(T0_MS)
    assert (seen.backend, seen.reporter, seen.sequence, seen.calls) == ("a", INSTANCE, 1, 2)
    assert seen.failures == {FailureClass.SERVER_ERROR: 1}
    assert (seen.tokens_in, seen.cost_microusd) == (6, 14)
    assert fleet.backends.take(T0_MS + 10_000) == []
    fleet.call("a", OK)
    assert [seen.sequence for seen in fleet.backends.take(T0_MS)] == [2]


def test_results_of_probes_carry_their_epoch() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 3}))
    fleet.call("a", OK, probe=True)
    fleet.call("a", FailureClass.SERVER_ERROR, probe=True)
    (seen,) = fleet.backends.take(T0_MS)
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed) == (3, 1, 1)


def test_a_replica_shows_up_for_the_probes_of_an_open_circuit() -> None:
    fleet = Fleet(an_entry("a", Circuit.OPEN))
    (seen,) = fleet.backends.take(T0_MS)
    assert (seen.backend, seen.calls) == ("a", 0)
    assert fleet.backends.take(T0_MS + PRESENCE_MS - 1) == []
    assert len(fleet.backends.take(T0_MS + PRESENCE_MS)) == 1


@pytest.mark.parametrize(
    "change",
    [
        an_entry("a", Circuit.HALF_OPEN, probe_epoch=1, probe_leases={INSTANCE: 1}),
        an_entry("a", Circuit.CLOSED),
        an_entry("a", Circuit.CLOSED, share=0.1),
    ],
)
async def test_whoever_waits_is_woken_when_a_backend_may_have_become_usable(change: FleetEntry) -> None:
    fleet = Fleet(an_entry("a", Circuit.OPEN))
    fleet.backends.tick(T0_MS)
    waiting = asyncio.create_task(fleet.backends.changed(60_000))
    await asyncio.sleep(0)
    fleet.entries["a"] = an_entry("a", Circuit.OPEN, p50_ms=5)
    fleet.backends.tick(T0_MS)
    await asyncio.sleep(0)
    assert not waiting.done()
    fleet.entries["a"] = change
    fleet.backends.tick(T0_MS)
    await asyncio.wait_for(waiting, 1)


async def test_the_end_of_a_local_trip_wakes_whoever_waits() -> None:
    fleet = Fleet()
    for _ in range(8):
        fleet.call("a", FailureClass.SERVER_ERROR)
    fleet.backends.tick(T0_MS)
    waiting = asyncio.create_task(fleet.backends.changed(60_000))
    await asyncio.sleep(0)
    fleet.backends.tick(T0_MS + CIRCUIT_RULES.local_hold_ms)
    await asyncio.wait_for(waiting, 1)


def test_an_attempt_is_admitted_or_not_by_its_id_alone() -> None:
    entry, ids = an_entry("a", share=0.5), [f"{number}" for number in range(50)]
    once = [may_call(entry, Local(), id, INSTANCE, T0_MS) for id in ids]
    assert once == [may_call(entry, Local(), id, "other", T0_MS + 1) for id in ids]
