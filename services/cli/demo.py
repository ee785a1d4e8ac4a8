"""Sends the example requests to a running Baton, shows each result as it comes, and says what was not as expected.

It must never count an answer as right that the example's own `expect` does not name.
"""

import asyncio
import http.client
import secrets
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from services.cli.address import BOOTSTRAP, UpState, connected, known_settings, run
from services.cli.jvm import run_dir
from services.cli.results_table import Example, Rows, Tally, examples_of, usd
from services.cli.send import Correspondence, correspondence, record_of
from services.cli.steps import Steps

TIMEOUT_S = 150.0
HTTP_TIMEOUT_S = 60.0
HTTP_LINES = {1: "/v1/requests?wait=30", 13: "/v1/chat/completions"}
"""Examples that travel by HTTP, to show it: a prompt, and OpenAI's body as it is."""


def demonstrate(state: UpState, steps: Steps) -> list[str]:
    """What was not as expected, one sentence each; empty: everything was."""
    lines = files("schemas").joinpath("examples", "requests.jsonl").read_bytes().splitlines()
    tally = Tally(examples_of(lines, secrets.token_hex(3)))
    return run(_demonstrate(state, tally, steps))


async def _demonstrate(state: UpState, tally: Tally, steps: Steps) -> list[str]:
    by_http = [example for example in tally.examples if example.number in HTTP_LINES]
    by_topic = [example for example in tally.examples if example.number not in HTTP_LINES]
    async with connected(known_settings(state.environment[BOOTSTRAP])) as broker, correspondence(broker) as line:
        steps.say(f"sending {len(by_topic)} examples to the topic intake and {len(by_http)} by HTTP")
        posts = [asyncio.create_task(asyncio.to_thread(_post, state.http_url, example)) for example in by_http]
        ids = await line.send([record_of(example.body, example.ordering_key) for example in by_topic])
        tally.aliases |= {id: example.mark for id, example in zip(ids, by_topic, strict=True) if not example.is_json}
        await _show(line, tally, steps)
        refused = [problem for problem in await asyncio.gather(*posts) if problem]
    _sum_up(tally, steps)
    return tally.wrong() + refused


async def _show(line: Correspondence, tally: Tally, steps: Steps) -> None:
    rows = Rows(steps.console)
    first = True
    with steps.console.status("waiting for the first answer") as status:
        async for result, at_ms in line.answers(TIMEOUT_S):
            example = tally.take(result)
            if example is None:
                continue
            if first:
                steps.say("the first answer is there")
                rows.head()
                first = False
            rows.row(example, result, at_ms - result.accepted_ms)
            status.update(f"{tally.answered} of {len(tally.examples)} answered")
            if tally.is_complete:
                break


def _post(url: str, example: Example) -> str | None:
    """Ask over HTTP; the result also comes on the topic, where it is judged. Returns what went wrong with the call."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=HTTP_TIMEOUT_S)
    path = HTTP_LINES[example.number]
    try:
        connection.request("POST", path, example.body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"line {example.number}: POST {path}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    if response.status == 200:
        return None
    return f"line {example.number}: POST {path}: HTTP {response.status}, {_error_of(body)}"


def _error_of(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _sum_up(tally: Tally, steps: Steps) -> None:
    cost = sum(result.cost_microusd for result in tally.results.values())
    calls = sum(result.attempts for result in tally.results.values())
    wrong = len(tally.wrong())
    end = "all as expected" if not wrong else f"{wrong} not as expected"
    answered = f"{tally.answered} of {len(tally.examples)} answered"
    steps.say(f"{answered}, {end}; {calls} calls, {usd(cost)} USD on Baton's books{_compared(cost)}")


def invoice_file() -> Path:
    """Where the simulator of `baton up` bills its calls."""
    return run_dir() / "invoice.jsonl"


def _compared(cost_microusd: int) -> str:
    """What the simulator billed, beside what Baton wrote down."""
    if not invoice_file().exists():
        return ""
    billed = sum(orjson.loads(line)["cost_microusd"] for line in invoice_file().read_bytes().splitlines())
    why = "" if billed == cost_microusd else " (it also bills calls whose answer never came, which Baton knows bounds of)"
    return f", {usd(billed)} on the simulator's own invoice{why}"
