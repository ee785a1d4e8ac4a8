"""The official OpenAI and Anthropic clients' own requests: what they send passes preprocessing and adapters unharmed."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel, ValidationError

from schemas.messages import Chat
from services.executor.adapters import anthropic, openai
from services.executor.adapters.flavours import FLAVOURS
from services.preprocessing.body import Problems, read_chat
from tests.support.builders_executor import completed
from tests.support.chats import ANTHROPIC_MESSAGES, CONVERSATION, NOW, PLACE, SCHEMA, WEATHER, a_chat
from tests.support.streams import anthropic_events, openai_events

MODEL = "gpt-4o"
HI: Any = [{"role": "user", "content": "hi"}]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "42"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Wire:
    """What came over it, and the clients that are plugged into it."""

    def __init__(self, url: str) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.openai = AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-1", max_retries=0)
        self.anthropic = AsyncAnthropic(base_url=url, api_key="sk-2", max_retries=0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        self.bodies.append(body)
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        is_anthropic = request.path.endswith("/messages")
        if body.get("stream"):
            events = anthropic_events() if is_anthropic else openai_events()
            return web.Response(body=b"".join(events), content_type="text/event-stream")
        return web.json_response(MESSAGE if is_anthropic else completed())

    async def openais(self, **fields: Any) -> dict[str, Any]:
        """The body of OpenAI's client for a chat."""
        answer = await self.openai.chat.completions.create(**({"model": MODEL, "messages": HI} | fields))
        if fields.get("stream"):
            assert [chunk async for chunk in answer]
        return self.bodies[-1]

    async def anthropics(self, **fields: Any) -> dict[str, Any]:
        """The body of Anthropic's client for a message."""
        answer = await self.anthropic.messages.create(**({"model": "claude", "max_tokens": 100, "messages": HI} | fields))
        if fields.get("stream"):
            assert [event async for event in answer]
        return self.bodies[-1]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    plugged: list[Wire] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        return await plugged[0].handle(request)

    app = web.Application()
    app.router.add_post("/v1/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    plugged.append(Wire(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield plugged[0]
    await plugged[0].openai.close()
    await plugged[0].anthropic.close()
    await runner.cleanup()


def chat_of(body: dict[str, Any]) -> Chat:
    problems = Problems()
    chat = read_chat(body, problems)
    assert chat is not None, problems
    return chat


def passed_on(body: dict[str, Any]) -> dict[str, Any]:
    """What a provider of OpenAI's dialect gets for a client's body. Whether to stream is our decision, not the caller's."""
    chat = chat_of(body)
    found = orjson.loads(openai.body(chat, MODEL, chat.max_tokens, bool(body.get("stream")), FLAVOURS["openai"]))
    assert isinstance(found, dict)
    return found


def as_anthropic(chat: Chat, streamed: bool = False) -> dict[str, Any]:
    found = orjson.loads(anthropic.body(chat, "claude", 100, streamed, FLAVOURS[""]))
    assert isinstance(found, dict)
    return found


# OpenAI's client, through preprocessing, to OpenAI -----------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 50, "temperature": 0.2, "top_p": 0.9, "seed": 7, "stop": ["a", "b"]},
        {"presence_penalty": -0.5, "frequency_penalty": 1.5},
        {"reasoning_effort": "high", "prompt_cache_key": "s-1"},
        {"logprobs": True, "top_logprobs": 5},
        {"logprobs": True},
        {"messages": CONVERSATION, "tools": [WEATHER, NOW], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "now"}}},
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "warmth", "description": "How warm", "schema": SCHEMA, "strict": True},
            }
        },
        {"stream": True, "stream_options": {"include_usage": True}},
        {"messages": [*HI, {"role": "assistant", "content": None, "refusal": "No."}, *HI]},
        {"messages": [*HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *HI]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "Ann"}]},
    ],
    ids=lambda fields: "+".join(fields) or "bare",
)
async def test_what_openais_client_sends_reaches_a_provider_unchanged(wire: Wire, fields: dict[str, Any]) -> None:
    body = await wire.openais(**fields)
    expected = body | {"messages": [_without_nulls(message) for message in body["messages"]]}
    assert passed_on(body) == expected


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"max_completion_tokens": 50}, {"max_tokens": 50}),   # by the provider's flavour and model, not by the caller
        (
            {"messages": [{"role": "developer", "content": "Be brief."}, *HI]},
            {"messages": [{"role": "system", "content": "Be brief."}, *HI]},
        ),
        ({"n": 1}, {}),
        ({"user": "ann", "store": False, "service_tier": "flex", "metadata": {"a": "b"}}, {}),   # Baton's own affairs
        ({"response_format": {"type": "text"}}, {}),
    ],
    ids=lambda fields: "+".join(fields) or "none",
)
async def test_what_is_said_otherwise_or_not_passed_on(wire: Wire, fields: dict[str, Any], changed: dict[str, Any]) -> None:
    await wire.openais(**fields)
    assert passed_on(wire.bodies[-1]) == {"model": MODEL, "messages": HI} | changed


