"""intake topic and HTTP -> requests. Wires the two sources, the claims of idempotency keys and the answers coming back."""

import asyncio
import logging
from dataclasses import replace
from inspect import isawaitable
from typing import TYPE_CHECKING

from aiohttp import web

from schemas.envelope import Envelope, Fact
from schemas.messages import STATUS_OF, Failure, Reason, Request, Verdict
from schemas.topology import IDEMPOTENCY, REPLIES, REQUESTS, VERDICTS
from services.intake import decide
from services.intake.decide import Arrival, Submission
from services.intake.http import HttpSource
from services.intake.idempotency import Claims, digest_of
from services.intake.keyring import Keyring
from services.intake.lag import Lags
from services.intake.replies import Replies
from services.intake.tail import Tail
from shared.broker import Broker, Output, Producer, Record
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.config import resolve_secret
from shared.errors import BrokerUnavailableError
from shared.handler import Context
from shared.ids import verdict_id
from shared.outcome import Emit, Out, Outcome, Reject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.service import World

log = logging.getLogger(__name__)

_REQUEST, _VERDICT = Envelope[Request], Envelope[Verdict]

WRITE_TIMEOUT_S = 2.5   # with the claim of a key before it: five seconds until a caller knows
CONFIG_POLL_S = 0.2
REPLY_LOOKBACK_MS = 60_000
"""Answers that came while this replica restarted: their callers ask again, and should not have to pay for it."""


