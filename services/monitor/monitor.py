"""Folds batches of observations into the table of rings, and publishes the entries that are due.

Two callers, one state: the Faust agent calls `take`, which writes the table and nothing else; the ticker publishes and
never touches the table, because Faust allows writes in agents only.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from random import Random

from schemas.fleet import Observation
from schemas.messages import Reason
from schemas.topology import ALERTS, FLEET, OBSERVATIONS, stage_named
from services.monitor import gauges
from services.monitor.decide import Due, Watch
from shared import metrics
from shared.broker import Broker, Output, Record
from shared.clock import Clock
from shared.codec import decode
from shared.dead_letters import dead_letter
from shared.errors import BrokerUnavailableError, UndecodableError
from shared.outcome import Out, Reject
from shared.windows import Ring, fold
from shared.writer import Writer

log = logging.getLogger(__name__)

STAGE = stage_named("monitor")
TICK_S = 0.1
STUCK_S = 60.0

RawTable = MutableMapping[bytes, bytes]


class Monitor:
    """Between Faust, the watch and the log."""

    def __init__(self, watch: Watch, writer: Writer, clock: Clock, random: Random) -> None:
        self._watch = watch
        self._writer = writer
        self._clock = clock
        self._random = random
        self._stored: dict[str, bytes] = {}      # the bytes that each ring of the watch was last stored as
        self._folded = asyncio.Event()
        self.observations = 0                    # taken from the topic by this process
        self.ticked_s = clock.monotonic_s()

    def restore(self, table: Mapping[bytes, bytes]) -> None:
        """Take over the rings that Faust recovered. Raises ValueError for bytes that are not a ring's."""
        self._stored.clear()
        self._watch.rings.clear()
        for key in table:
            self._ring(table, key.decode())

    async def take(self, table: RawTable, records: Sequence[Record]) -> None:
        """Fold a batch, and write each ring it touched once. What cannot be decoded becomes a dead letter."""
        batch: dict[str, list[tuple[Observation, int]]] = defaultdict(list)
        for record in records:
            try:
                seen: Observation = decode(OBSERVATIONS, record.value)
                batch[seen.backend].append((seen, record.timestamp_ms))
            except UndecodableError as error:
                await self._reject(record, error)
        for backend, observed in batch.items():
            self._fold(table, backend, observed)
        self.observations += len(records)
        metrics.RECORDS_IN.labels(stage=STAGE.name, topic=OBSERVATIONS.name).inc(len(records))
        self._folded.set()

    def _fold(self, table: RawTable, backend: str, observed: Sequence[tuple[Observation, int]]) -> None:
        ring = self._ring(table, backend)
        late = ring.late
        new = sum(fold(ring, seen, logged_ms) for seen, logged_ms in observed)
        table[backend.encode()] = self._stored[backend] = ring.to_bytes()
        _count("emit", "", new)
        _count("emit", "late", ring.late - late)
        _count("drop", "replayed", len(observed) - new)

    def _ring(self, table: Mapping[bytes, bytes], backend: str) -> Ring:
        """The ring as the table holds it. It stays decoded for as long as those are the bytes it was stored as."""
        stored = table.get(backend.encode())
        ring = self._watch.rings.get(backend)
        if ring is None or stored is None or stored is not self._stored.get(backend):
            ring = self._watch.rings[backend] = Ring.from_bytes(stored) if stored is not None else Ring()
            if stored is not None:
                self._stored[backend] = stored
        return ring

    async def _reject(self, record: Record, error: UndecodableError) -> None:
        log.warning("dead letter: %s", error)
        _count("reject", Reason.UNDECODABLE.value, 1)
        letter = dead_letter(STAGE, record, Reject(Reason.UNDECODABLE, type(error).__name__), tries=1)
        with contextlib.suppress(BrokerUnavailableError):      # statistics: not worth holding the others up
            await self._writer.send_raw(letter)

    async def tick(
        self, ended: asyncio.Event, may_publish: Callable[[], bool], owns: Callable[[str], bool]
    ) -> None:
        """Judge and publish soon after each batch and at least every TICK_S, until ended."""
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._folded.wait(), TICK_S)
            self._folded.clear()
            self.ticked_s = self._clock.monotonic_s()
            if may_publish():
                await self.publish(owns)

    async def publish(self, owns: Callable[[str], bool]) -> None:
        """Send what is due, an entry before its alerts. While the broker is away it stays due."""
        for due in self._watch.look(self._clock.now_ms(), partial(self._random.uniform, -1, 1), owns):
            try:
                for output in self._outputs(due):
                    (await self._writer.send_raw(output)).add_done_callback(partial(self._acknowledged, due))
                gauges.show(due)
            except BrokerUnavailableError as error:
                self._lost(due, error)
        self._writer.publish_counts()

    def _outputs(self, due: Due) -> list[Output]:
        if due.entry is None:
            return [Output(FLEET.name, due.backend.encode(), None)]
        outs = [Out(FLEET, due.entry, key=due.backend), *(Out(ALERTS, told, key=told.subject) for told in due.alerts)]
        return [self._writer.output(out, ()) for out in outs]

    def _acknowledged(self, due: Due, sent: "asyncio.Future[object]") -> None:
        if sent.cancelled():
            self._watch.not_published(due)
        elif (error := sent.exception()) is not None:
            self._lost(due, error)

    def _lost(self, due: Due, error: BaseException) -> None:
        self._watch.not_published(due)
        log.warning("fleet: %s is not published yet: %s", due.backend, error, extra={"backend": due.backend})


def _count(outcome: str, reason: str, records: int) -> None:
    if records:
        metrics.OUTCOMES.labels(stage=STAGE.name, outcome=outcome, reason=reason).inc(records)


class Progress:
    """Liveness on progress: Faust can lose its agents and stay alive, so records that come and are not taken count."""

    def __init__(self, monitor: Monitor, clock: Clock) -> None:
        self._monitor = monitor
        self._clock = clock
        self._ends = -1
        self._taken = -1
        self._moved_s = clock.monotonic_s()

    async def watch(self, ended: asyncio.Event, broker: Broker) -> None:
        """Look at the ends of the topic now and then, until ended."""
        while not ended.is_set():
            try:
                reader = await broker.reader(OBSERVATIONS.name, at_end=True)
                try:
                    self.note(sum((await reader.ends()).values()))
                finally:
                    await reader.close()
            except BrokerUnavailableError:
                self._moved_s = self._clock.monotonic_s()     # a restart of the monitor brings no broker back
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), STUCK_S / 6)

    def note(self, ends: int) -> None:
        if ends == self._ends or self._monitor.observations != self._taken:
            self._moved_s = self._clock.monotonic_s()
        self._ends, self._taken = ends, self._monitor.observations

    def is_live(self) -> bool:
        now_s = self._clock.monotonic_s()
        return now_s - self._moved_s < STUCK_S and now_s - self._monitor.ticked_s < STUCK_S
