"""What this replica saw of its backends, to the `observations` topic several times a second, at once on a trip or a gate.

Observations are statistics: one that cannot be written is lost, and no request waits for any.
"""

import asyncio
import contextlib
import logging

from schemas.messages import Lane
from schemas.topology import OBSERVATIONS, stage_named
from services.executor.backends import Backends
from services.executor.decide import STAGE
from shared import metrics
from shared.broker import Broker, Producer
from shared.errors import BrokerUnavailableError
from shared.outcome import Out
from shared.writer import Writer

log = logging.getLogger(__name__)


class Observer:
    """A background task with a producer of its own. It also looks for changes that waiting plans must hear of."""

    def __init__(self, broker: Broker, backends: Backends, interval_ms: int) -> None:
        self._broker = broker
        self._backends = backends
        self._interval_ms = interval_ms
        self._producer: Producer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def check(self) -> None:
        """Raises what ended the task, if anything did: without it parked plans would never wake."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Report what is left and close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.report()
        if self._producer is not None:
            with contextlib.suppress(BrokerUnavailableError):
                await self._producer.flush()
            await self._producer.close()

    async def _run(self) -> None:
        urgent = self._backends.urgent
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(urgent.wait(), self._interval_ms / 1000)
            urgent.clear()
            self._backends.tick()
            self._measure()
            await self.report()

    def _measure(self) -> None:
        for lane in Lane:
            metrics.PLANS_WAITING.labels(lane=lane).set(self._backends.room.waiting(lane))
        for name, places, in_flight in self._backends.places():
            metrics.BACKEND_PLACES.labels(backend=name).set(places)
            metrics.BACKEND_IN_FLIGHT.labels(backend=name).set(in_flight)

    async def report(self) -> None:
        """Send what was gathered since the last time."""
        observations = self._backends.take()
        if not observations:
            return
        try:
            if self._producer is None:
                self._producer = await self._broker.producer()
            writer = Writer(stage_named(STAGE), self._producer)
            for seen in observations:
                sent = await writer.send(Out(OBSERVATIONS, seen, key=seen.backend))
                sent.add_done_callback(_noted)
        except BrokerUnavailableError as error:
            log.warning("observations are lost while the broker is away: %s", error)
            producer, self._producer = self._producer, None
            if producer is not None:
                await producer.close()


def _noted(sent: "asyncio.Future[object]") -> None:
    if not sent.cancelled() and (error := sent.exception()) is not None:
        log.warning("an observation is lost: %s", type(error).__name__)
