"""All dialects against the simulator's process over real HTTP, plain and streamed: answers, faults, and its own books."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from schemas.config import Backend, Prices
from schemas.fleet import RateLimits
from schemas.ledger import FailureClass
from schemas.messages import Chat
from services.executor.provider import Provider
from services.executor.reply import Reply
from services.executor.terms import Terms
from services.executor.transport import AiohttpTransport
from tests.support.chats import CONVERSATION, NOW, PNG, SCHEMA, WEATHER, a_plain_chat
from tests.support.wires import simulator_process

MODEL = "sim-large"
WAYS: dict[str, dict[str, Any]] = {   # what of a backend makes it speak so
    "openai": {"base_url": "/v1"},
    "azure": {"base_url": "", "flavour": "azure"},
    "anthropic": {"base_url": "/v1", "dialect": "anthropic"},
    "gemini": {"base_url": "/v1beta", "dialect": "gemini"},
}
every_way = pytest.mark.parametrize("way", list(WAYS))
plain_and_streamed = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@dataclass
class Bench:
    """A provider's client, and the provider with its control plane and books."""

    url: str
    books: Path
    session: aiohttp.ClientSession
    provider: Provider
    attempts: Iterator[int] = field(default_factory=count)

    def backend(self, way: str, model: str = MODEL) -> Backend:
        fields = WAYS[way] | {"base_url": f"{self.url}/{way}{WAYS[way]['base_url']}"}
        prices = Prices(input=Decimal(1), output=Decimal(1))
        return Backend(model=model, provider=way, key="env:KEY", prices=prices, **fields)

    async def call(self, way: str, chat: Chat, streamed: bool, model: str = MODEL, **terms: Any) -> Reply:
        bounds: dict[str, Any] = {"timeout_ms": 10_000, "first_token_ms": 5000, "stall_ms": 5000} | terms
        attempt_id = f"r/{id(self)}/{next(self.attempts)}"
        return await self.provider.call(way, self.backend(way, model), chat, Terms(attempt_id, 400, streamed=streamed, **bounds))

    async def fault(self, fault: dict[str, Any] | None) -> None:
        async with self.session.post(f"{self.url}/control", json={"provider": "*", "fault": fault}) as response:
            assert response.status == 200, await response.text()

    def last_bill(self) -> dict[str, Any]:
        bill = orjson.loads(self.books.read_bytes().splitlines()[-1])
        assert isinstance(bill, dict)
        return bill


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    books = tmp_path_factory.mktemp("dialects") / "invoice.jsonl"
    with simulator_process(books) as url:
        yield url, books


@pytest.fixture
async def bench(process: tuple[str, Path]) -> AsyncIterator[Bench]:
    url, books = process
    transport = AiohttpTransport(10)
    async with aiohttp.ClientSession() as session:
        bench = Bench(url, books, session, Provider(transport, lambda reference: "sk-one"))
        await bench.fault(None)
        yield bench
    await transport.aclose()


@plain_and_streamed
@every_way
async def test_a_question_is_answered_and_the_count_is_the_providers_own(bench: Bench, way: str, streamed: bool) -> None:
    reply = await bench.call(way, a_plain_chat("What is 17 + 25?"), streamed)
    assert reply.failure is None
    assert reply.answer is not None
    assert reply.usage is not None
    assert "42" in reply.answer.text
    assert (reply.answer.finish, reply.model_served, reply.streamed) == ("stop", MODEL, streamed)
    assert reply.provider_request_id
    assert (reply.first_token_ms is not None) == streamed
    bill = bench.last_bill()
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (bill["tokens_in"], bill["tokens_out"])
    assert not reply.usage.estimated


@plain_and_streamed
@every_way
async def test_plain_and_streamed_say_the_same(bench: Bench, way: str, streamed: bool) -> None:
    chat = a_plain_chat("Tell me about the harbour of Hamburg.", seed=3)
    one, other = await bench.call(way, chat, streamed), await bench.call(way, chat, not streamed)
    assert one.answer is not None
    assert other.answer is not None
    assert one.answer.text == other.answer.text != ""


