"""The breaker: every transition, the cap, the panic, leases, the ramp, and the executor's local one."""

import pytest

from schemas.fleet import Circuit, FleetEntry, Gate, GateReason
from shared.circuit import (
    CREDENTIAL_REFUSED,
    TRANSITIONS,
    CircuitRules,
    Event,
    Evidence,
    LocalTrip,
    advance,
    is_held,
    lease,
    may_open,
)
from shared.windows import Health, Probes, Run, Slowness

RULES = CircuitRules()
NOW_MS = 1_700_000_000_000
CLOSED = FleetEntry(backend="a")
REPORTERS = {"r1": NOW_MS, "r2": NOW_MS, "r3": NOW_MS, "r4": NOW_MS - 1}


def advanced(entry, now_ms=NOW_MS, jitter=0.0, rules=RULES, **seen):
    return advance(entry, Evidence(now_ms, **({"reporters": REPORTERS} | seen)), jitter, rules)


def opened(**seen):
    return advanced(CLOSED, run=Run(8, NOW_MS), **seen)


def half_open(entry=None, **seen):
    entry = entry or opened()
    return advanced(entry, now_ms=entry.cooldown_until_ms, **seen)


def closed_again():
    entry = half_open()
    return advanced(entry, now_ms=entry.since_ms + 100, probes=Probes(entry.probe_epoch, passed=3))


def test_the_table_is_the_whole_machine():
    assert {(old.value, event.value, new.value) for (old, event), new in TRANSITIONS.items()} == {
        ("closed", "tripped", "open"),
        ("open", "cooled", "half_open"),
        ("half_open", "probes_passed", "closed"),
        ("half_open", "probe_failed", "open"),
    }
    assert len(Event) == 4


@pytest.mark.parametrize(
    ("seen", "circuit"),
    [
        ({"run": Run(8, NOW_MS)}, Circuit.OPEN),
        ({"run": Run(7, NOW_MS)}, Circuit.CLOSED),
        ({"short": Health(20, 10)}, Circuit.OPEN),
        ({"short": Health(20, 9)}, Circuit.CLOSED),
        ({"short": Health(19, 19)}, Circuit.CLOSED),
        ({"long": Health(30, 15)}, Circuit.OPEN),
        ({"long": Health(29, 29)}, Circuit.CLOSED),
        ({"slow": (Slowness("answers", 30, 24),)}, Circuit.OPEN),
        ({"slow": (Slowness("answers", 30, 23),)}, Circuit.CLOSED),
        ({"slow": (Slowness("answers", 29, 29),)}, Circuit.CLOSED),
        ({"slow": (Slowness("first tokens", 99, 0), Slowness("answers", 30, 30))}, Circuit.OPEN),
        ({"refused": Run(2, NOW_MS)}, Circuit.OPEN),
        ({"refused": Run(1, NOW_MS)}, Circuit.CLOSED),
    ],
)
def test_a_backend_that_fails_is_open_for_the_fleet(seen, circuit):
    assert advanced(CLOSED, **seen).circuit is circuit


def test_an_open_circuit_says_why_since_when_and_until_when():
    entry = opened()
    assert entry.reason == "8 hard failures in a row"
    assert (entry.since_ms, entry.trips, entry.share) == (NOW_MS, 1, 0.0)
    assert entry.cooldown_until_ms == NOW_MS + 15_000


def test_a_row_that_began_before_the_circuit_closed_is_the_old_outage():
    entry = closed_again()
    assert advanced(entry, now_ms=entry.since_ms, run=Run(50, entry.since_ms - 1)).circuit is Circuit.CLOSED
    assert advanced(entry, now_ms=entry.since_ms, run=Run(8, entry.since_ms)).circuit is Circuit.OPEN


@pytest.mark.parametrize(("trips", "cooldown_ms"), [(0, 15_000), (1, 30_000), (4, 240_000), (5, 300_000), (99, 300_000)])
def test_the_cooldown_doubles_with_each_opening_up_to_a_limit(trips, cooldown_ms):
    entry = advanced(CLOSED.model_copy(update={"trips": trips}), run=Run(8, NOW_MS))
    assert entry.cooldown_until_ms == NOW_MS + cooldown_ms


