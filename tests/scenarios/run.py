"""Runs variants of the scenarios, all at once, on one Baton, and gathers what is seen of each from outside. Judges nothing."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from schemas.ledger import AttemptPhase
from schemas.messages import Result
from schemas.topology import ATTEMPTS, INTAKE, RESULTS
from shared.broker import Broker, Output, Producer, Reader
from shared.codec import decode
from tests.scenarios.evidence import Asked, Billed, Call, Evidence, LedgerLine, Seen
from tests.scenarios.system import Baton, a_baton, read_all
from tests.scenarios.table import Pace, Variant, catalogue

REPLICAS = {"executor": 2}
LATENCY_SCALE = "0.5"
STAGGER_S = 0.05
"""Between the first requests of two variants: a start of all at once would measure the machine."""
LATE_S = 5.0
"""After the last deadline, so that a late result is seen as late and not as missing."""
SETTLE_S = 30.0
"""The longest fault, 20 s without a word, is over then, and every call in the provider's books."""
PROGRESS_S = 5.0

Say = Callable[[str], None]
Place = tuple[str, int]


@dataclass
class Run:
    """What one run sees: when each request of each variant was sent, and its results as they come."""

    wanted: Sequence[Variant]
    sent_ms: dict[Place, int] = field(default_factory=dict)
    seen: dict[Place, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    @property
    def expected(self) -> int:
        return sum(variant.scenario.requests for variant in self.wanted)

    async def send(self, producer: Producer, pace: Pace) -> None:
        """Every variant's requests at their due times, and no later than that."""
        await asyncio.gather(*(
            self._send(producer, variant, place * STAGGER_S, variant.scenario.every_s * pace.scale)
            for place, variant in enumerate(self.wanted)
        ))

    async def _send(self, producer: Producer, variant: Variant, after_s: float, every_s: float) -> None:
        began_s = time.monotonic() + after_s
        for number in range(variant.scenario.requests):
            await asyncio.sleep(max(began_s + number * every_s - time.monotonic(), 0))
            self.sent_ms[variant.name, number] = now_ms()
            await (await producer.send(Output(INTAKE.name, None, orjson.dumps(variant.body(number)))))

    async def watch(self, reader: Reader) -> None:
        """Note results as they come, until cancelled."""
        names = {variant.name for variant in self.wanted}
        while True:
            for record in await reader.poll(100):
                result: Result = decode(RESULTS, record.value)
                if result.tenant in names:
                    self.seen[result.tenant, result.metadata["number"]].append(Seen(now_ms(), result))

    async def answered(self, say: Say) -> None:
        """Until every request has its result, or should have had it for a while."""
        began_s = said_s = time.monotonic()
        while len(self.seen) < self.expected and not self._is_too_late():
            if time.monotonic() - said_s >= PROGRESS_S:
                said_s = time.monotonic()
                say(f"{said_s - began_s:4.0f} s: {len(self.seen)} of {self.expected} requests have their result")
            await asyncio.sleep(0.1)

    def _is_too_late(self) -> bool:
        if len(self.sent_ms) < self.expected:
            return False
        last_ms = max(self.sent_ms[v.name, v.scenario.requests - 1] + v.scenario.deadline_ms for v in self.wanted)
        return now_ms() > last_ms + LATE_S * 1000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def run(wanted: Sequence[Variant], pace: Pace, bootstrap: str, say: Say) -> dict[str, Evidence]:
    """The evidence of every variant, by its name."""
    simulator = ("--latency-scale", LATENCY_SCALE)
    async with a_baton(bootstrap, lambda url: catalogue(wanted, url, pace), say, REPLICAS, simulator) as baton:
        await baton.control(scenario_scale=pace.scale)
        seen = Run(wanted)
        say(f"{len(baton.processes.names())} processes are up; {seen.expected} requests in {len(wanted)} variants")
        await _ask(seen, baton, pace, say)
        return await _gather(seen, baton, say)


async def _ask(seen: Run, baton: Baton, pace: Pace, say: Say) -> None:
    reader, producer = await baton.broker.reader(RESULTS.name, at_end=True), await baton.broker.producer()
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(seen.watch(reader))
            group.create_task(seen.send(producer, pace))
            await seen.answered(say)
            watching.cancel()
    finally:
        await reader.close()
        await producer.close()


async def _gather(run: Run, baton: Baton, say: Say) -> dict[str, Evidence]:
    ledger, calls = await _settled(run, baton, say)
    billed = [_billed(line) for line in await baton.lines("/invoice")]
    restarted = baton.restarted()
    return {
        variant.name: replace(
            variant.evidence(),
            asked=tuple(
                Asked(run.sent_ms[variant.name, number], tuple(run.seen[variant.name, number]))
                for number in range(variant.scenario.requests)
            ),
            calls=tuple(call for call in calls if _of(call.model) == variant.name),
            billed=tuple(line for line in billed if _of(line.model) == variant.name),
            ledger=tuple(line for line in ledger if line.attempt.tenant == variant.name),
            restarted=restarted,
        )
        for variant in run.wanted
    }


async def _settled(run: Run, baton: Baton, say: Say) -> tuple[list[LedgerLine], list[Call]]:
    """Both books once every attempt is closed and its call over, or after a while as they are."""
    said, until_s = False, time.monotonic() + SETTLE_S
    while True:
        ledger = await _ledger(baton.broker, {variant.name for variant in run.wanted}, min(run.sent_ms.values()))
        calls = [_call(line) for line in await baton.lines("/calls")]
        begun = {line.attempt.attempt_id for line in ledger if line.attempt.phase is AttemptPhase.STARTED}
        ended = {line.attempt.attempt_id for line in ledger if line.attempt.phase is AttemptPhase.FINISHED}
        if (begun == ended and begun <= {call.attempt_id for call in calls}) or time.monotonic() > until_s:
            return ledger, calls
        if not said:
            said = True
            say("all results are in; waiting until the provider is done with the calls it was left with")
        await asyncio.sleep(0.5)


async def _ledger(broker: Broker, tenants: set[str], since_ms: int) -> list[LedgerLine]:
    lines = (LedgerLine(record.timestamp_ms, decode(ATTEMPTS, record.value)) for record in await read_all(broker, ATTEMPTS))
    return [line for line in lines if line.attempt.tenant in tenants and line.logged_ms >= since_ms]


def _of(model: str) -> str:
    """The variant that a provider's model belongs to."""
    return model.partition("@")[2]


def _call(line: Mapping[str, Any]) -> Call:
    return Call(line["at_ms"], line["model"], line["attempt_id"], line["status"], line["error_class"], line["streamed"])


def _billed(line: Mapping[str, Any]) -> Billed:
    return Billed(line["attempt_id"], line["model"], line["tokens_in"], line["tokens_out"], line["cost_microusd"])
