"""Requests at a steady rate: most to the `intake` topic, some by HTTP under an idempotency key, each until it is acknowledged.

What was acknowledged is what the system owes an answer. The load never decides what a right answer is.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from aiokafka.errors import KafkaError

from schemas.messages import Lane
from schemas.topology import INTAKE
from shared.broker import Broker, Output, Producer
from shared.errors import BatonError, BrokerUnavailableError
from shared.ids import request_id_of_record

ORDERED_SHARE = 0.3
ORDERING_KEYS = 40
HTTP_EVERY = 20          # of so many requests one comes by HTTP
TWICE_SHARE = 0.5        # of the HTTP requests are posted by two callers at once, under one key
HURRIED_SHARE = 0.01     # have a deadline that they may well miss
DEADLINE_MS = 600_000
HURRIED_MS = (200, 3_000)
HTTP_TIMEOUT_S = 10.0
RETRY_S = 0.3
PATIENCE_S = 180.0

_TOPICS = ("a queue", "a log", "a lock", "a ledger", "a circuit breaker", "a lease", "an index", "a snapshot")
_TASKS = ("Explain {} in one sentence.", "Name two uses of {}.", "What is {}?", "What is {n} * {m}?", "When does {} hurt?")


class LoadError(BatonError):
    """A request that was not acknowledged in time, or whose key stands for two requests: nothing to audit."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request before it is sent."""

    number: int
    body: dict[str, Any]
    ordering_key: str | None = None
    by_http: bool = False
    twice: bool = False


def requests(seed: int, count: int, pipeline: str | None = None) -> Iterator[Sent]:
    """The same seed gives the same requests. `pipeline` is what all of them take."""
    random = Random(seed)
    lanes = [lane.value for lane in Lane]
    for number in range(count):
        task = random.choice(_TASKS).format(random.choice(_TOPICS), n=random.randint(2, 99), m=random.randint(2, 99))
        hurried = random.random() < HURRIED_SHARE
        body = {
            "prompt": f"{task} ({number})",
            "priority": random.choice(lanes),
            "deadline_ms": random.randint(*HURRIED_MS) if hurried else DEADLINE_MS,
            "metadata": {"number": number},
        } | ({"pipeline": pipeline} if pipeline else {})
        if number % HTTP_EVERY == HTTP_EVERY - 1:
            yield Sent(number, body, by_http=True, twice=random.random() < TWICE_SHARE)
            continue
        ordering_key = f"line-{random.randrange(ORDERING_KEYS)}" if random.random() < ORDERED_SHARE else None
        yield Sent(number, body if ordering_key is None else body | {"ordering_key": ordering_key}, ordering_key)


@dataclass
class Load:
    """Sends requests and remembers which were acknowledged, by id. `http` are the lanes of those that came by HTTP."""

    broker: Broker
    http_url: str
    seed: int
    pipeline: str | None = None
    acknowledged: set[str] = field(default_factory=set)
    http: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    retried: int = 0

    async def run(self, count: int, rate_s: float) -> None:
        """Returns when all are acknowledged. Raises LoadError."""
        began_s = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
        producer = await self.broker.producer(linger_ms=2)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
                for request in requests(self.seed, count, self.pipeline):
                    await asyncio.sleep(max(0.0, began_s + request.number / rate_s - time.monotonic()))
                    self.sent += 1
                    if request.by_http:
                        group.create_task(self._post(session, request))
                    else:
                        group.create_task(self._acknowledged(await self._produce(producer, request), request))
        finally:
            await producer.close()

    async def _produce(self, producer: Producer, request: Sent) -> "asyncio.Future[Any]":
        """Queued in order; the client repeats it, without doubling it, until a broker is there."""
        key = (request.ordering_key or str(request.number)).encode()
        try:
            return await producer.send(Output(INTAKE.name, key, json.dumps(request.body).encode()))
        except BrokerUnavailableError as error:
            raise LoadError(f"request {request.number} could not be produced: {error}") from error

    async def _acknowledged(self, sent: "asyncio.Future[Any]", request: Sent) -> None:
        try:
            place = await sent
        except KafkaError as error:
            raise LoadError(f"request {request.number} was not acknowledged: {error}") from error
        self.acknowledged.add(request_id_of_record(place.partition, place.offset, place.timestamp))

    async def _post(self, session: aiohttp.ClientSession, request: Sent) -> None:
        """By one caller or by two at once, who must get the same id."""
        ids = await asyncio.gather(*(self._posted(session, request) for _ in range(2 if request.twice else 1)))
        if len(set(ids)) > 1:
            raise LoadError(f"request {request.number} has two ids under one key: {ids}")
        self.acknowledged.add(ids[0])
        self.http[ids[0]] = request.body["priority"]

    async def _posted(self, session: aiohttp.ClientSession, request: Sent) -> str:
        headers = {"Idempotency-Key": f"chaos-{self.seed}-{request.number}"}
        until_s = time.monotonic() + PATIENCE_S
        while True:
            problem = ""
            try:
                async with session.post(f"{self.http_url}/v1/requests", json=request.body, headers=headers) as response:
                    if response.status == 202:
                        return str((await response.json())["id"])
                    problem = f"{response.status} {await response.text()}"
                    if 400 <= response.status < 500:
                        raise LoadError(f"request {request.number} was refused: {problem}")
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
            if time.monotonic() > until_s:
                raise LoadError(f"request {request.number} found no acknowledgement by HTTP: {problem}")
            self.retried += 1
            await asyncio.sleep(RETRY_S)
