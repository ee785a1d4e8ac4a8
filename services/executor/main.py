"""plans -> attempts and completions: takes plans over, and hands each to a `Walk`.

`decide.py` says what to do next, `walk.py` does it. Never calls for a plan that is completed.
"""

import random
from collections.abc import Callable

import httpx2

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptPhase
from schemas.messages import Failure, Plan
from schemas.topology import ATTEMPTS
from services.executor import books
from services.executor.backends import Backends
from services.executor.cancels import Cancels
from services.executor.observe import Observer
from services.executor.provider import Provider
from services.executor.takeover import Takeover, orphaned
from services.executor.transport import AiohttpTransport
from services.executor.walk import GIVEN_UP, Tools, Walk
from shared.config import resolve_secret
from shared.handler import Context
from shared.outcome import Drop, Emit, Out, Outcome
from shared.service import World


class Executor:
    """The executor's handler. Must be made inside a running event loop."""

    side_by_side = True     # steps of one request that its pipeline runs in parallel
    expires_itself = True   # an expired plan may have attempts that an earlier owner left open: they are closed first

    def __init__(
        self,
        world: World,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolve: Callable[[str], str] = resolve_secret,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = world.clock
        self._transport = transport or AiohttpTransport(connections_max=world.settings.in_flight_max)
        provider = Provider(self._transport, resolve)
        self.backends = Backends(world.catalogue, world.fleet, world.instance, world.clock, provider.is_callable)
        self._observer = Observer(world.broker, self.backends, world.settings.observe_interval_ms)
        self._takeover = Takeover(world.broker)
        self._cancels = Cancels()
        self._tools = Tools(self.backends, provider, self._takeover, world.catalogue, world.clock, draw, world.instance)

    async def start(self) -> None:
        self._observer.start()

    async def stop(self) -> None:
        await self._observer.stop()
        await self._transport.aclose()

    async def assigned(self, partitions: frozenset[int]) -> None:
        self._takeover.forget(partitions)

    async def handle(self, envelope: Envelope[Plan], context: Context) -> Outcome:
        """Walk one plan to its completion."""
        self._observer.check()
        if envelope.payload.cancels:
            self._cancels.cancel(envelope.request_id, envelope.payload.cancels)
            return Drop("cancelled other steps")
        partition = context.record.partition
        if await self._takeover.is_completed(partition, envelope.id, envelope.accepted_ms):
            await self._close_orphans(envelope, context)
            self._takeover.close(envelope.id)
            return Drop("already completed")
        attempts = await self._close_orphans(envelope, context)
        if attempts and await self._takeover.has_appeared(partition, envelope.id, attempts[0].started_ms):
            self._takeover.close(envelope.id)
            return Drop("completed by its former owner")
        if self._cancels.is_cancelled(envelope):
            return Emit(self.failed(envelope, GIVEN_UP))
        walk = Walk(self._tools, envelope, context, attempts)
        with self._cancels.under_way(envelope, walk):
            return await walk.run()

    def failed(self, envelope: Envelope[Plan], failure: Failure) -> tuple[Out, ...]:
        """The completion of a plan that is not walked; attempts known to be left open are closed behind it."""
        now_ms = self._clock.now_ms()
        attempts = self._takeover.close(envelope.id)
        closed = [attempt if attempt.finished_ms else orphaned(attempt, now_ms) for attempt in attempts]
        lines = (Out(ATTEMPTS, new, envelope.key) for new, old in zip(closed, attempts, strict=True) if new is not old)
        return (books.completion(envelope, closed, failure=failure), *lines)

    async def _close_orphans(self, envelope: Envelope[Plan], context: Context) -> list[Attempt]:
        """Earlier attempts of the plan. Those whose executor died are closed in the ledger before anything new starts."""
        attempts = self._takeover.attempts(context.record.partition, envelope.id)
        for place, attempt in enumerate(attempts):
            if attempt.phase is AttemptPhase.STARTED:
                closed = attempts[place] = orphaned(attempt, self._clock.now_ms())
                await context.write(Out(ATTEMPTS, closed, envelope.key))
                self._takeover.note(context.record.partition, closed)
        return attempts
