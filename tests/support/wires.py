"""How a test asks the simulator in each of its wire formats, and reads what it hears."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from services.simulator.main import Settings, serve

Client = aiohttp.ClientSession
LONG = "Write 200 words about rivers and mountains"


@dataclass(frozen=True)
class Wire:
    """How one dialect is asked and heard."""

    path: str
    stream_path: str
    headers: dict[str, str]

    def body(self, prompt: str, model: str, stream: bool, max_tokens: int = 1000) -> dict[str, Any]:
        """A request of one user message."""
        if "gemini" in self.headers["x-client"]:
            return {"contents": [{"parts": [{"text": prompt}]}], "generationConfig": {"maxOutputTokens": max_tokens}}
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "model": model}
        return {**body, "stream": stream, **({"stream_options": {"include_usage": True}} if stream and self.is_openai else {})}

    @property
    def is_openai(self) -> bool:
        """OpenAI's own form or Azure's."""
        return self.headers["x-client"] in ("openai", "azure")


AZURE = "/openai/deployments/{model}/chat/completions?api-version=2024-10-21"
ANTHROPIC = {"anthropic-version": "2023-06-01", "x-api-key": "k", "x-client": "anthropic"}
WIRES = {
    "openai": Wire("/v1/chat/completions", "/v1/chat/completions", {"x-client": "openai", "authorization": "Bearer k"}),
    "azure": Wire(AZURE, AZURE, {"x-client": "azure", "api-key": "k"}),
    "anthropic": Wire("/v1/messages", "/v1/messages", ANTHROPIC),
    "gemini": Wire(
        "/v1beta/models/{model}:generateContent",
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
        {"x-client": "gemini", "x-goog-api-key": "k"},
    ),
    "gemini-array": Wire(
        "/v1/models/{model}:generateContent",
        "/v1/models/{model}:streamGenerateContent",
        {"x-client": "gemini-array", "x-goog-api-key": "k"},
    ),
}
every_wire = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)


@dataclass
class Heard:
    """What came back: status, content type, headers, the bytes so far, whether the body ended as announced."""

    status: int
    content_type: str
    headers: dict[str, str]
    raw: bytes
    whole: bool

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.raw)

    @property
    def events(self) -> list[str]:
        """The data of the events, as text."""
        return [line.removeprefix("data: ") for line in self.raw.decode().splitlines() if line.startswith("data: ")]

    @property
    def objects(self) -> list[Any]:
        """The objects of a stream, `[DONE]` left out."""
        if self.content_type == "application/json":
            return list(self.json)
        return [orjson.loads(event) for event in self.events if event != "[DONE]"]


@asynccontextmanager
async def simulator(invoice: Path) -> AsyncIterator[Client]:
    """A client of a simulator that never fails by itself and answers at once."""
    settings = Settings(invoice=invoice, profile="steady", latency_scale=0)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(serve(settings, address.set_result, stop))
    async with aiohttp.ClientSession(await address) as client:
        yield client
    stop.set()
    await server


async def ask(
    client: Client, wire: Wire, prompt: str = "What is 6 * 7?", model: str = "sim-scenario-fallback", stream: bool = False,
    prefix: str = "", **fields: Any,
) -> Heard:  # fmt: skip
    """Ask one question in one dialect and hear all there is, however it ends."""
    path = prefix + (wire.stream_path if stream else wire.path).format(model=model)
    body = {**wire.body(prompt, model, stream), **fields}
    async with client.post(path, json=body, headers=wire.headers) as response:
        raw, whole = bytearray(), True
        try:
            async for piece in response.content.iter_any():
                raw += piece
        except aiohttp.ClientPayloadError:
            whole = False
        return Heard(response.status, response.content_type, dict(response.headers), bytes(raw), whole)


@contextmanager
def simulator_process(books: Path) -> Iterator[str]:
    """The address of one that runs as a process, never fails by itself and answers at once."""
    options = ("--port", "0", "--invoice", str(books), "--profile", "steady", "--latency-scale", "0")
    with subprocess.Popen([sys.executable, "-m", "services.simulator", *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def control(client: Client, **fields: Any) -> None:
    """Change what is in force."""
    async with client.post("/control", json=fields) as response:
        assert response.status == 200, await response.text()


async def invoice(client: Client) -> list[dict[str, Any]]:
    """The billed calls."""
    async with client.get("/invoice") as response:
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


def text_of(found: Any) -> str:
    """The text of a plain answer, whatever the dialect."""
    if "choices" in found:
        return str(found["choices"][0]["message"]["content"])
    if "candidates" in found:
        return "".join(part.get("text", "") for part in found["candidates"][0]["content"].get("parts", ()))
    return "".join(block.get("text", "") for block in found["content"])


def piece_of(found: Any) -> str:
    """The text one object of a stream carries, whatever the dialect."""
    if "choices" in found:
        return str(found["choices"][0]["delta"].get("content") or "") if found["choices"] else ""
    if "candidates" in found:
        return text_of(found)
    return str(found.get("delta", {}).get("text", ""))


def tokens_of(found: Any) -> tuple[int, int]:
    """Tokens in and out as the invoice counts them, from whatever the dialect reports."""
    if "usageMetadata" in found:
        counted = found["usageMetadata"]
        said = counted.get("candidatesTokenCount", 0) + counted.get("thoughtsTokenCount", 0)
        return counted["promptTokenCount"], said
    counted = found["usage"]
    if "prompt_tokens" in counted:
        return counted["prompt_tokens"], counted["completion_tokens"]
    cached = counted["cache_read_input_tokens"] + counted["cache_creation_input_tokens"]
    return counted["input_tokens"] + cached, counted["output_tokens"]


def counted(heard: Heard) -> tuple[int, int]:
    """What a stream reports at its end."""
    return tokens_of(next(one for one in reversed(heard.objects) if one.get("usage") or one.get("usageMetadata")))


def finished(heard: Heard) -> bool:
    """Whether a stream told why it ended."""
    return any(word in heard.raw for word in (b'"finish_reason":"', b'"stop_reason":"', b'"finishReason":"'))
