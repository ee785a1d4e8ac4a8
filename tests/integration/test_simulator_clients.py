"""The official clients of OpenAI, Azure and Anthropic pointed at the simulator: they must find nothing strange."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from services.simulator.main import Settings, serve

MODEL = "sim-scenario-fallback"
LONG = "Write 200 words about rivers and mountains"
HELLO: Any = [{"role": "user", "content": "What is 6 * 7?"}]
WEATHER: Any = [{"role": "user", "content": "How is the weather in Berlin?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": CITY}}
ANTHROPIC_TOOL: Any = {"name": "get_weather", "input_schema": CITY}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(serve(Settings(profile="steady", latency_scale=0), address.set_result, stop))
    yield await address
    stop.set()
    await server


@pytest.fixture
async def openai_client(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{address}/alpha/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def azure_client(address: str) -> AsyncIterator[openai.AsyncAzureOpenAI]:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=f"{address}/alpha", api_key="k", api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def anthropic_client(address: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=f"{address}/alpha", api_key="k", max_retries=0) as client:
        yield client


async def fault(address: str, **fields: Any) -> None:
    async with aiohttp.ClientSession(address) as client, client.post("/control", json={"fault": fields}) as response:
        assert response.status == 200, await response.text()


async def test_openais_client_reads_a_plain_answer(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == "6 * 7 = 42"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 3)
    assert answer.choices[0].logprobs is not None
    assert [token.token for token in answer.choices[0].logprobs.content or ()] == ["6", " *", " 7", " =", " 42"]


async def test_openais_and_azures_clients_read_a_stream(
    openai_client: openai.AsyncOpenAI, azure_client: openai.AsyncAzureOpenAI
) -> None:
    for client in (openai_client, azure_client):
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "6 * 7 = 42"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 7


async def test_openais_client_reads_tool_calls_plain_and_streamed(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model=MODEL, messages=WEATHER, tools=[OPENAI_TOOL])
    (called,) = answer.choices[0].message.tool_calls or ()
    assert (called.type, called.function.name, called.function.arguments) == ("function", "get_weather", '{"city":"Berlin"}')
    async with openai_client.chat.completions.stream(model=MODEL, messages=WEATHER, tools=[OPENAI_TOOL]) as stream:
        final = await stream.get_final_completion()
    (again,) = final.choices[0].message.tool_calls or ()
    assert (again.function.arguments, final.choices[0].finish_reason) == (called.function.arguments, "tool_calls")


@pytest.mark.parametrize(
    ("error_class", "expected"),
    [
        ("rate_limited", openai.RateLimitError),
        ("quota_exhausted", openai.RateLimitError),
        ("spend_limit", openai.RateLimitError),
        ("auth", openai.AuthenticationError),
        ("permission", openai.PermissionDeniedError),
        ("not_found", openai.NotFoundError),
        ("conflict", openai.ConflictError),
        ("context_length", openai.BadRequestError),
        ("content_filtered", openai.BadRequestError),
        ("server_error", openai.InternalServerError),
        ("overloaded", openai.InternalServerError),
    ],
)
async def test_openais_and_azures_clients_raise_the_right_error(
    address: str,
    openai_client: openai.AsyncOpenAI,
    azure_client: openai.AsyncAzureOpenAI,
    error_class: str,
    expected: type[openai.APIStatusError],
) -> None:
    await fault(address, kind="error", error_class=error_class)
    with pytest.raises(expected) as caught:
        await openai_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.type is not None
    assert caught.value.request_id is not None
    with pytest.raises(expected) as caught:
        await azure_client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.code is not None or error_class == "server_error"


async def test_openais_client_finds_an_error_in_a_stream(address: str, openai_client: openai.AsyncOpenAI) -> None:
    await fault(address, kind="stream_error", error_class="server_error", after_tokens=5)
    stream = await openai_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": LONG}], stream=True)
    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in stream:
            pass


async def test_anthropics_client_reads_a_plain_answer_and_thinking(anthropic_client: anthropic.AsyncAnthropic) -> None:
    message = await anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    (block,) = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert (block.text, message.stop_reason) == ("6 * 7 = 42", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 3)
    assert message._request_id is not None
    thought = await anthropic_client.messages.create(model="sim-reason", max_tokens=1000, messages=HELLO)
    assert thought.content[0].type == "thinking"


@pytest.mark.parametrize("model", [MODEL, "sim-reason"])
async def test_anthropics_client_puts_a_stream_together_as_the_plain_answer(
    anthropic_client: anthropic.AsyncAnthropic, model: str
) -> None:
    plain = await anthropic_client.messages.create(model=model, max_tokens=1000, messages=HELLO)
    async with anthropic_client.messages.stream(model=model, max_tokens=1000, messages=HELLO) as stream:
        events = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert [block.to_dict() for block in message.content] == [block.to_dict() for block in plain.content]
    assert message.usage.output_tokens == plain.usage.output_tokens
    assert (events[0], events[-1]) == ("message_start", "message_stop")


async def test_anthropics_client_reads_tool_calls_plain_and_streamed(anthropic_client: anthropic.AsyncAnthropic) -> None:
    plain = await anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=WEATHER, tools=[ANTHROPIC_TOOL])
    (block,) = plain.content
    assert isinstance(block, anthropic.types.ToolUseBlock)
    assert (block.input, plain.stop_reason) == ({"city": "Berlin"}, "tool_use")
    asked: Any = {"type": "tool", "name": "get_weather"}
    async with anthropic_client.messages.stream(
        model=MODEL, max_tokens=100, messages=WEATHER, tools=[ANTHROPIC_TOOL], tool_choice=asked
    ) as stream:
        streamed = await stream.get_final_message()
    assert isinstance(streamed.content[0], anthropic.types.ToolUseBlock)
    assert streamed.content[0].input == {"city": "Berlin"}


@pytest.mark.parametrize(
    ("error_class", "expected"),
    [
        ("invalid_request", anthropic.BadRequestError),
        ("context_length", anthropic.BadRequestError),
        ("quota_exhausted", anthropic.BadRequestError),
        ("auth", anthropic.AuthenticationError),
        ("permission", anthropic.PermissionDeniedError),
        ("not_found", anthropic.NotFoundError),
        ("conflict", anthropic.ConflictError),
        ("too_large", anthropic.APIStatusError),
        ("billing", anthropic.APIStatusError),
        ("rate_limited", anthropic.RateLimitError),
        ("spend_limit", anthropic.RateLimitError),
        ("server_error", anthropic.InternalServerError),
        ("timeout", anthropic.InternalServerError),
        ("overloaded", anthropic.APIStatusError),
    ],
)
async def test_anthropics_client_raises_the_right_error(
    address: str, anthropic_client: anthropic.AsyncAnthropic, error_class: str, expected: type[anthropic.APIStatusError]
) -> None:
    await fault(address, kind="error", error_class=error_class)
    with pytest.raises(expected) as caught:
        await anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["error"]["message"]
    assert caught.value.request_id == body["request_id"]


async def test_anthropics_client_finds_an_error_in_a_stream(address: str, anthropic_client: anthropic.AsyncAnthropic) -> None:
    await fault(address, kind="stream_error", error_class="overloaded", after_tokens=5)
    asked: Any = [{"role": "user", "content": LONG}]
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        async with anthropic_client.messages.stream(model=MODEL, max_tokens=1000, messages=asked) as stream:
            await stream.get_final_message()


async def test_a_refusal_is_an_answer_to_anthropics_client(address: str, anthropic_client: anthropic.AsyncAnthropic) -> None:
    await fault(address, kind="error", error_class="content_filtered")
    message = await anthropic_client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    assert (message.stop_reason, message.content) == ("refusal", [])
    async with anthropic_client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        assert (await stream.get_final_message()).stop_reason == "refusal"
