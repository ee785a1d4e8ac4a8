"""The monitor without a broker: its Faust agent on an in-memory store, its watch and its publishing on LocalBroker."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from schemas.fleet import AlertKind, Circuit, GateReason, RateLimits, Severity
from schemas.topology import ALERTS, DEAD_LETTERS, FLEET, OBSERVATIONS, topic_spec
from services.monitor.decide import GONE_MS, HISTORY_MAX, WINDOWS_S, Watch
from services.monitor.monitor import STAGE, Monitor, Progress
from services.monitor.stream import faust_app, windows_agent
from shared.broker import Record
from shared.circuit import CircuitRules
from shared.codec import decode, encode
from shared.config import Settings
from shared.local import LocalBroker
from shared.windows import Ring
from shared.writer import Writer
from tests.support.builders import a_backend
from tests.support.builders_monitor import NOW_MS, a_gate, an_observation

RULES = CircuitRules(cooldown_ms=1_000, ramp_ms=3_000)
SETTINGS = Settings(kafka_bootstrap_servers="localhost:1")


BACKENDS = ("a", "b")


def everything(_):
    return True


class StandingClock:
    """Time that a test moves."""

    def __init__(self):
        self.ms = NOW_MS

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return self.ms / 1000


@dataclass
class Bench:
    """A monitor on LocalBroker, a plain dict as its table, a clock that stands still."""

    broker: LocalBroker
    clock: StandingClock = field(default_factory=StandingClock)
    table: dict = field(default_factory=dict)
    entries: dict = field(default_factory=dict)       # the `fleet` table as this monitor finds it
    catalogue: dict = field(default_factory=lambda: dict.fromkeys(BACKENDS, a_backend()))

    async def start(self):
        await self.broker.create_topics([topic_spec(topic) for topic in (FLEET, ALERTS, OBSERVATIONS, DEAD_LETTERS)])
        self.watch = Watch(RULES, lambda: self.entries, lambda: self.catalogue)
        self.monitor = Monitor(self.watch, Writer(STAGE, await self.broker.producer()), self.clock, Random(1))
        return self

    async def tell(self, *observations):
        await self.monitor.take(self.table, [a_record(encode(OBSERVATIONS, seen), self.clock.ms) for seen in observations])
        await self.monitor.publish(everything)

    async def pass_time(self, ms, step_ms=100):
        for _ in range(ms // step_ms):
            self.clock.ms += step_ms
            await self.monitor.publish(everything)

    def published(self):
        return [decode(FLEET, record.value) for record in self.broker.logs[FLEET.name][0] if record.value is not None]

    def alerts(self):
        return [decode(ALERTS, record.value) for record in self.broker.logs[ALERTS.name][0]]

    def kinds(self):
        return [alert.kind.value for alert in self.alerts()]


async def a_bench(**given):
    return await Bench(LocalBroker(), **given).start()


def a_record(value, timestamp_ms=NOW_MS):
    return Record(OBSERVATIONS.name, 0, 0, timestamp_ms, b"a", value)


def circuits(entries):
    return [entry.circuit.value for entry in entries]


async def test_the_faust_agent_folds_what_it_is_sent_and_stores_it():
    bench = await a_bench()
    agent = windows_agent(faust_app(SETTINGS), bench.monitor, bench.table)
    async with agent.test_context() as sending:
        for sequence in range(3):
            value = encode(OBSERVATIONS, an_observation(sequence=sequence, latencies_ms=(100,)))
            await sending.put(key=b"a", value=value, timestamp=NOW_MS / 1000)
        async with asyncio.timeout(5):
            while bench.monitor.observations < 3:
                await asyncio.sleep(0.01)
    ring = Ring.from_bytes(bench.table[b"a"])
    assert sum(bucket.calls for bucket in ring.seconds.values()) == 3


async def test_an_entry_has_the_windows_of_its_backend():
    bench = await a_bench()
    await bench.tell(an_observation(latencies_ms=(100,) * 9, failures=1))
    (entry,) = bench.published()
    assert [window.seconds for window in entry.windows] == list(WINDOWS_S)
    assert all((window.calls, window.failed) == (10, 1) for window in entry.windows)
    assert entry.updated_ms == NOW_MS


async def test_windows_are_published_four_times_a_second_at_most():
    bench = await a_bench()
    for sequence in range(40):
        bench.clock.ms = NOW_MS + sequence * 50
        await bench.tell(an_observation(sequence=sequence, at_ms=bench.clock.ms, latencies_ms=(100,)))
    assert len(bench.published()) == 8


async def test_nothing_is_published_while_nothing_changes():
    bench = await a_bench()
    await bench.tell(an_observation(latencies_ms=(100,)))
    for _ in range(5):
        bench.clock.ms += 300
        await bench.monitor.publish(everything)
    assert len(bench.published()) == 1


async def test_a_trip_is_published_at_once():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, latencies_ms=(100,)))
    bench.clock.ms += 10
    await bench.tell(an_observation(sequence=2, failures=8))
    assert circuits(bench.published()) == ["closed", "open"]


async def test_time_alone_opens_half_ages_windows_and_ramps_up():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, failures=8))
    for _ in range(13):
        bench.clock.ms += 100
        await bench.monitor.publish(everything)
    half_open = bench.published()[-1]
    assert (half_open.circuit, half_open.probe_leases) == (Circuit.HALF_OPEN, {"r1": 3})
    await bench.tell(an_observation(sequence=2, at_ms=bench.clock.ms, latencies_ms=(9,) * 3, probes=(1, 3, 0)))
    for _ in range(130):
        bench.clock.ms += 100
        await bench.monitor.publish(everything)
    closed = [entry for entry in bench.published() if entry.trips and entry.circuit is Circuit.CLOSED]
    assert list(dict.fromkeys(entry.share for entry in closed)) == [0.10, 0.25, 0.50, 1.0]
    assert bench.published()[-1].windows[0].calls == 0
    assert bench.published()[-1].trips == 0


async def test_one_of_two_backends_stays_closed_when_both_fail_in_one_batch():
    bench = await a_bench()
    await bench.tell(*(an_observation(backend=name, failures=8) for name in BACKENDS))
    assert sorted(circuits(bench.published())) == ["closed", "open"]


# --- gates, limits, executors


async def test_a_gate_is_published_at_once_and_a_longer_one_soon():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, latencies_ms=(100,)))
    bench.clock.ms += 10
    await bench.tell(an_observation(sequence=2, at_ms=bench.clock.ms, gate=a_gate(NOW_MS + 5_000)))
    assert bench.published()[-1].gate == a_gate(NOW_MS + 5_000)
    bench.clock.ms += 10
    await bench.tell(an_observation(sequence=3, at_ms=bench.clock.ms, gate=a_gate(NOW_MS + 9_000)))
    assert len(bench.published()) == 2
    await bench.pass_time(300)
    assert bench.published()[-1].gate == a_gate(NOW_MS + 9_000)
    await bench.pass_time(9_000)
    assert bench.published()[-1].gate is None
    assert bench.alerts() == []


async def test_limits_are_dropped_when_no_answer_confirms_them():
    bench = await a_bench()
    await bench.tell(an_observation(limits=RateLimits(rpm=600)))
    assert bench.published()[-1].limits == RateLimits(rpm=600)
    await bench.pass_time(600_000, step_ms=5_000)
    assert bench.published()[-1].limits is not None
    await bench.pass_time(5_000)
    assert bench.published()[-1].limits is None


async def test_an_entry_says_how_many_executors_share_a_limit():
    bench = await a_bench()
    await bench.tell(an_observation("a", "r1"), an_observation("b", "r2"))
    assert {entry.executors for entry in bench.published()} == {2}
    await bench.pass_time(11_000)
    assert bench.published()[-1].executors == 0


async def test_slow_answers_open_the_circuit_and_say_so():
    bench = await a_bench()
    for minute in range(20):
        bench.clock.ms = NOW_MS + minute * 60_000
        usual = an_observation(sequence=minute, at_ms=bench.clock.ms, latencies_ms=(1400.0,) * 10, tokens_out=100)
        await bench.tell(usual)
    for second in range(40):
        bench.clock.ms += 1_000
        await bench.tell(an_observation(
            sequence=100 + second, at_ms=bench.clock.ms, latencies_ms=(11_000.0,) * 2, tokens_out=100
        ))  # fmt: skip
    opened = [entry for entry in bench.published() if entry.circuit is Circuit.OPEN]
    assert opened[0].reason == "answers of 60 s take over 3 times as long as usual"


# --- alerts


async def test_every_change_of_a_circuit_is_an_alert_and_history_once():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, failures=8))
    await bench.pass_time(1_300)
    await bench.tell(an_observation(sequence=2, at_ms=bench.clock.ms, latencies_ms=(9,) * 3, probes=(1, 3, 0)))
    await bench.pass_time(13_000)
    assert bench.kinds() == ["circuit_open", "circuit_half_open", "circuit_closed"]
    opened, half_open, closed = bench.alerts()
    assert (opened.severity, half_open.severity, closed.severity) == (Severity.WARNING, Severity.INFO, Severity.INFO)
    assert opened.message == "a: open, 8 hard failures in a row"
    assert opened.alert_id == f"a/circuit_open/{NOW_MS}"
    history = bench.published()[-1].history
    assert [(step.circuit.value, step.reason) for step in history] == [
        ("open", "8 hard failures in a row"), ("half_open", "the cooldown is over"), ("closed", "3 probes passed"),
    ]  # fmt: skip
    assert [step.at_ms for step in history] == [alert.at_ms for alert in bench.alerts()]


async def test_only_the_last_changes_are_remembered():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, failures=8))
    for _ in range(6):
        await bench.pass_time(400_000, step_ms=10_000)
        entry = bench.published()[-1]
        await bench.tell(an_observation(sequence=entry.probe_epoch + 9, at_ms=bench.clock.ms, probes=(entry.probe_epoch, 0, 1)))
    history = bench.published()[-1].history
    assert len(history) == HISTORY_MAX
    assert history[-1].reason == "a probe failed"


async def test_when_the_last_backend_goes_out_it_is_critical_and_said_to_be_the_last():
    bench = await a_bench()
    await bench.tell(an_observation("a", failures=8))
    bench.clock.ms += 500
    await bench.tell(an_observation("b", at_ms=bench.clock.ms, refused=2))
    assert bench.kinds() == ["circuit_open", "credential_refused", "all_out"]
    assert [alert.severity for alert in bench.alerts()] == [Severity.WARNING, Severity.CRITICAL, Severity.CRITICAL]
    await bench.pass_time(1_300)
    await bench.tell(an_observation("a", sequence=2, at_ms=bench.clock.ms, probes=(1, 3, 0)))
    assert bench.kinds()[-2:] == ["circuit_closed", "all_out"]
    assert bench.alerts()[-1].severity is Severity.INFO


async def test_a_circuit_that_is_held_is_an_alert_when_it_begins_and_when_it_ends():
    bench = await a_bench()
    await bench.tell(an_observation("a", failures=30))
    await bench.tell(an_observation("b", failures=30))
    await bench.pass_time(300)
    assert bench.kinds() == ["circuit_open", "circuit_held"]
    assert bench.alerts()[-1].severity is Severity.CRITICAL
    held = next(entry for entry in reversed(bench.published()) if entry.backend == "b")
    assert (held.circuit, held.share) == (Circuit.CLOSED, 0.05)
    await bench.tell(an_observation("b", sequence=2, at_ms=bench.clock.ms, latencies_ms=(5,) * 100))
    assert bench.alerts()[-1].message == "b: closed, no longer held"


async def test_an_exhausted_quota_is_an_alert_and_a_rate_limit_is_none():
    bench = await a_bench()
    await bench.tell(an_observation(sequence=1, gate=a_gate(NOW_MS + 1_000)))
    await bench.tell(an_observation(sequence=2, gate=a_gate(0, GateReason.QUOTA_EXHAUSTED)))
    await bench.tell(an_observation(sequence=3, gate=a_gate(NOW_MS + 400_000, GateReason.QUOTA_EXHAUSTED)))
    (alert,) = bench.alerts()
    assert (alert.kind, alert.message) == (AlertKind.QUOTA_EXHAUSTED, "a: closed, quota exhausted, not called for 300 s")


async def test_a_restart_repeats_no_alert():
    before = await a_bench()
    await before.tell(an_observation("a", failures=8), an_observation("b", failures=8))
    await before.tell(an_observation("b", sequence=2, gate=a_gate(0, GateReason.QUOTA_EXHAUSTED)))
    assert len(before.alerts()) == 3
    after = await a_bench(table=before.table, entries={entry.backend: entry for entry in before.published()})
    after.monitor.restore(after.table)
    await after.pass_time(500)
    assert len(after.published()) >= 2
    assert after.alerts() == []


async def test_an_alert_that_the_log_did_not_take_is_written_later_once():
    bench = await a_bench()
    bench.broker.unavailable = True
    await bench.tell(an_observation(failures=8))
    await bench.pass_time(300)
    bench.broker.unavailable = False
    async with asyncio.timeout(5):
        while not bench.alerts():
            await asyncio.sleep(0)
            await bench.monitor.publish(everything)
    await bench.pass_time(300)
    assert bench.kinds() == ["circuit_open"]


async def test_a_probe_that_takes_as_long_as_its_backend_allows_still_counts():
    patient = {"a": a_backend(timeout_ms=300_000), "b": a_backend()}
    bench = await a_bench(catalogue=patient)
    await bench.tell(an_observation("a", failures=8))
    await bench.pass_time(2_000)
    entry = bench.published()[-1]
    assert entry.circuit is Circuit.HALF_OPEN
    await bench.pass_time(patient["a"].timeout_ms, step_ms=1_000)
    await bench.tell(an_observation("a", sequence=2, at_ms=bench.clock.ms, probes=(entry.probe_epoch, 3, 0)))
    assert bench.published()[-1].circuit is Circuit.CLOSED


# --- backends that are gone


async def test_a_backend_that_the_config_no_longer_names_is_taken_off_the_topic():
    bench = await a_bench()
    await bench.tell(an_observation("a", latencies_ms=(5,)), an_observation("b", latencies_ms=(5,)))
    bench.entries.update({entry.backend: entry for entry in bench.published()})
    bench.catalogue = {"b": a_backend()}
    await bench.pass_time(GONE_MS, step_ms=1_000)
    assert all(record.value for record in bench.broker.logs[FLEET.name][0])
    await bench.pass_time(1_000, step_ms=1_000)
    del bench.entries["a"]
    await bench.pass_time(2 * GONE_MS, step_ms=1_000)
    of_a = [record.value for record in bench.broker.logs[FLEET.name][0] if record.key == b"a"]
    assert [value is None for value in of_a] == [False] * (len(of_a) - 1) + [True]


async def test_a_backend_that_comes_back_to_the_config_in_time_stays():
    bench = await a_bench()
    await bench.tell(an_observation("a", failures=8))
    bench.entries.update({entry.backend: entry for entry in bench.published()})
    bench.catalogue = {"b": a_backend()}
    await bench.pass_time(GONE_MS // 2, step_ms=1_000)
    bench.catalogue = dict.fromkeys(BACKENDS, a_backend())
    await bench.pass_time(GONE_MS, step_ms=1_000)
    assert all(record.value for record in bench.broker.logs[FLEET.name][0])
    assert bench.published()[-1].trips == 1


async def test_a_restart_finds_the_same_windows_and_circuit():
    before = await a_bench()
    await before.tell(an_observation(failures=8, latencies_ms=(5, 6), failures_last=True))
    after = await a_bench(table=before.table, entries={"a": before.published()[-1]})
    after.clock.ms += 500
    after.monitor.restore(after.table)
    await after.monitor.publish(everything)
    (entry,) = after.published()
    assert entry.model_copy(update={"updated_ms": NOW_MS}) == before.published()[-1]
    await after.tell(an_observation(failures=8, latencies_ms=(5, 6)))
    assert after.watch.rings["a"] == before.watch.rings["a"]


async def test_a_ring_is_read_again_when_the_table_holds_other_bytes():
    bench = await a_bench()
    await bench.tell(an_observation(latencies_ms=(5,)))
    bench.table[b"a"] = Ring().to_bytes()
    await bench.tell(an_observation(latencies_ms=(5,)))
    assert sum(bucket.calls for bucket in bench.watch.rings["a"].seconds.values()) == 1


async def test_a_backend_that_another_replica_took_over_is_left_alone():
    bench = await a_bench()
    await bench.tell(an_observation(failures=8))
    bench.clock.ms += 60_000
    await bench.monitor.publish(lambda backend: False)
    assert circuits(bench.published()) == ["open"]
    assert bench.watch.rings == {}


async def test_what_the_log_did_not_take_is_published_later():
    bench = await a_bench()
    bench.broker.unavailable = True
    await bench.tell(an_observation(failures=8))
    assert bench.published() == []
    bench.broker.unavailable = False
    async with asyncio.timeout(5):
        while not bench.published():
            await asyncio.sleep(0)
            await bench.monitor.publish(everything)
    assert circuits(bench.published()) == ["open"]


async def test_rubbish_becomes_a_dead_letter_and_the_rest_is_folded():
    bench = await a_bench()
    good = encode(OBSERVATIONS, an_observation(latencies_ms=(5,)))
    await bench.monitor.take(bench.table, [a_record(b"{rubbish"), a_record(good), a_record(None)])
    letters = [record.value for partition in bench.broker.logs[DEAD_LETTERS.name] for record in partition]
    assert letters == [b"{rubbish", None]
    assert Ring.from_bytes(bench.table[b"a"]).newest_ms == NOW_MS


async def test_the_monitor_is_not_live_when_records_come_and_none_is_taken():
    bench = await a_bench()
    progress = Progress(bench.monitor, bench.clock)
    for ends in range(1, 8):
        progress.note(ends)
        bench.clock.ms += 10_000
        bench.monitor.ticked_s = bench.clock.monotonic_s()
    assert not progress.is_live()
    bench.monitor.observations += 1
    progress.note(9)
    assert progress.is_live()


async def test_an_idle_monitor_is_live_as_long_as_it_ticks():
    bench = await a_bench()
    progress = Progress(bench.monitor, bench.clock)
    for _ in range(20):
        bench.clock.ms += 10_000
        progress.note(5)
    assert not progress.is_live()
    bench.monitor.ticked_s = bench.clock.monotonic_s()
    assert progress.is_live()


async def test_resuming_after_a_recovery_loses_nothing_that_is_queued():
    app = faust_app(SETTINGS)
    app.flow_control.resume()
    queue = app.FlowControlQueue(maxsize=10, clear_on_resume=True)
    queue.put_nowait("a record that came while the table was recovered")
    app.flow_control.resume()
    assert queue.qsize() == 1
