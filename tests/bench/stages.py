"""What one record costs in each stage, alone: decode, handle and encode in microseconds, at prompts of 1, 10 and 100 KB.

One request goes through all stages in this process, each fed with the bytes that the stage before it made. No Kafka and no
HTTP call: the executor's provider answers out of memory. The monitor is not here: it sees a few records a second, whatever
the prompts are.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from inspect import isawaitable
from itertools import pairwise
from statistics import median
from time import perf_counter_ns
from typing import Any

import httpx2
import orjson

from schemas.config import Backend, Model, Policy, Prices, Tenant
from schemas.fleet import FleetEntry, Window
from schemas.topology import INTAKE, RESULTS, TOPICS, Topic, stage_named, topic_named, topic_spec
from services.executor.main import Executor
from services.intake.main import Intake
from services.output.main import Output as OutputStage
from services.preprocessing.main import Preprocessing
from services.quality_gate.main import QualityGate
from services.router.main import Router
from shared.broker import Headers, Record
from shared.catalogue import Catalogue
from shared.clock import SystemClock
from shared.codec import decode, encode, headers_for
from shared.config import Settings
from shared.handler import Context, Handler
from shared.local import LocalBroker
from shared.outcome import Drop, Out, Outcome
from shared.service import World
from tests.bench.report import rounded
from tests.bench.system import MODEL, QUESTION, SYSTEM_TEXT, TENANT

SIZES_KB = (1, 10, 100)
RECORDS = {1: 200, 10: 100, 100: 25}   # per round: enough to time, few enough to fit the caches as in life
WARM_ROUNDS = 2
MODELS_COUNT = 20
ANSWER = orjson.dumps({
    "id": "chatcmpl-1",
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "17 * 23 = 391"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 250, "completion_tokens": 4},
})
PARTS = ("decode_us", "handle_us", "encode_us")


class Instant(httpx2.AsyncBaseTransport):
    """A provider without a wire."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=ANSWER, request=request)


class Ledger:
    """Encodes what is written beside an outcome, as the runner's does, and forgets it."""

    async def write(self, out: Out, trace: Headers, record: Record) -> None:
        _bytes_of("executor", out, trace)

    async def send(self, out: Out, trace: Headers, record: Record) -> "asyncio.Future[object]":
        await self.write(out, trace, record)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


@dataclass
class Line:
    """All stages in the order of a request's path."""

    handlers: dict[str, Handler]
    offset: int = 0

    async def through(self, size_kb: int) -> dict[str, dict[str, float]]:
        """A batch of new requests, stage by stage: microseconds per record of each part."""
        topic, values = INTAKE, [_request(size_kb)] * RECORDS[size_kb]
        costs: dict[str, dict[str, float]] = {}
        for stage, handler in self.handlers.items():
            costs[stage], topic, values = await self._stage(stage, handler, topic, values)
        assert topic is RESULTS, f"the path ended on {topic.name}: a request failed on its way"
        return costs

    async def _stage(
        self, stage: str, handler: Handler, topic: Topic, values: Sequence[bytes]
    ) -> tuple[dict[str, float], Topic, list[bytes]]:
        is_raw, now_ms = getattr(handler, "raw", False), SystemClock().now_ms()
        records = [Record(topic.name, 0, self.offset + place, now_ms, b"k", value) for place, value in enumerate(values)]
        self.offset += len(records)
        contexts = [Context(record, (), Ledger(), lambda: None) for record in records]
        times = [perf_counter_ns()]
        decoded = records if is_raw else [decode(topic, record.value) for record in records]
        times.append(perf_counter_ns())
        outcomes = [await _handled(handler, each, context) for each, context in zip(decoded, contexts, strict=True)]
        times.append(perf_counter_ns())
        written = [_bytes_of(stage, out) for outcome in outcomes for out in _outputs(outcome)]
        times.append(perf_counter_ns())
        parts = (later - earlier for earlier, later in pairwise(times))
        costs = {name: part / len(records) / 1000 for name, part in zip(PARTS, parts, strict=True)}
        return costs, *_onwards(stage, written)


