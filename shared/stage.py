"""The runner: keeps one stage in its consumer group for as long as the process lives.

Sessions end and begin again when the broker goes away or another process takes over; the process itself ends on a bug, on
too many dead letters, and when it stood still past its session timeout (then the group has moved on, and nothing it
remembers may be acted upon). The platform restarts it; the log is the state.
"""

import asyncio
import contextlib
import logging

from schemas.topology import Stage
from shared import metrics
from shared.broker import Broker
from shared.clock import Clock, SystemClock
from shared.errors import BrokerUnavailableError, FencedError, FrozenError
from shared.handler import Handler
from shared.session import RunnerOptions, Session

log = logging.getLogger(__name__)

TICKS = 20
"""Looks at the clock per session timeout: a process that stood still notices within a twentieth of it."""

FROZEN_SHARE = 0.8
"""Part of the session timeout after which a process that stood still no longer trusts itself."""

STUCK_S = 60.0
BACKOFF_S_MAX = 5.0


class Runner:
    """Runs one stage. `run` returns after a clean drain and raises what must end the process."""

    def __init__(
        self,
        stage: Stage,
        handler: Handler,
        broker: Broker,
        options: RunnerOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._stage = stage
        self._handler = handler
        self._broker = broker
        self._options = options or RunnerOptions()
        self._clock = clock or SystemClock()
        self._ticked_s = self._clock.monotonic_s()
        self._away = False
        self._session: Session | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Raises FrozenError, DeadLetterCapError, ForeignTopicError, or what a bug raised."""
        self._ticked_s = self._clock.monotonic_s()
        ticker = asyncio.create_task(self._tick())
        pause_s = 0.1
        try:
            while not stop.is_set():
                began_s = self._clock.monotonic_s()
                if await self._one_session(stop):
                    return
                if self._clock.monotonic_s() - began_s > 30:
                    pause_s = 0.1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
                pause_s = min(pause_s * 2, BACKOFF_S_MAX)
        finally:
            ticker.cancel()

    async def _one_session(self, stop: asyncio.Event) -> bool:
        """Whether the stage is done; False: begin again."""
        metrics.SESSIONS.labels(stage=self._stage.name).inc()
        self._session = Session(
            self._stage, self._handler, self._broker, self._options, self._clock, self.check_alive
        )
        try:
            await self._session.run(stop)
        except BrokerUnavailableError as error:
            self._away = True
            log.warning("the broker is away, unfinished records will be read again: %s", error)
            return False
        except FencedError as error:
            log.warning("another process took a partition over, joining the group again: %s", error)
            return False
        self._away = False
        return True

    async def _tick(self) -> None:
        while self._stood_s() <= self._frozen_s:   # else stop for good: whoever asks from now on finds out, too
            self._ticked_s = self._clock.monotonic_s()
            if self.is_ready():
                self._away = False
            await asyncio.sleep(self._options.session_timeout_ms / 1000 / TICKS)

    def check_alive(self) -> None:
        """Raises FrozenError when this process was stopped for longer than the group waits for a member."""
        stood_s = self._stood_s()
        if stood_s > self._frozen_s:
            raise FrozenError(
                f"{self._stage.name} stood still for {stood_s:.1f} s, the group has moved on; "
                "ending, so that nothing is done twice"
            )

    def _stood_s(self) -> float:
        return self._clock.monotonic_s() - self._ticked_s

    @property
    def _frozen_s(self) -> float:
        return FROZEN_SHARE * self._options.session_timeout_ms / 1000

    def is_live(self) -> bool:
        """Whether the loop turns. Never depends on the broker: restarting a stage does not bring a broker back."""
        session = self._session
        return session is None or self._away or self._clock.monotonic_s() - session.turned_s < STUCK_S

    def is_ready(self) -> bool:
        """Whether records flow: partitions are assigned (perhaps none, when there are more replicas than partitions)."""
        session = self._session
        return session is not None and session.assigned and self._clock.monotonic_s() - session.turned_s < STUCK_S

