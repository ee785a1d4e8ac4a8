"""Tails the ledger, the verdicts and the feedback, and keeps `spend` and `quality`: one replica for the whole fleet, because an
account is one sum.

It is the replica that owns partition 0 of the observations. What it knows is in the log: whoever takes over begins at the
offsets that the entries carry. Faust stands beside it, not in it: an event through Faust costs ten times a record read plainly.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from schemas.fleet import Alert
from schemas.messages import Reason
from schemas.quality import Feedback, Judge, QualityEntry
from schemas.spend import SpendEntry
from schemas.topology import ALERTS, ATTEMPTS, FEEDBACK, QUALITY, SPEND, VERDICTS, Topic
from services.monitor.accounts import TOTAL, Accounts, Place
from services.monitor.lessons import UNKNOWN, Lessons
from services.monitor.monitor import STAGE
from services.monitor.recall import Recall
from shared import metrics
from shared.broker import Broker, Output, Reader, Record
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.codec import decode
from shared.dead_letters import dead_letter
from shared.errors import BrokerUnavailableError, UndecodableError
from shared.outcome import Out, Reject
from shared.quality import key_of
from shared.table import Table
from shared.writer import Writer

log = logging.getLogger(__name__)

POLL_MS = 500
PACE_S = 0.2
"""Between two polls of a topic: a wake-up costs as much as ten records."""
GATHER_MS = 200
"""So does an answer of the broker, here and there: without it each record came in one of its own."""

ROUND_S = 0.25
ROUND_SHARE_MAX = 0.1
"""Entries are published every ROUND_S, less often where making them would take more than this share of the time."""

RETRY_S = 1.0
PRIOR_UNKNOWN = 0.5
REMEMBERED_BEFORE = 8_000
"""Verdicts of each partition that a new keeper reads again, so that feedback finds the requests of the last while."""

STARTED = b'"phase":"started"'
"""Half of the ledger, and nothing is counted of it: not worth parsing. No text a user wrote can look like this in JSON."""

Fold = Callable[[Place, bytes], Awaitable[None] | None]


class Books:
    """One session after the other, for as long as `leads` says that this replica keeps the books."""

    def __init__(
        self,
        broker: Broker,
        writer: Writer,
        clock: Clock,
        catalogue: Callable[[], Catalogue],
        leads: Callable[[], bool],
        remembered_before: int = REMEMBERED_BEFORE,
    ) -> None:
        self._broker = broker
        self._writer = writer
        self._clock = clock
        self._catalogue = catalogue
        self._leads = leads
        self._remembered_before = remembered_before

    async def keep(self, ended: asyncio.Event) -> None:
        """Until ended. A broker that is away ends a session; the next one begins where the log says."""
        while not ended.is_set():
            if self._leads():
                try:
                    await self._session(ended)
                except BrokerUnavailableError as error:
                    log.warning("the books wait for the broker: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), RETRY_S)

    async def _session(self, ended: asyncio.Event) -> None:
        spend: Mapping[str, SpendEntry] = await self._read(SPEND)
        quality: Mapping[str, QualityEntry] = await self._read(QUALITY)
        starts = dict(spend[TOTAL].offsets) if TOTAL in spend else {}
        readers: dict[Topic, Reader] = {}
        try:
            for topic in (ATTEMPTS, VERDICTS, FEEDBACK):
                readers[topic], anew = await self._open(topic, starts)
                spend = {name: _without(entry, "offsets", anew) for name, entry in spend.items()}
                quality = {key: _without(entry, "counted", anew) for key, entry in quality.items()}
            accounts = Accounts(lambda: self._catalogue().tenants, spend.values())
            await self._run(accounts, Lessons(self._prior, quality), readers, ended)
        finally:
            await asyncio.gather(*(reader.close() for reader in readers.values()))

    async def _run(
        self, accounts: Accounts, lessons: Lessons, readers: Mapping[Topic, Reader], ended: asyncio.Event
    ) -> None:
        recall = Recall(self._broker, self._clock)
        folds: dict[Topic, Fold] = {
            ATTEMPTS: lambda place, value: _attempt(accounts, place, value),
            VERDICTS: lambda place, value: _verdict(accounts, lessons, place, value),
            FEEDBACK: lambda place, value: _feedback(accounts, lessons, recall, place, value, self._has_cascades()),
        }
        tasks = [asyncio.create_task(self._follow(topic, reader, folds[topic], ended)) for topic, reader in readers.items()]
        tasks.append(asyncio.create_task(self._publish(accounts, lessons, ended)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def _has_cascades(self) -> bool:
        """Only they read the words of answers."""
        return any(policy.cascade for policy in self._catalogue().policies.values())

    def _prior(self, model: str) -> float:
        known = self._catalogue().models.get(model)
        return known.quality if known else PRIOR_UNKNOWN

    async def _read(self, topic: Topic) -> Mapping[str, Any]:
        """A compacted topic as it is now."""
        table: Table[Any] = Table(self._broker, topic)
        await table.start()
        await table.close()
        return table.values

    async def _open(self, topic: Topic, offsets: Mapping[str, int]) -> tuple[Reader, set[str]]:
        """A reader where the entries left off, and the sources that were made again since: they count from their beginning."""
        named = {tuple(source.rsplit("/", 1)): offset for source, offset in offsets.items()}
        wanted = {int(number): offset for (name, number), offset in named.items() if name == topic.name}
        back = self._remembered_before if topic is VERDICTS else 0
        starts = {number: max(offset - back, 0) for number, offset in wanted.items()}
        reader = await self._broker.reader(topic.name, starts=starts, gather_ms=GATHER_MS)
        ends = {partition.number: end for partition, end in (await reader.ends()).items()}
        return reader, {f"{topic.name}/{number}" for number, offset in wanted.items() if offset > ends.get(number, 0)}

    async def _follow(self, topic: Topic, reader: Reader, fold: Fold, ended: asyncio.Event) -> None:
        while self._leads() and not ended.is_set():
            records = await reader.poll(POLL_MS)
            for record in records:
                await self._take(record, fold)
            if records:
                metrics.RECORDS_IN.labels(stage=STAGE.name, topic=topic.name).inc(len(records))
            await asyncio.sleep(PACE_S)

    async def _take(self, record: Record, fold: Fold) -> None:
        place = Place(f"{record.topic}/{record.partition}", record.offset, record.timestamp_ms)
        try:
            waits = fold(place, record.value or b"")
            if waits is not None:
                await waits
        except (UndecodableError, ValueError, KeyError, TypeError, AttributeError) as error:
            await self._reject(record, error)

    async def _reject(self, record: Record, error: Exception) -> None:
        """What cannot be read counts for nobody. A verdict's dead letter is its deliverer's to write."""
        metrics.OUTCOMES.labels(stage=STAGE.name, outcome="reject", reason=Reason.UNDECODABLE.value).inc()
        if record.topic != VERDICTS.name:
            log.warning("dead letter: %s: %s", record.topic, type(error).__name__)
            await self._writer.send_raw(dead_letter(STAGE, record, Reject(Reason.UNDECODABLE, type(error).__name__), tries=1))

    async def _publish(self, accounts: Accounts, lessons: Lessons, ended: asyncio.Event) -> None:
        """Rounds of entries: the next one begins when the log has all of the last, so that `*` never promises too much."""
        while self._leads() and not ended.is_set():
            began_s = self._clock.monotonic_s()
            sent = [await self._writer.send_raw(output) for output in self._round(accounts, lessons)]
            took_s = self._clock.monotonic_s() - began_s
            for acknowledged in sent:
                await acknowledged
            await asyncio.sleep(max(ROUND_S, took_s / ROUND_SHARE_MAX))

    def _round(self, accounts: Accounts, lessons: Lessons) -> list[Output]:
        """What was learned first: the last entry of all promises that everything up to its offsets is in the log."""
        now_ms = self._clock.now_ms()
        outs = [Out(QUALITY, entry, key=key_of(entry.model, entry.domain)) for entry in lessons.due(now_ms)]
        alerts: list[Alert] = []
        for due in accounts.due(now_ms):
            alerts += due.alerts
            outs.append(Out(SPEND, due.entry, key=due.entry.account))
        outs += [Out(ALERTS, alert, key=alert.subject) for alert in alerts]
        return [self._writer.output(out, ()) for out in outs]


def _without(entry: Any, field: str, sources: set[str]) -> Any:
    """An entry that counts nothing of some sources; the same one if there are none."""
    if not sources:
        return entry
    kept = {source: offset for source, offset in getattr(entry, field).items() if source not in sources}
    return entry.model_copy(update={field: kept})


def _attempt(accounts: Accounts, place: Place, value: bytes) -> None:
    if STARTED in value:
        accounts.passed(place)
    else:
        accounts.attempt(place, orjson.loads(value))


def _verdict(accounts: Accounts, lessons: Lessons, place: Place, value: bytes) -> None:
    envelope = orjson.loads(value)
    lessons.verdict(place, envelope)
    accounts.verdict(place, envelope["tenant"], envelope["payload"].get("cost_microusd", 0))


async def _feedback(
    accounts: Accounts, lessons: Lessons, recall: Recall, place: Place, value: bytes, with_answers: bool
) -> None:
    said: Feedback = decode(FEEDBACK, value)
    answered = lessons.recall(said.request_id)
    if answered is None and (answered := await recall.answered(said)) is not None:
        lessons.remember(said.request_id, answered)
    has_read = answered is not None and said.judge is not Judge.GATE      # checks know the form of an answer, not its words
    sketches = await recall.sketches_of(said.request_id, answered, with_answers) if answered and has_read else UNKNOWN
    dropped = lessons.feedback(place, said, answered, sketches)
    metrics.OUTCOMES.labels(stage=STAGE.name, outcome="drop" if dropped else "emit", reason=dropped).inc()
    accounts.passed(place, is_told=True)
