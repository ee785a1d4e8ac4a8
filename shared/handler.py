"""What a stage gives the runner: how to handle a record, and how to say that a request failed there."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.envelope import Envelope
from schemas.messages import Failure
from shared.broker import Headers, Record
from shared.outcome import Out, Outcome


class Ledger(Protocol):
    """Writes outside a record's own outcome, but like it on the record's partition, where a take-over looks for it."""

    async def write(self, out: Out, trace: Headers, record: Record) -> None:
        """Returns when it is in the log. Raises BrokerUnavailableError."""

    async def send(self, out: Out, trace: Headers, record: Record) -> "asyncio.Future[object]":
        """Queues it; for facts nobody waits for."""


class Parking:
    """Counts the records whose handlers wait for something outside, by topic: maybe until their deadline."""

    def __init__(self) -> None:
        self.by_topic: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.by_topic.total()


@dataclass(slots=True)   # one per record: a frozen one would take four times as long to make
class Context:
    """Where a record came from, and what a handler may do beside returning an outcome. Nobody changes it."""

    record: Record
    trace: Headers
    ledger: Ledger
    check_alive: Callable[[], None]   # raises FrozenError when this process stood still past its session timeout
    parking: Parking = field(default_factory=Parking)
    held: tuple[tuple[Envelope[Any], Record], ...] = ()   # the open records of the same request, oldest first
    crowded: bool = False             # there is no room to hold this record: end its request, or it fails as it is

    def write(self, out: Out) -> Awaitable[None]:
        """Beside the record's outcome, and in the log before the handler goes on. Raises BrokerUnavailableError."""
        return self.ledger.write(out, self.trace, self.record)

    def send(self, out: Out) -> "Awaitable[asyncio.Future[object]]":
        """Beside the record's outcome; the future is its acknowledgement."""
        return self.ledger.send(out, self.trace, self.record)

    @contextmanager
    def parked(self) -> Iterator[None]:
        """While the handler waits: the record takes no place of one that could go on, and no drain waits for it."""
        self.parking.by_topic[self.record.topic] += 1
        try:
            yield
        finally:
            self.parking.by_topic[self.record.topic] -= 1


class Handler(Protocol):
    """One stage's behaviour. `handle` may be plain or async; plain ones are run in place, in offset order.

    The runner drops expired requests before `handle`, passes on envelopes that already carry a failure untouched through
    `handle` (stages must let `payload.failure` pass), keeps order per key, retries a crash three times, writes dead letters.
    """

    def handle(self, envelope: Any, context: Context) -> Outcome | Awaitable[Outcome]:
        """Decide one record: `envelope` is the topic's payload class, decoded."""

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        """What this stage writes so that the request gets its one result although it failed here.

        `envelope` has its identity but maybe no payload (undecodable record, or what came of it fits no record): rely on the
        envelope's own fields only.
        """

    async def assigned(self, partitions: frozenset[int]) -> None:
        """These partition numbers are now owned: whatever was remembered of them may be stale."""

