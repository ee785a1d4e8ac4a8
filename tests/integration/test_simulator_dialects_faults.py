"""Every fault in every wire format, over real sockets, and what it costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.support.wires import (
    LONG,
    WIRES,
    Client,
    Wire,
    ask,
    control,
    counted,
    every_wire,
    finished,
    invoice,
    piece_of,
    simulator,
    tokens_of,
)

MARKERS = {
    "openai": b"data: [DONE]\n\n",
    "azure": b"data: [DONE]\n\n",
    "anthropic": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "gemini": b"",  # there is none
    "gemini-array": b"]",
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with simulator(tmp_path / "invoice.jsonl") as client:
        yield client


@every_wire
async def test_an_unknown_model_and_a_body_that_is_no_json_are_refused(client: Client, wire: Wire) -> None:
    heard = await ask(client, wire, model="gpt-9")
    assert (heard.status, "error" in heard.json) == (404, True)
    async with client.post(wire.path.format(model="sim-small"), data=b"{", headers=wire.headers) as response:
        assert response.status == 400
        assert "error" in await response.json()
    assert await invoice(client) == []


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_error_is_no_answer_and_costs_nothing(client: Client, wire: Wire, stream: bool) -> None:
    await control(client, fault={"kind": "error", "error_class": "overloaded"})
    heard = await ask(client, wire, stream=stream)
    assert heard.status == (529 if wire.path == "/v1/messages" else 503)
    assert "error" in heard.json
    assert await invoice(client) == []


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_prompt_that_is_filtered_is_billed_only_where_it_is_an_answer(client: Client, wire: Wire, stream: bool) -> None:
    await control(client, fault={"kind": "error", "error_class": "content_filtered"})
    heard = await ask(client, wire, stream=stream)
    if wire.is_openai:
        assert (heard.status, await invoice(client)) == (400, [])
        return
    (line,) = await invoice(client)
    assert (heard.status, line["status"], line["tokens_in"], line["tokens_out"]) == (200, "filtered", 4, 0)
    assert counted(heard) == (4, 0) if stream else tokens_of(heard.json) == (4, 0)
    assert b'"refusal"' in heard.raw or b'"blockReason":"SAFETY"' in heard.raw


@every_wire
@pytest.mark.parametrize("kind", ["cut_stream", "stall_stream"])
async def test_a_stream_that_breaks_off_has_no_finish_and_bills_what_was_sent(client: Client, wire: Wire, kind: str) -> None:
    await control(client, fault={"kind": kind, "after_tokens": 20, "stall_s": 0.1})
    heard = await ask(client, wire, LONG, stream=True)
    assert not heard.whole
    assert not finished(heard)
    (line,) = await invoice(client)
    assert line["status"] == "truncated"
    assert 20 <= line["tokens_out"] < 30
    if wire is not WIRES["gemini-array"]:
        text = "".join(piece_of(one) for one in heard.objects)
        assert line["tokens_out"] == (len(text.encode()) + 3) // 4


@every_wire
async def test_a_plain_answer_that_is_cut_is_shorter_than_announced(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "cut_stream"})
    assert not (await ask(client, wire)).whole
    assert [line["status"] for line in await invoice(client)] == ["truncated"]


@every_wire
async def test_a_broken_event_is_one_among_good_ones(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "malformed"})
    heard = await ask(client, wire, LONG, stream=True)
    assert heard.whole
    if wire is WIRES["gemini-array"]:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(heard.raw)
    else:
        bad = [event for event in heard.events if event != "[DONE]" and not is_json(event)]
        assert len(bad) == 1
    plain = await ask(client, wire)
    assert (plain.status, plain.content_type) == (200, "text/html")
    assert [line["status"] for line in await invoice(client)] == ["malformed", "malformed"]


def is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@every_wire
async def test_a_stream_without_its_end_marker_is_whole_all_the_same(client: Client, wire: Wire) -> None:
    marker = MARKERS[wire.headers["x-client"]]
    assert (await ask(client, wire, stream=True)).raw.endswith(marker)
    await control(client, fault={"kind": "no_done"})
    heard = await ask(client, wire, stream=True)
    assert heard.whole
    assert finished(heard)
    assert not marker or not heard.raw.endswith(marker)


@every_wire
async def test_an_error_in_a_stream_comes_after_good_pieces_and_bills_them(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "stream_error", "after_tokens": 10})
    heard = await ask(client, wire, LONG, stream=True)
    assert (heard.status, heard.whole, finished(heard)) == (200, True, False)
    assert any(piece_of(one) for one in heard.objects if "error" not in one)
    errors = [one["error"] for one in heard.objects if "error" in one]
    assert len(errors) == 1
    assert errors[0]["message"]
    (line,) = await invoice(client)
    assert (line["status"], line["tokens_out"] >= 10) == ("truncated", True)
    if wire is WIRES["anthropic"]:
        assert b"event: error\n" in heard.raw
        assert b"message_stop" not in heard.raw
    if wire.is_openai:
        assert heard.events[-1] == "[DONE]"


@every_wire
async def test_an_error_in_a_stream_is_a_plain_error_to_a_plain_call(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "stream_error", "error_class": "server_error"})
    heard = await ask(client, wire)
    assert (heard.status, "error" in heard.json) == (500, True)
    assert await invoice(client) == []


@every_wire
async def test_a_stream_that_is_filtered_in_the_middle_says_so_as_its_finish(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "stream_error", "error_class": "content_filtered", "after_tokens": 10})
    heard = await ask(client, wire, LONG, stream=True)
    words = (b'"finish_reason":"content_filter"', b'"stop_reason":"refusal"', b'"finishReason":"SAFETY"')
    assert sum(word in heard.raw for word in words) == 1
    (line,) = await invoice(client)
    assert counted(heard) == (line["tokens_in"], line["tokens_out"])


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_error_may_hide_behind_a_200(client: Client, wire: Wire, stream: bool) -> None:
    await control(client, fault={"kind": "error_in_200", "error_class": "server_error"})
    heard = await ask(client, wire, stream=stream)
    assert (heard.status, heard.content_type) == (200, "application/json")
    assert heard.json["error"]["message"]
    assert await invoice(client) == []


@every_wire
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_liar_reports_other_tokens_than_it_bills(client: Client, wire: Wire, stream: bool) -> None:
    await control(client, fault={"kind": "wrong_usage"})
    heard = await ask(client, wire, stream=stream)
    (line,) = await invoice(client)
    assert (line["status"], line["tokens_in"], line["tokens_out"]) == ("ok", 4, 3)
    assert (counted(heard) if stream else tokens_of(heard.json)) == (11, 7)


@every_wire
async def test_a_duplicate_event_is_the_same_bytes_twice(client: Client, wire: Wire) -> None:
    good = await ask(client, wire, LONG, stream=True)
    await control(client, fault={"kind": "duplicate"})
    heard = await ask(client, wire, LONG, stream=True)
    pieces, twice = [[piece_of(one) for one in found.objects if piece_of(one)] for found in (good, heard)]
    at = next(i for i, piece in enumerate(twice) if i == len(pieces) or piece != pieces[i])
    assert twice == [*pieces[:at], pieces[at - 1], *pieces[at:]]


@every_wire
async def test_a_drip_sends_every_token_late(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "drip", "after_tokens": 0, "stall_s": 0.1})
    started_s = asyncio.get_running_loop().time()
    heard = await ask(client, wire, stream=True)
    assert 0.1 < asyncio.get_running_loop().time() - started_s < 3
    assert "".join(piece_of(one) for one in heard.objects) == "6 * 7 = 42"
    assert finished(heard)


@every_wire
async def test_a_reset_and_a_hang_leave_nothing(client: Client, wire: Wire) -> None:
    await control(client, fault={"kind": "reset", "times": 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(client, wire)
    await control(client, fault={"kind": "hang"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(client, wire), 0.2)
    assert await invoice(client) == []


@every_wire
async def test_a_body_larger_than_any_provider_takes_is_refused_in_the_dialect(client: Client, wire: Wire) -> None:
    body = wire.body("x" * (33 << 20), "sim-small", False)
    async with client.post(wire.path.format(model="sim-small"), json=body, headers=wire.headers) as response:
        assert response.status == 413
        assert (await response.json())["error"]["message"]