class Warmth(BaseModel):
    celsius: float


async def test_what_the_clients_conveniences_send_is_understood(wire: Wire) -> None:
    """They write bodies of their own: a stream that is collected, a schema made of a class."""
    async with wire.openai.chat.completions.stream(model=MODEL, messages=HI, temperature=0.1) as stream:
        await stream.until_done()
    assert passed_on(wire.bodies[-1]) == wire.bodies[-1] | {"stream_options": {"include_usage": True}}
    with pytest.raises(ValidationError):   # the canned answer has no such form
        await wire.openai.chat.completions.parse(model=MODEL, messages=HI, response_format=Warmth)
    assert wire.bodies[-1]["response_format"]["json_schema"]["strict"] is True
    assert wire.bodies[-1].pop("stream") is False   # said aloud by this one only
    assert passed_on(wire.bodies[-1]) == wire.bodies[-1]


# The same conversation, as Anthropic's client would send it --------------------------------------------------------

THEIR_TOOLS = [
    {"name": "weather", "description": "The weather at a place.", "input_schema": PLACE, "strict": True},
    {"name": "now", "input_schema": {"type": "object"}},
]


async def test_a_conversation_is_what_anthropics_client_sends_for_it(wire: Wire) -> None:
    ours = await wire.openais(
        messages=CONVERSATION,
        tools=[WEATHER, NOW],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0.3,
        top_p=0.9,
        stop=["END", "STOP"],
        reasoning_effort="high",
        response_format={"type": "json_schema", "json_schema": {"name": "warmth", "schema": SCHEMA, "strict": True}},
    )
    theirs = await wire.anthropics(
        system="Be brief.",
        messages=ANTHROPIC_MESSAGES,
        tools=THEIR_TOOLS,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        temperature=0.3,
        stop_sequences=["END", "STOP"],
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    )
    assert as_anthropic(chat_of(ours)) == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"stream": True}, {"stream": True}),
        (
            {"messages": [{"role": "system", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, *HI]},
            {"system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        ),
        (
            {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "now"}}},
            {"tools": THEIR_TOOLS[1:], "tool_choice": {"type": "tool", "name": "now"}},
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": "The answer is"}]},
            {"messages": [*HI, {"role": "assistant", "content": "The answer is"}]},
        ),
    ],
    ids=["bare", "streamed", "system", "named-tool", "prefill"],
)
async def test_a_request_is_what_anthropics_client_sends_for_it(
    wire: Wire, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    chat = chat_of(await wire.openais(**ours))
    assert as_anthropic(chat, bool(ours.get("stream"))) == await wire.anthropics(**theirs)


async def test_the_headers_that_matter_are_the_clients_own(wire: Wire) -> None:
    await wire.anthropics()
    for name, value in anthropic.headers("sk-2", FLAVOURS[""]):
        if name not in ("accept-encoding", "accept"):
            assert wire.headers[name] == value
    await wire.openais()
    for name, value in openai.headers("sk-1", FLAVOURS[""]):
        if name not in ("accept-encoding", "accept"):
            assert wire.headers[name] == value


def test_the_whole_conversation_is_a_chat() -> None:
    """Or the comparisons above would compare less than they seem to."""
    assert chat_of({"messages": list(CONVERSATION)}).messages == a_chat().messages
