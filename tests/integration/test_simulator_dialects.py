"""Every wire format over real sockets: its routes, plain and streamed, and what they cost."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.wires import (
    LONG,
    WIRES,
    Client,
    Wire,
    ask,
    counted,
    every_wire,
    finished,
    invoice,
    piece_of,
    simulator,
    text_of,
    tokens_of,
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with simulator(tmp_path / "invoice.jsonl") as client:
        yield client


@every_wire
async def test_a_plain_answer_is_right_and_counted_as_billed(client: Client, wire: Wire) -> None:
    heard = await ask(client, wire, model="sim-scenario-fallback")
    assert (heard.status, heard.content_type, text_of(heard.json)) == (200, "application/json", "6 * 7 = 42")
    (line,) = await invoice(client)
    assert tokens_of(heard.json) == (line["tokens_in"], line["tokens_out"]) == (4, 3)


@every_wire
@pytest.mark.parametrize("model", ["sim-scenario-fallback", "sim-reason"])
async def test_a_stream_says_what_the_plain_answer_says_and_counts_the_same(client: Client, wire: Wire, model: str) -> None:
    plain = await ask(client, wire, LONG, model)
    heard = await ask(client, wire, LONG, model, stream=True, prefix="/beta")
    assert heard.content_type == ("application/json" if wire is WIRES["gemini-array"] else "text/event-stream")
    assert "".join(piece_of(one) for one in heard.objects) == text_of(plain.json)
    first, second = await invoice(client)
    assert counted(heard) == tokens_of(plain.json) == (second["tokens_in"], second["tokens_out"])
    assert (first["provider"], second["provider"], second["streamed"]) == ("alpha", "beta", True)
    assert first["cost_microusd"] == second["cost_microusd"]
    assert finished(heard)


@every_wire
async def test_max_tokens_cuts_the_answer_in_every_dialect(client: Client, wire: Wire) -> None:
    path, body = wire.path.format(model="sim-scenario-fallback"), wire.body(LONG, "sim-scenario-fallback", False, max_tokens=5)
    async with client.post(path, json=body, headers=wire.headers) as response:
        found = await response.json()
    assert tokens_of(found)[1] == 5
    assert any(word in orjson.dumps(found) for word in (b'"length"', b'"max_tokens"', b'"MAX_TOKENS"'))


@pytest.mark.parametrize(
    ("name", "stop", "said"),
    [
        ("openai", {"stop": "="}, b'"finish_reason":"stop"'),
        ("anthropic", {"stop_sequences": ["="]}, b'"stop_reason":"stop_sequence","stop_sequence":"="'),
        ("gemini", {"generationConfig": {"stopSequences": ["="]}}, b'"finishReason":"STOP"'),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_stop_sequence_ends_the_answer(
    client: Client, name: str, stop: dict[str, Any], said: bytes, stream: bool
) -> None:
    heard = await ask(client, WIRES[name], stream=stream, **stop)
    text = "".join(piece_of(one) for one in heard.objects) if stream else text_of(heard.json)
    assert text == "6 * 7 "
    assert said in heard.raw


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_prompt_put_into_anthropics_cache_is_billed_once_as_written_and_then_as_read(
    client: Client, stream: bool
) -> None:
    system = [{"type": "text", "text": "rule " * 1000, "cache_control": {"type": "ephemeral"}}]
    heard = [await ask(client, WIRES["anthropic"], model="sim-large", stream=stream, system=system) for _ in range(2)]
    found = [one.objects[-2]["usage"] if stream else one.json["usage"] for one in heard]
    assert [(one["cache_creation_input_tokens"], one["cache_read_input_tokens"]) for one in found] == [(1152, 0), (0, 1152)]
    assert found[0]["input_tokens"] == found[1]["input_tokens"]
    first, second = await invoice(client)
    assert first["tokens_in"] == second["tokens_in"] == found[0]["input_tokens"] + 1152
    assert first["cost_microusd"] - second["cost_microusd"] == 1152 * (3125 - 1250) // 1000


async def test_the_attempts_id_is_on_the_invoice_in_every_dialect(client: Client) -> None:
    for name, wire in WIRES.items():
        body = wire.body("Hello", "sim-small", False)
        headers = {**wire.headers, "x-client-request-id": name}
        async with client.post(f"/gamma{wire.path}".format(model="sim-small"), json=body, headers=headers) as response:
            assert response.status == 200
    assert [line["attempt_id"] for line in await invoice(client)] == list(WIRES)


async def test_an_instance_of_a_model_is_called_by_name_in_a_path(client: Client) -> None:
    heard = await ask(client, WIRES["gemini"], model="sim-s03@one")
    assert heard.status == 500
    heard = await ask(client, WIRES["gemini"], model="sim-s03@one")
    assert (heard.status, heard.json["modelVersion"]) == (200, "sim-s03@one")