class Intake:
    """The stage's handler, with the HTTP server and two tails beside it. Takes records undecoded: users write them."""

    raw = True

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        catalogue: "Callable[[], Catalogue]",
        replica_index: int = 0,
        http_host: str = "127.0.0.1",
        http_port: int = 0,
        resolve: "Callable[[str], str]" = resolve_secret,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._catalogue = catalogue
        self._host = http_host
        self._port = http_port
        self._reply_partition = replica_index % (REPLIES.partitions or 1)
        self._claims = Claims(self._write, clock)
        self._replies = Replies()
        keyring = Keyring(catalogue, resolve)
        self._lags = Lags(broker, clock)
        self.http = HttpSource(
            self._write, clock, catalogue, keyring, self._claims, self._replies, self._lags, self._reply_partition
        )
        self._producer: Producer | None = None
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._tails: tuple[Tail, ...] = ()
        self._server: web.AppRunner | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """The tails first: whoever asks must find the claims and answers that are already in the log."""
        await self.open()
        self._server = self.http.runner()
        await self._server.setup()
        await web.TCPSite(self._server, self._host, self._port).start()
        log.info("listening", extra={"address": str(self.address)})

    async def open(self) -> None:
        """Everything but the listening socket."""
        now_ms = self._clock.now_ms()
        self._producer = await self._broker.producer(linger_ms=0)
        self._tails = (
            Tail(self._broker, IDEMPOTENCY, self._claims.note, now_ms - IDEMPOTENCY.retention_ms),
            Tail(self._broker, REPLIES, self._replies.note, now_ms - REPLY_LOOKBACK_MS, self._reply_partition),
        )
        for tail in self._tails:
            await tail.start()
        self._lags.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.cleanup()
        await self._lags.stop()
        for tail in self._tails:
            await tail.stop()
        if self._producer is not None:
            await self._producer.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on, once started."""
        host, port, *_ = self._server.addresses[0] if self._server is not None else (self._host, self._port)
        return host, port

    async def _write(self, output: Output) -> None:
        """Returns when the record is in the log. Raises BrokerUnavailableError when that takes too long."""
        if self._producer is None:
            raise BrokerUnavailableError("not started")
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await asyncio.shield(await self._producer.send(output))   # other waiters share the batch
        except TimeoutError:
            raise BrokerUnavailableError(f"{output.topic}: not acknowledged in time") from None

    # The topic -------------------------------------------------------------------------------------------------------

    def handle(self, record: Record, context: Context) -> "Outcome | Awaitable[Outcome]":
        catalogue = self._catalogue()
        if not catalogue.version:
            return self._once_configured(record, context)
        submission = decide.read(record.value)
        tenant = decide.tenant_of_record(submission.options.get("tenant"), catalogue)
        arrival = decide.arrival_of_record(record.partition, record.offset, record.timestamp_ms, self._clock.now_ms())
        key = submission.idempotency_key
        if key is None or submission.failure is not None or isinstance(tenant, Failure):
            envelope = decide.accept(submission, tenant, catalogue, arrival)
            outcome = self._admitted(envelope) if key is None else _outcome(envelope)
            return self._in_turn(envelope.key, lambda: outcome) if envelope.key in self._turns else outcome
        ordering_key = submission.options.get("ordering_key")
        if ordering_key is None:
            return self._under_key(submission, tenant, key, arrival)
        line = decide.line_of(tenant, ordering_key)
        return self._in_turn(line, lambda: self._under_key(submission, tenant, key, arrival))

    def _admitted(self, envelope: Envelope[Request]) -> Outcome:
        """Onwards, unless it would only expire on its way: then straight to its verdict. Ordered requests stay in their line."""
        if envelope.ordered or envelope.payload.failure is not None:
            return _outcome(envelope)
        now_ms = self._clock.now_ms()
        failure = decide.late(envelope, self._lags.wait_s(envelope.lane), now_ms)
        if failure is None:
            self._lags.joined(envelope.lane)
            return _outcome(envelope)
        reason = failure.reason
        verdict = Verdict(
            status=STATUS_OF[reason], reason=reason, message=failure.message, stage=failure.stage, decided_ms=now_ms
        )
        return Emit((Out(VERDICTS, envelope.forward(_VERDICT, verdict_id(envelope.request_id), verdict)),))

    def _in_turn(self, line: str, work: "Callable[[], Outcome | Awaitable[Outcome]]") -> "Awaitable[Outcome]":
        """Take a place in the line of an ordering key now: a record that waits for its claim must not be overtaken."""
        before, mine = self._turns.get(line), asyncio.get_running_loop().create_future()
        self._turns[line] = mine

        async def in_turn() -> Outcome:
            try:
                if before is not None:
                    await asyncio.wait({before})
                outcome = work()
                return await outcome if isawaitable(outcome) else outcome
            finally:
                mine.cancel()
                if self._turns.get(line) is mine:
                    del self._turns[line]

        return in_turn()

    async def _once_configured(self, record: Record, context: Context) -> Outcome:
        """Before the first `baton apply` nobody can say which tenants there are: the record waits, it is not refused."""
        while not self._catalogue().version:
            await asyncio.sleep(CONFIG_POLL_S)
        outcome = self.handle(record, context)
        return await outcome if isawaitable(outcome) else outcome

    async def _under_key(self, submission: Submission, tenant: str, key: str, arrival: Arrival) -> Outcome:
        """A repeat goes on as the request it repeats; another body under the same key is refused as a request of its own."""
        proposal = decide.claim_of(tenant, key, submission.fingerprint, arrival.accepted_ms)
        winner = await self._claims.claim(digest_of(tenant, key), proposal)
        settled = decide.under(winner, arrival, submission.fingerprint)
        if isinstance(settled, Failure):
            submission, settled = replace(submission, failure=settled), arrival
        return _outcome(decide.accept(submission, tenant, self._catalogue(), settled))

    def failed(self, envelope: Envelope[Fact], failure: Failure) -> tuple[Out, ...]:
        request = Request(source="topic", failure=failure)
        return (Out(REQUESTS, envelope.forward(_REQUEST, envelope.request_id, request)),)

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Whatever had a place in a line was given up with the session before, maybe before it began to wait."""
        self._turns.clear()


def _outcome(envelope: Envelope[Request]) -> Outcome:
    """Onwards, refused or not; what could not even be parsed is kept as a dead letter beside it."""
    out = Out(REQUESTS, envelope)
    failure = envelope.payload.failure
    if failure is not None and failure.reason is Reason.MALFORMED_JSON:
        return Reject(failure.reason, "not JSON", (out,))
    return Emit((out,))


def intake(world: "World") -> Intake:
    """The stage in this process's world."""
    settings = world.settings
    return Intake(
        world.broker, world.clock, world.catalogue, settings.replica_index, settings.http_host, settings.http_port
    )
