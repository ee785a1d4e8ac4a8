"""How long what is accepted now will wait on its way: what stands before it in every topic, at the pace of the last seconds.

Without it a queue longer than the deadlines never gets shorter: every stage is busy with requests that nobody waits for any
more, each of which costs nearly as much as one that is answered, and a model is paid for answers that come just too late.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from itertools import pairwise

from schemas.messages import Lane
from schemas.topology import COMPLETIONS, PLANS, REQUESTS, TASKS, VERDICTS, stage_named
from shared import metrics
from shared.broker import Broker, Partition, Positions
from shared.clock import Clock
from shared.errors import BrokerUnavailableError, FencedError
from shared.progress import reached

log = logging.getLogger(__name__)

LOOK_S = 0.5
LOOK_EACH = 100
"""Requests that make another look worth its six questions to the broker. Where anybody would wait, every half second is."""

REOPEN_PAUSE_S = 5.0
WINDOW_S = 5.0
"""Long enough for a pace (groups commit five times a second), short enough to follow one that changes."""

PACED_S = 1.0
"""Nothing is said about a pace that was watched for less."""

BEHIND = 1_000
"""So many plans are work in progress, not a queue: one executor has them in flight at once, for as long as models take. And only
readers that are behind show how fast they can be; others are as fast as requests come, which says nothing about a burst."""

KEPT_S = 30.0
"""For so long their pace is taken for granted once they are not behind any more. Were it forgotten with the queue, a flood that
lasts would come in unseen for as long as it takes to find it out again, more than can be answered in time."""

QUEUED = 10
"""The same where nothing is waited for but the stage itself."""

_PATH = {"preprocessing": (REQUESTS,), "router": (TASKS,), "executor": tuple(PLANS.values()),
         "quality-gate": (COMPLETIONS,), "output": (VERDICTS,)}
_TOPICS = tuple(topic for topics in _PATH.values() for topic in topics)


class Lag:
    """How far the readers of one topic are behind, and how fast they go. Pure."""

    def __init__(self, in_progress: int = QUEUED) -> None:
        """Fewer records than `in_progress` are no queue."""
        self._in_progress = in_progress
        self._looks: deque[tuple[float, Mapping[Partition, int]]] = deque()
        self._kept_s, self._kept_pace_s = 0.0, 0.0
        self.ahead = 0
        self.pace_s = 0.0
        """Records a second. 0 when that is not known, or nothing moves: an outage may end at any moment."""
        self.pace_behind_s = 0.0
        """The same of readers that are behind, or were lately: as fast as they can be."""

    def note(self, now_s: float, passed: Mapping[Partition, int], ends: Mapping[Partition, int]) -> None:
        """`passed`: the offsets that were reached. A partition on which the group never committed has nothing to wait for."""
        self.ahead = sum(max(ends.get(partition, offset) - offset, 0) for partition, offset in passed.items())
        measured_s = self._measured_s(now_s, passed)
        if self.ahead >= BEHIND and measured_s is not None:
            self._keep(now_s, measured_s)
            self.pace_behind_s = measured_s
        else:
            self.pace_behind_s = self._kept_pace_s if now_s - self._kept_s < KEPT_S else 0.0
        self.pace_s = self.pace_behind_s if measured_s is None else measured_s

    def _measured_s(self, now_s: float, passed: Mapping[Partition, int]) -> float | None:
        """Over the looks of the last seconds while there was a queue; None: those were too few."""
        if self.ahead < self._in_progress:
            self._looks.clear()
            return None
        self._looks.append((now_s, passed))
        while now_s - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        from_s, before = self._looks[0]
        if now_s - from_s < PACED_S:
            return None
        moved = sum(offset - before[partition] for partition, offset in passed.items() if partition in before)
        return max(moved, 0) / (now_s - from_s)

    def _keep(self, now_s: float, pace_s: float) -> None:
        """Readers that stood still for one of these looks can do more than they did."""
        stood_still = any(before == after for (_, before), (_, after) in pairwise(self._looks))
        self._kept_s, self._kept_pace_s = now_s, 0.0 if stood_still else pace_s

    @property
    def wait_s(self) -> float:
        """Until the readers come to what is written now; 0 when that is not known."""
        return self.ahead / self.pace_s if self.pace_s and self.ahead >= self._in_progress else 0.0


class Queue:
    """What stands before a new request of one lane, when it was last looked at. Pure."""

    def __init__(self, lags: "tuple[Lag, ...]" = ()) -> None:
        self._wait_s = sum(lag.wait_s for lag in lags)
        self._each_s = max((1 / lag.pace_behind_s for lag in lags if lag.pace_behind_s), default=0.0)

    def wait_s(self, joined: int = 0) -> float:
        """Seconds until a new request has passed, as far as that is known. `joined`: how many came since the look."""
        return self._wait_s + joined * self._each_s


class Lags:
    """Looks at the groups of all stages while requests are coming in."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._lags: dict[str, Lag] = {}
        self._queues: dict[str, Queue] = {lane: Queue() for lane in Lane}
        self._joined: dict[str, int] = dict.fromkeys(Lane, 0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wait_s(self, lane: str) -> float:
        """Seconds that a request of the lane would wait if it were accepted now; 0 when that is not known."""
        return self._queues[lane].wait_s(self._joined[lane])

    def joined(self, lane: str) -> None:
        """One more was accepted here."""
        self._joined[lane] += 1

    async def _watch(self) -> None:
        """A broker that cannot say is no reason to refuse anybody."""
        while True:
            try:
                await self._look_on()
            except (BrokerUnavailableError, FencedError) as error:
                log.warning("how far the stages are behind is not known for now: %s", error)
            except Exception:   # whatever it is: a wait that nobody looks at any more would refuse requests for ever
                log.exception("looking at the stages failed; nobody is refused until it works again")
            self._forget()
            await asyncio.sleep(REOPEN_PAUSE_S)

    async def _look_on(self) -> None:
        positions = await self._broker.positions(topic.name for topic in _TOPICS)
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                if sum(self._joined.values()) >= LOOK_EACH or any(queue.wait_s(1) for queue in self._queues.values()):
                    await self.look(positions)
        finally:
            await positions.close()

    async def look(self, positions: Positions) -> None:
        """One look at all groups."""
        joined, ends = dict(self._joined), await positions.ends()
        for stage, topics in _PATH.items():
            committed = await positions.committed(stage_named(stage).group, [topic.name for topic in topics])
            passed = {partition: reached(commit) for partition, commit in committed.items()}
            for topic in topics:
                of_topic = {partition: offset for partition, offset in passed.items() if partition.topic == topic.name}
                lag = self._lags.setdefault(topic.name, Lag(BEHIND if stage == "executor" else QUEUED))
                lag.note(self._clock.monotonic_s(), of_topic, ends)
        for lane in Lane:
            on_path = (REQUESTS, TASKS, PLANS[lane], COMPLETIONS, VERDICTS)
            self._queues[lane] = Queue(tuple(self._lags[topic.name] for topic in on_path))
            self._joined[lane] -= joined[lane]
            metrics.WAIT_SECONDS.labels(lane=lane.value).set(self._queues[lane].wait_s())

    def _forget(self) -> None:
        self._lags.clear()
        self._queues = {lane: Queue() for lane in Lane}
        self._joined = dict.fromkeys(Lane, 0)
        for lane in Lane:
            metrics.WAIT_SECONDS.labels(lane=lane.value).set(0)