@plain_and_streamed
@every_way
async def test_reasoning_is_output_and_is_billed_as_such(bench: Bench, way: str, streamed: bool) -> None:
    reply = await bench.call(way, a_plain_chat("What is 17 + 25?"), streamed, "sim-reason")
    assert reply.answer is not None
    assert reply.usage is not None
    assert "step at a time" not in reply.answer.text
    assert reply.usage.tokens_out == bench.last_bill()["tokens_out"] > len(reply.answer.text) // 4


@plain_and_streamed
@every_way
async def test_a_tool_is_called(bench: Bench, way: str, streamed: bool) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        chat = a_plain_chat("How warm is it in Bonn?", tools=(WEATHER,), tool_choice=choice)
        reply = await bench.call(way, chat, streamed)
        assert reply.answer is not None
        (call,) = reply.answer.tool_calls
        assert (reply.answer.finish, call["type"], call["function"]["name"]) == ("tool_calls", "function", "weather")
        assert call["id"]
        assert "place" in orjson.loads(call["function"]["arguments"])


@plain_and_streamed
@every_way
async def test_a_conversation_with_images_and_results_of_tools_is_understood(bench: Bench, way: str, streamed: bool) -> None:
    reply = await bench.call(way, Chat(messages=CONVERSATION, tools=(WEATHER, NOW), tool_choice="none"), streamed)
    assert reply.failure is None, reply.said
    assert reply.answer is not None
    assert reply.answer.text
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    with_image = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}
    without = await bench.call(way, a_plain_chat("What is this?"), streamed)
    reply = await bench.call(way, Chat(messages=(with_image,)), streamed)
    assert reply.usage is not None
    assert without.usage is not None
    assert reply.usage.tokens_in > without.usage.tokens_in + 50


@plain_and_streamed
@every_way
async def test_an_answer_meets_a_schema(bench: Bench, way: str, streamed: bool) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "warmth", "schema": SCHEMA, "strict": True}}
    reply = await bench.call(way, a_plain_chat("It is 21 degrees Celsius.", response_format=wanted), streamed)
    assert reply.answer is not None, reply.said
    assert list(orjson.loads(reply.answer.text)) == ["celsius"]


@plain_and_streamed
@pytest.mark.parametrize("way", ["openai", "azure", "gemini"])
async def test_log_probabilities_are_as_many_as_asked_for(bench: Bench, way: str, streamed: bool) -> None:
    reply = await bench.call(way, a_plain_chat("Tell me about boats.", logprobs=3), streamed)
    assert reply.answer is not None
    assert "".join(token["token"] for token in reply.answer.logprobs) == reply.answer.text
    assert all(token["logprob"] <= 0 and len(token["top"]) == 3 for token in reply.answer.logprobs)


@plain_and_streamed
@every_way
async def test_stops_and_bounds_are_heeded(bench: Bench, way: str, streamed: bool) -> None:
    whole = await bench.call(way, a_plain_chat("Count from 1 to 9 in a sentence about boats."), streamed)
    assert whole.answer is not None
    word = whole.answer.text.split()[3]
    stopped = await bench.call(way, a_plain_chat("Count from 1 to 9 in a sentence about boats.", stop=(word,)), streamed)
    assert stopped.answer is not None
    assert (stopped.answer.finish, word in stopped.answer.text) == ("stop", False)


ERRORS = {
    "invalid_request": "invalid",
    "context_length": "context_length",
    "content_filtered": "content_filtered",
    "auth": "auth",
    "permission": "auth",
    "not_found": "not_found",
    "rate_limited": "rate_limited",
    "quota_exhausted": "quota_exhausted",
    "spend_limit": "quota_exhausted",
    "billing": "quota_exhausted",
    "conflict": "unknown",
    "too_large": "too_large",
    "server_error": "server_error",
    "overloaded": "overloaded",
    "timeout": "overloaded",   # a status line came: `timeout` is for our own clock
}
# Where a provider has no such error, or says it in another way.
OTHERWISE = {("gemini", "billing"): "auth"}


