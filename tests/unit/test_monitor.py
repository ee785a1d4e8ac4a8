"""The monitor without a broker: its Faust agent on an in-memory store, its watch and its publishing on LocalBroker."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from schemas.fleet import Circuit
from schemas.topology import DEAD_LETTERS, FLEET, OBSERVATIONS, topic_spec
from services.monitor.decide import WINDOWS_S, Watch
from services.monitor.monitor import STAGE, Monitor, Progress
from services.monitor.stream import faust_app, windows_agent
from shared.broker import Record
from shared.circuit import CircuitRules
from shared.codec import decode, encode
from shared.config import Settings
from shared.local import LocalBroker
from shared.windows import Ring
from shared.writer import Writer
from tests.support.builders_monitor import NOW_MS, an_observation

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

    async def start(self):
        await self.broker.create_topics([topic_spec(topic) for topic in (FLEET, OBSERVATIONS, DEAD_LETTERS)])
        self.watch = Watch(RULES, lambda: self.entries, lambda: BACKENDS)
        self.monitor = Monitor(self.watch, Writer(STAGE, await self.broker.producer()), self.clock, Random(1))
        return self

    async def tell(self, *observations):
        await self.monitor.take(self.table, [a_record(encode(OBSERVATIONS, seen)) for seen in observations])
        await self.monitor.publish(everything)

    def published(self):
        return [decode(FLEET, record.value) for record in self.broker.logs[FLEET.name][0]]


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
