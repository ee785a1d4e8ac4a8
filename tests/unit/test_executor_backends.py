"""Which backends may be called right now, and what this replica tells the fleet about them."""

import asyncio

import pytest

from schemas.config import Backend
from schemas.fleet import Circuit, FleetEntry, Gate, GateReason, RateLimits
from schemas.ledger import AttemptKind, FailureClass, Usage
from schemas.messages import Lane
from services.executor.backends import CIRCUIT_RULES, PRESENCE_MS, Backends, Begun
from services.executor.concurrency import Gradient
from services.executor.decide import Call, Option, fraction_of
from services.executor.local import UNKNOWN_GATE_MS, Local
from services.executor.reply import Reply
from shared.catalogue import Catalogue
from tests.support.builders import ManualClock
from tests.support.builders_executor import (
    INSTANCE,
    T0_MS,
    a_backend,
    a_candidate,
    a_catalogue,
    a_plan,
    an_entry,
    until,
)

OK = None


class Fleet:
    """A replica's backends with a fleet that a test writes."""

    def __init__(self, *entries: FleetEntry, catalogue: Catalogue | None = None, without: str = "") -> None:
        self.entries = {entry.backend: entry for entry in entries}
        self.catalogue = catalogue or a_catalogue()
        self.clock = ManualClock(T0_MS)
        self.backends = Backends(
            lambda: self.catalogue, lambda: self.entries, INSTANCE, self.clock, lambda name, backend: name != without
        )

    def options(self, attempt_id: str = "r/plan/0/0-x", place: str | None = None) -> dict[str, Option]:
        return self.backends.options(a_plan(), attempt_id, self.clock.now_ms(), place)

    def usable(self, attempt_id: str = "r/plan/0/0-x", now_ms: int = T0_MS) -> set[str]:
        self.clock.ms = now_ms
        return {name for name, option in self.options(attempt_id).items() if option.usable}

    def call(
        self,
        backend: str,
        failure: FailureClass | None = None,
        latency_ms: float = 100.0,
        kind: AttemptKind = AttemptKind.PRIMARY,
        **reply: object,
    ) -> None:
        call = Call(a_candidate(), backend, kind, 1000, is_fair=True)
        begun = self.backends.begin(call, a_plan(), has_place=False)
        self.backends.sent(begun)
        self.backends.release(begun)
        counts = failure in (FailureClass.SERVER_ERROR, FailureClass.TIMEOUT)
        told = {"status": 200, "failure": failure, "usage": Usage(tokens_in=3)} | reply
        self.backends.record(begun, latency_ms, Reply(**told), counts, 7)

    def probe(self, backend: str, failure: FailureClass | None = None) -> None:
        self.call(backend, failure, kind=AttemptKind.PROBE)


def a_local(entry: FleetEntry | None = None, backend: Backend | None = None) -> Local:
    local = Local(Gradient(256))
    local.read(backend or a_backend(), entry)
    return local


def test_an_open_circuit_keeps_everybody_away() -> None:
    assert Fleet(an_entry("a", Circuit.OPEN)).usable() == {"b", "c"}


def test_a_backend_the_fleet_does_not_know_yet_is_usable() -> None:
    assert Fleet().usable() == {"a", "b", "c"}


def test_backends_that_cannot_be_called_from_here_are_no_options() -> None:
    assert set(Fleet(without="a").options()) == {"b", "c"}


def test_a_half_open_backend_takes_no_more_probes_than_were_leased() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 2}))
    assert "a" in fleet.usable()
    assert fleet.options()["a"].probe
    fleet.probe("a")
    assert "a" in fleet.usable()
    fleet.probe("a")
    assert "a" not in fleet.usable()
    fleet.entries["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=4, probe_leases={INSTANCE: 1})
    assert "a" in fleet.usable()


def test_without_a_lease_nobody_probes() -> None:
    assert "a" not in Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={"another": 3})).usable()


