"""A pipeline's tasks and escalations -> plans of its steps. The tree says what is wanted; the router plans each step.

The tree that a request begins with travels on its slip to the end: a new config is for new requests.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from schemas.envelope import Envelope
from schemas.messages import Escalation, Failure, Plan, Reason, Task, Why
from schemas.slips import Slip
from services.router.steps import slip_of, task_of
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.handler import Context
from shared.ids import plan_id
from shared.pipeline import Want, frame_of, read, stands_alone, step_at, tree_of, tree_text
from shared.pipeline_values import values_of
from shared.slips import Slips, folded, is_whole

Planned = tuple[Envelope[Any], Plan, str]
"""The envelope that the plan goes out in, the plan, and its id."""


class Part(NamedTuple):
    """What a step is to a decision: the policy that it names, and whether it may begin a cascade.

    It may not where its end is looked at again and again, at a join or for an ordering key: by then other weights are known, and
    what was enough before would be doubted. In a loop the tree itself says who is asked next.
    """

    policy: str | None
    may_cascade: bool


def _part(envelope: Envelope[Any], slip: Slip, path: str) -> Part:
    tree = tree_of(slip.tree)
    return Part(step_at(tree, path).policy, not envelope.ordered and stands_alone(tree, path))


class PlanMaker(Protocol):
    """How the router plans a task of its own, or a stronger try of one that has been answered."""

    def planned(self, envelope: Envelope[Any], task: Task, part: Part, asked: Escalation | None) -> Plan: ...


class Pipelines:
    """Makes the plans of steps. Remembers nothing of a request."""

    def __init__(self, maker: PlanMaker, catalogue: Callable[[], Catalogue], clock: Clock, slips: Slips | None) -> None:
        self._maker = maker
        self._catalogue = catalogue
        self._clock = clock
        self._slips = slips

    def begun(self, envelope: Envelope[Any], task: Task, name: str, context: Context) -> list[Planned]:
        """The first plans of a request."""
        catalogue = self._catalogue()
        tree = catalogue.pipelines.get(name)
        if tree is None:
            return [_broken(envelope, f"pipeline {name!r} is not in the config; apply one that has it")]
        slip = Slip(
            pipeline=f"{name}@{catalogue.version}", tree=tree_text(tree), step="", asked=task,
            deadline_ms=envelope.deadline_ms, budget_microusd=envelope.budget_microusd,
        )
        reading = read(tree, {}, frame_of(slip, values_of(task)), self._clock.now_ms())
        if reading.ended is not None:
            return [_broken(envelope, reading.ended.failure.message if reading.ended.failure else "it has no step")]
        return [self._step(envelope, slip, task, want, context) for want in reading.wants]

    def moved(self, envelope: Envelope[Escalation], context: Context) -> list[Planned] | Awaitable[list[Planned]]:
        """The plans that an escalation asks for: a stronger try of its step, or other steps, and what is no longer wanted."""
        asked, slip = envelope.payload, envelope.payload.slip
        assert slip is not None, "a plain escalation has no pipeline"
        if asked.cancels or asked.wants:
            return self._wanted(envelope, slip, context) if is_whole(slip) else self._wanted_whole(envelope, slip, context)
        part = _part(envelope, slip, slip.step)
        plan = self._maker.planned(envelope, asked.task, part, asked).model_copy(update={"slip": slip})
        return [(envelope, plan, plan_id(envelope.request_id, plan.number, slip.step))]

    async def _wanted_whole(self, envelope: Envelope[Escalation], slip: Slip, context: Context) -> list[Planned]:
        assert self._slips is not None, "slips are read back where there is a broker"
        return self._wanted(envelope, await self._slips.whole(slip), context)

    def _wanted(self, envelope: Envelope[Escalation], slip: Slip, context: Context) -> list[Planned]:
        asked = envelope.payload
        plans: list[Planned] = []
        if asked.cancels:
            cancel = Plan(number=0, task=Task(), why=Why(policy="", rule=""), cancels=asked.cancels)
            plans.append((envelope, cancel, f"{envelope.id}/cancel"))
        if asked.wants:
            assert slip.asked is not None, "it has been read back"
            tree, frame = tree_of(slip.tree), frame_of(slip, values_of(slip.asked))
            arrived = {each.path: each for each in slip.yields}
            wants = read(tree, arrived, frame, None).wants
            plans += [self._step(envelope, slip, slip.asked, want, context) for want in wants if want.path in asked.wants]
        return plans

    def _step(self, envelope: Envelope[Any], slip: Slip, asked: Task, want: Want, context: Context) -> Planned:
        frame = want.frame
        strand = envelope.model_copy(update={
            "deadline_ms": min(frame.deadline_ms, slip.deadline_ms),
            "budget_microusd": frame.budget_microusd,
            "spent_microusd": frame.spent_microusd,
        })
        task = task_of(want, asked)
        if task.failure is not None:
            plan = Plan(number=0, task=Task(), why=Why(policy="", rule=""), failure=task.failure)
        else:
            plan = self._maker.planned(strand, task, _part(envelope, slip, want.path), None)
        plan = plan.model_copy(update={
            "slip": folded(slip_of(slip, want), context.record),
            "attempts_before": sum(each.attempts for each in frame.carried),
            "cost_before_microusd": sum(each.cost_microusd for each in frame.carried),
        })
        return strand, plan, plan_id(envelope.request_id, 0, want.path)


def _broken(envelope: Envelope[Any], message: str) -> Planned:
    failure = Failure(reason=Reason.PIPELINE_BROKEN, stage="router", message=message)
    plan = Plan(number=0, task=Task(), why=Why(policy="", rule=""), failure=failure)
    return envelope, plan, plan_id(envelope.request_id, 0)
