"""OpenAI's official client with nothing but another base URL: what it gets from intake, and that it never pays twice."""

from typing import Any

import pytest
from openai import AsyncOpenAI, InternalServerError

from schemas.messages import Reason, Status
from tests.support.builders_edge import Replica, a_failed_result_of, a_replica, answering, requests_in

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
