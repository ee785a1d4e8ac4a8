"""Whatever happens and in whatever order: an open circuit closes by probes only, and few of those are ever leased."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.fleet import Circuit, FleetEntry, Observation
from schemas.ledger import FailureClass
from services.monitor.decide import FleetView, judge
from shared.circuit import CircuitRules
from shared.windows import Ring, fold
from tests.support.builders_monitor import NOW_MS, an_observation

RULES = CircuitRules()
BACKENDS = ("a", "b", "c")


class Fleet(RuleBasedStateMachine):
    """Three backends, three reporters, any observations, replays and waits, judged after each."""

    def __init__(self):
        super().__init__()
        self.now_ms = NOW_MS
        self.rings = {name: Ring() for name in BACKENDS}
        self.entries = {name: FleetEntry(backend=name) for name in BACKENDS}
        self.said = []
        self.leased = {}

    def judge_all(self):
        view = FleetView(BACKENDS, self.entries, self.rings.values())
        for name in BACKENDS:
            before = self.entries[name]
            after = self.entries[name] = judge(before, self.rings[name], view, self.now_ms, 0.3, RULES)
            view.moved(after)
            self.check_transition(before, after, self.rings[name])

    def check_transition(self, before, after, ring):
        if before.circuit is not Circuit.CLOSED and after.circuit is Circuit.CLOSED:
            assert before.circuit is Circuit.HALF_OPEN
            assert (ring.probes.epoch, ring.probes.failed) == (before.probe_epoch, 0)
            assert ring.probes.passed >= RULES.probes
        if after.circuit is Circuit.OPEN and before.circuit is not Circuit.OPEN:
            assert after.cooldown_until_ms > self.now_ms
        leases = self.leased.setdefault((after.backend, after.probe_epoch), after.probe_leases)
        if after.probe_leases:
            assert not leases or after.probe_leases == leases, "an epoch is leased once"
            self.leased[after.backend, after.probe_epoch] = after.probe_leases
        assert after.probe_epoch >= before.probe_epoch

    @rule(
        backend=st.sampled_from(BACKENDS),
        reporter=st.sampled_from(["r1", "r2", "r3"]),
        passed=st.integers(0, 12),
        failed=st.integers(0, 12),
        late_ms=st.sampled_from([0, 0, 0, 500, 30_000, 120_000]),
    )
    def observed(self, backend, reporter, passed, failed, late_ms):
        self.tell(
            an_observation(
                backend, reporter, len(self.said), self.now_ms - late_ms, latencies_ms=(5.0,) * passed, failures=failed
            )
        )

    @rule(
        backend=st.sampled_from(BACKENDS),
        passed=st.sampled_from([3, 3, 3, 2, 1, 0]),
        failed=st.sampled_from([0, 0, 0, 1]),
        epochs_late=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def probed(self, backend, passed, failed, epochs_late):
        epoch = max(self.entries[backend].probe_epoch - epochs_late, 0)
        self.tell(an_observation(backend, "r1", len(self.said), self.now_ms, probes=(epoch, passed, failed)))

    def tell(self, seen):
        self.said.append(seen)
        fold(self.rings[seen.backend], seen, self.now_ms)
        self.judge_all()

    @rule(share=st.floats(0, 1))
    def replayed(self, share):
        for seen in self.said[int(share * len(self.said)) :]:
            assert not fold(self.rings[seen.backend], seen, self.now_ms)
        self.judge_all()

    @rule(wait_ms=st.sampled_from([100, 1_000, 15_000, 20_000, 90_000, 400_000]))
    def waited(self, wait_ms):
        self.now_ms += wait_ms
        self.judge_all()

    @rule(backend=st.sampled_from(BACKENDS))
    def restarted(self, backend):
        self.rings[backend] = Ring.from_bytes(self.rings[backend].to_bytes())
        self.entries[backend] = FleetEntry.model_validate_json(self.entries[backend].model_dump_json())

    @invariant()
    def never_more_than_three_probes_are_leased(self):
        assert all(sum(entry.probe_leases.values()) in (0, RULES.probes) for entry in self.entries.values())
        assert not any(e.probe_leases for e in self.entries.values() if e.circuit is not Circuit.HALF_OPEN)

    @invariant()
    def at_most_one_of_three_backends_is_out(self):
        assert sum(entry.circuit is not Circuit.CLOSED for entry in self.entries.values()) <= 1

    @invariant()
    def a_backend_that_is_out_gets_no_share(self):
        assert all((e.share == 0.0) == (e.circuit is not Circuit.CLOSED) for e in self.entries.values())


Fleet.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestFleet = Fleet.TestCase


def opens_under(calls_per_s: int, calls: int, failed_share: float, seed: int) -> bool:
    """Whether a backend of 16 trips when calls of four reporters fail independently with this probability."""
    rng = random.Random(seed)
    ring, entry, now_ms = Ring(), FleetEntry(backend="a"), NOW_MS
    others = FleetView(["a", *map(str, range(15))], {}, [])
    per_delta = max(1, calls_per_s // 4)
    for sequence in range(calls // per_delta):
        now_ms += 1000 * per_delta // calls_per_s
        failed = [rng.random() < failed_share for _ in range(per_delta)]
        run = failed[::-1].index(False) if not all(failed) else per_delta
        seen = Observation.model_construct(
            backend="a", reporter=f"r{sequence % 4}", sequence=sequence, at_ms=now_ms, calls=per_delta,
            failures={FailureClass.SERVER_ERROR: sum(failed)}, other_failures={}, consecutive_failures=run,
            probes_ok=0, probes_failed=0, latency_sketch={}, tokens_in=0, tokens_out=0, cost_microusd=0,
        )  # fmt: skip
        fold(ring, seen, now_ms)
        entry = judge(entry, ring, others, now_ms, 0.0, RULES)
        if entry.circuit is not Circuit.CLOSED:
            return True
    return False


def test_a_million_calls_on_a_bad_day_open_nothing():
    """7.26 % is the share of failures of a bad day of a large provider."""
    assert not opens_under(calls_per_s=400, calls=1_000_000, failed_share=0.0726, seed=1)


def test_thinly_spread_failures_open_nothing():
    assert not opens_under(calls_per_s=2, calls=20_000, failed_share=0.0726, seed=2)


def test_a_backend_that_fails_most_calls_opens():
    assert opens_under(calls_per_s=100, calls=3_000, failed_share=0.8, seed=3)
