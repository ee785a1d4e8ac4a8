"""The books as part of the monitor's process on a real broker: the ledger is on `spend`, also across a kill."""

from statistics import median
from uuid import uuid4

from schemas.ledger import Attempt, AttemptPhase, Usage
from schemas.spend import SpendEntry
from schemas.topology import ATTEMPTS, SPEND
from shared.broker import Output
from shared.codec import encode
from shared.kafka import KafkaBroker
from shared.table import Table
from tests.integration.test_monitor_on_kafka import a_fleet, a_monitor, ready, until


async def called(producer, tenant, number, cost_microusd=100):
    line = Attempt(
        attempt_id=f"{tenant}-{number}", plan_id="p", request_id=f"r{number}", tenant=tenant, phase=AttemptPhase.FINISHED,
        model="small", backend="small-a", started_ms=1, cost_microusd=cost_microusd, usage=Usage(tokens_in=7, tokens_out=3),
    )  # fmt: skip
    await (await producer.send(Output(ATTEMPTS.name, line.request_id.encode(), encode(ATTEMPTS, line))))


async def test_the_ledger_is_on_spend_within_a_second_and_a_killed_monitor_counts_nothing_twice_and_misses_nothing(
    kafka, kafka_options
):
    broker, tenant = KafkaBroker(kafka_options), f"tenant-{uuid4().hex[:8]}"
    async with a_fleet(broker) as fleet:
        table: Table[SpendEntry] = Table(broker, SPEND)
        await table.start()
        producer = await broker.producer()

        def calls() -> int:
            return table.values.get(tenant, SpendEntry(account=tenant)).day.calls

        async with a_monitor(kafka.bootstrap, kill=True):
            await ready(fleet)
            await called(producer, tenant, 0)
            await until(lambda: calls() == 1, 10)
            took_s = []
            for number in range(1, 4):
                await called(producer, tenant, number)
                took_s.append(await until(lambda number=number: calls() == number + 1, 20))
            assert median(took_s) < 1.0, took_s
        for number in range(4, 30):      # while nobody looks
            await called(producer, tenant, number)
        async with a_monitor(kafka.bootstrap):
            await until(lambda: calls() >= 30, 40)
            await called(producer, tenant, 30)
            await until(lambda: calls() >= 31, 5)
        entry = table.values[tenant]
        assert (entry.day.calls, entry.day.microusd, entry.day.tokens_in) == (31, 3_100, 31 * 7)
        await table.close()
        await producer.close()
