"""Plans, catalogues, ledgers and scripted providers for the executor's tests."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2
import orjson

from schemas.config import Backend, Model, Prices
from schemas.envelope import Envelope
from schemas.fleet import Circuit, FleetEntry, Window
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from schemas.messages import Candidate, Chat, Completion, Features, Plan, Task, Why
from schemas.topology import ATTEMPTS, COMPLETIONS, PLANS, TOPICS, stage_named, topic_spec
from services.executor.decide import (
    Option,
)
from services.executor.main import Executor
from shared import ids
from shared.broker import Headers, Record
from shared.catalogue import Catalogue
from shared.config import Settings
from shared.handler import Context
from shared.local import LocalBroker
from shared.outcome import Emit, Out, Outcome
from shared.service import World
from shared.writer import Writer
from tests.support.builders import ManualClock

INSTANCE = "feedc0de"
SECRET = "sk-test-4f1c9a7d2b"
PROMPT = "a very private question"
T0_MS = 1_800_000_000_000
LANE = next(iter(PLANS.values()))


def a_backend(model: str = "small", **fields: Any) -> Backend:
    defaults = {
        "model": model,
        "provider": "alpha",
        "base_url": f"http://{model}.test/v1",
        "prices": Prices(input=Decimal("0.15"), output=Decimal("0.6"), version="7"),
    }
    return Backend(**(defaults | fields))


def a_catalogue(backends: Mapping[str, Backend] | None = None, models: Mapping[str, Model] | None = None) -> Catalogue:
    """Two backends of `small` and one of `large`, unless told otherwise."""
    if backends is None:
        backends = {
            "a": a_backend(base_url="http://a.test/v1", key="env:KEY_A"),
            "b": a_backend(base_url="http://b.test/v1"),
            "c": a_backend("large", base_url="http://c.test/v1"),
        }
    models = models or {"small": a_model(16_000), "large": a_model(200_000)}
    return Catalogue(version=1, models=models, backends=backends)


def a_model(context_tokens: int, output_tokens_max: int = 4096) -> Model:
    return Model(quality=0.5, context_tokens=context_tokens, output_tokens_max=output_tokens_max)


def a_candidate(model: str = "small", backends: Sequence[str] = ("a", "b"), cost_max_microusd: int = 1000) -> Candidate:
    return Candidate(
        model=model, backends=tuple(backends), quality=0.5, cost_microusd=100, cost_max_microusd=cost_max_microusd
    )


def a_plan(*candidates: Candidate, **fields: Any) -> Plan:
    chat = Chat(messages=({"role": "user", "content": PROMPT},))
    task = Task(chat=chat, features=Features(tokens_in=10, tokens_out=20, tokens_out_max=200))
    defaults = {
        "number": 0,
        "task": task,
        "candidates": candidates or (a_candidate(), a_candidate("large", ("c",), 5000)),
        "why": Why(policy="default", rule="cheapest able model", quality_min=0.3),
    }
    return Plan(**(defaults | fields))


def an_envelope(plan: Plan | None = None, request: str = "r1", **fields: Any) -> Envelope[Plan]:
    plan = plan or a_plan()
    defaults = {
        "id": ids.plan_id(request, plan.number),
        "request_id": request,
        "key": request,
        "tenant": "acme",
        "app": "shop",
        "accepted_ms": T0_MS,
        "deadline_ms": T0_MS + 30_000,
        "payload": plan,
    }
    return Envelope[Plan](**(defaults | fields))


def an_attempt(
    backend: str = "a", failure: FailureClass | None = FailureClass.SERVER_ERROR, number: int = 0, **fields: Any
) -> Attempt:
    plan_id = ids.plan_id("r1", 0)
    defaults = {
        "attempt_id": ids.attempt_id(plan_id, number, INSTANCE),
        "plan_id": plan_id,
        "request_id": "r1",
        "tenant": "acme",
        "phase": AttemptPhase.FINISHED,
        "model": "small",
        "backend": backend,
        "started_ms": T0_MS,
        "finished_ms": T0_MS,
        "failure": failure,
    }
    return Attempt(**(defaults | fields))


def an_option(backend: str, **fields: Any) -> Option:
    defaults = {
        "usable": True,
        "load": 1.0,
        "p50_ms": None,
        "timeout_ms": 60_000,
        "context_tokens": 200_000 if backend == "c" else 16_000,
    }
    return Option(backend, **(defaults | fields))


def an_entry(backend: str, circuit: Circuit = Circuit.CLOSED, p50_ms: float = 0.0, **fields: Any) -> FleetEntry:
    return FleetEntry(backend=backend, circuit=circuit, windows=(Window(seconds=60, p50_ms=p50_ms),), **fields)


# Providers ---------------------------------------------------------------------------------------------------------

Reaction = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]


def completed(text: str = "42", tokens_in: int = 1000, tokens_out: int = 100) -> dict[str, Any]:
    """A body of OpenAI's dialect."""
    return {
        "id": "chatcmpl-1",
        "model": "small-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out},
    }


