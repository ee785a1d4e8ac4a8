"""The executor against the simulator's process over real sockets: answers, faults, and a ledger that equals the invoice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from schemas.config import Backend, Prices
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from schemas.messages import Plan
from services.executor.transport import AiohttpTransport
from shared.catalogue import Catalogue
from shared.clock import SystemClock
from shared.outcome import Emit
from tests.support.builders_executor import (
    Bench,
    a_bench,
    a_candidate,
    a_catalogue,
    a_model,
    a_plan,
    an_envelope,
    closing_lines,
    completed,
    completion_of,
)
from tests.support.wires import simulator_process

PRICES = {
    "sim-nano": Prices(input=Decimal("0.05"), cached_input=Decimal("0.025"), output=Decimal("0.2")),
    "sim-small": Prices(input=Decimal("0.15"), cached_input=Decimal("0.075"), output=Decimal("0.6")),
}
MODELS = {"sim-nano": a_model(16_000), "sim-small": a_model(128_000)}


@dataclass
class Simulator:
    """A running process and its books since the test began."""

    url: str
    books: Path
    session: aiohttp.ClientSession
    billed_before: int

    async def control(self, **fields: Any) -> None:
        async with self.session.post(f"{self.url}/control", json=fields) as response:
            assert response.status == 200, await response.text()

    def invoice(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.books.read_bytes().splitlines()][self.billed_before :]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    books = tmp_path_factory.mktemp("simulator") / "invoice.jsonl"
    with simulator_process(books) as url:
        yield url, books


@pytest.fixture
async def simulator(process: tuple[str, Path]) -> AsyncIterator[Simulator]:
    url, books = process
    async with aiohttp.ClientSession() as session:
        simulator = Simulator(url, books, session, len(books.read_bytes().splitlines()))
        await simulator.control(fault=None)
        yield simulator


def backends(url: str) -> dict[str, Backend]:
    """`a` and `b` are two providers of the small model, `c` one of the nano model."""
    return {
        name: Backend(model=model, provider=provider, base_url=f"{url}/{provider}/v1", prices=PRICES[model])
        for name, model, provider in (("a", "sim-small", "alpha"), ("b", "sim-small", "beta"), ("c", "sim-nano", "alpha"))
    }


def catalogue_of(url: str) -> Catalogue:
    return a_catalogue(backends(url), MODELS)


def plan_for(*names: str, model: str = "sim-small", **fields: Any) -> Plan:
    return a_plan(a_candidate(model, names or ("a", "b"), 5000), **fields)


async def bench_for(catalogue: Catalogue) -> Bench:
    return await a_bench(AiohttpTransport(100), catalogue, clock=SystemClock())


@pytest.fixture
async def bench(simulator: Simulator) -> AsyncIterator[Bench]:
    bench = await bench_for(catalogue_of(simulator.url))
    yield bench
    await bench.executor.stop()


async def walk(bench: Bench, plan: Plan, request: str = "r1", left_ms: int = 20_000) -> tuple[Any, list[Attempt]]:
    now_ms = bench.clock.now_ms()
    envelope = an_envelope(plan, request, accepted_ms=now_ms, deadline_ms=now_ms + left_ms)
    outcome = await bench.handle(envelope)
    lines = [line for line in bench.finished() if line.request_id == request] + closing_lines(outcome)
    return completion_of(outcome), lines


async def test_the_simulator_answers_and_the_ledger_equals_its_invoice(bench: Bench, simulator: Simulator) -> None:
    found = await asyncio.gather(*(walk(bench, plan_for(), f"r{number}") for number in range(30)))
    assert all(completion.answer.text for completion, _ in found)
    ledger = {line.attempt_id: line.cost_microusd for _, lines in found for line in lines}
    invoiced = {line["attempt_id"]: line["cost_microusd"] for line in simulator.invoice()}
    assert ledger == invoiced
    assert len(ledger) == 30


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"kind": "error", "status": 500}, FailureClass.SERVER_ERROR),
        ({"kind": "error", "status": 503}, FailureClass.OVERLOADED),
        ({"kind": "error", "status": 429, "retry_after_s": 2}, FailureClass.RATE_LIMITED),
        ({"kind": "error", "error_class": "quota_exhausted"}, FailureClass.QUOTA_EXHAUSTED),
        ({"kind": "error", "error_class": "auth"}, FailureClass.AUTH),
        ({"kind": "error", "error_class": "permission"}, FailureClass.AUTH),
        ({"kind": "error", "error_class": "not_found"}, FailureClass.NOT_FOUND),
        ({"kind": "reset"}, FailureClass.CONNECT_ERROR),
        ({"kind": "hang"}, FailureClass.TIMEOUT),
        ({"kind": "malformed"}, FailureClass.MALFORMED),
        ({"kind": "cut_stream"}, FailureClass.TRUNCATED),
    ],
    ids=lambda value: value.value if isinstance(value, FailureClass) else "",
)
async def test_a_fault_of_one_provider_is_answered_by_the_other(
    bench: Bench, simulator: Simulator, fault: dict[str, Any], failure: FailureClass
) -> None:
    await simulator.control(provider="alpha", model="sim-small", fault=fault)
    plan = a_plan(a_candidate("sim-small", ("a",)), a_candidate("sim-small", ("b",)), attempt_timeout_ms=1000)
    completion, lines = await walk(bench, plan)
    assert [line.failure for line in lines] == [failure, None]
    assert [line.backend for line in lines] == ["a", "b"]
    assert completion.answer.backend == "b"
    known = {line.attempt_id: line.cost_microusd for line in lines if line.cost_known}
    unknown = {line.attempt_id: line.cost_max_microusd for line in lines if not line.cost_known}
    for billed in simulator.invoice():
        attempt_id, cost_microusd = billed["attempt_id"], billed["cost_microusd"]
        assert known.get(attempt_id) == cost_microusd or cost_microusd <= unknown[attempt_id]


@pytest.mark.parametrize("error_class", ["invalid_request", "content_filtered"])
async def test_a_refusal_ends_with_one_attempt(bench: Bench, simulator: Simulator, error_class: str) -> None:
    await simulator.control(fault={"kind": "error", "error_class": error_class})
    completion, lines = await walk(bench, plan_for())
    assert completion.failure.reason == "provider_refused"
    assert len(lines) == 1
    assert simulator.invoice() == []


async def test_a_prompt_too_long_for_one_model_goes_to_a_bigger_one(bench: Bench) -> None:
    task = a_plan().task
    assert task.chat is not None
    chat = task.chat.model_copy(update={"messages": ({"role": "user", "content": "word " * 20_000},)})
    plan = a_plan(
        a_candidate("sim-nano", ("c",), 5000),
        a_candidate("sim-small", ("a",), 50_000),
        task=task.model_copy(update={"chat": chat}),
    )
    completion, lines = await walk(bench, plan)
    assert [line.failure for line in lines] == [FailureClass.CONTEXT_LENGTH, None]
    assert completion.answer.model == "sim-small"


async def test_a_lone_provider_that_fails_once_is_asked_again(bench: Bench, simulator: Simulator) -> None:
    await simulator.control(fault={"kind": "error", "status": 500, "times": 1})
    completion, lines = await walk(bench, plan_for("a"))
    assert completion.answer is not None
    assert [line.kind for line in lines] == ["primary", "retry"]


async def test_a_provider_that_is_not_there_costs_nothing(simulator: Simulator) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    offered = backends(simulator.url)
    offered["a"] = offered["a"].model_copy(update={"base_url": nowhere})
    bench = await bench_for(a_catalogue(offered, MODELS))
    completion, lines = await walk(
        bench, a_plan(a_candidate("sim-small", ("a",)), a_candidate("sim-small", ("b",)))
    )
    assert (lines[0].failure, lines[0].cost_known, lines[0].cost_microusd) == (FailureClass.CONNECT_ERROR, True, 0)
    assert completion.answer.backend == "b"
    await bench.executor.stop()


# Write-ahead, seen from the provider's side ----------------------------------------------------------------------------


async def test_every_call_is_in_the_log_before_the_provider_hears_of_it() -> None:
    heard: list[tuple[str, bool]] = []
    bench: Bench

    async def provider(request: web.Request) -> web.Response:
        attempt_id = request.headers["x-client-request-id"]
        started = [line for line in bench.ledger.lines if line.phase is AttemptPhase.STARTED]
        heard.append((attempt_id, any(line.attempt_id == attempt_id for line in started)))
        if len(heard) == 1:
            return web.json_response({"error": {"message": "no", "type": "server_error"}}, status=500)
        return web.json_response(completed())

    app = web.Application()
    app.router.add_post("/{provider}/v1/chat/completions", provider)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bench = await bench_for(catalogue_of(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    now_ms = bench.clock.now_ms()
    outcome = await bench.handle(an_envelope(plan_for(), accepted_ms=now_ms, deadline_ms=now_ms + 20_000))
    assert isinstance(outcome, Emit)
    assert [known for _, known in heard] == [True, True]
    assert bench.alive_checks == [0, 1, 2, 3]   # before and after each started line
    assert [line.phase for line in bench.ledger.lines] == ["started", "finished", "started"]
    assert [id for id, _ in heard] == [line.attempt_id for line in (bench.ledger.lines[0], bench.ledger.lines[2])]
    await bench.executor.stop()
    await runner.cleanup()
