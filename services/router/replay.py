"""Recorded tasks through the config in force and through another one, off-line: `python -m services.router.replay`, for
`baton replay`. Both sides are this router's own code, with the fleet and the learned quality as they are now and no budgets of
tenants; so the plans differ by the config alone. It only reads.

Stdin: an `Order` as JSON. Stdout: a `Comparison` as JSON.
"""

import sys
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from schemas.config import ConfigRecord
from schemas.envelope import Envelope
from schemas.messages import Plan, Task
from schemas.topology import CONFIG, FLEET, QUALITY, TASKS
from services.router.main import Router
from shared.broker import Broker, Record
from shared.catalogue import VERSION_KEY, Catalogue
from shared.codec import decode
from shared.config import Settings
from shared.errors import BatonError, UndecodableError
from shared.handler import Context
from shared.kafka import KafkaBroker
from shared.service import kafka_options
from shared.table import Table

DIFFERENT_MAX = 20
"""Requests shown of those that another model would serve."""


@dataclass(frozen=True)
class Order:
    """Which tasks, and what the other config is: `kind/name` → spec, as `baton apply` would write it."""

    since_ms: int
    tasks_max: int
    specs: Mapping[str, Mapping[str, Any]]


@dataclass
class Side:
    """What one config plans for the tasks, summed over the first candidate of each. Latencies only where one is known."""

    planned: int = 0
    cost_microusd: int = 0
    quality_sum: float = 0.0
    latency_sum_ms: int = 0
    latencies: int = 0
    models: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, plan: Plan) -> None:
        if not plan.candidates:
            self.failures[plan.failure.reason.value if plan.failure else "no_candidate"] += 1
            return
        first = plan.candidates[0]
        self.planned += 1
        self.cost_microusd += first.cost_microusd
        self.quality_sum += first.quality
        self.models[first.model] += 1
        if first.latency_ms:
            self.latency_sum_ms += first.latency_ms
            self.latencies += 1


@dataclass
class Comparison:
    """Both sides. `different`: request, its model now, its model under the other config; `changed` counts them all."""

    tasks: int = 0
    unreadable: int = 0
    now: Side = field(default_factory=Side)
    other: Side = field(default_factory=Side)
    changed: int = 0
    different: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, request_id: str, now: Plan, other: Plan) -> None:
        self.tasks += 1
        self.now.add(now)
        self.other.add(other)
        before, after = (plan.candidates[0].model if plan.candidates else "" for plan in (now, other))
        if before != after:
            self.changed += 1
            if len(self.different) < DIFFERENT_MAX:
                self.different.append((request_id, before, after))


class RecordedClock:
    """The time at which a task came to the router."""

    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


def catalogue_of(specs: Mapping[str, Mapping[str, Any]], in_force: Catalogue) -> Catalogue:
    """The other config; what was certified stays so."""
    records = {key: _record(key, dict(spec)) for key, spec in {**specs, VERSION_KEY: {}}.items()}
    certificates = {f"certificate/{name}": each.model_dump(mode="json") for name, each in in_force.certificates.items()}
    return Catalogue.from_records(records | {key: _record(key, spec) for key, spec in certificates.items()})


def _record(key: str, spec: dict[str, Any]) -> ConfigRecord:
    kind, _, name = key.partition("/")
    return ConfigRecord.model_validate({"kind": kind, "name": name, "version": 0, "spec": spec})


async def compared(broker: Broker, order: Order) -> Comparison:
    """Raises BrokerUnavailableError."""
    tables = {topic: Table[Any](broker, topic) for topic in (CONFIG, FLEET, QUALITY)}
    for table in tables.values():
        await table.start()
        await table.close()
    in_force = Catalogue.from_records(tables[CONFIG].values)
    clock = RecordedClock()

    def router_of(catalogue: Catalogue) -> Router:
        return Router(lambda: catalogue, tables[FLEET].snapshot, clock, quality=tables[QUALITY].snapshot)

    routers = [router_of(in_force), router_of(catalogue_of(order.specs, in_force))]
    found = Comparison()
    reader = await broker.reader(TASKS.name, since_ms=order.since_ms)
    try:
        ends = await reader.ends()
        while found.tasks < order.tasks_max and any([await reader.position(each) < end for each, end in ends.items()]):
            for record in (await reader.poll(500))[: order.tasks_max - found.tasks]:
                await _compare(record, routers, clock, found)
    finally:
        await reader.close()
    return found


async def _compare(record: Record, routers: list[Router], clock: RecordedClock, found: Comparison) -> None:
    try:
        envelope: Envelope[Task] = decode(TASKS, record.value)
    except UndecodableError:
        found.unreadable += 1
        return
    if envelope.payload.failure is not None:
        return
    clock.ms = record.timestamp_ms
    now, other = [await _plan(router, envelope, record) for router in routers]
    found.add(envelope.request_id, now, other)


async def _plan(router: Router, envelope: Envelope[Task], record: Record) -> Plan:
    outcome = router.handle(envelope, Context(record, (), _NoLedger(), lambda: None))
    emit = await outcome if isinstance(outcome, Awaitable) else outcome
    planned = emit.outputs[0].value
    assert isinstance(planned, Envelope)
    plan: Plan = planned.payload
    return plan


class _NoLedger:
    """A replay writes nothing."""

    async def write(self, *_: Any) -> None:
        raise AssertionError("a replay writes nothing")

    async def send(self, *_: Any) -> Any:
        raise AssertionError("a replay writes nothing")


async def _main(order: Order) -> None:
    broker = KafkaBroker(kafka_options(Settings.from_environment(), "baton-replay"))
    try:
        comparison = await compared(broker, order)
    finally:
        await broker.close()
    sys.stdout.buffer.write(orjson.dumps(comparison))


def main() -> None:
    order = Order(**orjson.loads(sys.stdin.buffer.read()))
    try:
        uvloop.run(_main(order))
    except BatonError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