async def _handled(handler: Handler, value: Any, context: Context) -> Outcome:
    outcome = handler.handle(value, context)
    return await outcome if isawaitable(outcome) else outcome


def _outputs(outcome: Outcome) -> tuple[Out, ...]:
    assert not isinstance(outcome, Drop), f"a request was dropped: {outcome.reason}"
    return outcome.outputs


def _bytes_of(stage: str, out: Out, trace: Headers = ()) -> tuple[Topic, bytes]:
    value: Any = out.value
    headers_for(out.topic, stage, value if hasattr(value, "payload") else None, trace)
    return out.topic, encode(out.topic, value)


def _onwards(stage: str, written: Sequence[tuple[Topic, bytes]]) -> tuple[Topic, list[bytes]]:
    """What goes to the next stage on the path: the only topic of this stage that some stage reads, or the results."""
    by_topic: dict[str, list[bytes]] = defaultdict(list)
    for topic, value in written:
        by_topic[topic.name].append(value)
    followed = [name for name in by_topic if name == RESULTS.name or _is_on_path(name)]
    assert len(followed) == 1, f"{stage} wrote {sorted(by_topic)}"
    return topic_named(followed[0]), by_topic[followed[0]]


def _is_on_path(name: str) -> bool:
    path = ("preprocessing", "router", "executor", "quality-gate", "output")
    return any(topic.name == name for stage in path for topic in stage_named(stage).reads)


def _request(size_kb: int) -> bytes:
    filler = (SYSTEM_TEXT * (size_kb * 1024 // len(SYSTEM_TEXT) + 1))[: size_kb * 1024 - len(QUESTION) - 1]
    return orjson.dumps({"prompt": f"{filler} {QUESTION}", "tenant": TENANT, "deadline_ms": 600_000})


def catalogue() -> Catalogue:
    """Twenty models of rising quality and price, two backends each."""
    names = [f"model-{place:02}" for place in range(MODELS_COUNT)]
    quality = {name: 0.5 + 0.02 * place for place, name in enumerate(names)}
    prices = {name: Prices(input=Decimal(place + 1) / 10, output=Decimal(place + 1) / 2) for place, name in enumerate(names)}
    return Catalogue(
        version=1,
        models={name: Model(quality=quality[name], context_tokens=200_000) for name in names},
        backends={
            f"{provider}-{name}": Backend(model=name, provider=provider, base_url="http://127.0.0.1:9/v1", prices=prices[name])
            for name in names
            for provider in ("alpha", "beta")
        },
        tenants={TENANT: Tenant()},
        policies={"default": Policy()},
    )


async def line() -> Line:
    """Handlers over a log in memory, in a fleet that has windows for every backend."""
    clock, known = SystemClock(), catalogue()
    window = Window(seconds=60, calls=100, p50_ms=300.0, p95_ms=800.0, p99_ms=1500.0)
    fleet = {name: FleetEntry(backend=name, windows=(window,)) for name in known.backends}
    broker = LocalBroker(clock)
    await broker.create_topics([topic_spec(topic) for topic in TOPICS])
    world = World(broker, clock, Settings(), "0000be4c", lambda: known, lambda: fleet)
    return Line({
        "intake": Intake(broker, clock, world.catalogue),
        "preprocessing": Preprocessing(world.catalogue),
        "router": Router(world.catalogue, world.fleet, clock),
        "executor": Executor(world, Instant()),
        "quality-gate": QualityGate(world.catalogue, clock, broker, world.settings.seen_max),
        "output": OutputStage(broker, world.settings.seen_max),
    })


async def measure(rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """By stage and prompt size in KB: the median of several rounds, after two that warm up."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for size_kb in SIZES_KB:
        measured = await line()
        for _ in range(WARM_ROUNDS):
            await measured.through(size_kb)
        taken = [await measured.through(size_kb) for _ in range(rounds)]
        for stage in measured.handlers:
            found[stage][size_kb] = {part: rounded(median(costs[stage][part] for costs in taken)) for part in PARTS}
    return found
