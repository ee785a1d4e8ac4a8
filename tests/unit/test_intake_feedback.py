"""Feedback over HTTP: authenticated like a request, in the log before it is acknowledged, its words in no answer and no log."""

import logging
from typing import Any

import pytest

from schemas.quality import Feedback, Judge
from schemas.topology import FEEDBACK
from shared.codec import decode
from tests.support.builders_edge import a_replica, answering, records_of

ID = "0123456789abcdef0123456789abcdef"


def told(broker: Any) -> list[Feedback]:
    return [decode(FEEDBACK, record.value) for record in records_of(broker, FEEDBACK)]


@pytest.mark.parametrize(
    ("body", "score", "judge"),
    [
        ({"score": 0.25}, 0.25, Judge.PERSON),
        ({"score": 1}, 1.0, Judge.PERSON),
        ({"thumbs": "up"}, 1.0, Judge.PERSON),
        ({"thumbs": "down", "judge": "program"}, 0.0, Judge.PROGRAM),
    ],
)
async def test_feedback_is_in_the_log_once_it_is_acknowledged(body: dict[str, Any], score: float, judge: Judge) -> None:
    async with a_replica() as replica:
        key = {"Authorization": "Bearer acme-key"}
        response = await replica.client.post("/v1/feedback", json={"request_id": ID} | body, headers=key)
        assert (response.status, await response.json()) == (202, {"request_id": ID})
        (record,) = records_of(replica.broker, FEEDBACK)
        (said,) = told(replica.broker)
        assert record.key == ID.encode()
        assert (said.request_id, said.tenant, said.score, said.judge) == (ID, "acme", score, judge)


async def test_feedback_needs_a_key_like_a_request() -> None:
    async with a_replica() as replica:
        wrong = {"Authorization": "Bearer nobodys-key"}
        response = await replica.client.post("/v1/feedback", json={"request_id": ID, "score": 1}, headers=wrong)
        assert response.status == 401
        assert told(replica.broker) == []


BAD: list[tuple[Any, str]] = [
    ([1], "the body must be"),
    ({}, "request_id"),
    ({"request_id": ""}, "request_id"),
    ({"request_id": 7, "score": 1}, "request_id"),
    ({"request_id": ID}, "score"),
    ({"request_id": ID, "score": 1, "thumbs": "up"}, "score"),
    ({"request_id": ID, "score": 1.01}, "score"),
    ({"request_id": ID, "score": True}, "score"),
    ({"request_id": ID, "score": "1"}, "score"),
    ({"request_id": ID, "thumbs": "sideways"}, "thumbs"),
    ({"request_id": ID, "thumbs": ["up"]}, "thumbs"),
    ({"request_id": ID, "score": 1, "judge": "gate"}, "judge"),
    ({"request_id": ID, "score": 1, "judge": {}}, "judge"),
    ({"request_id": ID, "score": 1, "comment": "x" * 5_000}, "comment"),
    ({"request_id": ID, "score": 1, "accepted_ms": "soon"}, "accepted_ms"),
    ({"request_id": ID, "score": 1, "tenant": "globex"}, "there is a field that is not known"),
]


@pytest.mark.parametrize(("body", "begins"), BAD)
async def test_what_is_wrong_is_named_and_never_quoted(body: Any, begins: str) -> None:
    async with a_replica() as replica:
        response = await replica.client.post("/v1/feedback", json=body)
        error = (await response.json())["error"]
        assert response.status == 400
        assert error["message"].startswith(begins)
        assert "sideways" not in error["message"]
        assert told(replica.broker) == []


async def test_a_comment_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with a_replica() as replica:
        body = {"request_id": ID, "score": 1, "comment": "between you and me"}
        assert (await replica.client.post("/v1/feedback", json=body)).status == 202
        assert (await replica.client.post("/v1/feedback", json=body | {"score": 2})).status == 400
        assert told(replica.broker)[0].comment == "between you and me"
    assert "between you" not in caplog.text


async def test_feedback_on_an_answer_that_came_back_here_says_when_it_was_accepted_and_only_to_its_tenant() -> None:
    async with a_replica() as replica, answering(replica.broker):
        acme, globex = ({"Authorization": f"Bearer {name}-key"} for name in ("acme", "globex"))
        answer = await (await replica.client.post("/v1/requests?wait=5", json={"prompt": "x"}, headers=acme)).json()
        for headers in (acme, globex):
            body = {"request_id": answer["request_id"], "score": 1}
            await replica.client.post("/v1/feedback", json=body, headers=headers)
        assert [said.accepted_ms for said in told(replica.broker)] == [answer["accepted_ms"], None]
