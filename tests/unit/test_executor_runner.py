"""The executor as the runner runs it, on the broker in memory: plans in, ledger and completions out, and a crash."""

import asyncio
from collections import Counter
from typing import Any

import httpx2

from schemas.envelope import Header
from schemas.ledger import AttemptPhase, FailureClass
from schemas.topology import ATTEMPTS, COMPLETIONS, TOPICS, stage_named, topic_spec
from shared import ids
from shared.broker import Output
from shared.clock import SystemClock
from shared.codec import decode, encode, headers_for
from shared.local import LocalBroker
from shared.session import RunnerOptions
from shared.stage import Runner
from tests.support.builders_executor import LANE, Bench, Script, a_bench, an_envelope, ok, until

OPTIONS = RunnerOptions(poll_ms=10, commit_interval_ms=10, session_timeout_ms=60_000, drain_ms=2_000)


def run(bench: Bench, stop: asyncio.Event) -> "asyncio.Task[None]":
    runner = Runner(stage_named("executor"), bench.executor, bench.broker, OPTIONS, bench.clock)
    return asyncio.create_task(runner.run(stop))


async def feed(broker: LocalBroker, *requests: str) -> None:
    producer = await broker.producer()
    for request in requests:
        now_ms = SystemClock().now_ms()
        envelope = an_envelope(request=request, accepted_ms=now_ms, deadline_ms=now_ms + 20_000)
        headers = headers_for(LANE, "router", envelope)
        await (await producer.send(Output(LANE.name, request.encode(), encode(LANE, envelope), headers)))


def log_of(broker: LocalBroker, topic: Any) -> list[Any]:
    return [decode(topic, record.value) for partition in broker.logs[topic.name] for record in partition]


async def test_plans_become_completions_with_their_attempts_on_the_same_partition() -> None:
    script = Script(ok())
    bench = await a_bench(script, clock=SystemClock(), partitions=3)
    requests = [f"r{number}" for number in range(20)]
    await feed(bench.broker, *requests)
    stop = asyncio.Event()
    running = run(bench, stop)
    await until(lambda: len(log_of(bench.broker, COMPLETIONS)) == 20)
    stop.set()
    await running
    assert {envelope.request_id for envelope in log_of(bench.broker, COMPLETIONS)} == set(requests)
    for number in range(3):
        plans, attempts, completions = (
            {record.header(Header.SUBJECT) for record in bench.broker.logs[topic.name][number]}
            for topic in (LANE, ATTEMPTS, COMPLETIONS)
        )
        assert plans == attempts == completions
    phases = [attempt.phase for attempt in log_of(bench.broker, ATTEMPTS)]
    assert phases.count(AttemptPhase.STARTED) == phases.count(AttemptPhase.FINISHED) == 20


async def test_a_killed_executors_plans_are_finished_by_its_successor_and_no_completed_one_is_called_again() -> None:
    async def forever(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        return ok()

    script = Script(ok(), ok(), forever)
    first = await a_bench(script, clock=SystemClock(), partitions=3)
    running = run(first, asyncio.Event())
    await feed(first.broker, "r0")
    await until(lambda: len(log_of(first.broker, COMPLETIONS)) == 1)
    await feed(first.broker, "r1")
    await until(lambda: len(log_of(first.broker, COMPLETIONS)) == 2)
    await feed(first.broker, "r2")
    await until(lambda: len(script.requests) == 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    first.broker.groups.clear()   # its progress was never committed: every plan comes again

    script.reactions = [ok()]
    successor = await a_bench(script, clock=SystemClock(), broker=first.broker, instance="0badcafe")
    stop = asyncio.Event()
    running = run(successor, stop)
    await until(lambda: len(log_of(first.broker, COMPLETIONS)) == 3)
    stop.set()
    await running
    assert len(script.requests) == 4
    closed = [attempt for attempt in log_of(first.broker, ATTEMPTS) if attempt.failure is FailureClass.ORPHANED]
    assert [(attempt.request_id, attempt.cost_known) for attempt in closed] == [("r2", False)]
    ids_of_r2 = {attempt.attempt_id for attempt in log_of(first.broker, ATTEMPTS) if attempt.request_id == "r2"}
    assert ids_of_r2 == {ids.attempt_id("r2/plan/0", 0, "feedc0de"), ids.attempt_id("r2/plan/0", 1, "0badcafe")}


async def test_plans_that_waited_while_partitions_grew_have_their_attempts_closed_by_a_successor() -> None:
    async def forever(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        return ok()

    script = Script(*[forever] * 10, ok())
    first = await a_bench(script, clock=SystemClock(), partitions=3)
    await feed(first.broker, *(f"r{number}" for number in range(10)))
    await first.broker.create_topics([topic_spec(topic, 6) for topic in TOPICS])
    running = run(first, asyncio.Event())
    await until(lambda: len(script.requests) == 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    successor = await a_bench(script, clock=SystemClock(), broker=first.broker, instance="0badcafe")
    stop = asyncio.Event()
    running = run(successor, stop)
    await until(lambda: len(log_of(first.broker, COMPLETIONS)) == 10)
    stop.set()
    await running
    lines = log_of(first.broker, ATTEMPTS)
    started, finished = (Counter(line.attempt_id for line in lines if line.phase is phase) for phase in AttemptPhase)
    assert started == finished
    assert len(started) == 20
