"""Tails the ledger and the verdicts, and keeps `spend`: one replica for the whole fleet, because an account is one sum.

It is the replica that owns partition 0 of the observations. What it knows is in the log: whoever takes over begins at the
offsets that the entries carry. Faust stands beside it, not in it: an event through Faust costs ten times a record read plainly.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

import orjson

from schemas.config import Tenant
from schemas.messages import Reason
from schemas.spend import SpendEntry
from schemas.topology import ALERTS, ATTEMPTS, SPEND, VERDICTS, Topic
from services.monitor.accounts import Accounts, Place
from services.monitor.monitor import STAGE
from shared import metrics
from shared.broker import Broker, Output, Reader, Record
from shared.clock import Clock
from shared.dispatch import dead_letter
from shared.errors import BrokerUnavailableError
from shared.outcome import Out, Reject
from shared.table import Table
from shared.writer import Writer

log = logging.getLogger(__name__)

POLL_MS = 500
PACE_S = 0.05
"""Between two polls of a topic: a wake-up costs as much as ten records."""

ROUND_S = 0.25
ROUND_SHARE_MAX = 0.1
"""Entries are published every ROUND_S, less often where making them would take more than this share of the time."""

RETRY_S = 1.0
STARTED = b'"phase":"started"'
"""Half of the ledger, and nothing is counted of it: not worth parsing. No text a user wrote can look like this in JSON."""


class Books:
    """One session after the other, for as long as `leads` says that this replica keeps the books."""

    def __init__(
        self,
        broker: Broker,
        writer: Writer,
        clock: Clock,
        tenants: Callable[[], Mapping[str, Tenant]],
        leads: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._writer = writer
        self._clock = clock
        self._tenants = tenants
        self._leads = leads

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
        accounts = Accounts(self._tenants, (await self._entries()).values())
        folds: dict[Topic, Callable[[Place, bytes], None]] = {
            ATTEMPTS: lambda place, value: _attempt(accounts, place, value),
            VERDICTS: lambda place, value: _verdict(accounts, place, value),
        }
        tasks = [asyncio.create_task(self._follow(topic, fold, accounts, ended)) for topic, fold in folds.items()]
        tasks.append(asyncio.create_task(self._publish(accounts, ended)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _entries(self) -> Mapping[str, SpendEntry]:
        table: Table[SpendEntry] = Table(self._broker, SPEND)
        await table.start()
        await table.close()
        return table.values

    async def _follow(
        self, topic: Topic, fold: Callable[[Place, bytes], None], accounts: Accounts, ended: asyncio.Event
    ) -> None:
        reader = await self._open(topic, accounts)
        try:
            while self._leads() and not ended.is_set():
                records = await reader.poll(POLL_MS)
                await self._take(topic, fold, records)
                await asyncio.sleep(PACE_S)
        finally:
            await reader.close()

    async def _open(self, topic: Topic, accounts: Accounts) -> Reader:
        """Where the accounts left off. A log that ends before that was made again, and counts from its beginning."""
        named = {source.rpartition("/"): offset for source, offset in accounts.offsets.items()}
        starts = {int(number): offset for (name, _, number), offset in named.items() if name == topic.name}
        reader = await self._broker.reader(topic.name, starts=starts)
        for partition in await reader.ends():
            if await reader.position(partition) < starts.get(partition.number, 0):
                accounts.begins_anew(f"{topic.name}/{partition.number}")
        return reader

    async def _take(self, topic: Topic, fold: Callable[[Place, bytes], None], records: Sequence[Record]) -> None:
        for record in records:
            place = Place(f"{record.topic}/{record.partition}", record.offset, record.timestamp_ms)
            try:
                fold(place, record.value or b"")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                await self._reject(record, error)
        if records:
            metrics.RECORDS_IN.labels(stage=STAGE.name, topic=topic.name).inc(len(records))

    async def _reject(self, record: Record, error: Exception) -> None:
        """A line that cannot be read counts for nobody. A verdict's dead letter is its deliverer's to write."""
        metrics.OUTCOMES.labels(stage=STAGE.name, outcome="reject", reason=Reason.UNDECODABLE.value).inc()
        if record.topic != VERDICTS.name:
            log.warning("dead letter: %s: %s", record.topic, type(error).__name__)
            await self._writer.send_raw(dead_letter(STAGE, record, Reject(Reason.UNDECODABLE, type(error).__name__), tries=1))

    async def _publish(self, accounts: Accounts, ended: asyncio.Event) -> None:
        """Rounds of entries: the next one begins when the log has all of the last, so that `*` never promises too much."""
        while self._leads() and not ended.is_set():
            began_s = self._clock.monotonic_s()
            sent = [await self._writer.send_raw(output) for output in self._outputs(accounts)]
            took_s = self._clock.monotonic_s() - began_s
            for acknowledged in sent:
                await acknowledged
            await asyncio.sleep(max(ROUND_S, took_s / ROUND_SHARE_MAX))

    def _outputs(self, accounts: Accounts) -> list[Output]:
        outs: list[Out] = []
        for due in accounts.due(self._clock.now_ms()):
            outs.append(Out(SPEND, due.entry, key=due.entry.account))
            outs += [Out(ALERTS, alert, key=alert.subject) for alert in due.alerts]
        return [self._writer.output(out, ()) for out in outs]


def _attempt(accounts: Accounts, place: Place, value: bytes) -> None:
    if STARTED in value:
        accounts.passed(place)
    else:
        accounts.attempt(place, orjson.loads(value))


def _verdict(accounts: Accounts, place: Place, value: bytes) -> None:
    envelope = orjson.loads(value)
    accounts.verdict(place, envelope["tenant"], envelope["payload"].get("cost_microusd", 0))