def ok(text: str = "42") -> httpx2.Response:
    return httpx2.Response(200, json=completed(text), headers={"x-request-id": "req_1"})


def an_error(status: int, code: str = "", type: str = "", message: str = "no") -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, "type": type, "param": None, "code": code}})


class Script:
    """A provider that plays its reactions one after the other, the last one for ever, and remembers who called."""

    def __init__(self, *reactions: httpx2.Response | Exception | Reaction) -> None:
        self.reactions = list(reactions)
        self.requests: list[httpx2.Request] = []

    @property
    def hosts(self) -> list[str]:
        return [request.url.host.removesuffix(".test") for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(request.read()) for request in self.requests]

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reaction = self.reactions.pop(0) if len(self.reactions) > 1 else self.reactions[0]
        if isinstance(reaction, Exception):
            raise reaction
        if isinstance(reaction, httpx2.Response):
            return httpx2.Response(reaction.status_code, headers=reaction.headers, content=reaction.content)
        return await reaction(request)


# The executor around them ------------------------------------------------------------------------------------------


@dataclass
class RecordingLedger:
    """Appends what is written to a real log, in order, and to `lines`."""

    broker: LocalBroker
    lines: list[Attempt] = field(default_factory=list)
    acknowledged: Callable[[Attempt], None] = lambda attempt: None

    async def write(self, out: Out, trace: Headers, record: Record) -> None:
        assert isinstance(out.value, Attempt)
        try:
            await self.log(out)
        finally:
            self.lines.append(out.value)    # one who gives up waiting for it has written it all the same
        self.acknowledged(out.value)

    async def send(self, out: Out, trace: Headers, record: Record) -> "asyncio.Future[object]":
        await self.write(out, trace, record)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def log(self, *outs: Out) -> None:
        """What the runner does with an outcome."""
        producer = await self.broker.producer()
        writer = Writer(stage_named("executor"), producer)
        for out in outs:
            await writer.write(out)
        await producer.close()


@dataclass
class Bench:
    """One executor with everything around it, all in memory but the bytes."""

    executor: Executor
    world: World
    clock: ManualClock
    broker: LocalBroker
    ledger: RecordingLedger
    fleet: dict[str, FleetEntry]
    alive_checks: list[int] = field(default_factory=list)

    def context(self, partition: int = 0) -> Context:
        record = Record(LANE.name, partition, 0, self.clock.now_ms(), b"r1", b"")
        return Context(record, (), self.ledger, lambda: self.alive_checks.append(len(self.ledger.lines)))

    async def handle(self, envelope: Envelope[Plan], partition: int = 0) -> Outcome:
        return await self.executor.handle(envelope, self.context(partition))

    async def complete(self, envelope: Envelope[Plan], partition: int = 0) -> "tuple[Completion, list[Attempt]]":
        """Handle a plan; its completion, and all finished lines of the ledger including the outcome's."""
        outcome = await self.handle(envelope, partition)
        return completion_of(outcome), self.finished() + closing_lines(outcome)

    def finished(self) -> list[Attempt]:
        return [line for line in self.ledger.lines if line.phase is AttemptPhase.FINISHED]


def completion_of(outcome: Outcome) -> Completion:
    assert isinstance(outcome, Emit)
    (envelope,) = (out.value for out in outcome.outputs if out.topic is COMPLETIONS)
    assert isinstance(envelope, Envelope)
    completion = envelope.payload
    assert isinstance(completion, Completion)
    return completion


def closing_lines(outcome: Outcome) -> list[Attempt]:
    assert isinstance(outcome, Emit)
    return [out.value for out in outcome.outputs if out.topic is ATTEMPTS and isinstance(out.value, Attempt)]


async def a_bench(
    provider: Reaction | httpx2.AsyncBaseTransport,
    catalogue: Catalogue | None = None,
    clock: Any = None,
    partitions: int = 1,
    resolve: Callable[[str], str] = lambda reference: SECRET,
    instance: str = INSTANCE,
    broker: LocalBroker | None = None,
    start: bool = False,
) -> Bench:
    clock = clock or ManualClock()
    catalogue = catalogue or a_catalogue()
    if broker is None:
        broker = LocalBroker(clock)
        await broker.create_topics([topic_spec(topic, partitions) for topic in TOPICS])
    fleet: dict[str, FleetEntry] = {}
    world = World(broker, clock, Settings(), instance, lambda: catalogue, lambda: fleet)
    transport = provider if isinstance(provider, httpx2.AsyncBaseTransport) else httpx2.MockTransport(provider)
    executor = Executor(world, transport, resolve, draw=lambda: 0.0)
    if start:
        await executor.start()
    return Bench(executor, world, clock, broker, RecordingLedger(broker), fleet)


async def until(holds: Callable[[], Any], within_s: float = 5.0) -> None:
    """Wait for a condition."""
    deadline_s = asyncio.get_running_loop().time() + within_s
    while not holds():
        assert asyncio.get_running_loop().time() < deadline_s, f"not within {within_s} s"
        await asyncio.sleep(0.005)
