"""A whole Baton in one event loop, but intake and monitor: real stages on the broker in memory, in virtual time, with a provider
that says what a test tells it. What went in and what came out is read from the topics.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import httpx2
import orjson
import yaml

from schemas.config import Backend, ConfigFile, Model, Policy, Prices, Tenant
from schemas.envelope import Envelope
from schemas.ledger import Attempt
from schemas.messages import Request, Result
from schemas.pipeline import expanded
from schemas.quality import QualityEntry
from schemas.spend import SpendEntry
from schemas.topology import ATTEMPTS, REQUESTS, RESULTS, TOPICS, Topic, stage_named, topic_spec
from services.executor.main import Executor
from services.output.main import Output as OutputStage
from services.preprocessing.main import Preprocessing
from services.quality_gate.main import QualityGate
from services.router.main import Router
from shared.broker import Output
from shared.catalogue import Catalogue
from shared.codec import decode, encode, headers_for
from shared.config import Settings
from shared.local import LocalBroker
from shared.pipeline_check import problems_of
from shared.service import World
from shared.session import RunnerOptions
from shared.slips import Slips
from shared.stage import Runner
from tests.support.builders_executor import an_error, completed
from tests.support.virtual import LoopClock, VirtualLoop

T = TypeVar("T")
MODELS = {"small": ("0.2", "0.8", 0.5), "medium": ("1", "4", 0.7), "large": ("5", "20", 0.9)}
PARTITIONS = 3
OPTIONS = RunnerOptions(poll_ms=20, commit_interval_ms=20, session_timeout_ms=600_000, drain_ms=5_000)


@dataclass(frozen=True)
class Call:
    """One call as the provider sees it."""

    at_ms: int
    model: str
    prompt: str
    body: dict[str, Any]


Says = Callable[[Call], Awaitable[str | None]]
"""The provider: a text, or None for an error of its own. It may take its time."""


def catalogue(pipelines: str | dict[str, Any], **policy: Any) -> Catalogue:
    """Three models, and pipelines in YAML or as data; they are checked as `baton apply` checks them."""
    given = yaml.safe_load(pipelines) if isinstance(pipelines, str) else pipelines
    config = ConfigFile(
        models={name: Model(quality=quality, context_tokens=200_000, capabilities=("json_schema", "tools", "logprobs"))
                for name, (_, _, quality) in MODELS.items()},
        backends={f"{name}-a": Backend(model=name, provider="sim", base_url=f"http://{name}.test/v1",
                                       prices=Prices(input=Decimal(low), output=Decimal(high)))
                  for name, (low, high, _) in MODELS.items()},
        tenants={"acme": Tenant()},
        policies={"default": Policy(**policy)},
        pipelines=given,
    )
    assert problems_of(config.pipelines, config.models, config.policies) == []
    trees = {name: expanded(name, config.pipelines) for name in config.pipelines}
    return Catalogue(version=7, models=config.models, backends=config.backends, tenants=config.tenants,
                     policies=config.policies, pipelines=trees)


@dataclass
class Orchestra:
    """Everything that runs. `stages` may be stopped and started one by one."""

    broker: LocalBroker
    clock: LoopClock
    catalogue: Catalogue
    says: Says
    quality: dict[str, QualityEntry] = field(default_factory=dict)
    spend: dict[str, SpendEntry] = field(default_factory=dict)
    options: RunnerOptions = OPTIONS
    calls: list[Call] = field(default_factory=list)
    cut: list[Call] = field(default_factory=list)
    _running: dict[str, tuple[asyncio.Event, "asyncio.Task[None]"]] = field(default_factory=dict)
    _started: int = 0

    async def ask(self, pipeline: str | None, prompt: str = "Hello?", id: str = "r1", **fields: Any) -> None:
        """A request as intake writes it."""
        now_ms = self.clock.now_ms()
        body: dict[str, Any] = {"prompt": prompt} | ({"pipeline": pipeline} if pipeline else {}) | fields.pop("body", {})
        defaults = {"key": id, "tenant": "acme", "accepted_ms": now_ms, "deadline_ms": now_ms + 60_000}
        envelope = Envelope[Request](id=id, request_id=id, payload=Request(source="topic", body=body), **(defaults | fields))
        producer = await self.broker.producer()
        headers = headers_for(REQUESTS, "intake", envelope)
        await (await producer.send(Output(REQUESTS.name, envelope.key.encode(), encode(REQUESTS, envelope), headers)))

    async def result(self, id: str = "r1", within_s: float = 120) -> Result:
        (result,) = await self.results([id], within_s)
        return result

    async def results(self, ids: Sequence[str], within_s: float = 120) -> list[Result]:
        """The one result of each request, once all are there. Two of one request fail the test."""
        until_s = asyncio.get_running_loop().time() + within_s
        while True:
            found: list[Result] = self.log(RESULTS)
            if {result.request_id for result in found} >= set(ids):
                assert len({result.request_id for result in found}) == len(found), "two results of one request"
                return [next(result for result in found if result.request_id == id) for id in ids]
            assert asyncio.get_running_loop().time() < until_s, f"no result within {within_s} s"
            await asyncio.sleep(0.02)

    def log(self, topic: Topic) -> list[Any]:
        """Everything on a topic."""
        return [decode(topic, record.value) for partition in self.broker.logs[topic.name] for record in partition]

    def log_of_results(self) -> list[Result]:
        return self.log(RESULTS)

    def ledger(self) -> list[Attempt]:
        return self.log(ATTEMPTS)

    # Stages ----------------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        for name in names:
            runner = Runner(stage_named(name), self._handler(name), self.broker, self.options, self.clock)
            stop = asyncio.Event()
            self._running[name] = stop, asyncio.create_task(runner.run(stop))

    async def kill(self, name: str) -> None:
        """At once: nothing is drained or committed."""
        _, task = self._running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        for stop, _ in self._running.values():
            stop.set()
        await asyncio.gather(*(task for _, task in self._running.values()))

    def _handler(self, name: str) -> Any:
        def current() -> Catalogue:
            return self.catalogue

        if name == "preprocessing":
            return Preprocessing(current)
        if name == "router":
            return Router(current, dict, self.clock, lambda: self.spend, lambda: self.quality, Slips(self.broker))
        if name == "quality-gate":
            return QualityGate(current, self.clock, self.broker, 1_000, lambda: self.quality)
        if name == "output":
            return OutputStage(self.broker, 1_000)
        self._started += 1
        world = World(self.broker, self.clock, Settings(), f"{self._started:08x}", current, dict)
        return Executor(world, httpx2.MockTransport(self._provide), lambda reference: "", draw=lambda: 0.5)

    async def _provide(self, request: httpx2.Request) -> httpx2.Response:
        body = orjson.loads(request.read())
        call = Call(self.clock.now_ms(), body["model"], body["messages"][-1]["content"], body)
        self.calls.append(call)
        try:
            text = await self.says(call)
        except asyncio.CancelledError:
            self.cut.append(call)
            raise
        return httpx2.Response(200, json=completed(text, 100, 10)) if text is not None else an_error(500)


@asynccontextmanager
async def playing(
    made: Catalogue,
    says: Says,
    quality: Mapping[str, QualityEntry] | None = None,
    spend: Mapping[str, SpendEntry] | None = None,
    options: RunnerOptions = OPTIONS,
) -> AsyncIterator[Orchestra]:
    """All stages up; drained at the end."""
    clock = LoopClock()
    broker = LocalBroker(clock)
    await broker.create_topics([topic_spec(topic, PARTITIONS) for topic in TOPICS])
    orchestra = Orchestra(broker, clock, made, says, dict(quality or {}), dict(spend or {}), options)
    orchestra.start("preprocessing", "router", "executor", "quality-gate", "output")
    try:
        yield orchestra
        await orchestra.stop()
    finally:
        with contextlib.suppress(Exception):
            await broker.close()


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Sixty seconds of waiting take none."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def echo(call: Call) -> str:
    """Says what it was asked, a little later."""
    await asyncio.sleep(0.1)
    return f"<{call.prompt}>"
