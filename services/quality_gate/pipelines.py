"""A pipeline's completions -> its next steps, an open record at a join, or the request's verdict.

What is open is in the log: the runner shows the open records of the request beside each new one, and `advance.py` decides from
them. Before it waits at a join this stage asks the log whether the join was decided already, by itself or by a former owner.
"""

import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from schemas.checks import CheckSpec
from schemas.config import Policy
from schemas.envelope import Envelope, Header
from schemas.ledger import Usage
from schemas.messages import BETWEEN_MODELS, STATUS_OF, Answer, Completion, Escalation, Failure, Reason, Status, Task, Verdict
from schemas.pipeline import Step
from schemas.slips import Slip, Yield
from schemas.topology import ESCALATIONS, REVIEWS
from services.quality_gate.advance import Landed, Move, advance, total_of
from services.quality_gate.checks import judge
from services.quality_gate.decide import STAGE, Limits, decide
from services.quality_gate.doubts import Doubts
from services.quality_gate.endings import ended_with, is_scored
from shared.broker import Broker, Record
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.dispatch import too_many_open
from shared.handler import Context
from shared.ids import advance_id, escalation_id, review_id
from shared.logindex import SeenIds
from shared.outcome import Drop, Emit, Hold, Out, Outcome
from shared.pipeline import GRACE_MS, forks_above, is_in_loop, step_at, tree_of
from shared.pipeline_values import values_of
from shared.slips import Slips, is_whole, trimmed

_ESCALATION = Envelope[Escalation]
_NONE: frozenset[int] = frozenset()
_LATE = Failure(reason=Reason.DEADLINE_PASSED, stage=STAGE, message="deadline_ms passed before every step had ended")

Forks = list[tuple[str, str]]


