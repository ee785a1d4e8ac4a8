"""OpenAI's official client with nothing but another base URL: what it gets from intake, and that it never pays twice."""

import asyncio
import re
from functools import partial
from typing import Any

import orjson
import pytest
from openai import AsyncOpenAI, AuthenticationError, InternalServerError

from schemas.generate import CHECKOUT
from schemas.messages import Reason, Status
from services.cli.config_file import load, offered
from services.cli.up import open_key
from services.executor.adapters import openai_reply
from shared.catalogue import Catalogue
from shared.config import resolve_secret
from tests.support.builders_edge import Replica, a_failed_result_of, a_replica, a_result_of, answering, requests_in
from tests.support.builders_executor import completed

CHAT: Any = {"model": "auto", "messages": [{"role": "user", "content": "The capital of France?"}]}


def client_of(replica: Replica, key: str = "acme-key") -> AsyncOpenAI:
    """As it comes: with its two retries."""
    return AsyncOpenAI(base_url=str(replica.client.make_url("/v1")), api_key=key)


# A request is made once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "http"),
    [(Status.FAILED, Reason.PROVIDERS_FAILED, 502), (Status.EXPIRED, Reason.DEADLINE_PASSED, 504)],
)
async def test_a_request_that_ended_without_an_answer_is_not_made_again(status: Status, reason: Reason, http: int) -> None:
    async with a_replica() as replica, answering(replica.broker, lambda e: a_failed_result_of(e, status, reason)):
        async with client_of(replica) as client:
            with pytest.raises(InternalServerError) as told:
                await client.chat.completions.create(**CHAT)
        assert (told.value.status_code, told.value.code) == (http, reason.value)
        assert len(requests_in(replica.broker)) == 1


async def test_a_request_whose_answer_is_still_on_its_way_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.http.ANSWER_GRACE_S", 0.01)
    async with a_replica() as replica:
        async with client_of(replica) as client:
            with pytest.raises(InternalServerError, match="is accepted"):
                await client.chat.completions.create(**CHAT, extra_body={"deadline_ms": 20})
        assert len(requests_in(replica.broker)) == 1


# Log-probabilities --------------------------------------------------------------------------------------------------


async def test_what_a_provider_says_of_its_tokens_is_what_the_caller_reads() -> None:
    body = completed("42")
    body["choices"][0]["logprobs"] = {
        "content": [
            {"token": "4", "logprob": -0.1, "top_logprobs": [{"token": "4", "logprob": -0.1}, {"token": "5", "logprob": -3.0}]},
            {"token": "2", "logprob": -0.2, "top_logprobs": []},
        ]
    }
    answer = openai_reply.reply(200, {}, orjson.dumps(body)).answer
    async with (
        a_replica() as replica,
        answering(replica.broker, lambda e: a_result_of(e, answer=answer)),
        client_of(replica) as client,
    ):
        (choice,) = (await client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)).choices
    tokens = (choice.logprobs and choice.logprobs.content) or []
    read = [(each.token, each.logprob, [(top.token, top.logprob) for top in each.top_logprobs]) for each in tokens]
    assert read == [("4", -0.1, [("4", -0.1), ("5", -3.0)]), ("2", -0.2, [])]


# As shipped ---------------------------------------------------------------------------------------------------------

SIMULATOR = {f"BATON_SIMULATOR_{name}_URL": "http://localhost:1/v1" for name in ("ALPHA", "BETA")}
SHIPPED = load(CHECKOUT / "baton.yaml")
CONFIG = offered(SHIPPED, SIMULATOR).config
CATALOGUE = Catalogue(1, CONFIG.models, CONFIG.backends, CONFIG.tenants, CONFIG.policies)
SECRET_OF = partial(resolve_secret, env=open_key(SHIPPED, {}))
"""As `baton up` starts intake where the shell sets no key."""


async def test_the_lines_of_the_readme_print_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = re.findall(r"```python\n(from openai .*?)```", (CHECKOUT / "README.md").read_text("utf-8"), re.DOTALL)
    async with a_replica(catalogue=CATALOGUE, resolve=SECRET_OF) as replica, answering(replica.broker):
        there = lines.replace("http://localhost:8080/v1", str(replica.client.make_url("/v1")))
        await asyncio.to_thread(exec, there, {})
        assert capsys.readouterr().out == "Paris\n"
        assert [envelope.tenant for envelope in requests_in(replica.broker)] == ["demo"]


async def test_the_shipped_models_that_are_served_are_listed_for_its_known_key_and_for_no_other() -> None:
    async with a_replica(catalogue=CATALOGUE, resolve=SECRET_OF) as replica:
        async with client_of(replica, "baton-demo") as client:
            assert [model.id async for model in client.models.list()] == [
                "auto", "sim-large", "sim-nano", "sim-reason", "sim-small",
            ]  # fmt: skip
        async with client_of(replica, "sk-another") as client:
            with pytest.raises(AuthenticationError):
                await client.models.list()
        assert (await replica.client.get("/v1/models")).status == 200, "nor is a key needed"