@plain_and_streamed
@every_way
@pytest.mark.parametrize("error_class", list(ERRORS))
async def test_an_error_has_its_class_in_every_dialect(bench: Bench, way: str, error_class: str, streamed: bool) -> None:
    await bench.fault({"kind": "error", "error_class": error_class})
    reply = await bench.call(way, a_plain_chat("hi"), streamed)
    assert reply.failure == OTHERWISE.get((way, error_class), ERRORS[error_class])
    assert reply.answer is None
    told = reply.failure in (FailureClass.INVALID, FailureClass.CONTENT_FILTERED)
    assert bool(reply.said) == told or (way, error_class) == ("anthropic", "content_filtered")   # its model says nothing


@plain_and_streamed
@every_way
async def test_how_long_to_wait_is_told_in_every_dialect(bench: Bench, way: str, streamed: bool) -> None:
    await bench.fault({"kind": "error", "status": 429, "retry_after_s": 2})
    reply = await bench.call(way, a_plain_chat("hi"), streamed)
    assert (reply.failure, reply.wait_ms) == (FailureClass.RATE_LIMITED, 2000)
    await bench.fault({"kind": "error", "status": 429})
    assert (await bench.call(way, a_plain_chat("hi"), streamed)).wait_ms is None


@pytest.mark.parametrize("way", ["openai", "azure", "anthropic"])
async def test_limits_are_learnt_in_every_dialect_that_tells_them(bench: Bench, way: str) -> None:
    limit = {"provider": way, "model": MODEL, "key": "sk-one", "rpm": 600, "tpm": 90_000}
    async with bench.session.post(f"{bench.url}/control", json=limit) as response:
        assert response.status == 200, await response.text()
    for streamed in (False, True, False):
        assert (await bench.call(way, a_plain_chat("hi"), streamed)).limits == RateLimits(rpm=600, tpm=90_000)


LONG = "Tell me about the harbour, the boats, the wind and the weather of Hamburg, and what people do there all day long."


@every_way
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"kind": "cut_stream", "after_tokens": 10}, "truncated"),
        ({"kind": "stall_stream", "after_tokens": 10, "stall_s": 3}, "stalled"),
        ({"kind": "malformed"}, "malformed"),
        ({"kind": "stream_error", "status": 500, "after_tokens": 10}, "stream_error"),
        ({"kind": "stream_error", "status": 429, "after_tokens": 10}, "rate_limited"),
        ({"kind": "error_in_200", "status": 500}, "server_error"),
        ({"kind": "hang", "hang_s": 3}, "timeout"),
        ({"kind": "reset"}, "connect_error"),
        ({"kind": "slow", "factor": 1, "delay_ms": 3000}, "timeout"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_a_broken_stream_is_never_an_answer(bench: Bench, way: str, fault: dict[str, Any], failure: str) -> None:
    await bench.fault(fault)
    reply = await bench.call(way, a_plain_chat(LONG), True, stall_ms=400, first_token_ms=800)
    assert reply.failure == failure
    assert reply.answer is None
    if failure in ("truncated", "stalled"):
        assert abs(reply.tokens_seen - 10) <= 4


@every_way
async def test_a_stream_without_its_end_marker_is_whole(bench: Bench, way: str) -> None:
    chat = a_plain_chat(LONG, seed=5)
    whole = await bench.call(way, chat, streamed=True)
    await bench.fault({"kind": "no_done"})
    reply = await bench.call(way, chat, streamed=True)
    assert reply.answer is not None
    assert whole.answer is not None
    assert reply.answer.text == whole.answer.text
