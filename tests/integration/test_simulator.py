"""The simulator over real sockets: wire shapes, faults at run time, the invoice, and the process itself."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.wires import Client, control, invoice, simulator

PATH = "/v1/chat/completions"
LONG = "Write 200 words about rivers and mountains"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with simulator(tmp_path / "invoice.jsonl") as client:
        yield client


def body(prompt: str = "What is 6 * 7?", model: str = "sim-reason", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


async def until(true: Callable[[], Awaitable[bool]], deadline_s: float = 5) -> None:
    for _ in range(int(deadline_s / 0.02)):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not true within {deadline_s} s")


async def drain(response: aiohttp.ClientResponse, into: bytearray) -> None:
    async for piece in response.content.iter_any():
        into += piece


def events(raw: bytes) -> list[str]:
    assert raw.endswith(b"\n\n")
    return [part.removeprefix("data: ") for part in raw.decode().split("\n\n")[:-1]]


async def test_a_plain_answer_has_openais_shape_and_its_usage_is_on_the_invoice(client: Client) -> None:
    async with client.post(PATH, json=body(), headers={"x-client-request-id": "a-1"}) as response:
        answer = await response.json()
        assert response.headers["x-request-id"].startswith("req_")
        assert int(response.headers["x-ratelimit-remaining-requests"]) > 0
        assert response.headers["x-ratelimit-reset-tokens"].endswith("s")
    assert (answer["object"], answer["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    (line,) = await invoice(client)
    assert line.pop("at_ms") > 0
    assert line == {
        "attempt_id": "a-1",
        "provider": "alpha",
        "model": "sim-reason",
        "tokens_in": usage["prompt_tokens"],
        "tokens_out": usage["completion_tokens"],
        "cached_tokens": 0,
        "cost_microusd": usage["prompt_tokens"] * 5 + usage["completion_tokens"] * 20,
        "status": "ok",
        "streamed": False,
    }


async def test_a_stream_is_a_role_then_words_then_the_finish_then_usage_then_done(client: Client) -> None:
    async with client.post(PATH, json=body(LONG)) as response:
        plain = await response.json()
    asked = body(LONG, stream=True, stream_options={"include_usage": True})
    async with client.post(PATH, json=asked) as response:
        assert response.content_type == "text/event-stream"
        *chunks, done = events(await response.read())
    assert done == "[DONE]"
    first, *pieces, finish, usage = [orjson.loads(chunk) for chunk in chunks]
    assert first["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert text == plain["choices"][0]["message"]["content"]
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (usage["choices"], usage["usage"]) == ([], plain["usage"])
    assert {chunk["id"] for chunk in (first, finish, usage)} == {first["id"]}
    plain_line, stream_line = await invoice(client)
    assert plain_line["cost_microusd"] == stream_line["cost_microusd"]


async def test_a_stream_without_include_usage_has_no_usage(client: Client) -> None:
    async with client.post(PATH, json=body(LONG, stream=True)) as response:
        assert b"usage" not in await response.read()


async def test_a_streamed_tool_call_arrives_in_fragments(client: Client) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "day": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    asked = body("The weather in Rio Grande?", "sim-large", tools=[tool], tool_choice="required", stream=True)
    async with client.post(PATH, json=asked) as response:
        first, *fragments, finish = [orjson.loads(chunk) for chunk in events(await response.read())[:-1]]
    assert first["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": ""}
    parts = [chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] for chunk in fragments]
    assert orjson.loads("".join(parts))["city"]
    assert finish["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_provider_in_the_path_has_its_own_faults_and_lines(client: Client) -> None:
    await control(client, provider="beta", fault={"kind": "error", "status": 500})
    async with client.post(f"/beta{PATH}", json=body()) as response:
        assert response.status == 500
    async with client.post(f"/gamma{PATH}", json=body()) as response:
        assert response.status == 200
    assert [line["provider"] for line in await invoice(client)] == ["gamma"]


@pytest.mark.parametrize(
    ("fault", "status", "kind", "code"),
    [
        ({"status": 500}, 500, "server_error", None),
        ({"status": 503}, 503, "service_unavailable_error", "server_is_overloaded"),
        ({"status": 429, "retry_after_s": 1.5}, 429, "tokens", "rate_limit_exceeded"),
        ({"error_class": "quota_exhausted"}, 429, "insufficient_quota", "insufficient_quota"),
        ({"error_class": "context_length"}, 400, "invalid_request_error", "context_length_exceeded"),
        ({"error_class": "content_filtered"}, 400, "invalid_request_error", "content_policy_violation"),
        ({"status": 401}, 401, "invalid_request_error", "invalid_api_key"),
    ],
)
async def test_an_error_has_openais_body_and_costs_nothing(
    client: Client, fault: dict[str, Any], status: int, kind: str, code: str | None
) -> None:
    await control(client, fault={"kind": "error", **fault})
    async with client.post(PATH, json=body(stream=True)) as response:
        error = (await response.json())["error"]
        assert (response.status, error["type"], error["code"]) == (status, kind, code)
        assert set(error) == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"].startswith("req_")
    assert await invoice(client) == []


async def test_a_429_says_when_to_come_back_only_if_told_to(client: Client) -> None:
    await control(client, fault={"kind": "error", "status": 429, "retry_after_s": 1.5, "times": 1})
    async with client.post(PATH, json=body()) as response:
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1500")
        assert "try again in 1.5s" in (await response.json())["error"]["message"]
        assert response.headers["x-ratelimit-remaining-tokens"] == "0"
    await control(client, fault={"kind": "error", "status": 429})
    async with client.post(PATH, json=body()) as response:
        assert "retry-after" not in response.headers
        assert "try again" not in await response.text()


async def test_a_fault_ends_after_its_times_or_when_cleared(client: Client) -> None:
    async def statuses(calls: int) -> list[int]:
        found = []
        for _ in range(calls):
            async with client.post(PATH, json=body()) as response:
                found.append(response.status)
        return found

    await control(client, model="sim-reason", fault={"kind": "error", "status": 503, "times": 2})
    assert await statuses(3) == [503, 503, 200]
    await control(client, fault={"kind": "error", "status": 500})
    assert await statuses(2) == [500, 500]
    await control(client, fault=None)
    assert await statuses(1) == [200]


async def test_control_shows_what_is_in_force_and_names_a_bad_field(client: Client) -> None:
    await control(client, provider="beta", model="sim-nano", fault={"kind": "hang", "times": 3}, profile="calm")
    async with client.get("/control") as response:
        state = await response.json()
    assert state["profiles"] == {"beta": "calm"}
    assert (state["faults"][0]["provider"], state["faults"][0]["hits_left"]) == ("beta", 3)
    async with client.post("/control", json={"fault": {"kind": "fire"}}) as response:
        assert (response.status, (await response.json())["error"]["field"]) == (400, "fault.kind")


async def test_a_cut_stream_ends_without_a_finish_and_bills_what_was_sent(client: Client) -> None:
    await control(client, fault={"kind": "cut_stream", "after_tokens": 40})
    received = bytearray()
    async with client.post(PATH, json=body(LONG, "sim-small", stream=True, seed=3)) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await drain(response, received)
    chunks = [orjson.loads(event) for event in events(bytes(received))]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    (line,) = await invoice(client)
    assert (line["status"], line["tokens_out"]) == ("truncated", (len(text.encode()) + 3) // 4)
    assert 40 <= line["tokens_out"] < 50


async def test_a_stalled_stream_is_silent_then_ends_broken(client: Client) -> None:
    await control(client, fault={"kind": "stall_stream", "after_tokens": 5, "stall_s": 0.2})
    async with client.post(PATH, json=body(LONG, stream=True)) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert [line["status"] for line in await invoice(client)] == ["truncated"]


async def test_a_cut_plain_answer_is_shorter_than_announced(client: Client) -> None:
    await control(client, fault={"kind": "cut_stream"})
    async with client.post(PATH, json=body()) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_reset_connection_has_no_answer(client: Client) -> None:
    await control(client, fault={"kind": "reset", "times": 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post(PATH, json=body())
    assert await invoice(client) == []


async def test_a_hanging_call_never_answers_and_costs_nothing(client: Client) -> None:
    with pytest.raises(TimeoutError):
        await client.post(PATH, json=body(model="sim-fault-hang"), timeout=aiohttp.ClientTimeout(total=0.3))
    assert await invoice(client) == []


async def test_a_malformed_answer_is_html_or_a_broken_event(client: Client) -> None:
    await control(client, fault={"kind": "malformed"})
    async with client.post(PATH, json=body(LONG)) as response:
        assert (response.status, response.content_type) == (200, "text/html")
    async with client.post(PATH, json=body(LONG, stream=True)) as response:
        *chunks, done = events(await response.read())
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(chunks[9])
    assert orjson.loads(chunks[10])
    assert done == "[DONE]"


async def test_a_stream_may_end_without_done(client: Client) -> None:
    await control(client, fault={"kind": "no_done"})
    async with client.post(PATH, json=body(LONG, stream=True)) as response:
        assert orjson.loads(events(await response.read())[-1])["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("model", "finish", "text"),
    [("sim-fault-empty", "stop", ""), ("sim-fault-refuse", "stop", "sorry"), ("sim-fault-truncate", "length", "")],
)
async def test_a_fault_model_spoils_its_answer(client: Client, model: str, finish: str, text: str) -> None:
    async with client.post(PATH, json=body("Explain the tides of the sea", model)) as response:
        choice = (await response.json())["choices"][0]
    assert (choice["finish_reason"], text in choice["message"]["content"]) == (finish, True)


async def test_wrong_json_is_no_json(client: Client) -> None:
    await control(client, fault={"kind": "wrong_json"})
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    asked = body("Extract: Ada Lovelace", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    async with client.post(PATH, json=asked) as response:
        content = (await response.json())["choices"][0]["message"]["content"]
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(content)


async def test_an_unknown_model_and_a_too_long_prompt_are_refused(client: Client) -> None:
    async with client.post(PATH, json=body(model="gpt-9")) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")
    async with client.post(PATH, json=body("x" * 70_000, "sim-nano")) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "context_length_exceeded")
    async with client.post(PATH, data=b"{") as response:
        assert response.status == 400


async def test_a_long_prefix_seen_before_is_cached_and_cheaper(client: Client) -> None:
    messages = [{"role": "system", "content": "rule " * 1000}, {"role": "user", "content": "What is 1 + 1?"}]
    for _ in range(2):
        async with client.post(PATH, json={"model": "sim-large", "messages": messages}) as response:
            usage = (await response.json())["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 1152
    first, second = await invoice(client)
    assert (second["cached_tokens"], first["cost_microusd"] - second["cost_microusd"]) == (1152, 1440)


async def test_an_answer_is_billed_although_its_caller_has_left(client: Client) -> None:
    await control(client, fault={"kind": "slow", "delay_ms": 300})
    with pytest.raises(TimeoutError):
        await client.post(PATH, json=body(), timeout=aiohttp.ClientTimeout(total=0.05))

    async def billed() -> bool:
        return [line["status"] for line in await invoice(client)] == ["ok"]

    await until(billed)


async def test_a_stream_is_billed_for_what_was_sent_when_its_caller_leaves(client: Client) -> None:
    await control(client, latency_scale=1)
    response = await client.post(PATH, json=body(LONG, "sim-large", stream=True))
    await response.content.readany()
    response.close()

    async def billed() -> bool:
        return [line["status"] for line in await invoice(client)] == ["cancelled"]

    await until(billed)


async def test_models_and_liveness_are_served(client: Client) -> None:
    async with client.get("/alpha/v1/models") as response:
        assert "sim-large" in {model["id"] for model in (await response.json())["data"]}
    async with client.get("/livez") as response:
        assert response.status == 200


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "services.simulator", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


async def test_the_process_says_where_it_listens_keeps_its_invoice_and_stops_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "invoice.jsonl"
    arguments = ("--invoice", str(path), "--profile", "steady", "--latency-scale", "0", "--name", "beta")
    process = await start("--port", "0", *arguments)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        address = line.removeprefix("simulator ready on ")
        assert address.startswith("http://127.0.0.1:")
        async with aiohttp.ClientSession() as session, session.post(address + PATH, json=body()) as response:
            assert response.status == 200
        assert orjson.loads(path.read_bytes())["provider"] == "beta"

        second = await start("--port", address.rsplit(":", 1)[1])
        _, complaint = await asyncio.wait_for(second.communicate(), 20)
        assert second.returncode == 1
        assert b"is taken" in complaint

        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