@pytest.mark.parametrize(("jitter", "cooldown_ms"), [(-1.0, 12_000), (1.0, 18_000)])
def test_the_cooldown_is_spread_by_a_fifth(jitter, cooldown_ms):
    entry = advance(CLOSED, Evidence(NOW_MS, run=Run(8, NOW_MS)), jitter, RULES)
    assert entry.cooldown_until_ms == NOW_MS + cooldown_ms


def test_an_open_circuit_waits_for_its_cooldown_whatever_it_hears():
    entry = opened()
    for seen in ({"probes": Probes(0, 3)}, {"run": Run(99, NOW_MS)}, {"short": Health(100, 0)}):
        assert advanced(entry, now_ms=entry.cooldown_until_ms - 1, **seen) is entry


def test_a_cooled_circuit_leases_three_probes_to_three_reporters():
    entry = half_open()
    assert (entry.circuit, entry.probe_epoch, entry.share) == (Circuit.HALF_OPEN, 1, 0.0)
    assert entry.probe_leases == {"r1": 1, "r2": 1, "r3": 1}


@pytest.mark.parametrize(
    ("reporters", "before", "leases"),
    [
        ({"a": NOW_MS}, [], {"a": 3}),
        ({"a": NOW_MS, "b": NOW_MS}, [], {"a": 2, "b": 1}),
        ({"a": NOW_MS, "b": NOW_MS}, ["a"], {"b": 2, "a": 1}),
        ({"a": NOW_MS, "dead": NOW_MS - 60_000}, [], {"a": 3}),
        ({"gone": NOW_MS - 60_000, "longer": NOW_MS - 90_000}, [], {"gone": 2, "longer": 1}),
        (dict.fromkeys("abcd", NOW_MS), ["a", "b", "c"], {"d": 1, "a": 1, "b": 1}),
        ({}, ["a"], {}),
    ],
)
def test_leases_go_to_as_many_living_reporters_as_possible(reporters, before, leases):
    assert lease(reporters, before, NOW_MS, RULES) == leases


def test_a_probe_that_the_provider_turned_away_goes_to_others_at_once_under_a_new_epoch():
    entry = half_open()
    gate = Gate(until_ms=entry.since_ms + 5_000, reason=GateReason.RATE_LIMITED)
    again = advanced(entry, now_ms=entry.since_ms + 300, gate=gate)
    assert (again.probe_epoch, again.probe_leases) == (2, {"r4": 1, "r1": 1, "r2": 1})
    assert advanced(again, now_ms=entry.since_ms + 400, gate=gate) is again


def test_leases_have_their_patience_from_when_the_provider_may_be_called():
    entry = half_open()
    gate = Gate(until_ms=entry.since_ms + 600_000, reason=GateReason.QUOTA_EXHAUSTED)
    entry = advanced(entry, now_ms=entry.since_ms, gate=gate)
    assert advanced(entry, now_ms=gate.until_ms - 1, gate=gate) is entry
    free = advanced(entry, now_ms=gate.until_ms)
    assert (free.gate, free.probe_epoch) == (None, entry.probe_epoch + 1)


def test_a_new_epoch_is_above_every_one_that_was_reported_on():
    """The entry may have been deleted meanwhile: results of its earlier epochs would hide those of the new ones."""
    assert half_open(probes=Probes(7, 3, 0)).probe_epoch == 8


def test_three_passed_probes_close_and_one_failure_opens_for_longer():
    entry = half_open()
    assert advanced(entry, probes=Probes(1, passed=2)).circuit is Circuit.HALF_OPEN
    closed = advanced(entry, probes=Probes(1, passed=3))
    assert (closed.circuit, closed.share, closed.probe_leases) == (Circuit.CLOSED, 0.10, {})
    again = advanced(entry, now_ms=entry.since_ms, probes=Probes(1, passed=2, failed=1))
    assert (again.circuit, again.trips, again.reason) == (Circuit.OPEN, 2, "a probe failed")
    assert again.cooldown_until_ms == entry.since_ms + 30_000