def test_a_lease_counts_from_the_moment_a_probe_is_decided() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 1}))
    fleet.options()
    fleet.backends.begin(Call(a_candidate(), "a", AttemptKind.PROBE, 1000, is_fair=True), a_plan(), has_place=False)
    assert "a" not in fleet.usable()


def test_a_recovering_backend_takes_its_share_of_attempts() -> None:
    entry = an_entry("a", share=0.25)
    ids = [f"r{number}/plan/0/0-x" for number in range(2000)]
    local = a_local(entry)
    admitted = [id for id in ids if local.passes(id, INSTANCE, T0_MS, has_place=False)]
    assert 400 < len(admitted) < 600
    assert all(fraction_of(id) < 0.25 for id in admitted)


def test_eight_hard_failures_in_a_row_trip_the_backend_here_at_once() -> None:
    fleet = Fleet()
    for _ in range(CIRCUIT_RULES.run_max - 1):
        fleet.call("a", FailureClass.SERVER_ERROR)
    assert "a" in fleet.usable()
    assert not fleet.backends.urgent.is_set()
    fleet.call("a", FailureClass.SERVER_ERROR)
    assert "a" not in fleet.usable()
    assert fleet.backends.urgent.is_set()
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


def test_load_is_pace_times_calls_in_flight_over_weight() -> None:
    local = a_local()
    local.observe(200, T0_MS)
    local.in_flight = 2
    assert local.load(weight=2.0, now_ms=T0_MS) == pytest.approx(300)


def test_one_slow_call_is_no_slow_backend_but_several_are_and_that_fades_even_without_another() -> None:
    local = a_local()
    local.observe(10, T0_MS)
    local.observe(100, T0_MS)
    assert local.load(1.0, T0_MS) < 20
    for _ in range(10):
        local.observe(100, T0_MS)
    slow = local.load(1.0, T0_MS)
    assert slow > 75
    assert local.load(1.0, T0_MS + 3_000) < 10 + (slow - 10) * 0.4
    assert local.load(1.0, T0_MS + 100_000) < 11


def test_what_a_backend_did_before_it_was_well_again_says_nothing() -> None:
    fleet = Fleet(an_entry("a"))
    for _ in range(8):
        fleet.call("a", FailureClass.TIMEOUT)
    loaded = fleet.options()["a"].load
    fleet.entries["a"] = an_entry("a", Circuit.OPEN)
    fleet.backends.take()      # several times a second, and it looks at every backend
    fleet.entries["a"] = an_entry("a")
    assert fleet.options()["a"].load < loaded / 3


def test_a_backend_that_fails_quickly_does_not_look_quick() -> None:
    fleet = Fleet()
    fleet.call("a", FailureClass.SERVER_ERROR, latency_ms=1)
    fleet.call("b", OK, latency_ms=300)
    options = fleet.options()
    assert options["a"].load > options["b"].load


def test_the_median_comes_from_the_fleets_shortest_window() -> None:
    options = Fleet(an_entry("a", p50_ms=321.4)).options()
    assert options["a"].p50_ms == 321
    assert options["b"].p50_ms is None


def test_what_was_seen_is_reported_once_with_a_rising_sequence() -> None:
    fleet = Fleet()
    fleet.call("a", OK)
    fleet.call("a", FailureClass.SERVER_ERROR)
    (seen,) = fleet.backends.take()
    assert (seen.backend, seen.reporter, seen.sequence, seen.calls) == ("a", INSTANCE, 1, 2)
    assert seen.failures == {FailureClass.SERVER_ERROR: 1}
    assert (seen.tokens_in, seen.cost_microusd) == (6, 14)
    assert fleet.backends.take() == []
    fleet.call("a", OK)
    assert [seen.sequence for seen in fleet.backends.take()] == [2]


def test_results_of_probes_carry_their_epoch() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 3}))
    fleet.probe("a")
    fleet.probe("a", FailureClass.SERVER_ERROR)
    (seen,) = fleet.backends.take()
    assert (seen.probe_epoch, seen.probes_ok, seen.probes_failed) == (3, 1, 1)


