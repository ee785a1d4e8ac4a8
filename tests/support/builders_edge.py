"""Builders for both ends: intake records, catalogues with tenants, verdicts; and a replica of intake on a broker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import strategies as st

from schemas.config import Policy, Tenant
from schemas.envelope import Envelope, Header
from schemas.ledger import Usage
from schemas.messages import Answer, Reason, Request, Result, Status, Verdict
from schemas.topology import REPLIES, REQUESTS, RESULTS, TOPICS, Topic, topic_spec
from services.intake.decide import OPTIONS
from services.intake.main import Intake
from shared.broker import Headers, Output, Record
from shared.catalogue import Catalogue
from shared.clock import Clock, SystemClock
from shared.codec import decode, encode
from shared.handler import Context
from shared.local import LocalBroker

NOW_MS = 1_800_000_000_000
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)   # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)
SUBMITTED = st.dictionaries(st.sampled_from([*OPTIONS, "prompt", "messages", "model", "stream"]), JSON, max_size=6)
"""What a caller might send: every known field with any value at all."""

SECRETS = {"env:ACME_KEY": "acme-key", "env:GLOBEX_KEY": "globex-key"}


class FixedClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


def a_catalogue(tenants: Mapping[str, Tenant] | None = None, policy: Policy | None = None) -> Catalogue:
    """One open tenant `demo` and two with keys, unless told otherwise."""
    default = {
        "demo": Tenant(open=True),
        "acme": Tenant(keys=("env:ACME_KEY",)),
        "globex": Tenant(keys=("env:GLOBEX_KEY",)),
    }
    return Catalogue(version=1, tenants=default if tenants is None else tenants, policies={"default": policy or Policy()})


def an_intake_record(value: Any, offset: int = 0, timestamp_ms: int = NOW_MS, headers: Headers = ()) -> Record:
    """A record of `intake`; bytes are taken as they are, anything else is written as JSON."""
    raw = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
    return Record("intake", 0, offset, timestamp_ms, None, raw, headers)


def a_verdict(request_id: str = "r1", **fields: Any) -> Envelope[Verdict]:
    """Delivered; `fields` go to the envelope, or to the verdict where it has them."""
    of_verdict = {name: fields.pop(name) for name in list(fields) if name in Verdict.model_fields}
    answer = Answer(text="Paris", model="small", backend="small@a", usage=Usage(tokens_in=9, tokens_out=1))
    verdict = {"status": Status.DELIVERED, "answer": answer, "cost_microusd": 42, "attempts": 1, "decided_ms": NOW_MS + 900}
    identity = {"id": f"{request_id}/verdict", "request_id": request_id, "key": request_id, "tenant": "demo"}
    times = {"accepted_ms": NOW_MS, "deadline_ms": NOW_MS + 60_000}
    return Envelope[Verdict](**(identity | times | fields), payload=Verdict(**(verdict | of_verdict)))


def a_context(partition: int = 0, timestamp_ms: int = NOW_MS + 1_000, record: Record | None = None) -> Context:
    record = record or Record("verdicts", partition, 0, timestamp_ms, b"r1", b"")
    ledger: Any = None   # neither stage writes ahead
    return Context(record, (), ledger, check_alive=lambda: None)


async def a_broker(clock: Clock | None = None) -> LocalBroker:
    broker = LocalBroker(clock)
    await broker.create_topics([topic_spec(topic) for topic in TOPICS])
    return broker


def records_of(broker: LocalBroker, topic: Topic) -> list[Record]:
    return [record for log in broker.logs[topic.name] for record in log]


def requests_in(broker: LocalBroker) -> list[Envelope[Request]]:
    return [decode(REQUESTS, record.value) for record in records_of(broker, REQUESTS)]


async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a condition, at most `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.002)


def a_result_of(envelope: Envelope[Request], **fields: Any) -> Result:
    answer = Answer(text="Paris", model="small", backend="small@a", usage=Usage(tokens_in=9, tokens_out=1))
    delivered: dict[str, Any] = {"status": Status.DELIVERED, "answer": answer, "cost_microusd": 42}
    identity: dict[str, Any] = {
        "request_id": envelope.request_id, "tenant": envelope.tenant, "accepted_ms": envelope.accepted_ms,
        "decided_ms": envelope.accepted_ms + 5, "metadata": envelope.metadata,
    }
    return Result(**(identity | delivered | fields))


def a_failed_result_of(envelope: Envelope[Request], status: Status, reason: Reason) -> Result:
    return a_result_of(envelope, status=status, reason=reason, message="says why", answer=None, cost_microusd=0)


def put_result(broker: LocalBroker, result: Result, partition: int) -> None:
    """A result in the log, as the runner writes it."""
    headers = ((Header.SUBJECT, result.request_id.encode()),)
    broker.append(Output(RESULTS.name, result.request_id.encode(), encode(RESULTS, result), headers, partition))


@dataclass
class Replica:
    """One replica of intake behind a test client, on a broker that others may share."""

    intake: Intake
    client: TestClient[Any, Any]
    broker: LocalBroker


@asynccontextmanager
async def a_replica(
    broker: LocalBroker | None = None,
    catalogue: Catalogue | None = None,
    replica_index: int = 0,
    clock: Clock | None = None,
    resolve: Callable[[str], str] = SECRETS.__getitem__,
) -> AsyncIterator[Replica]:
    broker = broker or await a_broker(clock)
    known = catalogue or a_catalogue()
    intake = Intake(broker, clock or SystemClock(), lambda: known, replica_index, resolve=resolve)
    await intake.open()
    client = TestClient(TestServer(intake.http.app()))
    await client.start_server()
    try:
        yield Replica(intake, client, broker)
    finally:
        await client.close()
        await intake.stop()


@asynccontextmanager
async def answering(
    broker: LocalBroker, answer: Callable[[Envelope[Request]], Result] = a_result_of
) -> AsyncIterator[None]:
    """The rest of the pipeline in a few lines: each new request id gets one result on the partition its caller waits on."""
    seen: set[str] = set()
    reader = await broker.reader(REQUESTS.name)

    async def run() -> None:
        while True:
            for record in await reader.poll(100):
                envelope: Envelope[Request] = decode(REQUESTS, record.value)
                if envelope.request_id not in seen and envelope.reply is not None:
                    seen.add(envelope.request_id)
                    value = encode(REPLIES, answer(envelope))
                    partition = int(envelope.reply)
                    broker.append(Output(REPLIES.name, envelope.request_id.encode(), value, (), partition))

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
