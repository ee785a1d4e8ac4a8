"""Gathers what a run left behind: topics from their beginning, the invoice's file, the groups' positions. Judges nothing."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka.admin import AIOKafkaAdminClient

from schemas.envelope import Header
from schemas.topology import ATTEMPTS, INTAKE, RESULTS, STAGES, TOPICS, Key, Topic
from shared.broker import Broker, Partition, Reader, Record
from shared.codec import decode
from shared.errors import BrokerUnavailableError
from shared.ids import request_id_of_record
from tests.chaos.auditor import Accepted, Billed, Evidence, LedgerLine, SeenResult

POLL_MS = 200
REOPEN_S = 0.3


def seen_result(record: Record) -> SeenResult:
    result = decode(RESULTS, record.value)
    reason = result.reason.value if result.reason else ""
    return SeenResult(record.partition, record.offset, result.request_id, result.status.value, result.cost_microusd, reason)


@dataclass
class Watcher:
    """A read_committed reader of `results` that runs all along, through every outage of the broker."""

    broker: Broker
    seen: dict[tuple[int, int], SeenResult] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    arrivals_ms: list[int] = field(default_factory=list)
    latencies_ms: list[int] = field(default_factory=list)
    reopened: int = 0

    async def run(self) -> None:
        """Until cancelled. After an outage it reads from the beginning: what it saw before it knows by its place."""
        while True:
            with suppress(BrokerUnavailableError):
                reader = await self.broker.reader(RESULTS.name)
                try:
                    while True:
                        self._note(await reader.poll(POLL_MS))
                finally:
                    await reader.close()
            self.reopened += 1
            await asyncio.sleep(REOPEN_S)

    def _note(self, records: Iterable[Record]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for record in records:
            place = record.partition, record.offset
            if place in self.seen:
                continue
            self.seen[place] = seen_result(record)
            self.answered.add(self.seen[place].request_id)
            self.arrivals_ms.append(now_ms)
            self.latencies_ms.append(now_ms - decode(RESULTS, record.value).accepted_ms)


async def read_all(broker: Broker, topic: Topic) -> list[Record]:
    """The topic from beginning to end, as of now."""
    reader = await broker.reader(topic.name)
    try:
        return await _to_end(reader)
    finally:
        await reader.close()


async def _to_end(reader: Reader) -> list[Record]:
    records: list[Record] = []
    for partition, end in (await reader.ends()).items():
        while await reader.position(partition) < end:
            records += await reader.poll(POLL_MS)
    return records


async def accepted(broker: Broker, by_http: Mapping[str, str]) -> list[Accepted]:
    """What users wrote to `intake`, and what was acknowledged to them by HTTP: everything that is owed a result."""
    owed = [Accepted(id, lane=lane) for id, lane in by_http.items()]
    for record in await read_all(broker, INTAKE):
        body = orjson.loads(record.value or b"{}")
        id = request_id_of_record(record.partition, record.offset, record.timestamp_ms)
        owed.append(Accepted(id, record.offset, body.get("ordering_key"), body.get("priority", "standard")))
    return owed


async def results(broker: Broker) -> list[SeenResult]:
    return [seen_result(record) for record in await read_all(broker, RESULTS)]


async def ledger(broker: Broker) -> list[LedgerLine]:
    return [LedgerLine(record.timestamp_ms, decode(ATTEMPTS, record.value)) for record in await read_all(broker, ATTEMPTS)]


def invoice(path: Path) -> list[Billed]:
    lines = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [Billed(line["attempt_id"], line["cost_microusd"], line["at_ms"]) for line in lines]


def dump(seen: Evidence, hops: Sequence[Mapping[str, object]], path: Path) -> None:
    """Everything that was audited, one JSON line each, to look up what broke an invariant: the broker's data is gone by then."""
    kinds: dict[str, Iterable[Any]] = {"accepted": seen.accepted, "result": seen.late, "billed": seen.invoice}
    with path.open("wb") as out:
        out.writelines(orjson.dumps(hop) + b"\n" for hop in hops)
        for line in seen.ledger:
            attempt = line.attempt.model_dump(mode="json", exclude_defaults=True)
            out.write(orjson.dumps({"what": "attempt", "logged_ms": line.logged_ms} | attempt) + b"\n")
        for kind, each in ((kind, each) for kind, found in kinds.items() for each in found):
            out.write(orjson.dumps({"what": kind} | asdict(each)) + b"\n")


async def trails(broker: Broker, ids: Collection[str]) -> list[dict[str, object]]:
    """Every record of these requests on every hop, in the order of the log: where a lost one was seen last."""
    found: list[dict[str, object]] = []
    for topic in (topic for topic in TOPICS if topic.key is Key.REQUEST):
        for record in await read_all(broker, topic):
            if (id := record.header(Header.SUBJECT)) in ids:
                place = f"{record.topic}/{record.partition}/{record.offset}"
                found.append({"what": "hop", "request_id": id, "at_ms": record.timestamp_ms, "place": place,
                              "id": record.header(Header.ID), "source": record.header(Header.SOURCE)})
    return sorted(found, key=lambda hop: (str(hop["request_id"]), str(hop["at_ms"])))


async def lag(broker: Broker, bootstrap: str) -> dict[str, int]:
    """Records that each stage's group has not finished, by group. The monitor keeps its own positions."""
    ends: dict[Partition, int] = {}
    stages = [stage for stage in STAGES if stage.name != "monitor"]
    for topic in {topic.name: topic for stage in stages for topic in stage.reads}.values():
        reader = await broker.reader(topic.name, at_end=True)
        ends.update(await reader.ends())
        await reader.close()
    behind: dict[str, int] = defaultdict(int)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for stage in stages:
            found = await admin.list_consumer_group_offsets(stage.group)
            done = {Partition(place.topic, place.partition): max(commit.offset, 0) for place, commit in found.items()}
            names = {topic.name for topic in stage.reads}
            behind[stage.group] = sum(end - done.get(place, 0) for place, end in ends.items() if place.topic in names)
    finally:
        await admin.close()
    return dict(behind)