class Pipelines:
    """The gate's handler for records that have a slip."""

    def __init__(
        self, catalogue: Callable[[], Catalogue], clock: Clock, broker: Broker, ended: SeenIds, doubts: Doubts, seen_max: int
    ) -> None:
        self._catalogue = catalogue
        self._doubts = doubts
        self._clock = clock
        self._ended = ended
        self._moved_on = SeenIds(broker, ESCALATIONS, lambda record: record.header(Header.ID), seen_max)
        self._parked = SeenIds(broker, REVIEWS, lambda record: record.header(Header.ID), seen_max)
        self._slips = Slips(broker)
        self._judged: dict[int, Verdict | Escalation] = {}   # by the identity of an envelope that the runner still has

    def forget(self, partitions: frozenset[int]) -> None:
        """Another owner may have moved requests on since."""
        self._moved_on.forget(partitions)
        self._parked.forget(partitions)

    def handle(self, envelope: Envelope[Completion], context: Context) -> Outcome | Awaitable[Outcome]:
        completion, slip = envelope.payload, envelope.payload.slip
        assert slip is not None, "plain completions do not come here"
        if completion.failure is not None and completion.failure.reason is Reason.CANCELLED:
            return Drop("cancelled", _NONE)
        forks = forks_above(tree_of(slip.tree), slip.step)
        if (forks or envelope.ordered) and not self._covers(envelope, context.record.partition):
            return self._after_reading(envelope, context, forks)
        if self._is_over(envelope, forks, context.record.partition):
            return Drop("decided without it", _NONE)
        slips = [held.payload.slip for held, _ in context.held]
        if not all(map(is_whole, (slip, *slips))):
            return self._with_texts(envelope, context)
        return self._outcome(envelope, context, slip, slips)

    async def _after_reading(self, envelope: Envelope[Completion], context: Context, forks: Forks) -> Outcome:
        partition, since_ms = context.record.partition, envelope.accepted_ms
        ids = [advance_id(envelope.request_id, fork, "joined") for fork, _ in forks]
        if await self._ended.lookup(partition, envelope.request_id, since_ms):
            return Drop("already judged", _NONE)
        if await self._parked.lookup(partition, review_id(envelope.request_id), since_ms):
            return Drop("under review", _NONE)
        for id in ids:
            if await self._moved_on.lookup(partition, id, since_ms):
                return Drop("decided without it", _NONE)
        return await self._with_texts(envelope, context)

    async def _with_texts(self, envelope: Envelope[Completion], context: Context) -> Outcome:
        """With everything that the slips only refer to."""
        mine, *held = [await self._whole(each) for each in (envelope, *(held for held, _ in context.held))]
        return self._outcome(envelope, context, mine, held)

    async def _whole(self, envelope: Envelope[Completion]) -> Slip:
        slip = envelope.payload.slip
        assert slip is not None, "records beside a pipeline's are of the same request"
        return slip if is_whole(slip) else await self._slips.whole(slip)

    def _covers(self, envelope: Envelope[Completion], partition: int) -> bool:
        return all(seen.covers(partition, envelope.accepted_ms) for seen in (self._ended, self._moved_on, self._parked))

    def _is_over(self, envelope: Envelope[Completion], forks: Forks, partition: int) -> bool:
        if not forks and not envelope.ordered:
            return False   # a repeat makes the same records again, and whoever reads them knows their ids
        ids = (advance_id(envelope.request_id, fork, "joined") for fork, _ in forks)
        has_ended = self._ended.has(partition, envelope.request_id) or self._parked.has(partition, review_id(envelope.request_id))
        return has_ended or any(self._moved_on.has(partition, id) for id in ids)

    # What follows ----------------------------------------------------------------------------------------------------

    def _outcome(self, envelope: Envelope[Completion], context: Context, slip: Slip, held: Sequence[Slip]) -> Outcome:
        decided = self._judge(envelope, context.record)
        now_ms = self._clock.now_ms()
        if isinstance(decided, Escalation) and now_ms < slip.deadline_ms:
            id = escalation_id(envelope.request_id, decided.plan_number, slip.step)
            again = decided.model_copy(update={"slip": envelope.payload.slip})
            return self._on(envelope, slip, (Out(ESCALATIONS, envelope.forward(_ESCALATION, id, again)),), _NONE)
        if isinstance(decided, Escalation):
            decided = _late(envelope.payload, now_ms)
        mine = Landed(slip, yield_of(slip, envelope, decided), context.record.offset, context.record.timestamp_ms)
        beside = [landed for each, (other, record) in zip(held, context.held, strict=True)
                  if (landed := self._landed(each, other, record)) is not None]
        if now_ms >= slip.deadline_ms:
            return self._ends(envelope, context, _ended_early(mine, beside, _LATE), decided, slip, beside)
        asked = slip.asked
        assert asked is not None, "it has been read back"
        move = advance(tree_of(slip.tree), values_of(asked), mine, beside, now_ms)
        if move.is_stale:
            return Drop("decided without it", _NONE)
        if move.waits and context.crowded:
            move = _ended_early(mine, beside, too_many_open(STAGE))
        if move.ended is not None:
            return self._ends(envelope, context, move, decided, slip, beside)
        return self._goes_on(envelope, context, move, slip)

    def _landed(self, slip: Slip, envelope: Envelope[Completion], record: Record) -> Landed | None:
        """An open record as a step's end; None for one that is open only because its request is ordered."""
        decided = self._judge(envelope, record)
        if isinstance(decided, Escalation):
            return None
        return Landed(slip, yield_of(slip, envelope, decided), record.offset, record.timestamp_ms)

    def _judge(self, envelope: Envelope[Completion], record: Record) -> Verdict | Escalation:
        """Once for as long as the runner has the record, being handled or open: a map of a hundred items would else judge each
        of them a hundred times, and under a newer config its join might miss one that passed. A judgement holds an answer, so
        it goes with the envelope, however that ends: released, shed, overdue, or another replica's."""
        known = self._judged.get(id(envelope))
        if known is None:
            known = self._judged[id(envelope)] = decide(envelope.payload, self._limits(envelope, record))
            weakref.finalize(envelope, self._judged.pop, id(envelope))
        return known

    def _limits(self, envelope: Envelope[Completion], record: Record) -> Limits:
        """By the record's own time, so that a replay judges it the same."""
        policy, slip = self._catalogue().policy_of(envelope.tenant), envelope.payload.slip
        assert slip is not None, "plain completions do not come here"
        tree = tree_of(slip.tree)
        step = step_at(tree, slip.step)
        gate = step.gate
        escalations = 0 if is_in_loop(tree, slip.step) else policy.escalations_max
        return Limits(
            _held_to_output(step, policy.checks if gate.checks is None else gate.checks),
            escalations if gate.escalations_max is None else gate.escalations_max,
            record.timestamp_ms >= envelope.deadline_ms + (GRACE_MS if envelope.deadline_ms < slip.deadline_ms else 0),
            record.timestamp_ms,
            doubt=self._doubts.of(envelope, record.timestamp_ms),
        )

    def _goes_on(self, envelope: Envelope[Completion], context: Context, move: Move, slip: Slip) -> Outcome:
        what, path = ("joined", move.joined) if move.joined is not None else ("beside" if move.waits else "next", slip.step)
        outputs: tuple[Out, ...] = ()
        if move.wants or move.cancels:
            id = advance_id(envelope.request_id, path, what)
            outputs = (Out(ESCALATIONS, _whole_request(envelope, slip).forward(_ESCALATION, id, _escalation(move, slip))),)
            if move.joined is not None:
                self._moved_on.add(context.record.partition, id, context.record.timestamp_ms)
        if move.waits:
            return Hold(outputs, move.until_ms)
        return self._on(envelope, slip, outputs, move.releases) if outputs else Drop("nothing new", _NONE)

    def _on(self, envelope: Envelope[Any], slip: Slip, outputs: tuple[Out, ...], releases: frozenset[int]) -> Outcome:
        """Later requests of an ordering key wait until this one ends."""
        return Hold(outputs, slip.deadline_ms) if envelope.ordered else Emit(outputs, releases)

    def _ends(
        self, envelope: Envelope[Completion], context: Context, move: Move, decided: Verdict, slip: Slip, beside: Sequence[Landed]
    ) -> Outcome:
        """With its verdict, or with the review that its answer waits for, as a plain request does."""
        record, policy, now_ms = context.record, self._catalogue().policy_of(envelope.tenant), self._clock.now_ms()
        verdict = _scored(verdict_of(move, decided, envelope.payload, now_ms), envelope.request_id, slip, policy)
        whole = _as_asked(envelope, slip).model_copy(update={"spent_microusd": move.total.spent_microusd})
        known = (*slip.yields, *(each for landed in beside for each in (*landed.slip.yields, landed.yielded)))
        helped = {model for model in _models_of((move.ended, *known)) if model}
        outputs = ended_with(whole, verdict, policy, record.timestamp_ms, now_ms, helped)
        if outputs[0].topic is REVIEWS:
            self._parked.add(record.partition, review_id(envelope.request_id), record.timestamp_ms)
        else:
            self._ended.add(record.partition, envelope.request_id, record.timestamp_ms)
        if move.cancels:
            id = advance_id(envelope.request_id, slip.step, "cancelled")
            outputs += (Out(ESCALATIONS, whole.forward(_ESCALATION, id, _escalation(move, slip))),)
        return Emit(outputs)


