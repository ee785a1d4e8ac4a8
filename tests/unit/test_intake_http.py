"""Intake over HTTP: the real app, a real log in memory, and a few lines that answer as the pipeline would."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientConnectorError, FormData
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import Policy, Tenant
from schemas.envelope import Envelope
from schemas.messages import Answer, Reason, Request, Result, Status
from schemas.topology import IDEMPOTENCY, REQUESTS
from services.intake import main
from services.intake.decide import BODY_BYTES_MAX
from shared.catalogue import EMPTY, Catalogue
from tests.support.builders import a_backend, a_model
from tests.support.builders_edge import (
    JSON,
    SUBMITTED,
    a_catalogue,
    a_failed_result_of,
    a_replica,
    a_result_of,
    answering,
    records_of,
    requests_in,
)

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "The capital of France?"}]}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Accepting ----------------------------------------------------------------------------------------------------------


async def test_a_post_is_acknowledged_once_it_is_in_the_log() -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", json={"prompt": "hi"}, headers={"traceparent": TRACEPARENT})
        (record,) = records_of(replica.broker, REQUESTS)
        (envelope,) = requests_in(replica.broker)
        assert response.status == 202
        id = envelope.request_id
        assert await response.json() == {"id": id, "status_url": f"/v1/requests/{id}"}
        assert response.headers["x-baton-request-id"] == id
        assert (envelope.tenant, envelope.reply, envelope.payload.source) == ("demo", "0", "http")
        assert record.header("traceparent") == TRACEPARENT
        assert (record.header("ce_subject"), record.header("reply")) == (id, "0")


async def test_two_posts_without_a_key_are_two_requests_with_a_trace_each() -> None:
    async with a_replica() as replica:
        for _ in range(2):
            await replica.client.post("/v1/requests", json={"prompt": "hi"}, headers={"traceparent": "rubbish"})
        traces = {record.header("traceparent") for record in records_of(replica.broker, REQUESTS)}
        assert len({envelope.request_id for envelope in requests_in(replica.broker)}) == len(traces) == 2


@pytest.mark.parametrize("how", [{"params": {"wait": "5"}}, {"headers": {"Prefer": "respond-async, wait=5"}}])
async def test_a_caller_who_waits_gets_the_result_in_place(how: dict[str, Any]) -> None:
    async with a_replica(replica_index=21) as replica, answering(replica.broker):
        response = await replica.client.post("/v1/requests", json={"prompt": "hi", "metadata": {"row": 7}}, **how)
        result = Result.model_validate(await response.json())
        assert response.status == 200
        assert (result.status, result.metadata) == (Status.DELIVERED, {"row": 7})
        assert requests_in(replica.broker)[0].reply == "5"
        again = await replica.client.get(f"/v1/requests/{result.request_id}")
        assert Result.model_validate(await again.json()) == result


async def test_a_wait_that_is_too_short_is_a_202() -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests?wait=0.01", json={"prompt": "hi"})
        assert response.status == 202
        assert replica.intake._replies.waiting == 0


@pytest.mark.parametrize("wait", ["-1", "121", "x", "nan", "inf", ""])
async def test_a_wait_that_makes_no_sense_is_named(wait: str) -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", params={"wait": wait}, json={"prompt": "hi"})
        assert (response.status, (await response.json())["error"]["param"]) == (400, "wait")
        assert not requests_in(replica.broker)


async def test_a_lookup_knows_nothing_of_what_is_not_back_or_another_tenants() -> None:
    async with a_replica() as replica, answering(replica.broker):
        response = await replica.client.post("/v1/requests?wait=5", json={"prompt": "x"}, headers=bearer("acme-key"))
        id = (await response.json())["request_id"]
        asked = [
            await replica.client.get(f"/v1/requests/{id}", headers=headers)
            for headers in (bearer("acme-key"), bearer("globex-key"), {})
        ]
        assert [response.status for response in asked] == [200, 404, 404]
        unknown = await replica.client.get("/v1/requests/none", headers=bearer("globex-key"))
        assert await unknown.json() == await asked[1].json()


# Refusing -----------------------------------------------------------------------------------------------------------

BAD: list[tuple[bytes, int, str, str | None]] = [
    (b"", 400, "malformed_json", None),
    (b'{"prompt": ', 400, "malformed_json", None),
    (b'{"a": NaN}', 400, "malformed_json", None),
    (b'{"a": "\\ud800"}', 400, "malformed_json", None),
    (b"[" * 10_000, 400, "malformed_json", None),
    (b'{"a":' * 150 + b"1" + b"}" * 150, 400, "invalid_request", None),
    (b'{"a": 1, "a": 2}', 400, "invalid_request", None),
    (b"[]", 400, "invalid_request", None),
    (b'{"deadline_ms": "1"}', 400, "invalid_request", "deadline_ms"),
    (b'{"metadata": 1}', 400, "invalid_request", "metadata"),
    (b'{"tenant": "acme"}', 400, "invalid_request", "tenant"),
    (b'{"idempotency_key": ""}', 400, "invalid_request", "idempotency_key"),
    (b'{"prompt": "' + b"x" * BODY_BYTES_MAX + b'"}', 413, "too_large", None),
]


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/chat/completions"])
@pytest.mark.parametrize(("raw", "status", "code", "param"), BAD)
async def test_a_bad_request_is_an_error_object_and_nothing_in_the_log(
    path: str, raw: bytes, status: int, code: str, param: str | None
) -> None:
    async with a_replica() as replica:
        response = await replica.client.post(path, data=raw)
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        assert not requests_in(replica.broker)


async def test_malformed_json_names_the_position() -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", data=b'{\n"a": }')
        assert "line 2 column 6" in (await response.json())["error"]["message"]


async def test_a_body_too_large_is_refused_by_its_announced_length_and_while_it_streams() -> None:
    async with a_replica() as replica:
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.client.port)
        writer.write(b"POST /v1/requests HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{")
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 2)
        writer.close()

        async def endless() -> Any:
            for _ in range(40):
                yield b"x" * 65_536

        response = await replica.client.post("/v1/requests", data=endless())
        assert response.status == 413


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}])
async def test_a_body_that_is_not_what_its_encoding_says_is_a_400(headers: dict[str, str]) -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", data=b'{"prompt": "hi"}', headers=headers)
        assert response.status == 400


async def test_unknown_paths_and_methods_are_error_objects() -> None:
    async with a_replica() as replica:
        for method, path, status in (("GET", "/", 404), ("GET", "/v1/requests", 405), ("POST", "/v1//requests", 404)):
            response = await replica.client.request(method, path)
            assert (response.status, "message" in (await response.json())["error"]) == (status, True)


async def test_a_form_is_not_json() -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", data=FormData({"prompt": "hi"}))
        assert response.status == 400


async def test_without_a_config_nothing_is_refused_for_good() -> None:
    async with a_replica(catalogue=EMPTY) as replica:
        response = await replica.client.post("/v1/requests", json={"prompt": "hi"})
        assert (response.status, "Retry-After" in response.headers) == (503, True)


# Keys and tenants ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    ["Bearer nope", "Bearer acme-ke", "Bearer acme-key2", "Bearer", "Bearer  ", "Basic YWNtZS1rZXk=", "acme-key", "",
     "Bearer env:ACME_KEY", "Bearer café"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/requests"), ("POST", "/v1/chat/completions"), ("GET", "/v1/requests/x"), ("GET", "/v1/models")],
)
async def test_a_key_that_is_not_one_opens_no_route_not_even_the_open_tenant(
    method: str, path: str, authorization: str
) -> None:
    async with a_replica() as replica:
        response = await replica.client.request(method, path, json={}, headers={"Authorization": authorization})
        assert (response.status, (await response.json())["error"]["code"]) == (401, "invalid_api_key")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert not requests_in(replica.broker)


async def test_the_tenant_follows_from_the_key() -> None:
    async with a_replica() as replica:
        for headers in ({}, bearer("acme-key"), {"Authorization": "bearer  globex-key "}):
            assert (await replica.client.post("/v1/requests", json={"prompt": "x"}, headers=headers)).status == 202
        assert sorted(envelope.tenant for envelope in requests_in(replica.broker)) == ["acme", "demo", "globex"]


@pytest.mark.parametrize("tenants", [{"a": Tenant()}, {"a": Tenant(open=True), "b": Tenant(open=True)}])
async def test_without_a_key_only_a_single_open_tenant_is_reached(tenants: dict[str, Tenant]) -> None:
    async with a_replica(catalogue=a_catalogue(tenants)) as replica:
        assert (await replica.client.post("/v1/requests", json={"prompt": "x"})).status == 401


async def test_a_key_that_two_tenants_share_opens_neither() -> None:
    shared = {"a": Tenant(keys=("env:ACME_KEY",)), "b": Tenant(keys=("env:ACME_KEY",))}
    async with a_replica(catalogue=a_catalogue(shared)) as replica:
        assert (await replica.client.post("/v1/requests", json={}, headers=bearer("acme-key"))).status == 401


async def test_a_header_that_stands_twice_is_refused() -> None:
    async with a_replica() as replica:
        for name in ("Authorization", "Idempotency-Key"):
            headers = [(name, "Bearer acme-key"), (name, "Bearer acme-key")]
            assert (await replica.client.post("/v1/requests", json={}, headers=headers)).status == 400


# Chat completions ---------------------------------------------------------------------------------------------------


async def test_a_chat_completion_looks_like_openais() -> None:
    async with a_replica() as replica, answering(replica.broker):
        response = await replica.client.post("/v1/chat/completions", json=CHAT)
        body = await response.json()
        (envelope,) = requests_in(replica.broker)
        assert response.status == 200
        assert (body["object"], body["model"], body["id"]) == ("chat.completion", "small", f"chatcmpl-{envelope.request_id}")
        (choice,) = body["choices"]
        assert choice["message"] == {"role": "assistant", "content": "Paris", "refusal": None}
        assert choice["logprobs"] is None
        assert (choice["index"], choice["finish_reason"]) == (0, "stop")
        usage = body["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 1, 10)
        assert isinstance(body["created"], int)
        assert response.headers["x-baton-request-id"] == envelope.request_id
        assert (response.headers["x-baton-model"], response.headers["x-baton-cost-microusd"]) == ("small", "42")
        assert "x-should-retry" not in response.headers
        assert envelope.payload.body == CHAT


async def test_tool_calls_come_back_as_they_are() -> None:
    calls = ({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},)

    def answer(envelope: Envelope[Request]) -> Result:
        result = a_result_of(envelope)
        assert result.answer is not None
        update = {"text": "", "tool_calls": calls, "finish": "tool_calls"}
        return result.model_copy(update={"answer": result.answer.model_copy(update=update)})

    async with a_replica() as replica, answering(replica.broker, answer):
        (choice,) = (await (await replica.client.post("/v1/chat/completions", json=CHAT)).json())["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert choice["message"]["tool_calls"] == list(calls)


async def test_log_probabilities_come_back_in_openais_shape() -> None:
    logprobs = (
        {"token": "Par", "logprob": -0.1, "top": [{"token": "Par", "logprob": -0.1}, {"token": "L", "logprob": -2.5}]},
        {"token": "is", "logprob": -0.2},
    )

    def answer(envelope: Envelope[Request]) -> Result:
        return a_result_of(envelope, answer=Answer(text="Paris", model="small", logprobs=logprobs))

    async with a_replica() as replica, answering(replica.broker, answer):
        response = await replica.client.post("/v1/chat/completions", json=CHAT | {"logprobs": True, "top_logprobs": 2})
        (choice,) = (await response.json())["choices"]
        paris, lyon = ({"token": token, "logprob": sure, "bytes": None} for token, sure in (("Par", -0.1), ("L", -2.5)))
        assert choice["logprobs"] == {
            "content": [
                paris | {"top_logprobs": [paris, lyon]},
                {"token": "is", "logprob": -0.2, "bytes": None, "top_logprobs": []},
            ],
            "refusal": None,
        }


@pytest.mark.parametrize(
    ("status", "reason", "http", "code"),
    [
        (Status.REJECTED, Reason.INVALID_REQUEST, 400, "invalid_request"),
        (Status.REJECTED, Reason.CONTEXT_TOO_LONG, 400, "context_length_exceeded"),
        (Status.REJECTED, Reason.UNKNOWN_MODEL, 404, "model_not_found"),
        (Status.REJECTED, Reason.TOO_LARGE, 413, "too_large"),
        (Status.OVER_BUDGET, Reason.OVER_BUDGET, 402, "insufficient_quota"),
        (Status.FAILED, Reason.PROVIDERS_FAILED, 502, "providers_failed"),
        (Status.EXPIRED, Reason.DEADLINE_PASSED, 504, "deadline_passed"),
    ],
)
async def test_how_a_request_ended_is_its_http_status(status: Status, reason: Reason, http: int, code: str) -> None:
    async with a_replica() as replica, answering(replica.broker, lambda e: a_failed_result_of(e, status, reason)):
        chat = await replica.client.post("/v1/chat/completions", json=CHAT)
        error = (await chat.json())["error"]
        assert (chat.status, error["code"], error["message"]) == (http, code, "says why")
        native = await replica.client.post("/v1/requests?wait=5", json={"prompt": "hi"})
        assert (native.status, (await native.json())["status"]) == (http, status)
        assert chat.headers["x-should-retry"] == native.headers["x-should-retry"] == "false"


async def test_a_stream_is_refused_with_the_fix() -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, "stream")
        assert "send false" in error["message"]
        assert not requests_in(replica.broker)


async def test_a_chat_that_gets_no_answer_ends_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.http.ANSWER_GRACE_S", 0.01)
    async with a_replica() as replica:
        response = await replica.client.post("/v1/chat/completions", json=CHAT | {"deadline_ms": 20})
        assert (response.status, (await response.json())["error"]["code"]) == (504, "no_answer_yet")
        assert response.headers["x-baton-request-id"] == requests_in(replica.broker)[0].request_id
        assert response.headers["x-should-retry"] == "false"


# Models -------------------------------------------------------------------------------------------------------------


def a_catalogue_of_models(tenants: dict[str, Tenant], policy: Policy | None = None) -> Catalogue:
    served = {"small": ("one", "two"), "large": ("one",)}
    backends = {f"{name}-{who}": a_backend(name, provider=who) for name, whose in served.items() for who in whose}
    return Catalogue(
        version=1_700_000_000_123,
        models={name: a_model() for name in (*served, "nobody-serves-it")},
        backends=backends,
        tenants=tenants,
        policies={"default": policy or Policy()},
    )


async def test_models_are_listed_as_openai_does_auto_first_and_only_what_is_served() -> None:
    async with a_replica(catalogue=a_catalogue_of_models({"demo": Tenant(open=True)})) as replica:
        listed = await (await replica.client.get("/v1/models")).json()
        assert listed == {
            "object": "list",
            "data": [
                {"id": id, "object": "model", "created": 1_700_000_000, "owned_by": owner}
                for id, owner in (("auto", "baton"), ("large", "one"), ("small", "one, two"))
            ],
        }


@pytest.mark.parametrize(
    ("tenant", "policy", "names"),
    [
        (Tenant(keys=("env:ACME_KEY",), models=("small",)), Policy(), ["auto", "small"]),
        (Tenant(keys=("env:ACME_KEY",)), Policy(deny=("small",)), ["auto", "large"]),
    ],
)
async def test_models_that_tenant_or_policy_rule_out_are_not_listed(tenant: Tenant, policy: Policy, names: list[str]) -> None:
    async with a_replica(catalogue=a_catalogue_of_models({"acme": tenant}, policy)) as replica:
        response = await replica.client.get("/v1/models", headers=bearer("acme-key"))
        assert [model["id"] for model in (await response.json())["data"]] == names


# Idempotency --------------------------------------------------------------------------------------------------------


async def test_a_thousand_posts_with_one_key_are_one_request_with_one_answer() -> None:
    async with a_replica() as replica, answering(replica.broker):
        async def post(n: int) -> tuple[int, bytes]:
            path = "/v1/requests?wait=30" if n % 2 else "/v1/chat/completions"
            async with replica.client.post(path, json=CHAT, headers={"Idempotency-Key": "k1"}) as response:
                return response.status, await response.read()

        answers = await asyncio.gather(*(post(n) for n in range(1000)))
        assert len({answers[n] for n in range(1, 1000, 2)}) == 1
        assert len({answers[n] for n in range(0, 1000, 2)}) == 1
        assert {status for status, _ in answers} == {200}
        assert len(requests_in(replica.broker)) == len(records_of(replica.broker, IDEMPOTENCY)) == 1


async def test_a_thousand_posts_that_do_not_wait_get_one_id() -> None:
    async with a_replica() as replica:

        async def post(n: int) -> tuple[int, bytes]:
            body = {"prompt": "hi", "idempotency_key": "k"}
            async with replica.client.post("/v1/requests", json=body) as response:
                return response.status, await response.read()

        assert len(set(await asyncio.gather(*(post(n) for n in range(1000))))) == 1
        assert len(requests_in(replica.broker)) == 1


async def test_the_same_key_with_another_body_is_a_422_also_after_the_answer() -> None:
    async with a_replica() as replica, answering(replica.broker):
        headers = {"Idempotency-Key": "k"}
        assert (await replica.client.post("/v1/requests?wait=5", json={"prompt": "a"}, headers=headers)).status == 200
        for body in ({"prompt": "b"}, {"prompt": "a", "priority": "batch"}):
            response = await replica.client.post("/v1/requests?wait=5", json=body, headers=headers)
            error = (await response.json())["error"]
            assert (response.status, error["param"]) == (422, "idempotency_key")
        assert len(requests_in(replica.broker)) == 1


async def test_the_same_key_of_another_tenant_is_another_request() -> None:
    async with a_replica() as replica:
        for key in ("acme-key", "globex-key"):
            headers = bearer(key) | {"Idempotency-Key": "k"}
            assert (await replica.client.post("/v1/requests", json={"prompt": key}, headers=headers)).status == 202
        assert len({envelope.request_id for envelope in requests_in(replica.broker)}) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\tb"])
async def test_an_idempotency_key_that_cannot_be_one_is_named(key: str) -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/requests", json={"prompt": "x"}, headers={"Idempotency-Key": key})
        assert (response.status, (await response.json())["error"]["param"]) == (400, "Idempotency-Key")


async def test_header_and_field_may_both_stand_when_they_agree() -> None:
    async with a_replica() as replica:
        body = {"prompt": "x", "idempotency_key": "k"}
        agreed = await replica.client.post("/v1/requests", json=body, headers={"Idempotency-Key": "k"})
        differing = await replica.client.post("/v1/requests", json=body, headers={"Idempotency-Key": "l"})
        assert (agreed.status, differing.status) == (202, 400)


async def test_two_replicas_make_one_request_of_one_key() -> None:
    async with a_replica() as one, a_replica(one.broker, replica_index=1) as two, answering(one.broker):
        headers = {"Idempotency-Key": "k"}
        first, second = await asyncio.gather(
            one.client.post("/v1/requests", json={"prompt": "a"}, headers=headers),
            two.client.post("/v1/requests", json={"prompt": "a"}, headers=headers),
        )
        assert await first.json() == await second.json()
        copies = requests_in(one.broker)
        assert len({copy.model_copy(update={"reply": None}).model_dump_json() for copy in copies}) == 1
        other = await two.client.post("/v1/requests", json={"prompt": "b"}, headers=headers)
        assert other.status == 422


async def test_a_restarted_replica_knows_its_claims_and_its_latest_answers() -> None:
    headers = {"Idempotency-Key": "k"}
    async with a_replica() as before, answering(before.broker):
        first = await before.client.post("/v1/requests?wait=5", json={"prompt": "a"}, headers=headers)
        answered = await first.json()
    async with a_replica(before.broker) as after:
        again = await after.client.post("/v1/requests?wait=5", json={"prompt": "a"}, headers=headers)
        other = await after.client.post("/v1/requests?wait=5", json={"prompt": "b"}, headers=headers)
        assert (again.status, await again.json(), other.status) == (200, answered, 422)
        assert len(requests_in(after.broker)) == 1


async def test_a_claim_whose_request_was_never_written_is_mended_by_the_next_repeat() -> None:
    headers = {"Idempotency-Key": "k"}
    async with a_replica() as before:
        await before.client.post("/v1/requests", json={"prompt": "a"}, headers=headers)
        (lost,) = requests_in(before.broker)
    for log in before.broker.logs[REQUESTS.name]:
        log.clear()
    async with a_replica(before.broker) as after:
        await after.client.post("/v1/requests", json={"prompt": "a"}, headers=headers)
        assert requests_in(after.broker) == [lost]


# The broker goes away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_while_the_broker_is_away_nothing_is_accepted_and_afterwards_all_is_well(headers: dict[str, str]) -> None:
    async with a_replica() as replica:
        replica.broker.unavailable = True
        async with asyncio.timeout(5):
            refused = await replica.client.post("/v1/requests", json={"prompt": "a"}, headers=headers)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
        assert "x-should-retry" not in refused.headers, "what was not accepted may be sent again"
        assert not requests_in(replica.broker)
        replica.broker.unavailable = False
        await asyncio.sleep(0)
        accepted = await replica.client.post("/v1/requests", json={"prompt": "a"}, headers=headers)
        assert accepted.status == 202
        assert len(requests_in(replica.broker)) == 1


async def test_a_log_that_never_acknowledges_is_a_503_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "WRITE_TIMEOUT_S", 0.02)
    async with a_replica() as replica:
        producer = replica.intake._producer
        assert producer is not None

        async def send(output: object) -> "asyncio.Future[object]":
            return asyncio.get_running_loop().create_future()

        monkeypatch.setattr(producer, "send", send)
        response = await replica.client.post("/v1/requests", json={"prompt": "a"})
        assert response.status == 503


async def test_answers_are_followed_again_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.tail.REOPEN_PAUSE_S", 0.01)
    async with a_replica() as replica:
        replica.broker.unavailable = True
        replica.broker.wake()   # the tails, which find the broker gone
        await asyncio.sleep(0.03)
        replica.broker.unavailable = False
        async with answering(replica.broker):
            response = await replica.client.post("/v1/chat/completions", json=CHAT | {"idempotency_key": "k"})
            assert response.status == 200


# Anything at all ----------------------------------------------------------------------------------------------------

HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)


@settings(max_examples=15)
@given(
    values=st.lists(SUBMITTED | JSON, min_size=8, max_size=12), header=HEADER_TEXT, wait=st.sampled_from(["", "0", "-", "1e9"])
)
async def test_no_json_is_a_server_error(values: list[Any], header: str, wait: str) -> None:
    async with a_replica() as replica, answering(replica.broker):
        for value in values:
            raw = json.dumps(value).encode()
            for path in (f"/v1/requests?wait={wait}", "/v1/requests", "/v1/chat/completions"):
                headers = {"Idempotency-Key": header, "Prefer": f"wait={header}"} if header.strip() else {}
                response = await replica.client.post(path, data=raw, headers=headers)
                assert response.status in (200, 202, 400, 413, 422)
                assert json.loads(await response.read())


async def test_what_callers_send_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with a_replica() as replica:
        intake = main.Intake(replica.broker, replica.intake._clock, a_catalogue)
        await intake.start()
        head = b"POST /v1/requests HTTP/1.1\r\nHost: x\r\n"
        for rest in (
            b"Transfer-Encoding: chunked\r\n\r\nmy secret\r\n",
            b"Authorization: " + b"my secret" * 2_000 + b"\r\n\r\n",
            b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nmy secret",
            b'Content-Length: 13\r\n\r\n{"my secret": ',
        ):
            reader, writer = await asyncio.open_connection(*intake.address)
            writer.write(head + rest)
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 2)
            writer.close()
        await intake.stop()
    assert "secret" not in caplog.text


async def test_the_server_listens_where_it_is_told_and_stops() -> None:
    async with a_replica() as replica:
        intake = main.Intake(replica.broker, replica.intake._clock, a_catalogue)
        await intake.start()
        host, port = intake.address
        assert host == "127.0.0.1"
        response = await replica.client.session.get(f"http://127.0.0.1:{port}/v1/requests/x")
        assert response.status == 404
        await intake.stop()
        with pytest.raises(ClientConnectorError):
            await replica.client.session.get(f"http://127.0.0.1:{port}/v1/requests/x")
