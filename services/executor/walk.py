"""Walks one plan to its completion: asks `decide.py` for the next step, performs it, writes it down, and asks again.

Every call is in the ledger before it is made. Nothing here judges an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptKind, FailureClass
from schemas.messages import Answer, Failure, Lane, Plan, Reason
from schemas.topology import ATTEMPTS
from services.executor import books
from services.executor.backends import Backends, Begun, tokens_of
from services.executor.decide import Call, Finish, Limits, Wait, hedge_step, next_step
from services.executor.provider import Provider
from services.executor.reply import Reply
from services.executor.takeover import Takeover
from services.executor.terms import Terms
from shared import ids
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.errors import FrozenError
from shared.handler import Context
from shared.outcome import Emit, Out
from shared.prices import prices_at

T = TypeVar("T")
GIVEN_UP = Failure(reason=Reason.CANCELLED, stage="executor", message="the pipeline went on without this step")

STREAM_TOKENS_MIN = 512
"""Expected output from which a call is streamed, so that silence is noticed: some 5 to 10 s of most models. Reading a
stream costs several times the CPU of a plain answer, and a short call fails early enough without one."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every walk of this replica uses."""

    backends: Backends
    provider: Provider
    takeover: Takeover
    catalogue: Callable[[], Catalogue]
    clock: Clock
    draw: Callable[[], float]
    instance: str


@dataclass(slots=True)
class Made:
    """A call that is over: its closing line, not yet written, and what came."""

    line: Attempt
    reply: Reply