def _held_to_output(step: Step, checks: tuple[CheckSpec, ...]) -> tuple[CheckSpec, ...]:
    """A step's `output` is what later steps build on: whoever lists other checks does not mean to let it go."""
    is_held = step.output is None or any(spec.check == "matches_schema" for spec in checks)
    return checks if is_held else (*checks, CheckSpec(check="matches_schema"))


def _whole_request(envelope: Envelope[Completion], slip: Slip) -> Envelope[Completion]:
    """With the deadline and the budget of the request instead of the step's."""
    return envelope.model_copy(update={"deadline_ms": slip.deadline_ms, "budget_microusd": slip.budget_microusd})


def _as_asked(envelope: Envelope[Completion], slip: Slip) -> Envelope[Completion]:
    """As if the request's answer had come in one step: its own task, deadline and budget."""
    completion = envelope.payload.model_copy(update={"task": slip.asked})
    return _whole_request(envelope, slip).model_copy(update={"payload": completion})


def _models_of(yields: Iterable[Yield | None]) -> Iterator[str]:
    """A merged output names all the models that wrote it."""
    return (model for each in yields if each is not None for model in each.model.split(BETWEEN_MODELS))


def _scored(verdict: Verdict, request_id: str, slip: Slip, policy: Policy) -> Verdict:
    """With the scores of the answer to the request itself, where the policy wants any."""
    answer, asked = verdict.answer, slip.asked
    if answer is None or asked is None or not is_scored(request_id, answer.model, policy):
        return verdict
    return verdict.model_copy(update={"scores": judge(answer, asked, (), is_sampled=True).scores})


