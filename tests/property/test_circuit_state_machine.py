"""Whatever happens and in whatever order: an open circuit closes by probes only, few of those are ever leased, a gate never
gets earlier, and every change is told once.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.fleet import AlertKind, Circuit, FleetEntry, GateReason
from services.monitor.decide import Watch
from shared.circuit import CREDENTIAL_REFUSED, CircuitRules
from shared.windows import Ring, fold
from tests.fleet.circuits import BAD_DAY_SHARE, openings_of_a_day
from tests.support.builders import a_backend
from tests.support.builders_monitor import NOW_MS, a_gate, an_observation

RULES = CircuitRules()
BACKENDS = ("a", "b", "c")
CATALOGUE = dict.fromkeys(BACKENDS, a_backend())
OF_CIRCUITS = {Circuit.OPEN: AlertKind.CIRCUIT_OPEN, Circuit.HALF_OPEN: AlertKind.CIRCUIT_HALF_OPEN,
               Circuit.CLOSED: AlertKind.CIRCUIT_CLOSED}


class Fleet(RuleBasedStateMachine):
    """Three backends, three reporters, any observations, replays, restarts and waits; the monitor looks after each."""

    def __init__(self):
        super().__init__()
        self.now_ms = NOW_MS
        self.entries = {}          # as on the `fleet` topic
        self.watch = self.a_watch({})
        self.said = []
        self.leased = {}
        self.alert_ids = set()
        self.opened_by = {}

    def a_watch(self, rings):
        watch = Watch(RULES, lambda: self.entries, lambda: CATALOGUE)
        watch.rings.update(rings)
        return watch

    def look(self):
        for due in self.watch.look(self.now_ms, lambda: 0.3, lambda backend: True):
            before = self.entries.get(due.backend, FleetEntry(backend=due.backend))
            self.entries[due.backend] = due.entry
            self.check_transition(before, due.entry, self.watch.rings[due.backend])
            self.check_alerts(before, due)
            self.check_gate(before, due.entry)

    def check_transition(self, before, after, ring):
        if before.circuit is not Circuit.CLOSED and after.circuit is Circuit.CLOSED:
            assert before.circuit is Circuit.HALF_OPEN
            assert (ring.probes.epoch, ring.probes.failed) == (before.probe_epoch, 0)
            assert ring.probes.passed >= RULES.probes
        if after.circuit is Circuit.OPEN and before.circuit is not Circuit.OPEN:
            assert after.cooldown_until_ms > self.now_ms
        if after.circuit is Circuit.OPEN and before.circuit is Circuit.CLOSED:
            self.opened_by[after.backend] = after.reason
        leases = self.leased.setdefault((after.backend, after.probe_epoch), after.probe_leases)
        if after.probe_leases:
            assert not leases or after.probe_leases == leases, "an epoch is leased once"
            self.leased[after.backend, after.probe_epoch] = after.probe_leases
        assert after.probe_epoch >= before.probe_epoch

    def check_alerts(self, before, due):
        ids = {alert.alert_id for alert in due.alerts}
        assert len(ids) == len(due.alerts)
        assert not ids & self.alert_ids, "told twice"
        self.alert_ids |= ids
        kinds = [alert.kind for alert in due.alerts]
        if due.entry.circuit is not before.circuit:
            is_refused = due.entry.reason == CREDENTIAL_REFUSED
            assert (AlertKind.CREDENTIAL_REFUSED if is_refused else OF_CIRCUITS[due.entry.circuit]) in kinds
            assert due.entry.history[-1].at_ms == self.now_ms
        else:
            assert not {AlertKind.CIRCUIT_OPEN, AlertKind.CIRCUIT_HALF_OPEN} & set(kinds)

    def check_gate(self, before, after):
        if before.gate is not None and before.gate.until_ms > self.now_ms:
            assert after.gate is not None
            assert after.gate.until_ms >= before.gate.until_ms

    @rule(
        backend=st.sampled_from(BACKENDS),
        reporter=st.sampled_from(["r1", "r2", "r3"]),
        passed=st.integers(0, 12),
        failed=st.integers(0, 12),
        refused=st.sampled_from([0, 0, 0, 1, 2]),
        late_ms=st.sampled_from([0, 0, 0, 500, 30_000, 120_000]),
    )
    def observed(self, backend, reporter, passed, failed, refused, late_ms):
        latencies_ms, at_ms = (5.0,) * passed, self.now_ms - late_ms
        self.tell(an_observation(
            backend, reporter, len(self.said), at_ms, latencies_ms, failures=failed, refused=refused
        ))  # fmt: skip

    @rule(
        backend=st.sampled_from(BACKENDS),
        passed=st.sampled_from([3, 3, 3, 2, 1, 0]),
        failed=st.sampled_from([0, 0, 0, 1]),
        epochs_late=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def probed(self, backend, passed, failed, epochs_late):
        epoch = max(self.entries[backend].probe_epoch - epochs_late, 0) if backend in self.entries else 0
        self.tell(an_observation(backend, "r1", len(self.said), self.now_ms, probes=(epoch, passed, failed)))

    @rule(
        backend=st.sampled_from(BACKENDS),
        for_ms=st.sampled_from([0, 500, 5_000, 700_000]),
        reason=st.sampled_from(GateReason),
    )
    def gated(self, backend, for_ms, reason):
        gate = a_gate(self.now_ms + for_ms if for_ms else 0, reason)
        self.tell(an_observation(backend, "r2", len(self.said), self.now_ms, gate=gate))

    def tell(self, seen):
        self.now_ms += 1
        self.said.append(seen)
        fold(self.watch.rings.setdefault(seen.backend, Ring()), seen, self.now_ms)
        self.look()

    @rule(backend=st.sampled_from(BACKENDS))
    def went_out_and_cooled(self, backend):
        self.tell(an_observation(backend, "r1", len(self.said), self.now_ms, failures=8))
        self.waited(400_000)

    @rule(share=st.floats(0, 1))
    def replayed(self, share):
        for seen in self.said[int(share * len(self.said)) :]:
            assert not fold(self.watch.rings[seen.backend], seen, self.now_ms)
        self.look()

    @rule(wait_ms=st.sampled_from([100, 1_000, 15_000, 20_000, 90_000, 400_000]))
    def waited(self, wait_ms):
        self.now_ms += wait_ms
        self.look()

    @rule()
    def restarted(self):
        """From the changelog and the topic alone; nothing is told again."""
        self.entries = {
            name: FleetEntry.model_validate_json(entry.model_dump_json()) for name, entry in self.entries.items()
        }
        told = len(self.alert_ids)
        self.watch = self.a_watch({name: Ring.from_bytes(ring.to_bytes()) for name, ring in self.watch.rings.items()})
        self.look()
        assert len(self.alert_ids) == told

    @invariant()
    def never_more_than_three_probes_are_leased(self):
        assert all(sum(entry.probe_leases.values()) in (0, RULES.probes) for entry in self.entries.values())
        assert not any(e.probe_leases for e in self.entries.values() if e.circuit is not Circuit.HALF_OPEN)

    @invariant()
    def at_most_one_of_three_backends_is_out_but_for_refused_credentials(self):
        out = [name for name, entry in self.entries.items() if entry.circuit is not Circuit.CLOSED]
        assert len([name for name in out if self.opened_by[name] != CREDENTIAL_REFUSED]) <= 1

    @invariant()
    def a_backend_that_is_out_gets_no_share(self):
        assert all((e.share == 0.0) == (e.circuit is not Circuit.CLOSED) for e in self.entries.values())

    @invariant()
    def few_changes_are_remembered(self):
        assert all(len(entry.history) <= 8 for entry in self.entries.values())


Fleet.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestFleet = Fleet.TestCase


@pytest.mark.parametrize("seconds", [9_000, 20_000], ids=["busy", "thinly spread"])
def test_a_hundred_thousand_calls_on_a_bad_day_open_nothing(seconds):
    assert openings_of_a_day(100_000, lambda random: random.random() < BAD_DAY_SHARE, seed=1, seconds=seconds) == 0


def test_a_backend_that_fails_most_calls_opens():
    assert openings_of_a_day(2_000, lambda random: random.random() < 0.8, seed=3, seconds=20) > 0
