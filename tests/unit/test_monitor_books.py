"""The books on a broker in memory: what is on the ledger is on `spend`, whoever keeps them and however often."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

from schemas.config import Tenant
from schemas.ledger import Attempt, AttemptPhase, Usage
from schemas.messages import Status, Verdict
from schemas.spend import SpendEntry
from schemas.topology import ALERTS, ATTEMPTS, DEAD_LETTERS, SPEND, VERDICTS, topic_spec
from services.monitor.accounts import TOTAL
from services.monitor.books import Books
from services.monitor.monitor import STAGE
from shared.broker import Output
from shared.codec import decode, encode
from shared.local import LocalBroker
from shared.table import Table
from shared.writer import Writer
from tests.support.builders import an_envelope
from tests.support.virtual import LoopClock, VirtualLoop

TENANTS = {"acme": Tenant(budget_usd_per_day=Decimal("0.001"))}


def run(main):
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def a_broker():
    broker = LocalBroker(LoopClock())
    await broker.create_topics([topic_spec(topic) for topic in (ATTEMPTS, VERDICTS, SPEND, ALERTS, DEAD_LETTERS)])
    return broker


@asynccontextmanager
async def kept(broker, leads=lambda: True):
    ended = asyncio.Event()
    books = Books(broker, Writer(STAGE, await broker.producer()), LoopClock(), lambda: TENANTS, leads)
    keeping = asyncio.create_task(books.keep(ended))
    yield
    ended.set()
    await asyncio.wait_for(keeping, 10)


async def call(broker, number, cost=100, tenant="acme"):
    producer = await broker.producer()
    started = Attempt(
        attempt_id=f"a{number}", plan_id="p", request_id=f"r{number}", tenant=tenant, phase=AttemptPhase.STARTED,
        model="small", backend="small-a", started_ms=1, cost_max_microusd=9_999,
    )  # fmt: skip
    finished = started.model_copy(
        update={"phase": AttemptPhase.FINISHED, "cost_microusd": cost, "usage": Usage(tokens_in=3, tokens_out=2)}
    )
    for line in (started, finished):
        await (await producer.send(Output(ATTEMPTS.name, line.request_id.encode(), encode(ATTEMPTS, line))))
    verdict = an_envelope(Verdict(status=Status.DELIVERED, cost_microusd=cost, decided_ms=1), tenant=tenant)
    await (await producer.send(Output(VERDICTS.name, line.request_id.encode(), encode(VERDICTS, verdict))))


async def entry(broker, name="acme"):
    table: Table[SpendEntry] = Table(broker, SPEND)
    await table.start()
    await table.close()
    return table.values.get(name)


async def values(broker, topic):
    reader = await broker.reader(topic.name)
    return [record.value for record in await reader.poll(1)]


def test_calls_and_verdicts_show_in_the_account_within_half_a_second():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await call(broker, 2, cost=40, tenant="beta")
            await asyncio.sleep(0.5)
            acme, total = await entry(broker), await entry(broker, TOTAL)
        assert (acme.day.microusd, acme.day.calls, acme.request_microusd) == (100, 1, 100)
        assert (total.day.microusd, total.day.tokens_in) == (140, 6)

    run(main)


def test_whoever_takes_over_goes_on_where_the_entries_say():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
        await call(broker, 2)                 # while nobody looks
        async with kept(broker):
            await asyncio.sleep(0.5)
            await call(broker, 3)
            await asyncio.sleep(0.5)
        async with kept(broker):
            await asyncio.sleep(2)
        assert (await entry(broker)).day.calls == 3
        assert (await entry(broker, TOTAL)).day.microusd == 300

    run(main)


def test_a_replica_that_does_not_lead_writes_nothing_and_begins_when_it_does():
    async def main():
        broker = await a_broker()
        leads = False
        async with kept(broker, lambda: leads):
            await call(broker, 1)
            await asyncio.sleep(3)
            assert await entry(broker) is None
            leads = True
            await asyncio.sleep(2)
            assert (await entry(broker)).day.calls == 1

    run(main)


def test_a_line_that_cannot_be_read_becomes_a_dead_letter_and_the_others_count():
    async def main():
        broker = await a_broker()
        producer = await broker.producer()
        for poison in (b"\xff{ not json", b'{"phase":"finished"}', b"[1]"):
            await (await producer.send(Output(ATTEMPTS.name, b"k", poison)))
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
            assert (await entry(broker)).day.calls == 1
        assert len(await values(broker, DEAD_LETTERS)) == 3

    run(main)


def test_a_broker_that_goes_away_costs_nothing_but_time():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
            broker.unavailable = True
            await asyncio.sleep(3)
            broker.unavailable = False
            await call(broker, 2)
            await asyncio.sleep(3)
            assert (await entry(broker)).day.calls == 2

    run(main)


def test_operators_hear_of_a_budget_that_is_spent():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1, cost=850)
            await asyncio.sleep(0.5)
            await call(broker, 2, cost=200)
            await asyncio.sleep(0.5)
        told = [decode(ALERTS, value) for value in await values(broker, ALERTS)]
        assert [alert.alert_id.rpartition("/")[2] for alert in told] == ["80", "100"]

    run(main)