class Walk:
    """One plan on its way. `attempts` are those of earlier owners, all closed."""

    def __init__(self, tools: Tools, envelope: Envelope[Plan], context: Context, attempts: list[Attempt]) -> None:
        self._tools = tools
        self._envelope = envelope
        self._plan = envelope.payload
        self._lane = Lane(envelope.lane)
        self._context = context
        self._attempts = attempts
        self._policy = tools.catalogue().policy_of(envelope.tenant)
        self._unsent: list[Attempt] = []
        self._sent: list[asyncio.Future[object]] = []   # closing lines that the log may not have acknowledged yet
        self._running: list[Attempt] = []          # started lines of calls on their way
        self._abandoned: set[str] = set()          # attempts given up for a faster one
        self._place: str | None = None             # a backend that has counted this plan in
        self._has_queued = False
        self._said = ""
        self._given_up = False
        self._cuttable: set[asyncio.Task[object]] = set()   # where a cancellation hits nothing but a call, or a wait

    async def run(self) -> Emit:
        """To the completion. Raises BrokerUnavailableError, FrozenError, and whatever ends the session."""
        try:
            return await self._steps()
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if not self._given_up or me is None or not me.uncancel() == 0:
                raise
            return await self._finish(failure=GIVEN_UP)
        finally:
            self._give_place_back()

    def give_up(self) -> None:
        """Nobody wants the answer any more: cut what is under way; its lines are closed, and the plan ends cancelled."""
        self._given_up = True
        for line in self._running:
            self._abandoned.add(line.attempt_id)
        for task in self._cuttable:
            task.cancel()

    async def _cut_short(self, pending: Awaitable[T]) -> T:
        """Await something that `give_up` may cut."""
        if self._plan.slip is None:
            return await pending
        me = asyncio.current_task()
        assert me is not None, "walks run in tasks"
        self._cuttable.add(me)
        try:
            return await pending
        finally:
            self._cuttable.discard(me)

    async def _steps(self) -> Emit:
        while True:
            if self._given_up:
                return await self._finish(failure=GIVEN_UP)
            now_ms = self._tools.clock.now_ms()
            attempt_id = self._next_id()
            options = self._tools.backends.options(self._plan, attempt_id, now_ms, self._place, self._policy.region, self._lane)
            step = next_step(self._plan, self._attempts, options, self._limits(now_ms), self._tools.draw)
            if isinstance(step, Finish):
                return await self._finish(failure=self._in_full(step.failure))
            if self._unsent:
                await self._write_closed()
                continue   # ask again: what was usable may no longer be
            if isinstance(step, Wait):
                await self._wait(step)
                continue
            made = await self._call(step, attempt_id)
            self._unsent = [each.line for each in made]
            self._attempts += self._unsent
            last = made[-1]
            self._said = last.reply.said
            if last.reply.answer is not None:
                return await self._finish(last.reply.answer, last.line)

    # --- Waiting -------------------------------------------------------------------------------------------------

    async def _wait(self, step: Wait) -> None:
        """Parked: the record takes no place of one that can go on."""
        self._give_place_back()
        with self._context.parked():
            self._place = await self._tools.backends.room.place(
                step.backends, self._lane, step.until_ms, self._envelope.accepted_ms, tokens_of(self._plan)
            )
        self._has_queued = self._has_queued or bool(step.backends)

    def _give_place_back(self) -> None:
        if self._place is not None:
            place, self._place = self._place, None
            self._tools.backends.give_back(place, tokens_of(self._plan))

    def _limits(self, now_ms: int, running_too: bool = False) -> Limits:
        envelope = self._envelope
        attempts = [*self._attempts, *self._running] if running_too else self._attempts
        chat = self._plan.task.chat
        return Limits(
            now_ms,
            envelope.deadline_ms,
            envelope.budget_microusd,
            books.spent_microusd(envelope, attempts),
            may_overflow=envelope.lane == Lane.INTERACTIVE,
            has_queued=self._has_queued,
            session=(chat.session or "") if chat is not None else "",
        )

    # --- Calling -------------------------------------------------------------------------------------------------

    async def _call(self, call: Call, attempt_id: str) -> list[Made]:
        """One call, or one and its hedge: what came of each, the one that answered last."""
        hedging = self._tools.backends.hedging
        streamed = self._is_streamed(call)
        features = self._plan.task.features
        is_primary = call.kind in (AttemptKind.PRIMARY, AttemptKind.ESCALATION)
        after_ms = hedging.after_ms(call.candidate.model, features, streamed) if is_primary and self._may_hedge() else None
        began_s = self._tools.clock.monotonic_s()
        begun = self._begin(call)
        if after_ms is None or after_ms >= call.timeout_ms:
            made = [await self._made_once(begun, attempt_id, streamed)]
        else:
            made = await self._hedged(begun, attempt_id, streamed, after_ms)
        if is_primary:
            hedging.primary()
            if made[-1].reply.failure is None:
                first_ms = made[0].reply.first_token_ms if made[0].reply.failure is None else None
                waited_ms = first_ms if streamed and first_ms is not None else (self._tools.clock.monotonic_s() - began_s) * 1000
                hedging.observe(call.candidate.model, features, streamed, waited_ms)
        return made

    def _begin(self, call: Call) -> Begun:
        """Count the call in, in the same breath as it was decided: the next decision must see it."""
        has_place = self._place == call.backend
        after = self._attempts[-1].failure if self._attempts else None
        begun = self._tools.backends.begin(call, self._plan, has_place, after, self._lane)
        if has_place:
            self._place = None
        return begun

    def _may_hedge(self) -> bool:
        return self._policy.hedge and self._envelope.lane == Lane.INTERACTIVE

    async def _hedged(self, begun: Begun, attempt_id: str, streamed: bool, after_ms: float) -> list[Made]:
        """The call, and a second one elsewhere once it takes unusually long. The first answer wins; the other is cut."""
        has_token = asyncio.Event()
        calls = [self._task(begun, attempt_id, streamed, has_token.set)]
        try:
            await asyncio.wait(calls, timeout=after_ms / 1000)
            if not calls[0].done() and not has_token.is_set():
                hedge = self._hedge(begun.call)
                if hedge is not None:
                    calls.append(self._task(self._begin(hedge), self._next_id(1), self._is_streamed(hedge)))
            pending = set(calls)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(not task.cancelled() and task.result().reply.answer is not None for task in done):
                    self._abandon(pending)
        finally:
            for task in calls:
                task.cancel()
        over = (task.result() for task in calls if not task.cancelled())   # one cut before its first step left no line
        return sorted(over, key=lambda made: made.reply.answer is not None)

    def _task(
        self, begun: Begun, attempt_id: str, streamed: bool, on_first_token: Callable[[], None] | None = None
    ) -> "asyncio.Task[Made]":
        """The call as a task. Its place is free when it ends, even if it was cut before its first step."""
        task = asyncio.create_task(self._made(begun, attempt_id, streamed, on_first_token))
        task.add_done_callback(lambda _: self._tools.backends.release(begun))
        return task

    async def _made_once(self, begun: Begun, attempt_id: str, streamed: bool) -> Made:
        try:
            return await self._made(begun, attempt_id, streamed)
        finally:
            self._tools.backends.release(begun)

    def _hedge(self, running: Call) -> Call | None:
        tools, now_ms = self._tools, self._tools.clock.now_ms()
        if not tools.backends.may_hedge():
            return None
        options = tools.backends.options(self._plan, self._next_id(1), now_ms, region=self._policy.region, lane=self._lane)
        hedge = hedge_step(self._plan, self._attempts, running, options, self._limits(now_ms, running_too=True), tools.draw)
        if hedge is not None:
            tools.backends.hedging.hedged()
        return hedge

    def _abandon(self, tasks: "set[asyncio.Task[Made]]") -> None:
        for line in self._running:
            self._abandoned.add(line.attempt_id)
        for task in tasks:
            task.cancel()

    async def _made(
        self, begun: Begun, attempt_id: str, streamed: bool, on_first_token: Callable[[], None] | None = None
    ) -> Made:
        """One call: on the books, made, learned from. Its closing line is not yet written."""
        tools, context, clock, call = self._tools, self._context, self._tools.clock, begun.call
        is_sent, began_s = False, clock.monotonic_s()
        context.check_alive()
        prices = prices_at(begun.backend, begun.began_ms)
        line = books.started(call, attempt_id, self._envelope, begun.backend, prices, tools.instance, begun.began_ms)
        self._running.append(line)
        tools.takeover.note(context.record.partition, line)
        try:
            await context.write(Out(ATTEMPTS, line, self._envelope.key))
            await self._still_alive(line)
            if self._given_up or tools.backends.called_off(begun):
                reply = Reply(failure=FailureClass.CANCELLED, sent=False)
            else:
                tools.backends.sent(begun)
                is_sent, began_s = True, clock.monotonic_s()
                reply = await self._cut_short(self._reply(call, attempt_id, streamed, on_first_token))
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if attempt_id not in self._abandoned or me is None:
                if not is_sent:
                    await self._close_unsent(line)
                raise
            me.uncancel()
            reply = Reply(failure=FailureClass.CANCELLED, sent=is_sent, streamed=streamed)
        latency_ms = (clock.monotonic_s() - began_s) * 1000
        closed = books.finished(line, reply, prices, clock.now_ms())
        self._running.remove(line)
        if reply.failure is not FailureClass.CANCELLED:
            counts = books.counts_for_circuit(reply, call)
            tools.backends.record(begun, latency_ms, reply, counts, closed.cost_microusd)
        return Made(closed, reply)

    async def _still_alive(self, line: Attempt) -> None:
        try:
            self._context.check_alive()
        except FrozenError:
            await asyncio.gather(*await self._close_unsent(line))
            raise

    async def _close_unsent(self, line: Attempt) -> "list[asyncio.Future[object]]":
        """Of a call that is not made as the session ends. Whoever owns the plan next may read the ledger before the started line
        comes (it waits in a producer for a broker that is away, or in a process that stood still): then nobody but us would close
        it. The closing line takes the same way behind it. Returns its acknowledgement, unless it was closed before.
        """
        if line not in self._running:
            return []
        self._running.remove(line)
        closed = books.never_sent(line, self._tools.clock.now_ms())
        return [await self._context.send(Out(ATTEMPTS, closed, self._envelope.key))]

    async def _reply(
        self, call: Call, attempt_id: str, streamed: bool, on_first_token: Callable[[], None] | None
    ) -> Reply:
        """What the provider answers; `cancelled` where the caller waits no more."""
        task, catalogue = self._plan.task, self._tools.catalogue()
        backend = catalogue.backends.get(call.backend)
        left_ms = self._envelope.deadline_ms - self._tools.clock.now_ms()
        assert task.chat is not None, "nothing without a chat is planned"
        if backend is None or left_ms <= 0:
            return Reply(failure=FailureClass.CANCELLED, sent=False)   # the ledger took longer than the caller waits
        allowed = [catalogue.models[backend.model].output_tokens_max]
        allowed += [task.chat.max_tokens] if task.chat.max_tokens is not None else []
        allowed += [task.features.tokens_out_max] if task.features is not None else []
        terms = Terms(
            attempt_id, min(allowed), min(call.timeout_ms, left_ms), streamed, backend.first_token_ms, backend.stall_ms,
            on_first_token,
        )
        return await self._tools.provider.call(call.backend, backend, task.chat, terms)

    def _is_streamed(self, call: Call) -> bool:
        catalogue, features = self._tools.catalogue(), self._plan.task.features
        backend = catalogue.backends[call.backend]
        if backend.stream != "auto":
            return backend.stream == "always"
        return (
            features is not None and features.tokens_out >= STREAM_TOKENS_MIN
            and "streaming" in catalogue.models[backend.model].capabilities
        )

    def _next_id(self, after: int = 0) -> str:
        return ids.attempt_id(self._envelope.id, len(self._attempts) + after, self._tools.instance)

    # --- The books -----------------------------------------------------------------------------------------------

    async def _write_closed(self) -> None:
        for line in self._unsent:
            self._sent.append(await self._context.send(Out(ATTEMPTS, line, self._envelope.key)))
            self._tools.takeover.note(self._context.record.partition, line)
        self._unsent.clear()

    def _in_full(self, failure: Failure) -> Failure:
        """With the provider's own reason, for the caller: it says what to change about the request."""
        if not self._said:
            return failure
        return failure.model_copy(update={"message": f"{failure.message}; the provider says: {self._said}"})

    async def _finish(self, answer: Answer | None = None, line: Attempt | None = None, failure: Failure | None = None) -> Emit:
        """The last closing lines and the completion, in one outcome; the earlier lines are in the log by then."""
        for sent in self._sent:
            await asyncio.shield(sent)   # other walks' lines are in the same batch
        if answer is not None and line is not None:
            answer = answer.model_copy(update={"model": line.model, "backend": line.backend})
        completion = books.completion(self._envelope, self._attempts, answer, failure)
        self._tools.takeover.complete(self._context.record.partition, self._envelope.id, self._tools.clock.now_ms())
        lines: Sequence[Out] = [Out(ATTEMPTS, line, self._envelope.key) for line in self._unsent]
        return Emit((*lines, completion))
