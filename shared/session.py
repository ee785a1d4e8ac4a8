"""One stay in a consumer group: poll, take, commit, back-pressure, rebalance, drain. When the broker goes away or another
process takes over, a session ends and the next one reads again what was not finished.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from schemas.topology import Stage
from shared import metrics
from shared.broker import Broker, Consumer, Partition, Producer
from shared.clock import Clock
from shared.delivery import PlainDelivery, TransactionalDelivery, Work
from shared.dispatch import Dispatcher
from shared.errors import BrokerUnavailableError, DeadLetterCapError, FencedError
from shared.handler import Handler
from shared.progress import SPAN_LIMIT, Progress
from shared.writer import Writer

log = logging.getLogger(__name__)

BREATH_S = 0.05
"""A batch keeps the loop no longer: heartbeats, acknowledgements and the look at the clock come in between. A thousand records
in place took a stage that got little of the CPU longer than its session timeout, and it thought that it had stood still."""

PAUSED_POLL_MS = 20
"""How long a poll may take while partitions are paused: what makes room for them ends no poll, and comes sooner than a record."""


@dataclass(frozen=True)
class RunnerOptions:
    """Limits of the runner; where a number came from a measurement its comment says so."""

    poll_ms: int = 200                    # as often as it commits; a record that comes ends the wait
    poll_records_max: int = 100           # five hundred calls begun at a time took 13 MB more, and 5 % more CPU each
    commit_interval_ms: int = 200
    span_max: int = 10_000                # records between the oldest unfinished and the newest taken of a partition
    in_flight_max: int = 1_000            # records taken and unfinished, per process
    topic_in_flight_max: int = 0          # the same per topic, so that one lane cannot take all places; 0: no own limit
    parked_max: int = 2_000               # records of one topic that wait outside (gates, circuits) beside those in flight
    held_max: int = 5_000                 # records of one topic held open, or waiting behind such: see `Dispatcher.open`
    drain_ms: int = 30_000
    revoke_drain_ms: int = 10_000
    tries_max: int = 3
    linger_ms: int = 0
    flush_interval_ms: int = 10
    session_timeout_ms: int = 15_000

    def __post_init__(self) -> None:
        if self.span_max > SPAN_LIMIT:
            raise ValueError(f"span_max: {self.span_max} is over {SPAN_LIMIT}, what a commit's note can describe")


class Session:
    """Owns a consumer, a producer and the progress of every owned partition."""

    def __init__(
        self,
        stage: Stage,
        handler: Handler,
        broker: Broker,
        options: RunnerOptions,
        clock: Clock,
        check_alive: Callable[[], None],
    ) -> None:
        self._stage = stage
        self._handler = handler
        self._broker = broker
        self._options = options
        self._clock = clock
        self._check_alive = check_alive
        self._owned: dict[Partition, Progress] = {}
        self._paused: set[Partition] = set()
        self._full = False
        self._generation = 0
        self._suspended = True   # between losing an assignment and having taken over the next one
        self._rebalancing = asyncio.Lock()
        self._failure: BaseException | None = None
        self._commit_due_s = 0.0
        self._breathed_s = 0.0
        self._consumer: Consumer
        self._producer: Producer
        self.assigned = False
        self.turned_s = clock.monotonic_s()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then drain. Raises BrokerUnavailableError or FencedError when a new session is due."""
        options = self._options
        self._producer = await self._broker.producer(options.linger_ms)
        writer = Writer(self._stage, self._producer)
        self._dispatcher = Dispatcher(
            self._stage, self._handler, writer, self._clock, self._check_alive, self._lose, options.tries_max, options.held_max
        )
        try:
            await writer.compare(self._broker)
            await self._join()
            while not stop.is_set():
                await self._turn()
            await self._drain(options.drain_ms)
        except DeadLetterCapError:
            self._failure = None
            await self._drain(options.revoke_drain_ms)   # else the next start writes the same dead letters again
            raise
        finally:
            await self._end()

    async def _join(self) -> None:
        ready = asyncio.Event()   # joining calls back before `consumer()` has returned, and waits for the callbacks

        async def on_revoked(partitions: frozenset[Partition]) -> None:
            if ready.is_set():
                await self._guarded(self._revoked())

        async def on_assigned(partitions: frozenset[Partition]) -> None:
            async def later() -> None:
                await ready.wait()
                await self._guarded(self._assigned(partitions))

            if ready.is_set():
                await later()
            else:
                self._first_assignment = asyncio.create_task(later())

        self._consumer = await self._broker.consumer(
            self._stage.group, [topic.name for topic in self._stage.reads], on_revoked, on_assigned
        )
        if getattr(self._handler, "transactional", False):
            self._dispatcher.delivery = TransactionalDelivery(
                self._broker, self._stage.group, self._finished, self._lose, self._options.flush_interval_ms / 1000
            )
        else:
            self._dispatcher.delivery = PlainDelivery(self._producer, self._consumer, self._finished, self._lose)
        ready.set()

    # The loop --------------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        generation = self._generation
        poll_ms = min(self._options.poll_ms, PAUSED_POLL_MS) if self._paused else self._options.poll_ms
        batch = await self._consumer.poll(poll_ms, min(max(self._credits(), 1), self._options.poll_records_max))
        self._check_alive()
        self.turned_s = self._breathed_s = self._clock.monotonic_s()
        async with self._rebalancing:
            if self._failure:
                raise self._failure
            for partition, records in batch.items():
                progress = self._owned.get(partition)
                if self._suspended or generation != self._generation or progress is None:
                    # Polled for an assignment that is over: read again what this replica still owns.
                    if progress is not None:
                        self._consumer.seek(partition, progress.next)
                    continue
                metrics.RECORDS_IN.labels(stage=self._stage.name, topic=partition.topic).inc(len(records))
                for record in records:
                    await self._dispatcher.take(progress, record)
                    await self._breathe()
            await self._tend()

    async def _breathe(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._breathed_s >= BREATH_S:
            await asyncio.sleep(0)
            self._breathed_s = self._clock.monotonic_s()

    async def _tend(self) -> None:
        """Between two polls: back-pressure, commits, overdue holds, gauges."""
        self._balance()
        await self._dispatcher.look_again()
        now_s = self._clock.monotonic_s()
        if now_s < self._commit_due_s:
            return
        self._commit_due_s = now_s + self._options.commit_interval_ms / 1000
        await self._dispatcher.release_overdue()
        await self._dispatcher.shed_crowds()
        for partition, progress in list(self._owned.items()):
            if progress.span >= self._options.span_max:   # what would release it stands behind the pause
                await self._dispatcher.shed(partition, progress.low)
        if not self._suspended:
            await self._commit()
        self._measure()

    async def _commit(self) -> None:
        """A commit that fails costs a replay at worst: the next one carries the same marks."""
        try:
            await self._dispatcher.delivery.commit(self._owned)
        except FencedError as error:
            log.info("commit refused, a rebalance is on its way: %s", error)
        except BrokerUnavailableError as error:
            log.warning("could not commit, will try again: %s", error)

    def _credits(self) -> int:
        return self._options.in_flight_max - self._busy_records()

    def _busy_records(self) -> int:
        """Records in flight that can go on: parked and open ones have places of their own."""
        return self._dispatcher.in_flight - self._dispatcher.parking.total - self._dispatcher.open.total()

    def _balance(self) -> None:
        """Pause what is over a limit; resume when there is room for half of what may be in flight.

        Held records pause nothing, nor does what waits behind them: what they wait for stands further on in the same topic.
        """
        options = self._options
        roomy = self._busy_records() <= options.in_flight_max // 2
        parked, waiting = self._dispatcher.parking.by_topic, self._dispatcher.open
        self._full = full = self._credits() <= 0 or (self._full and not roomy)
        per_topic: dict[str, int] = {}
        for partition, progress in self._owned.items():
            per_topic[partition.topic] = per_topic.get(partition.topic, 0) + progress.unfinished
        pause, resume = [], []
        for partition, progress in self._owned.items():
            busy = per_topic[partition.topic] - parked[partition.topic] - waiting[partition.topic]
            crowded = bool(options.topic_in_flight_max) and busy >= options.topic_in_flight_max
            crowded = crowded or parked[partition.topic] >= options.parked_max
            if full or crowded or progress.span >= options.span_max:
                if partition not in self._paused:
                    pause.append(partition)
            elif partition in self._paused:
                resume.append(partition)
        if pause:
            self._consumer.pause(pause)
            self._paused.update(pause)
        if resume:
            self._consumer.resume(resume)
            self._paused.difference_update(resume)

    def _measure(self) -> None:
        name = self._stage.name
        self._dispatcher.publish_counts()
        metrics.IN_FLIGHT.labels(stage=name).set(self._dispatcher.in_flight)
        metrics.PAUSED_PARTITIONS.labels(stage=name).set(len(self._paused))
        for partition, progress in self._owned.items():
            high = self._consumer.high_water(partition)
            if high is not None:
                lag = metrics.LAG_RECORDS.labels(stage=name, topic=partition.topic, partition=partition.number)
                lag.set(max(high - progress.low, 0))
        oldest_ms = min((p.oldest_ms for p in self._owned.values() if p.oldest_ms is not None), default=None)
        lag_s = 0.0 if oldest_ms is None else (self._clock.now_ms() - oldest_ms) / 1000
        metrics.LAG_SECONDS.labels(stage=name).set(max(lag_s, 0.0))

    # Rebalances ------------------------------------------------------------------------------------------------------

    async def _guarded(self, step: Coroutine[Any, Any, None]) -> None:
        """The client swallows what its callbacks raise; the session must not."""
        try:
            await step
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._lose(error)

    async def _revoked(self) -> None:
        """Everything is given up for now: finish what can be finished soon, commit it, hand nothing new out."""
        async with self._rebalancing:
            self._suspended = True
            self._generation += 1
            self._dispatcher.holding_back = True
            await self._settle(self._options.revoke_drain_ms)
            await self._commit()

    async def _assigned(self, partitions: frozenset[Partition]) -> None:
        """Fence, then read positions, then seek, then count a generation: records polled before that are dropped."""
        async with self._rebalancing:
            await self._dispatcher.delivery.opened(partitions)
            committed = await self._consumer.committed(partitions)
            kept = {
                partition for partition, progress in self._owned.items()
                if partition in partitions and progress.unfinished
                and progress.committed is not None and progress.committed == committed[partition]
                and not getattr(self._handler, "transactional", False)
            }
            for partition in self._owned.keys() - kept:
                self._abandon(partition)
            for partition in partitions - kept:
                self._owned[partition] = Progress(committed[partition])
            for partition, progress in self._owned.items():
                self._consumer.seek(partition, progress.next)
            self._consumer.resume(self._paused)
            self._paused.clear()
            await self._handler.assigned(frozenset(p.number for p in partitions - kept))
            await self._dispatcher.resume()
            self._suspended = False
            self._generation += 1
            self.assigned = True
            metrics.REBALANCES.labels(stage=self._stage.name).inc()
            log.info("assigned", extra={"partitions": sorted(map(str, partitions)), "kept": len(kept)})

    def _abandon(self, partition: Partition) -> None:
        progress = self._owned.pop(partition)
        for task in progress.tasks:
            task.cancel()
        self._dispatcher.in_flight -= progress.unfinished
        progress.abandoned = True
        self._dispatcher.forget(partition)
        metrics.LAG_RECORDS.remove(self._stage.name, partition.topic, partition.number)   # its new owner says it now

    # Ends ------------------------------------------------------------------------------------------------------------

    def _finished(self, work: Work) -> None:
        for each in (work, *work.held):
            if not each.progress.abandoned:
                each.progress.finish(each.offset)
                self._dispatcher.in_flight -= 1
        if work.accepted_ms:
            age_s = (self._clock.now_ms() - work.accepted_ms) / 1000
            self._dispatcher.end_to_end.observe(max(age_s, 0.0))

    def _lose(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    async def _settle(self, limit_ms: int) -> None:
        """Wait until nothing runs and everything sent is acknowledged, at most `limit_ms`."""
        until_s = self._clock.monotonic_s() + limit_ms / 1000
        while self._busy() and self._failure is None and self._clock.monotonic_s() < until_s:
            await asyncio.sleep(0.005)

    def _busy(self) -> bool:
        running = self._dispatcher.running - self._dispatcher.parking.total
        return running > 0 or self._dispatcher.in_flight > self._dispatcher.parked

    async def _drain(self, limit_ms: int) -> None:
        """SIGTERM, or too many rejects: take nothing more, finish what runs, commit."""
        self._consumer.pause(list(self._owned))
        async with self._rebalancing:
            self._generation += 1
            self._dispatcher.holding_back = True
            await self._settle(limit_ms)
            left = self._dispatcher.in_flight
            log.info("drained", extra={"unfinished": left})
            await self._commit()

    async def _end(self) -> None:
        tasks = [task for progress in self._owned.values() for task in progress.tasks]
        for partition in list(self._owned):
            self._abandon(partition)
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self._dispatcher, "delivery"):
            await self._dispatcher.delivery.close()
        if hasattr(self, "_consumer"):
            await self._consumer.close()
        await self._producer.close()