def _escalation(move: Move, slip: Slip) -> Escalation:
    carried = {each.path: each for want in move.wants for each in want.frame.carried}
    until_ms = {path: until for want in move.wants for path, until in want.frame.until_ms.items()}
    asked = None if slip.asked_at is not None or not move.wants else slip.asked
    onwards = slip.model_copy(update={"yields": trimmed(carried.values()), "until_ms": until_ms, "asked": asked})
    return Escalation(
        plan_number=0, task=Task(), tried=(), slip=onwards, wants=tuple(want.path for want in move.wants), cancels=move.cancels
    )


def yield_of(slip: Slip, envelope: Envelope[Completion], verdict: Verdict) -> Yield:
    """A step's end, with what the step itself took: a completion counts from the request's beginning."""
    completion, answer = envelope.payload, verdict.answer
    failure = None
    if verdict.status is not Status.DELIVERED:
        failure = Failure(reason=verdict.reason or Reason.QUALITY_NOT_MET, stage=verdict.stage, message=verdict.message)
    usage = completion.answer.usage if completion.answer is not None else Usage()
    wrong = [check for check in verdict.checks if not check.passed]
    return Yield(
        path=slip.step,
        text=answer.text if answer is not None else "",
        failure=failure,
        score=1 - len(wrong) / len(verdict.checks) if verdict.checks else float(failure is None),
        failed=tuple(wrong),
        criticism="; ".join(f"{check.name}: {check.detail}" for check in wrong),
        model=answer.model if answer is not None else "",
        backend=answer.backend if answer is not None else "",
        attempts=completion.attempts - sum(each.attempts for each in slip.yields),
        cost_microusd=completion.cost_microusd - sum(each.cost_microusd for each in slip.yields),
        spent_microusd=envelope.spent_microusd - sum(each.spent_microusd for each in slip.yields),
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
    )


def verdict_of(move: Move, decided: Verdict, completion: Completion, now_ms: int) -> Verdict:
    """How the request ended; `decided` is the verdict on its last step, whose checks stand on it where its answer does."""
    ended, total = move.ended, move.total
    assert ended is not None, "it has ended"
    answer = None
    if ended.failure is None or ended.text:
        last = decided.answer
        answer = last if last is not None and last.text == ended.text else Answer(
            text=ended.text, model=ended.model, backend=ended.backend
        )
        answer = answer.model_copy(update={"usage": Usage(tokens_in=total.tokens_in, tokens_out=total.tokens_out)})
    is_last = answer is not None and decided.answer is not None and decided.answer.text == answer.text
    failure = ended.failure
    return Verdict(
        status=Status.DELIVERED if failure is None else STATUS_OF[failure.reason],
        reason=failure.reason if failure else None,
        message=failure.message if failure else "",
        stage=failure.stage if failure else "",
        answer=answer,
        checks=decided.checks if is_last else ended.failed,
        scores=decided.scores if is_last else (),
        why=completion.why,
        tried=decided.tried if is_last else (),
        attempts=total.attempts,
        cost_microusd=total.cost_microusd,
        decided_ms=now_ms,
    )


def _late(completion: Completion, now_ms: int) -> Verdict:
    return Verdict(
        status=Status.EXPIRED, reason=Reason.DEADLINE_PASSED, stage=STAGE, answer=completion.best or completion.answer,
        message="deadline_ms passed", decided_ms=now_ms,
    )


def _ended_early(mine: Landed, beside: Sequence[Landed], failure: Failure) -> Move:
    """The request's time is over, or there is no room for it, whatever is still under way."""
    total = total_of((mine, *beside))
    return Move(total, ended=total.model_copy(update={"failure": failure, "text": mine.yielded.text}), cancels=("p",))