def test_a_replica_shows_up_for_the_probes_of_an_open_circuit() -> None:
    fleet = Fleet(an_entry("a", Circuit.OPEN))
    (seen,) = fleet.backends.take()
    assert (seen.backend, seen.calls) == ("a", 0)
    fleet.clock.ms = T0_MS + PRESENCE_MS - 1
    assert fleet.backends.take() == []
    fleet.clock.ms += 1
    assert len(fleet.backends.take()) == 1


def test_an_attempt_is_admitted_or_not_by_its_id_alone() -> None:
    local, ids = a_local(an_entry("a", share=0.5)), [f"{number}" for number in range(50)]
    once = [local.passes(id, INSTANCE, T0_MS, has_place=False) for id in ids]
    assert once == [local.passes(id, "other", T0_MS + 1, has_place=False) for id in ids]
    assert all(local.passes(id, INSTANCE, T0_MS, has_place=True) for id in ids)


# Gates, limits, credentials ------------------------------------------------------------------------------------------


def test_a_provider_that_asks_for_time_is_left_alone_here_at_once_and_by_the_fleet_as_soon_as_it_hears() -> None:
    fleet = Fleet()
    fleet.call("a", FailureClass.RATE_LIMITED, status=429, wait_ms=2_000)
    assert fleet.options()["a"].ready_at_ms == T0_MS + 2_000
    assert fleet.backends.urgent.is_set()
    (seen,) = fleet.backends.take()
    assert seen.gate == Gate(until_ms=T0_MS + 2_000, reason=GateReason.RATE_LIMITED)


def test_a_gate_that_another_replica_met_holds_here() -> None:
    gate = Gate(until_ms=T0_MS + 9_000, reason=GateReason.RATE_LIMITED)
    assert Fleet(an_entry("a", gate=gate)).options()["a"].ready_at_ms == T0_MS + 9_000


def test_a_quota_without_an_end_is_gated_until_the_fleet_knows_better() -> None:
    fleet = Fleet()
    fleet.call("a", FailureClass.QUOTA_EXHAUSTED, status=429)
    assert fleet.options()["a"].ready_at_ms == T0_MS + UNKNOWN_GATE_MS
    (seen,) = fleet.backends.take()
    assert seen.gate == Gate(until_ms=0, reason=GateReason.QUOTA_EXHAUSTED)


def test_a_429_without_a_wait_gates_nobody_but_lowers_the_limit() -> None:
    fleet = Fleet()
    before = fleet.backends.local("a").gradient.limit
    fleet.call("a", FailureClass.RATE_LIMITED, status=429)
    assert fleet.options()["a"].ready_at_ms <= T0_MS
    assert fleet.backends.local("a").gradient.limit < before


@pytest.mark.parametrize("failure", [FailureClass.SERVER_ERROR, FailureClass.OVERLOADED, FailureClass.STREAM_ERROR])
def test_whoever_asks_for_time_gets_it_whatever_failed(failure: FailureClass) -> None:
    fleet = Fleet()
    fleet.call("a", failure, status=502, wait_ms=5_000)
    assert fleet.options()["a"].ready_at_ms == T0_MS + 5_000


def test_limits_of_a_new_configuration_hold_at_once() -> None:
    catalogue = a_catalogue({"a": a_backend(base_url="http://a.test/v1")})
    fleet = Fleet(an_entry("a"), catalogue=catalogue)
    fleet.call("a")
    limited = {"a": a_backend(base_url="http://a.test/v1", rpm=12, concurrency_max=3)}
    fleet.catalogue = Catalogue(2, catalogue.models, limited)
    fleet.call("a")
    assert fleet.options()["a"].ready_at_ms > T0_MS
    assert fleet.backends.local("a").gradient.limit <= 3