def test_probes_of_another_epoch_decide_nothing():
    entry = half_open()
    for epoch in (0, 2):
        assert advanced(entry, now_ms=entry.since_ms, probes=Probes(epoch, passed=3, failed=1)) is entry


def test_leases_that_bring_no_result_go_to_others_in_a_new_epoch():
    entry = half_open()
    late_ms = entry.since_ms + RULES.probe_patience_ms
    reporters = dict.fromkeys(("r1", "r2", "r3", "r4"), late_ms)
    assert advanced(entry, now_ms=late_ms - 1, reporters=reporters) is entry
    again = advanced(entry, now_ms=late_ms, reporters=reporters)
    assert (again.circuit, again.probe_epoch, again.since_ms) == (Circuit.HALF_OPEN, 2, late_ms)
    assert again.probe_leases == {"r4": 1, "r1": 1, "r2": 1}


def test_without_reporters_nothing_is_leased_until_one_is_heard_of():
    entry = half_open(reporters={})
    assert entry.probe_leases == {}
    assert advanced(entry, now_ms=entry.since_ms + 999_999, reporters={}) is entry
    assert advanced(entry, now_ms=entry.since_ms + 1, reporters={"r9": entry.since_ms}).probe_leases == {"r9": 3}


def test_a_recovered_backend_gets_its_traffic_back_in_steps():
    entry = closed_again()
    shares = [advanced(entry, now_ms=entry.since_ms + s * 1000).share for s in (0, 9, 10, 19, 20, 29, 30, 40)]
    assert shares == [0.10, 0.10, 0.25, 0.25, 0.50, 0.50, 1.0, 1.0]


def test_an_outage_is_forgotten_a_cooldown_after_the_ramp():
    entry = closed_again()
    past_ms = entry.since_ms + 30_000 + 30_000
    assert advanced(entry, now_ms=past_ms - 1).trips == 1
    assert advanced(entry, now_ms=past_ms).trips == 0


def test_nothing_new_is_the_very_same_entry():
    assert advanced(CLOSED) is CLOSED


@pytest.mark.parametrize(
    ("fleet", "open_at_most"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)]
)
def test_at_most_half_of_the_fleet_is_out_and_never_all_of_it(fleet, open_at_most):
    out = 0
    while may_open(out, fleet, RULES):
        out += 1
    assert out == open_at_most


def test_one_backend_always_stays_closed_whatever_the_cap_says():
    assert not may_open(1, 2, CircuitRules(open_share_max=1.0))


def test_the_cap_holds_a_circuit_closed_and_says_so():
    entry = opened(may_open=False)
    assert (entry.circuit, entry.trips) == (Circuit.CLOSED, 0)
    assert entry.reason == "held closed, too many backends are out already: 8 hard failures in a row"
    assert advanced(entry).reason == ""
    assert advanced(entry, run=Run(8, NOW_MS)).circuit is Circuit.OPEN


@pytest.mark.parametrize(
    ("seen", "share"),
    [
        ({"run": Run(8, NOW_MS)}, 0.10),
        ({"run": Run(300, NOW_MS)}, 0.05),
        ({"long": Health(60, 60)}, 0.05),
        ({"long": Health(60, 30)}, 0.75),
        ({"short": Health(20, 15), "long": Health(900, 15)}, 0.40),
    ],
    ids=["a row", "a long row", "all fail", "half fail", "lately"],
)
def test_what_is_held_closed_is_called_as_much_as_it_answers(seen, share):
    entry = advanced(CLOSED, may_open=False, **seen)
    assert is_held(entry)
    assert entry.share == share


def test_a_held_circuit_is_let_go_when_two_thirds_of_the_calls_succeed():
    entry = opened(may_open=False)
    for failed, share in ((60, 0.05), (30, 0.75), (21, 0.95)):
        entry = advanced(entry, may_open=False, long=Health(60, failed))
        assert (is_held(entry), entry.share) == (True, share)
    entry = advanced(entry, long=Health(60, 20))
    assert (is_held(entry), entry.share, entry.reason) == (False, 1.0, "")


