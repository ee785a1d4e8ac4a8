"""From a record to its outcome to its outputs: decode, expire, handle in order per key, retry, dead-letter.

Plain handlers run in place; awaitable ones as tasks. Never commits, never polls: that is the session's.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from schemas.envelope import Envelope, Fact, Header
from schemas.messages import Failure, Reason
from schemas.topology import Stage, Topic, payload_class
from shared import metrics
from shared.broker import Headers, Output, Partition, Record
from shared.clock import Clock
from shared.codec import decode
from shared.dead_letters import RejectCap, dead_letter, identity_of
from shared.delivery import Delivery, Work
from shared.errors import (
    BatonError,
    BrokerUnavailableError,
    RecordTooLargeError,
    UndecodableError,
)
from shared.handler import Context, Handler, Parking
from shared.lines import Line, LineKey, crowds
from shared.outcome import Drop, Emit, Hold, Out, Outcome, Reject
from shared.progress import Progress
from shared.trace import RANDOM_BYTES, taken_on
from shared.writer import Writer

log = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.2
NEVER_MS = 1 << 62
HOLD_GRACE_MS = 10_000
"""A held record is released this long after its deadline: its continuation must have come, or been lost to a bug."""

_TRACE = frozenset((Header.TRACEPARENT, Header.TRACESTATE))
_DECIDED = (Emit, Hold, Drop, Reject)


class Dispatcher:
    """One per session. `lost` ends the session; what is unfinished then is read again."""

    def __init__(
        self,
        stage: Stage,
        handler: Handler,
        writer: Writer,
        clock: Clock,
        check_alive: Callable[[], None],
        lost: Callable[[BaseException], None],
        tries_max: int,
        held_max: int,
    ) -> None:
        self._stage = stage
        self._handler = handler
        self._writer = writer
        self._clock = clock
        self._check_alive = check_alive
        self._lost = lost
        self._tries_max = tries_max
        self._held_max = held_max
        self._raw: bool = getattr(handler, "raw", False)
        self._siblings: bool = getattr(handler, "side_by_side", False)
        self._expires_itself: bool = getattr(handler, "expires_itself", False)
        self._immediate = frozenset(topic.name for topic in getattr(handler, "immediate", ()))
        self._topics: dict[str, Topic] = {topic.name: topic for topic in stage.reads}
        # Payloads that cannot say whether the request failed are judged already: they do not expire here.
        self._settled = frozenset(topic.name for topic in stage.reads if "failure" not in payload_class(topic).model_fields)
        self._lines: dict[LineKey, Line] = {}
        self._reject_cap = RejectCap(stage)
        self._handle_seconds = metrics.HANDLE_SECONDS.labels(stage=stage.name)
        self._emitted = 0
        self._due_ms = NEVER_MS
        self.delivery: Delivery
        self.end_to_end = metrics.END_TO_END_SECONDS.labels(stage=stage.name)
        self.in_flight = 0
        self.running = 0
        self.parking = Parking()
        self.open: Counter[str] = Counter()   # by topic: held records and those behind them take no place of one that can go on
        self.holding_back = False   # while draining: what runs goes on, nothing new starts

    async def take(self, progress: Progress, record: Record) -> None:
        """Begin one record, or queue it behind its key. Returns at once for handlers that await something."""
        if not progress.take(record.offset, record.timestamp_ms):
            return
        self.in_flight += 1
        work = Work(record.source, record.offset, progress, self._clock.monotonic_s())
        trace = _users_trace(record) if self._raw else _trace_of(record)
        crowded = self.open[record.topic] >= self._held_max
        context = Context(record, trace, self._writer, self._check_alive, self.parking, crowded=crowded)
        subject = record if self._raw else self._decoded(record)
        if isinstance(subject, Envelope):
            work.envelope, work.request_id, work.key = subject, subject.request_id, subject.key
            work.deadline_ms, work.accepted_ms = subject.deadline_ms, subject.accepted_ms
        if self._lines and work.key:
            line = self._lines.get((work.partition, work.key))
            if line is not None and not line.admits(work):
                line.waiting.append((work, subject, context))
                self._recount(record.topic, line)
                return
        await self._start(work, subject, context)

    def _decoded(self, record: Record) -> Any:
        topic = self._topics[record.topic]
        try:
            return decode(topic, record.value)
        except UndecodableError as error:
            log.warning("undecodable record", extra={"topic": record.topic, "partition": record.partition,
                                                     "offset": record.offset, "error": str(error)})
            return error

    async def _start(self, work: Work, subject: Any, context: Context) -> None:
        outcome = self._decide(subject, context)
        if not isinstance(outcome, _DECIDED):
            self._spawn(work, subject, context, outcome)
            return
        await self._conclude(work, outcome, context)
        if work.key and self._lines:
            await self._advance((work.partition, work.key))

    def _spawn(self, work: Work, subject: Any, context: Context, pending: Awaitable[Outcome]) -> None:
        if work.key:
            self._lines.setdefault((work.partition, work.key), Line(self._siblings)).running.append(work)
        self.running += 1
        task = asyncio.create_task(self._run(work, subject, context, pending))
        work.progress.tasks.add(task)
        task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Work, task: "asyncio.Task[None]") -> None:
        self.running -= 1
        work.progress.tasks.discard(task)

    def _beside(self, subject: Any, context: Context) -> Context:
        """With the records of its request that are held open."""
        line = self._lines.get((context.record.source, subject.key)) if isinstance(subject, Envelope) else None
        if line is None or not line.held or line.held[0].request_id != subject.request_id:
            return context
        return replace(context, held=tuple((work.envelope, work.context.record) for work in line.held))

    def _decide(self, subject: Any, context: Context) -> Outcome | Awaitable[Outcome]:
        if self._lines:
            context = self._beside(subject, context)
        if isinstance(subject, UndecodableError):
            return self._undecodable(context.record)
        if not self._raw and not self._expires_itself and isinstance(subject, Envelope):
            failed_before = context.record.topic in self._settled or subject.payload.failure
            if not failed_before and self._clock.now_ms() >= subject.deadline_ms:
                failure = Failure(reason=Reason.DEADLINE_PASSED, stage=self._stage.name, message="deadline_ms passed")
                return Emit(self._handler.failed(subject, failure))
        for tried in range(1, self._tries_max + 1):
            try:
                return self._handler.handle(subject, context)
            except BatonError:
                raise
            except Exception as error:
                if tried == self._tries_max:
                    return self._crashed(subject, error)
        raise AssertionError("tries_max is at least one")

    async def _run(self, work: Work, subject: Any, context: Context, pending: Awaitable[Outcome]) -> None:
        """An awaitable handler's record: retried with pauses; whatever else goes wrong ends the session."""
        try:
            outcome = await self._awaited(subject, context, pending)
            await self._conclude(work, outcome, context)
            if work.key:
                key = (work.partition, work.key)
                self._lines[key].running.remove(work)
                await self._advance(key)
        except asyncio.CancelledError:
            if not work.progress.abandoned:
                self._lost(BrokerUnavailableError("a record's handling was cancelled"))
            raise
        except Exception as error:
            self._lost(error)

    async def _awaited(self, subject: Any, context: Context, pending: Outcome | Awaitable[Outcome]) -> Outcome:
        for tried in range(1, self._tries_max + 1):
            try:
                if tried > 1:
                    pending = self._handler.handle(subject, context)
                return await pending if isinstance(pending, Awaitable) else pending
            except BatonError:
                raise
            except Exception as error:
                if tried == self._tries_max:
                    return self._crashed(subject, error)
                await asyncio.sleep(RETRY_PAUSE_S * tried)
        raise AssertionError("tries_max is at least one")

    def _crashed(self, subject: Any, error: Exception) -> Outcome:
        log.error("handler crashed", exc_info=error, extra={"request_id": getattr(subject, "request_id", "")})
        failure = Failure(reason=Reason.HANDLER_CRASHED, stage=self._stage.name, message="internal error; see dead letters")
        outputs = self._handler.failed(subject, failure) if isinstance(subject, Envelope) else ()
        return Reject(Reason.HANDLER_CRASHED, type(error).__name__, outputs)

    def _undecodable(self, record: Record) -> Outcome:
        envelope = identity_of(record)
        if envelope is None:
            return Reject(Reason.UNDECODABLE, "no identity in headers")
        failure = Failure(reason=Reason.UNDECODABLE, stage=self._stage.name, message="internal error; see dead letters")
        return Reject(Reason.UNDECODABLE, "schema", self._handler.failed(envelope, failure))

    async def _conclude(self, work: Work, outcome: Outcome, context: Context) -> None:
        """Write what the outcome says; the work is finished once that is acknowledged."""
        self._handle_seconds.observe(self._clock.monotonic_s() - work.started_s)
        if isinstance(outcome, Hold) and context.crowded:
            self._count("shed", "")
            outcome = Emit(self._handler.failed(work.envelope, too_many_open(self._stage.name)))
        outcome, outputs = self._encoded(work, outcome, context)
        if isinstance(outcome, Emit):
            self._emitted += 1
        elif isinstance(outcome, Hold):
            self._count("hold", "")
            await self._hold(work, outcome, outputs, context)
            return
        elif isinstance(outcome, Drop):
            self._count("drop", outcome.reason)
        else:
            self._count("reject", outcome.reason.value)
            outputs.append(dead_letter(self._stage, context.record, outcome, self._tries_max))
        if self._immediate:
            outputs = await self._others(outputs)
        if self._lines and work.key:
            self._release(work, None if isinstance(outcome, Reject) else outcome.releases)
        await self.delivery.deliver(work, outputs)
        work.envelope = None   # until the acknowledgement a batch of them would fill the processor's cache: 8 % of a stage's CPU
        self._reject_cap.note(context.record.topic, isinstance(outcome, Reject))

    def _encoded(self, work: Work, outcome: Outcome, context: Context) -> tuple[Outcome, list[Output]]:
        """The outcome and its bytes. Where one of its records does not fit its topic: what becomes of all of them instead."""
        if isinstance(outcome, Drop):
            return outcome, []
        try:
            return outcome, [self._writer.output(out, context.trace, context.record) for out in outcome.outputs]
        except RecordTooLargeError as error:
            log.warning("an output does not fit its topic: %s", error, extra={"request_id": work.request_id})
        facts = [out for out in outcome.outputs if not isinstance(out.value, Envelope)]   # true whatever becomes of the request
        written, told = self._fitting(facts, context), self._fitting(self._too_large(work), context)
        if not isinstance(outcome, Reject):
            outcome = Emit(()) if told else Reject(Reason.TOO_LARGE, "output")
        return outcome, written + told

    def _too_large(self, work: Work) -> tuple[Out, ...]:
        """The request's failure, as small as its identity; nothing for a record that names no request but in a user's headers."""
        if work.envelope is None:
            return ()
        failure = Failure(
            reason=Reason.TOO_LARGE, stage=self._stage.name, message="the request grew over the limit of a record"
        )
        return self._handler.failed(work.envelope.model_copy(update={"payload": Fact()}), failure)

    def _fitting(self, outs: Iterable[Out], context: Context) -> list[Output]:
        outputs = []
        for out in outs:
            with contextlib.suppress(RecordTooLargeError):
                outputs.append(self._writer.output(out, context.trace, context.record))
        return outputs

    async def _others(self, outputs: list[Output]) -> list[Output]:
        """What is left when the outputs that wait for no transaction are sent."""
        for output in outputs:
            if output.topic in self._immediate:
                await self._writer.send_raw(output)
        return [output for output in outputs if output.topic not in self._immediate]

    def _release(self, work: Work, offsets: frozenset[int] | None) -> None:
        """Open records of the work's request finish with it: those at these offsets, or all of them."""
        line = self._lines.get((work.partition, work.key))
        if line is not None and line.held and line.held[0].request_id == work.request_id:
            work.held = [each for each in line.held if offsets is None or each.offset in offsets]
            line.held = [each for each in line.held if each not in work.held]
            self._recount(work.partition.topic, line)

    async def _hold(self, work: Work, outcome: Hold, outputs: list[Output], context: Context) -> None:
        line = self._lines.setdefault((work.partition, work.key), Line(self._siblings))
        line.held.append(work)
        self._recount(work.partition.topic, line)
        work.context, work.until_ms = context, outcome.until_ms
        if outcome.until_ms is not None:
            self._due_ms = min(self._due_ms, outcome.until_ms)
        for output in outputs:
            (await self._writer.send_raw(output)).add_done_callback(self._sent_beside)

    def _sent_beside(self, sent: "asyncio.Future[object]") -> None:
        """An output that finishes no record: if it does not arrive, the held record must be read again."""
        if sent.cancelled() or sent.exception() is not None:
            self._lost(BrokerUnavailableError("an output of a held record did not arrive"))

    async def _advance(self, key: LineKey) -> None:
        """Start whatever of this key may go next."""
        line = self._lines.get(key)
        while line is not None and line.waiting and not self.holding_back:
            chosen = next((item for item in line.waiting if line.admits(item[0])), None)
            if chosen is None:
                return
            line.waiting.remove(chosen)
            self._recount(key[0].topic, line)
            work, subject, context = chosen
            outcome = self._decide(subject, context)
            if not isinstance(outcome, _DECIDED):
                self._spawn(work, subject, context, outcome)
                continue
            await self._conclude(work, outcome, context)
        if line is not None and not line.running and not line.held and not line.waiting:
            self._lines.pop(key, None)

    @property
    def parked(self) -> int:
        """Records that wait outside, behind their key, or are held: they need not finish before a drain ends."""
        return self.parking.total + sum(len(line.waiting) + len(line.held) for line in self._lines.values())

    def _recount(self, topic: str, line: Line) -> None:
        """After every change of what a line holds, or keeps waiting."""
        self.open[topic] += line.open - line.counted
        line.counted = line.open

    async def resume(self) -> None:
        """After a drain that was not the last: start what queued meanwhile."""
        self.holding_back = False
        for key in list(self._lines):
            await self._advance(key)

    async def look_again(self) -> None:
        """Handle held records whose time has come once more."""
        now_ms = self._clock.now_ms()
        if self._due_ms > now_ms or self.holding_back:
            return
        lines = [line for line in self._lines.values() if not line.running]
        for line in lines:
            for work in [each for each in line.held if each.until_ms is not None and each.until_ms <= now_ms]:
                if work in line.held and not line.running:   # an earlier one may have released it
                    await self._again(line, work, work.context)
        waits = [each.until_ms for line in self._lines.values() for each in line.held if each.until_ms is not None]
        self._due_ms = min(waits, default=NEVER_MS)

    async def shed(self, partition: Partition, offset: int) -> None:
        """End the request of a held record behind which its partition's reading has come to its limit."""
        for key, line in list(self._lines.items()):
            work = next((each for each in line.held if each.offset == offset), None) if key[0] == partition else None
            if work is not None and not line.running:
                await self._again(line, work, replace(work.context, crowded=True))
                return

    async def shed_crowds(self) -> None:
        """Where too many are open: end the requests that keep the most waiting. Those behind them cannot end in their place:
        their results would overtake."""
        for topic, count in list(self.open.items()):
            for line in crowds(self._lines, topic, count - self._held_max):
                if line.held and not line.running:   # it may have gone on while another one ended
                    work = line.held[0]
                    await self._again(line, work, replace(work.context, crowded=True))

    async def _again(self, line: Line, work: Work, context: Context) -> None:
        """Handle a held record once more."""
        line.held.remove(work)
        self._recount(work.partition.topic, line)
        await self._start(work, work.envelope, context)

    async def release_overdue(self) -> None:
        """End holds whose continuation never came: the request has long expired, and later ones must not wait."""
        now_ms = self._clock.now_ms()
        for key, line in list(self._lines.items()):
            if not line.running and line.held and _is_overdue(line.held[0], now_ms):
                log.error("a held record was never continued", extra={"request_id": line.held[0].request_id})
                first = line.held.pop(0)
                self._recount(first.partition.topic, line)
                failure = Failure(reason=Reason.DEADLINE_PASSED, stage=self._stage.name, message="deadline_ms passed")
                await self._conclude(first, Emit(self._handler.failed(first.envelope, failure)), first.context)
                await self._advance(key)

    def publish_counts(self) -> None:
        if self._emitted:
            metrics.OUTCOMES.labels(stage=self._stage.name, outcome="emit", reason="").inc(self._emitted)
            self._emitted = 0
        self._writer.publish_counts()

    def forget(self, partition: Partition) -> None:
        """The partition went to another replica: its queued records are that one's now."""
        for key in [key for key in self._lines if key[0] == partition]:
            self.open[partition.topic] -= self._lines.pop(key).counted

    def _count(self, outcome: str, reason: str) -> None:
        metrics.OUTCOMES.labels(stage=self._stage.name, outcome=outcome, reason=reason).inc()


def too_many_open(stage: str) -> Failure:
    """Of a request that would have to wait for others of its records, where there is no more room to."""
    message = "too many requests wait for parts of theirs; send it again later, or run more replicas"
    return Failure(reason=Reason.TOO_MANY_OPEN, stage=stage, message=message)


def _is_overdue(work: Work, now_ms: int) -> bool:
    return work.until_ms is None and work.deadline_ms + HOLD_GRACE_MS < now_ms


def _trace_of(record: Record) -> Headers:
    return tuple([header for header in record.headers if header[0] in _TRACE])


def _users_trace(record: Record) -> Headers:
    """A user's trace context if it is valid, else a new one: every accepted request has a trace."""
    return taken_on(record.header(Header.TRACEPARENT), record.header(Header.TRACESTATE), random.randbytes(RANDOM_BYTES))