def test_a_limit_of_the_fleet_is_shared_among_its_replicas() -> None:
    catalogue = a_catalogue({"a": a_backend(base_url="http://a.test/v1", rpm=24)})
    fleet = Fleet(an_entry("a", executors=2), catalogue=catalogue)
    fleet.call("a")
    assert fleet.options()["a"].ready_at_ms > T0_MS      # 12 a minute are ours: one every five seconds and a half
    fleet.clock.ms += 5_500
    assert fleet.options()["a"].ready_at_ms <= fleet.clock.ms


def test_a_learned_limit_holds_where_none_is_configured() -> None:
    fleet = Fleet(an_entry("a", limits=RateLimits(rpm=12), executors=1))
    fleet.call("a")
    assert fleet.options()["a"].ready_at_ms > T0_MS
    assert fleet.options()["b"].ready_at_ms <= T0_MS


def test_a_refused_key_is_reported_for_every_backend_that_uses_it_and_a_forbidden_call_for_its_own() -> None:
    keys = {"a": "env:ONE", "b": "env:ONE", "c": "env:TWO"}
    catalogue = a_catalogue({name: a_backend(key=key, base_url=f"http://{name}.test/v1") for name, key in keys.items()})
    fleet = Fleet(catalogue=catalogue)
    fleet.call("a", FailureClass.AUTH, status=401)
    assert {seen.backend: seen.refused for seen in fleet.backends.take()} == {"a": 1, "b": 1}
    fleet.call("a", FailureClass.AUTH, status=403)
    assert {seen.backend: seen.refused for seen in fleet.backends.take()} == {"a": 1}


def test_a_429_on_a_probe_neither_passes_nor_fails_it() -> None:
    fleet = Fleet(an_entry("a", Circuit.HALF_OPEN, probe_epoch=3, probe_leases={INSTANCE: 3}))
    fleet.options()
    fleet.probe("a", FailureClass.RATE_LIMITED)
    (seen,) = fleet.backends.take()
    assert (seen.probes_ok, seen.probes_failed) == (0, 0)


def test_a_call_that_began_before_the_circuit_closed_is_not_held_against_it() -> None:
    fleet = Fleet(an_entry("a", since_ms=T0_MS + 5))
    fleet.options()
    fleet.call("a", FailureClass.TIMEOUT)
    (seen,) = fleet.backends.take()
    assert (seen.failures, seen.consecutive_failures) == ({}, 0)


# Places --------------------------------------------------------------------------------------------------------------


def fill(fleet: Fleet, backend: str) -> None:
    while not fleet.options()[backend].full:
        fleet.backends.reserve(backend, 10)


def test_a_backend_without_a_free_place_is_full() -> None:
    fleet = Fleet()
    fill(fleet, "a")
    assert fleet.backends.local("a").in_flight == fleet.backends.local("a").gradient.limit
    fleet.backends.give_back("a", 10)
    assert not fleet.options()["a"].full


def test_a_call_that_is_being_written_down_takes_no_place_at_the_backend() -> None:
    fleet = Fleet()
    local = fleet.backends.local("a")
    call = Call(a_candidate(), "a", AttemptKind.PRIMARY, 1000, is_fair=True)
    begun = [fleet.backends.begin(call, a_plan(), has_place=False) for _ in range(local.gradient.limit - 1)]
    assert (local.in_flight, local.writing) == (len(begun), len(begun))
    assert local.has_room(Lane.STANDARD, T0_MS)
    begun.append(fleet.backends.begin(call, a_plan(), has_place=False))
    assert not local.has_room(Lane.STANDARD, T0_MS), "else all of them could arrive at once"
    for each in begun:
        fleet.backends.sent(each)
    assert begun[-1].in_flight == len(begun)
    assert not local.has_room(Lane.STANDARD, T0_MS)
    for each in begun:
        fleet.backends.release(each)
    assert (local.in_flight, local.writing) == (0, 0)


