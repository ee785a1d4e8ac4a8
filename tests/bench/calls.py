"""What one call of a provider costs the executor, plain and streamed, in each wire format, beside a bare HTTP client that
sends the same bytes, reads the answer and parses its JSON. Only this process's CPU time counts: the provider is another one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

import aiohttp
import click
import orjson

from schemas.config import Backend
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS
from services.executor.adapters.flavours import flavour_of
from services.executor.provider import Provider
from services.executor.terms import Terms
from services.executor.transport import AiohttpTransport
from tests.bench.report import Row, Target, rounded

MODEL = "sim-large"
TOKENS_MAX = 400
IN_FLIGHT = 16
STREAMED_PART = 4   # a stream costs several times as much: a quarter of the calls is enough
VERSIONS = {"openai": "v1", "anthropic": "v1", "gemini": "v1beta"}
CHAT = Chat(messages=({"role": "user", "content": "Write a story of a lighthouse keeper, in some sixty words, please."},))
PER_EVENT = "ours_us_per_event"
PLAIN = "openai, plain"
CALL_FACTOR_MAX = 2.0
"""Of the bare client. What the rest buys: deadlines, error classes, usage, request ids, provider-neutral answers."""
EVENT_US_MAX = 15

Ask = Callable[[int], Awaitable[int]]
"""Makes one call; returns how many events came, 0 of an answer that is no stream."""


@dataclass(frozen=True)
class Contest:
    """The same call by the bare client and by the executor's."""

    dialect: str
    streamed: bool
    bare: Ask
    ours: Ask

    @property
    def name(self) -> str:
        return f"{self.dialect}, {'streamed' if self.streamed else 'plain'}"


async def measure(simulator_url: str, rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """CPU-µs per call and per streamed event of both, the median over rounds in which they take turns."""
    transport, session = AiohttpTransport(IN_FLIGHT), aiohttp.ClientSession()
    provider, figures = Provider(transport), {}
    try:
        for dialect in VERSIONS:
            for streamed in (False, True):
                contest = _contest(provider, session, simulator_url, dialect, streamed)
                figures[contest.name] = await _figures(contest, rounds, calls // (STREAMED_PART if streamed else 1))
    finally:
        await transport.aclose()
        await session.close()
    return figures


def rows(figures: dict[str, dict[str, float]]) -> list[Row]:
    """One per contest; the factor is what the executor's client costs over the bare one."""
    return [
        (name, each["bare_us"], each["ours_us"], each["ours_us"] / each["bare_us"], each.get("events"), each.get(PER_EVENT))
        for name, each in figures.items()
    ]


def targets(figures: dict[str, dict[str, float]]) -> list[Target]:
    plain, streamed = figures[PLAIN], figures["openai, streamed"]
    return [
        Target("provider call over a bare client's", plain["ours_us"] / plain["bare_us"], CALL_FACTOR_MAX, "times"),
        Target("CPU per streamed event", streamed[PER_EVENT], EVENT_US_MAX, "µs"),
    ]


async def _figures(contest: Contest, rounds: int, calls: int) -> dict[str, float]:
    events = [await contest.bare(number) for number in range(20)][-1]
    for number in range(20):
        await contest.ours(number)
    spent: dict[str, list[float]] = {"bare_us": [], "ours_us": []}
    for _ in range(rounds):
        spent["bare_us"].append(await _cpu_us(contest.bare, calls))
        spent["ours_us"].append(await _cpu_us(contest.ours, calls))
    figures = {name: rounded(median(samples)) for name, samples in spent.items()}
    if events:
        figures |= {"events": events} | {f"{name}_per_event": rounded(us / events) for name, us in figures.items()}
    return figures


def _contest(provider: Provider, session: aiohttp.ClientSession, url: str, dialect: str, streamed: bool) -> Contest:
    backend = Backend.model_validate({
        "model": MODEL, "provider": "alpha", "dialect": dialect, "base_url": f"{url}/alpha/{VERSIONS[dialect]}",
        "prices": {"input": 1, "output": 1},
    })
    return Contest(dialect, streamed, _bare(session, backend, streamed), _ours(provider, backend, streamed))


def _bare(session: aiohttp.ClientSession, backend: Backend, streamed: bool) -> Ask:
    adapter, flavour = ADAPTERS[backend.dialect], flavour_of(backend)
    url = backend.base_url + adapter.path(MODEL, streamed, flavour)
    body = adapter.body(CHAT, MODEL, TOKENS_MAX, streamed, flavour)
    headers = dict(adapter.headers(None, flavour))

    async def ask(number: int) -> int:
        async with session.post(url, data=body, headers=headers) as response:
            response.raise_for_status()
            if not streamed:
                orjson.loads(await response.read())
                return 0
            events = 0
            async for line in response.content:
                if line.startswith(b"data: {"):
                    orjson.loads(line[6:])
                    events += 1
            return events

    return ask


def _ours(provider: Provider, backend: Backend, streamed: bool) -> Ask:
    name = f"{backend.dialect}-{streamed}"

    async def ask(number: int) -> int:
        reply = await provider.call(name, backend, CHAT, Terms(f"bench/{name}/{number}", TOKENS_MAX, 30_000, streamed))
        if reply.answer is None:
            raise click.ClickException(f"{name}: {reply.failure}, status {reply.status}; the provider should answer everything")
        return 0

    return ask


async def _cpu_us(ask: Ask, calls: int) -> float:
    """CPU-µs of this process per call, `IN_FLIGHT` at a time."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await ask(number)

    began_ns = time.process_time_ns()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return (time.process_time_ns() - began_ns) / 1000 / calls
