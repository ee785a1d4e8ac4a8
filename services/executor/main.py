"""plans -> attempts and completions: walks a plan step by step, and writes every call down before it is made.

`decide.py` says what to do next; this file does it. It never judges an answer, and never calls for a plan that is completed.
"""

import random
from collections.abc import Callable, Sequence

import httpx2

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from schemas.messages import Answer, Completion, Failure, Plan, Task
from schemas.topology import ATTEMPTS, COMPLETIONS
from services.executor.backends import Backends
from services.executor.decide import (
    Call,
    Finish,
    Limits,
    Wait,
    cost_of,
    cost_upper_microusd,
    counts_for_circuit,
    next_step,
)
from services.executor.observe import Observer
from services.executor.provider import Provider
from services.executor.reply import Reply
from services.executor.takeover import Takeover, orphaned
from services.executor.transport import AiohttpTransport
from shared import ids
from shared.config import resolve_secret
from shared.errors import FrozenError
from shared.handler import Context
from shared.outcome import Drop, Emit, Out, Outcome
from shared.service import World


class Executor:
    """The executor's handler. Must be made inside a running event loop."""

    expires_itself = True   # an expired plan may have attempts that an earlier owner left open: they are closed first

    def __init__(
        self,
        world: World,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolve: Callable[[str], str] = resolve_secret,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._world = world
        self._clock = world.clock
        self._draw = draw
        self._transport = transport or AiohttpTransport(connections_max=world.settings.in_flight_max)
        self._provider = Provider(self._transport, resolve)
        self.backends = Backends(world.catalogue, world.fleet, world.instance, self._provider.is_callable)
        self._observer = Observer(world.broker, self.backends, world.clock, world.settings.observe_interval_ms)
        self._takeover = Takeover(world.broker)

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
        partition = context.record.partition
        if await self._takeover.is_completed(partition, envelope.id, envelope.accepted_ms):
            await self._close_orphans(envelope, context)
            self._takeover.close(envelope.id)
            return Drop("already completed")
        attempts = await self._close_orphans(envelope, context)
        return await self._walk(envelope, context, attempts)

    def failed(self, envelope: Envelope[Plan], failure: Failure) -> tuple[Out, ...]:
        """The completion of a plan that is not walked; attempts known to be left open are closed behind it."""
        now_ms = self._clock.now_ms()
        attempts = self._takeover.close(envelope.id)
        closed = [attempt if attempt.finished_ms else orphaned(attempt, now_ms) for attempt in attempts]
        lines = (Out(ATTEMPTS, new, envelope.key) for new, old in zip(closed, attempts, strict=True) if new is not old)
        return (_completion(envelope, closed, failure=failure), *lines)

    async def _close_orphans(self, envelope: Envelope[Plan], context: Context) -> list[Attempt]:
        """Earlier attempts of the plan. Those whose executor died are closed in the ledger before anything new starts."""
        attempts = self._takeover.attempts(context.record.partition, envelope.id)
        for place, attempt in enumerate(attempts):
            if attempt.phase is AttemptPhase.STARTED:
                closed = attempts[place] = orphaned(attempt, self._clock.now_ms())
                await context.ledger.write(Out(ATTEMPTS, closed, envelope.key), context.trace)
                self._takeover.note(context.record.partition, closed)
        return attempts

    async def _walk(self, envelope: Envelope[Plan], context: Context, attempts: list[Attempt]) -> Outcome:
        plan = envelope.payload
        unsent: Attempt | None = None
        while True:
            now_ms = self._clock.now_ms()
            attempt_id = ids.attempt_id(envelope.id, len(attempts), self._world.instance)
            options = self.backends.options(plan, attempt_id, now_ms)
            step = next_step(plan, attempts, options, _limits(envelope, attempts, now_ms), self._draw)
            if isinstance(step, Finish):
                return self._finish(envelope, context, attempts, unsent, failure=step.failure)
            if unsent is not None:
                await context.ledger.send(Out(ATTEMPTS, unsent, envelope.key), context.trace)
                unsent = None
                continue   # ask again: what was usable may no longer be
            if isinstance(step, Wait):
                await self.backends.changed(step.until_ms - now_ms)
                continue
            unsent, reply = await self._attempt(step, attempt_id, envelope, context)
            attempts.append(unsent)
            if reply.answer is not None:
                return self._finish(envelope, context, attempts, unsent, _from(reply.answer, step))

    async def _attempt(
        self, call: Call, attempt_id: str, envelope: Envelope[Plan], context: Context
    ) -> tuple[Attempt, Reply]:
        """One call: on the books, made, learned from. Its closing line is not yet written."""
        partition, backend = context.record.partition, self._world.catalogue().backends[call.backend]
        probe_epoch = self.backends.begin(call)
        try:
            context.check_alive()
            started = self._started(call, attempt_id, envelope, backend.prices.version)
            self._takeover.note(partition, started)
            await context.ledger.write(Out(ATTEMPTS, started, envelope.key), context.trace)
            await self._still_alive(started, envelope, context)
            began_s = self._clock.monotonic_s()
            reply = await self._call(call, attempt_id, envelope)
            latency_ms = (self._clock.monotonic_s() - began_s) * 1000
        finally:
            self.backends.end(call)
        cost = cost_of(reply, backend.prices)
        finished = self._finished(started, reply, cost)
        self._takeover.note(partition, finished)
        counts = counts_for_circuit(reply, call)
        self.backends.record(
            call, probe_epoch, latency_ms, reply.failure, counts, reply.usage, cost or 0, self._clock.now_ms()
        )
        return finished, reply

    async def _still_alive(self, started: Attempt, envelope: Envelope[Plan], context: Context) -> None:
        """The new owner may have read the ledger before this line came: then nobody but us would ever close it."""
        try:
            context.check_alive()
        except FrozenError:
            never_sent = self._finished(started, Reply(failure=FailureClass.CANCELLED, sent=False), cost=0)
            await context.ledger.write(Out(ATTEMPTS, never_sent, envelope.key), context.trace)
            raise

    async def _call(self, call: Call, attempt_id: str, envelope: Envelope[Plan]) -> Reply:
        task, catalogue = envelope.payload.task, self._world.catalogue()
        backend = catalogue.backends.get(call.backend)
        left_ms = envelope.deadline_ms - self._clock.now_ms()
        if task.chat is None or backend is None or left_ms <= 0:
            return Reply(failure=FailureClass.CANCELLED, sent=False)   # the ledger took longer than the caller waits
        allowed = [catalogue.models[backend.model].output_tokens_max]
        allowed += [task.chat.max_tokens] if task.chat.max_tokens is not None else []
        allowed += [task.features.tokens_out_max] if task.features is not None else []
        return await self._provider.call(
            call.backend, backend, task.chat, min(allowed), attempt_id, min(call.timeout_ms, left_ms)
        )

    def _started(self, call: Call, attempt_id: str, envelope: Envelope[Plan], price_version: str) -> Attempt:
        return Attempt(
            attempt_id=attempt_id,
            plan_id=envelope.id,
            request_id=envelope.request_id,
            tenant=envelope.tenant,
            app=envelope.app,
            phase=AttemptPhase.STARTED,
            kind=call.kind,
            model=call.candidate.model,
            backend=call.backend,
            executor=self._world.instance,
            started_ms=self._clock.now_ms(),
            cost_max_microusd=call.candidate.cost_max_microusd,
            price_version=price_version,
        )

    def _finished(self, started: Attempt, reply: Reply, cost: int | None) -> Attempt:
        return started.model_copy(
            update={
                "phase": AttemptPhase.FINISHED,
                "finished_ms": self._clock.now_ms(),
                "failure": reply.failure,
                "usage": reply.usage,
                "cost_microusd": cost or 0,
                "cost_known": cost is not None,
                "model_served": reply.model_served,
                "provider_request_id": reply.provider_request_id,
            }
        )

    def _finish(
        self,
        envelope: Envelope[Plan],
        context: Context,
        attempts: Sequence[Attempt],
        unsent: Attempt | None,
        answer: Answer | None = None,
        failure: Failure | None = None,
    ) -> Emit:
        """The last attempt's closing line and the completion, in one outcome."""
        completion = _completion(envelope, attempts, answer, failure)
        self._takeover.complete(context.record.partition, envelope.id, self._clock.now_ms())
        return Emit((completion,) if unsent is None else (Out(ATTEMPTS, unsent, envelope.key), completion))


def _limits(envelope: Envelope[Plan], attempts: Sequence[Attempt], now_ms: int) -> Limits:
    return Limits(now_ms, envelope.deadline_ms, envelope.budget_microusd, _spent_microusd(envelope, attempts))


def _spent_microusd(envelope: Envelope[Plan], attempts: Sequence[Attempt]) -> int:
    """Upper bound of what the request has cost, this plan's attempts included."""
    return envelope.spent_microusd + sum(cost_upper_microusd(attempt) for attempt in attempts)


def _from(answer: Answer, call: Call) -> Answer:
    return answer.model_copy(update={"model": call.candidate.model, "backend": call.backend})


def _completion(
    envelope: Envelope[Plan],
    attempts: Sequence[Attempt],
    answer: Answer | None = None,
    failure: Failure | None = None,
) -> Out:
    plan = envelope.payload if isinstance(envelope.payload, Plan) else None   # an undecodable record has only identity
    last = attempts[-1].failure if attempts and failure is not None else None
    known_microusd = sum(attempt.cost_microusd for attempt in attempts if attempt.cost_known)
    payload = Completion(
        plan_id=envelope.id,
        plan_number=plan.number if plan else _number_of(envelope.id),
        task=plan.task if plan else Task(failure=failure),
        answer=answer,
        failure=failure,
        failure_class=last,
        attempts=len(attempts) + (plan.attempts_before if plan else 0),
        cost_microusd=known_microusd + (plan.cost_before_microusd if plan else 0),
        why=plan.why if plan else None,
        quality_min=plan.why.quality_min if plan else 0.0,
        tried=plan.tried if plan else (),
        best=plan.best if plan else None,
    )
    id, spent_microusd = ids.completion_id(envelope.id), _spent_microusd(envelope, attempts)
    return Out(COMPLETIONS, envelope.forward(Envelope[Completion], id, payload, spent_microusd))


def _number_of(plan_id: str) -> int:
    number = plan_id.rpartition("/")[2]
    return int(number) if number.isdigit() else 0