def test_a_held_circuit_that_is_recovering_takes_the_smaller_share():
    entry = advanced(closed_again(), may_open=False, run=Run(8, NOW_MS + 99_999), now_ms=NOW_MS + 99_999, long=Health(9, 0))
    assert entry.share == 0.10


def test_a_slow_backend_is_better_than_none():
    assert advanced(CLOSED, may_open=False, slow=(Slowness("answers", 50, 50),)) is CLOSED


def test_a_refused_credential_opens_whatever_the_cap_says_and_for_longer():
    entry = advanced(CLOSED, refused=Run(2, NOW_MS), may_open=False)
    assert (entry.circuit, entry.reason) == (Circuit.OPEN, "credential refused")
    assert entry.cooldown_until_ms == NOW_MS + 60_000
    assert half_open(entry).circuit is Circuit.HALF_OPEN


@pytest.mark.parametrize(("trips", "cooldown_ms"), [(1, 120_000), (3, 480_000), (4, 900_000), (40, 900_000)])
def test_the_cooldown_of_a_refused_credential_doubles_up_to_a_quarter_of_an_hour(trips, cooldown_ms):
    entry = advanced(CLOSED.model_copy(update={"trips": trips}), refused=Run(2, NOW_MS))
    assert entry.cooldown_until_ms == NOW_MS + cooldown_ms


def test_a_probe_that_is_refused_again_keeps_the_longer_cooldown():
    entry = half_open(advanced(CLOSED, refused=Run(2, NOW_MS)))
    again = advanced(entry, now_ms=entry.since_ms, probes=Probes(1, 0, 1), refused=Run(3, NOW_MS))
    assert (again.reason, again.cooldown_until_ms - again.since_ms) == (CREDENTIAL_REFUSED, 120_000)


def test_a_probe_that_fails_for_another_reason_is_no_refusal():
    entry = half_open(advanced(CLOSED, refused=Run(2, NOW_MS)))
    again = advanced(entry, now_ms=entry.since_ms, probes=Probes(1, 0, 1), refused=Run(2, NOW_MS), run=Run(1, entry.since_ms))
    assert again.reason == "a probe failed"


def test_refusals_from_before_the_circuit_closed_are_the_old_outage():
    entry = closed_again()
    assert advanced(entry, now_ms=entry.since_ms, refused=Run(9, entry.since_ms - 1)).circuit is Circuit.CLOSED


def test_an_entry_has_the_gate_that_holds():
    gate = Gate(until_ms=NOW_MS + 1, reason=GateReason.RATE_LIMITED)
    gated = advanced(CLOSED, gate=gate)
    assert gated.gate == gate
    assert opened(gate=gate).gate == gate
    assert opened(gate=gate, may_open=False).gate == gate
    assert advanced(gated).gate is None


def test_when_no_backend_is_left_the_first_cooldown_is_long_enough():
    entry = advanced(CLOSED.model_copy(update={"trips": 3}), run=Run(8, NOW_MS))
    assert advanced(entry, now_ms=NOW_MS + 15_000).circuit is Circuit.OPEN
    assert advanced(entry, now_ms=NOW_MS + 15_000, all_out=True).circuit is Circuit.HALF_OPEN


def test_an_executor_trips_by_itself_and_lets_go_after_the_hold():
    trip = LocalTrip()
    for _ in range(7):
        trip = trip.record(failed=True, now_ms=NOW_MS, rules=RULES)
    assert not trip.is_open(NOW_MS)
    trip = trip.record(failed=True, now_ms=NOW_MS, rules=RULES)
    assert trip.is_open(NOW_MS + 1_999)
    assert not trip.is_open(NOW_MS + 2_000)
    assert trip.record(failed=True, now_ms=NOW_MS + 2_000, rules=RULES).is_open(NOW_MS + 2_001)
    assert trip.record(failed=False, now_ms=NOW_MS, rules=RULES) == LocalTrip()


def test_the_word_of_the_fleet_replaces_the_local_trip():
    trip = LocalTrip(run=8, open_until_ms=NOW_MS + 2_000)
    assert trip.follow(Circuit.CLOSED) is trip
    assert trip.follow(Circuit.OPEN) == LocalTrip()
