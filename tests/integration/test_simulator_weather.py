"""The simulator's weather over real sockets: keys, limits, capacity, outages, scenarios, the log of calls."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from services.simulator.calls import key_hash
from services.simulator.control import Control
from services.simulator.main import Settings, serve

Client = aiohttp.ClientSession
LONG = "Write 200 words about rivers and mountains"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    settings = Settings(invoice=tmp_path / "invoice.jsonl", profile="steady", latency_scale=0)
    async with running(settings) as client:
        yield client


class running:
    """A simulator in this process, and a client of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._stop = settings, asyncio.Event()

    async def __aenter__(self) -> Client:
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server = asyncio.create_task(serve(self._settings, address.set_result, self._stop))
        self._client = aiohttp.ClientSession(await address)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        self._stop.set()
        await self._server


async def control(client: Client, **fields: Any) -> dict[str, Any]:
    async with client.post("/control", json=fields) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def lines(client: Client, path: str) -> list[dict[str, Any]]:
    async with client.get(path) as response:
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


async def until_load(client: Client, **load: int) -> None:
    deadline_s = time.monotonic() + 10
    while (await control(client))["load"].get("alpha") != load:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def call(
    client: Client,
    model: str = "sim-large",
    provider: str = "alpha",
    key: str = "sk-one",
    prompt: str = "What is 6 * 7?",
    **more: Any,
) -> tuple[int, Any, bytes]:
    """Status, headers, body; status 0 if the connection was reset."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
    headers = {"authorization": f"Bearer {key}", "x-client-request-id": "a-1"}
    try:
        async with client.post(f"/{provider}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status, response.headers, await response.read()
    except aiohttp.ServerDisconnectedError:
        return 0, {}, b""
    except aiohttp.ClientOSError:
        return 0, {}, b""


async def statuses(client: Client, calls: int, **of: Any) -> list[int]:
    return [(await call(client, **of))[0] for _ in range(calls)]


# Keys and limits


async def test_one_revoked_key_is_refused_and_the_others_are_not(client: Client) -> None:
    await control(client, provider="alpha", key="sk-one", revoked=True)
    status, _, body = await call(client)
    assert (status, orjson.loads(body)["error"]["code"]) == (401, "invalid_api_key")
    assert (await call(client, key="sk-two"))[0] == 200
    assert (await call(client, provider="beta"))[0] == 200
    await control(client, key=key_hash("sk-one")[:6], revoked=False)
    assert (await call(client))[0] == 200
    assert len(await lines(client, "/invoice")) == 3


async def test_over_the_limit_the_retry_after_is_true_and_holds_for_one_key_and_model(client: Client) -> None:
    await control(client, provider="alpha", rpm=200)
    sent = [asyncio.create_task(call(client)) for _ in range(210)]
    replies = await asyncio.gather(*sent)
    refused = [headers for status, headers, _ in replies if status == 429]
    assert refused
    assert sum(status == 200 for status, _, _ in replies) >= 200
    for other in ({"key": "sk-two"}, {"model": "sim-nano"}, {"provider": "beta"}):
        assert (await call(client, **other))[0] == 200
    while (reply := await call(client))[0] != 429:
        pass
    headers = reply[1]
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("200", "0")
    wait_ms = int(headers["retry-after-ms"])
    assert 0 < wait_ms <= 300
    assert int(headers["retry-after"]) == 1
    await asyncio.sleep(wait_ms / 1000)
    assert (await call(client))[0] == 200


async def test_tokens_are_limited_and_the_headers_count_down(client: Client) -> None:
    await control(client, model="sim-large", tpm=1_000)
    status, headers, _ = await call(client, max_tokens=396)
    assert (status, headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == (200, "1000", "600")
    assert headers["x-ratelimit-reset-tokens"].startswith("24")
    status, headers, _ = await call(client, max_tokens=900)
    assert status == 429
    assert 17_000 < int(headers["retry-after-ms"]) <= 18_240
    assert headers["x-ratelimit-remaining-tokens"] == "600"


# Capacity


async def test_calls_beyond_the_capacity_wait_and_beyond_the_queue_are_overload(client: Client) -> None:
    await control(client, provider="alpha", capacity=1, queue_max=2)
    await control(client, provider="alpha", fault={"kind": "slow", "delay_ms": 100})
    started_s = time.monotonic()
    replies = await asyncio.gather(*(call(client) for _ in range(5)))
    took_s = time.monotonic() - started_s
    assert sorted(status for status, _, _ in replies) == [200, 200, 200, 503, 503]
    assert 0.3 <= took_s < 1
    overloaded = next(body for status, _, body in replies if status == 503)
    assert orjson.loads(overloaded)["error"]["code"] == "server_is_overloaded"
    assert len(await lines(client, "/invoice")) == 3


async def test_capacity_can_be_lifted_while_calls_wait(client: Client) -> None:
    await control(client, provider="alpha", capacity=1, fault={"kind": "hang", "hang_s": 1, "times": 1})
    hanging = asyncio.create_task(call(client))
    await until_load(client, working=1, waiting=0)
    waiting = asyncio.create_task(call(client))
    await until_load(client, working=1, waiting=1)
    await control(client, provider="alpha", capacity=0)
    assert (await waiting)[0] == 200
    assert not hanging.done()
    assert (await hanging)[0] == 0


async def test_a_caller_who_leaves_the_queue_is_neither_answered_nor_billed(client: Client) -> None:
    await control(client, capacity=1, fault={"kind": "hang", "hang_s": 0.4, "times": 1})
    hanging = asyncio.create_task(call(client))
    await until_load(client, working=1, waiting=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await call(client)
    await hanging
    await until_load(client, working=0, waiting=0)
    assert [line["error_class"] for line in await lines(client, "/calls")] == ["hang", "cancelled"]
    assert await lines(client, "/invoice") == []


async def test_every_dialect_words_the_desk_s_refusals_in_its_own_way(client: Client) -> None:
    body = {"model": "sim-large", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"x-api-key": "sk-one", "anthropic-version": "2023-06-01"}

    async def send() -> tuple[int, Any, Any]:
        async with client.post("/claude/v1/messages", json=body, headers=headers) as response:
            return response.status, response.headers, await response.json()

    await control(client, provider="claude", rpm=1)
    assert (await send())[0] == 200
    status, sent, answer = await send()
    assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
    assert (sent["anthropic-ratelimit-requests-limit"], sent["anthropic-ratelimit-requests-remaining"]) == ("1", "0")
    assert 58 <= int(sent["retry-after"]) <= 60
    await control(client, provider="claude", rpm=0, capacity=1, queue_max=0, fault={"kind": "slow", "delay_ms": 200})
    answers = await asyncio.gather(send(), send())
    assert sorted(status for status, _, _ in answers) == [200, 529]
    await control(client, provider="claude", key="sk-one", revoked=True)
    assert (await send())[0] == 401
    gemini = "/google/v1beta/models/sim-large:generateContent"
    await control(client, provider="google", key="sk-one", revoked=True)
    contents = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    async with client.post(gemini, json=contents, headers={"x-goog-api-key": "sk-one"}) as response:
        assert response.status == 400
        assert "API_KEY_INVALID" in await response.text()


# The log


async def test_every_call_is_on_the_log_billed_or_not_and_never_its_content(client: Client) -> None:
    before_ms = int(time.time() * 1000)
    await call(client, stream=True)
    await control(client, fault={"kind": "error", "status": 429, "retry_after_s": 2, "times": 1})
    await call(client)
    await control(client, fault={"kind": "reset", "times": 1})
    await call(client)
    await control(client, fault={"kind": "cut_stream", "after_tokens": 5, "times": 1})
    with pytest.raises(aiohttp.ClientPayloadError):
        await call(client, stream=True, prompt=LONG)
    await call(client, model="gpt-9")
    await control(client, fault={"kind": "hang", "hang_s": 0.1, "times": 1})
    await call(client)
    log = await lines(client, "/calls")
    seen = [(line["status"], line["error_class"], line["retry_after_ms"], line["streamed"]) for line in log]
    assert seen == [
        (200, "", 0, True),
        (429, "rate_limited", 2_000, False),
        (0, "reset", 0, False),
        (200, "cut_stream", 0, True),
        (404, "not_found", 0, False),
        (0, "hang", 0, False),
    ]
    assert {line["key"] for line in log} == {key_hash("sk-one")}
    assert {(line["provider"], line["attempt_id"]) for line in log} == {("alpha", "a-1")}
    assert all(before_ms <= line["at_ms"] <= line["done_ms"] for line in log)
    raw = orjson.dumps(log).decode()
    assert "sk-one" not in raw
    assert "rivers" not in raw
    assert len(await lines(client, f"/calls?since_ms={log[-1]['at_ms']}")) >= 1
    assert await lines(client, f"/calls?since_ms={log[-1]['done_ms'] + 60_000}") == []
    async with client.get("/calls?since_ms=yesterday") as response:
        assert (response.status, (await response.json())["error"]["field"]) == (400, "since_ms")


async def test_a_call_before_its_retry_after_is_over_is_gated(client: Client) -> None:
    await control(client, fault={"kind": "error", "status": 429, "retry_after_s": 1, "times": 1})
    await call(client)
    await call(client, key="sk-two")
    await call(client)
    await asyncio.sleep(1.01)
    await call(client)
    async with client.get("/gated") as response:
        gated = await response.json()
    assert gated["count"] == 1
    (early,) = gated["calls"]
    assert (early["key"], early["model"], early["retry_after_ms"]) == (key_hash("sk-one"), "sim-large", 1000)
    assert 0 <= early["after_ms"] < 1000


# Profiles and outages


async def test_an_outage_begins_when_asked_for_one_provider_and_shows_in_control(client: Client) -> None:
    shown = await control(client, provider="beta", profile="outage", outage_at_s=0)
    assert shown["weather"]["beta"]["is_down"]
    assert set(await statuses(client, 20, provider="beta")) <= {0, 500, 503}
    assert set(await statuses(client, 5)) == {200}
    await control(client, provider="beta", profile="steady")
    assert set(await statuses(client, 5, provider="beta")) == {200}


async def test_a_liar_reports_other_tokens_than_it_bills(client: Client) -> None:
    await control(client, fault={"kind": "wrong_usage"})
    _, _, body = await call(client)
    usage = orjson.loads(body)["usage"]
    (line,) = await lines(client, "/invoice")
    assert line["reported"] == {"tokens_in": usage["prompt_tokens"], "tokens_out": usage["completion_tokens"]}
    assert line["reported"]["tokens_out"] != line["tokens_out"]


async def test_an_error_body_under_a_200_costs_nothing(client: Client) -> None:
    await control(client, fault={"kind": "error_in_200"})
    status, _, body = await call(client)
    assert status == 200
    assert "error" in orjson.loads(body)
    assert await lines(client, "/invoice") == []
    (line,) = await lines(client, "/calls")
    assert (line["status"], line["error_class"]) == (200, "error_in_200")


async def test_a_dripping_stream_left_by_its_caller_costs_what_was_sent(client: Client) -> None:
    await control(client, fault={"kind": "drip", "after_tokens": 4, "stall_s": 0.2})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await call(client, prompt=LONG, stream=True)
    deadline_s = time.monotonic() + 10
    while not (billed := await lines(client, "/invoice")) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.02)
    (line,) = billed
    assert (line["status"], 4 <= line["tokens_out"] < 20) == ("cancelled", True)


async def test_controls_given_at_the_start_are_in_force() -> None:
    controls = (Control(provider="beta", profile="key_revoked"), Control(capacity=7))
    async with running(Settings(profile="steady", latency_scale=0, controls=controls)) as client:
        assert await statuses(client, 2, provider="beta") == [401, 401]
        assert await statuses(client, 2) == [200, 200]
        async with client.get("/control") as response:
            assert (await response.json())["capacity"]["capacity"] == 7


# Scenarios


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("sim-s01", [429, 200, 200]),
        ("sim-s02", [429, 429, 429]),
        ("sim-s03", [500, 200, 200]),
        ("sim-s04", [503, 503, 503]),
        ("sim-s05", [0, 200, 200]),
        ("sim-s12", [400, 400, 400]),
        ("sim-s13", [400, 400, 400]),
        ("sim-s16", [503, 503, 503]),
        ("sim-scenario-fallback", [200, 200, 200]),
    ],
)
async def test_a_scenario_plays_anew_for_every_instance(client: Client, scenario: str, expected: list[int]) -> None:
    for instance in ("", "@run1", "@run2"):
        assert await statuses(client, 3, model=f"{scenario}{instance}") == expected
    assert await statuses(client, 3, model=f"{scenario}@run1", provider="beta") == expected


async def test_s06_never_answers_and_s07_answers_late(client: Client) -> None:
    await control(client, scenario_scale=0.005)
    started_s = time.monotonic()
    silent, late = await asyncio.gather(call(client, model="sim-s06"), call(client, model="sim-s07"))
    assert silent[0] == 0
    assert late[0] == 200
    assert time.monotonic() - started_s >= 0.5


@pytest.mark.parametrize(("scenario", "sent"), [("sim-s08", 40), ("sim-s09", 20), ("sim-s14", 40)])
async def test_a_scenario_s_stream_breaks_off_in_the_middle(client: Client, scenario: str, sent: int) -> None:
    await control(client, scenario_scale=0.005)
    for _ in range(2):
        with pytest.raises(aiohttp.ClientPayloadError):
            await call(client, model=f"{scenario}@x", stream=True)
    billed = await lines(client, "/invoice")
    assert [(line["model"], line["status"]) for line in billed] == [(f"{scenario}@x", "truncated")] * 2
    assert all(sent <= line["tokens_out"] <= sent + 4 for line in billed)


async def test_s10_spoils_the_tenth_event_only_and_s11_leaves_out_the_end(client: Client) -> None:
    broken = (await call(client, model="sim-s10", stream=True))[2].decode().split("\n\n")
    events = [event.removeprefix("data: ") for event in broken if event]
    assert [at for at, event in enumerate(events, 1) if not is_json(event)] == [10, len(events)]
    assert events[-1] == "[DONE]"
    endless = (await call(client, model="sim-s11", stream=True))[2].decode()
    assert '"finish_reason":"stop"' in endless
    assert "[DONE]" not in endless


async def test_s15_is_down_from_its_first_call_for_a_while(client: Client) -> None:
    await control(client, scenario_scale=0.01)
    assert await statuses(client, 2, model="sim-s15@a") == [503, 503]
    await asyncio.sleep(0.62)
    assert await statuses(client, 1, model="sim-s15@a") == [200]
    assert await statuses(client, 1, model="sim-s15@b") == [503]


def is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