@pytest.mark.parametrize(("latency_ms", "writing_ms", "more"), [(600.0, 60, 0.1), (600.0, 1, 0.0), (40.0, 60, 1.0)])
def test_beyond_the_limit_only_as_many_calls_are_written_down_as_will_be_over_meanwhile(
    latency_ms: float, writing_ms: int, more: float
) -> None:
    fleet = Fleet()
    call, local = Call(a_candidate(), "a", AttemptKind.PRIMARY, 1000, is_fair=True), fleet.backends.local("a")

    def sent() -> Begun:
        begun = fleet.backends.begin(call, a_plan(), has_place=False)
        fleet.clock.ms += writing_ms
        fleet.backends.sent(begun)
        return begun

    for _ in range(60):
        begun = sent()
        fleet.backends.release(begun)
        fleet.backends.record(begun, latency_ms, Reply(200, usage=Usage(tokens_in=3)), False, 7)
    limit = local.limit
    for _ in range(limit - 1):
        sent()
    while local.has_room(Lane.STANDARD, fleet.clock.ms):
        fleet.backends.begin(call, a_plan(), has_place=False)
    assert limit >= 10
    assert limit * (1 + more) - 1 <= local.in_flight <= limit * (1 + more) + 1


def test_calls_at_the_backend_and_on_their_way_to_it_are_never_more_than_the_configuration_allows() -> None:
    local = a_local(backend=a_backend(concurrency_max=4))
    local.in_flight = local.writing = 3
    assert local.has_room(Lane.STANDARD, T0_MS)
    local.in_flight, local.writing = 4, 2
    assert not local.has_room(Lane.STANDARD, T0_MS)


def test_a_quick_backend_may_have_as_many_calls_as_end_within_a_second_and_a_slow_one_keeps_to_its_limit() -> None:
    fleet = Fleet()
    for _ in range(60):
        fleet.call("a", latency_ms=20.0)      # one at a time: fifty a second
        fleet.call("b", latency_ms=2_000.0)
    quick, slow = fleet.backends.local("a"), fleet.backends.local("b")
    assert 45 <= quick.limit <= 50
    assert quick.limit > quick.gradient.limit
    assert slow.limit == slow.gradient.limit


def test_a_call_that_was_cut_before_it_was_sent_is_not_counted_any_more() -> None:
    fleet = Fleet()
    begun = fleet.backends.begin(Call(a_candidate(), "a", AttemptKind.PRIMARY, 1000, is_fair=True), a_plan(), has_place=False)
    fleet.backends.release(begun)
    local = fleet.backends.local("a")
    assert (local.in_flight, local.writing) == (0, 0)


async def test_places_at_a_backend_with_a_rate_limit_are_handed_out_at_once_as_far_as_the_limit_goes() -> None:
    fleet = Fleet(an_entry("a", limits=RateLimits(tpm=12_000)))
    room = fleet.backends.room
    fill(fleet, "a")
    reserved = fleet.backends.local("a").in_flight
    waiting = [asyncio.create_task(room.place(("a",), Lane.STANDARD, T0_MS + 60_000, n, tokens=300)) for n in range(6)]
    await until(lambda: len(room) == 6)
    fleet.clock.ms += 10_000        # the bucket is full again: 5 s of 12,000 a minute are 1,000 tokens
    for _ in range(reserved):
        fleet.backends.give_back("a", 10)
    await until(lambda: sum(task.done() for task in waiting) == 4)      # 3 whole ones, and one that leaves a debt
    assert len(room) == 2
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_a_recovering_backend_has_only_its_share_of_places() -> None:
    fleet = Fleet(an_entry("a", share=0.2))
    fill(fleet, "a")
    local = fleet.backends.local("a")
    assert local.in_flight == max(1, int(local.gradient.limit * 0.2))


def test_who_was_given_a_place_may_use_that_one_and_no_other() -> None:
    options = Fleet().options(place="b")
    assert {name: option.full for name, option in options.items()} == {"a": True, "b": False, "c": True}
