"""tasks and escalations -> plans. Thin: what is on offer is made in `offers.py`, the choice in `decide.py`.

A request that takes a pipeline goes by `pipelines.py`, which plans the steps that its tree wants.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from schemas.config import Policy
from schemas.envelope import Envelope
from schemas.fleet import FleetEntry
from schemas.messages import Chat, Escalation, Failure, Lane, Plan, Reason, Task, Why
from schemas.quality import QualityEntry
from schemas.spend import SpendEntry
from schemas.topology import PLANS
from services.router.beliefs import Believer
from services.router.cascades import rule_of
from services.router.certified import certified_for
from services.router.decide import STAGE, Decision, Limits, budget_left, decide, shadow_left
from services.router.offers import Offer, Option, offers_of, options_of
from services.router.pipelines import Part, Pipelines, Planned
from services.router.terms import Request, scores_of, shadow_of, terms_of
from shared.catalogue import EMPTY, Catalogue
from shared.clock import Clock
from shared.handler import Context
from shared.ids import escalation_id, is_beside, plan_id, shadowed_by
from shared.outcome import Emit, Out
from shared.prices import DAY_MS
from shared.slips import Slips
from shared.spend import standing

_PLAN = Envelope[Plan]
SESSIONS_MAX = 10_000
_LATE = Failure(reason=Reason.DEADLINE_PASSED, stage=STAGE, message="deadline_ms passed")


class Router:
    """The stage's handler. Remembers the options of the catalogue and fleet it last saw, and which model a session went to."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        fleet: Callable[[], Mapping[str, FleetEntry]],
        clock: Clock,
        spend: Callable[[], Mapping[str, SpendEntry]] = dict,
        quality: Callable[[], Mapping[str, QualityEntry]] = dict,
        slips: Slips | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._clock = clock
        self._spend = spend
        self._believer = Believer(quality)
        self._pipelines = Pipelines(self, catalogue, clock, slips)
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._offered: Catalogue = EMPTY
        self._day = 0
        self._offers: tuple[Offer, ...] = ()
        self._entries: list[FleetEntry] = []
        self._options: list[Option] = []

    def handle(self, envelope: Envelope[Any], context: Context) -> Emit | Awaitable[Emit]:
        asked = envelope.payload
        if isinstance(asked, Escalation):
            if asked.slip is not None:
                return _in_steps(self._pipelines.moved(envelope, context))
            return Emit(_planned(envelope, self._escalated(envelope, asked, None)))
        pipeline = asked.pipeline or self._catalogue().policy_of(envelope.tenant).pipeline
        if pipeline is not None and asked.failure is None and not is_beside(envelope.request_id):
            return _steps(self._pipelines.begun(envelope, asked, pipeline, context))
        return Emit(_planned(envelope, self._first(envelope, asked, None)))

    def planned(self, envelope: Envelope[Any], task: Task, part: Part, asked: Escalation | None) -> Plan:
        """The plan of a pipeline's step, under the policy that it names."""
        return self._first(envelope, task, part) if asked is None else self._escalated(envelope, asked, part)

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        number = _number_wanted(envelope)
        return _planned(envelope, Plan(number=number, task=Task(), why=Why(policy="", rule=""), failure=failure))

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Nothing is remembered of a partition."""

    def _first(self, envelope: Envelope[Any], task: Task, part: Part | None) -> Plan:
        if task.failure is not None:
            return Plan(number=0, task=Task(), why=Why(policy="", rule=""), failure=task.failure)
        decision, policy, why = self._decide(envelope, task, None, part)
        return Plan(number=0, task=task, why=why, failure=decision.failure, **_slip(decision, policy))

    def _escalated(self, envelope: Envelope[Any], asked: Escalation, part: Part | None) -> Plan:
        decision, policy, why = self._decide(envelope, asked.task, asked, part)
        return Plan(
            number=asked.plan_number,
            task=asked.task,
            why=why,
            tried=asked.tried,
            best=asked.best,
            attempts_before=asked.attempts,
            cost_before_microusd=asked.cost_microusd,
            failure=decision.failure,
            **_slip(decision, policy),
        )

    def _decide(
        self, envelope: Envelope[Any], task: Task, asked: Escalation | None, part: Part | None
    ) -> tuple[Decision, Policy, Why]:
        """Under the tenant's policy, or the one that a pipeline's step names."""
        tried = tuple(each.model for each in asked.tried) if asked else ()
        catalogue = self._catalogue()
        tenant = catalogue.tenants.get(envelope.tenant)
        by = part.policy if part else None
        named = catalogue.policies.get(by) if by is not None else None
        policy = named or catalogue.policy_of(envelope.tenant)
        assert task.features is not None, "only a failed task has no features"
        assert task.chat is not None, "only a failed task has no chat"
        chat, seen, now_ms = task.chat, task.features, self._clock.now_ms()
        request = Request(envelope.request_id, envelope.lane, envelope.tenant)
        options = self._options_now(catalogue, now_ms)
        name = by if by is not None and named else tenant.policy if tenant else "default"
        spent = self._spend().get(envelope.tenant)
        account = standing(envelope.tenant, tenant, spent, now_ms)
        left_microusd, budget_field = budget_left(envelope.budget_microusd, envelope.spent_microusd, account)
        if shadowed_by(envelope.request_id) is not None:
            left_microusd, budget_field = shadow_left(left_microusd, policy.shadow, name, account, spent, now_ms)
        beliefs = self._believer.beliefs(self._offers, chat, seen, envelope.tenant, now_ms)
        terms = terms_of(policy, account, chat, seen, request, beliefs, self._session_model(envelope.tenant, chat))
        limits = Limits(
            quality_min=terms.quality_min,
            time_left_ms=envelope.deadline_ms - now_ms,
            now_ms=now_ms,
            candidates_max=policy.candidates_max,
            budget_left_microusd=left_microusd,
            budget_field=budget_field,
            allowed=tenant.models if tenant else (),
            pinned=chat.model,
            stronger_than=tried,
            others_will_do=bool(asked and asked.tried and asked.tried[-1].failed_checks),
            certified_for=certified_for(policy.require_certified, seen),
            denied=(*policy.deny, *chat.deny),
            max_price=chat.max_price,
            lane=envelope.lane,
            cascade=None if part and not part.may_cascade else rule_of(policy, account, chat, terms.lead),
            terms=replace(terms, explore=0.0, lead=asked.asks) if asked else terms,
        )
        if limits.time_left_ms <= 0:
            decision = Decision((), (), "the deadline has passed", _LATE)
        else:
            decision = decide(seen, options, limits)
            self._remember(envelope.tenant, chat, decision)
        why = Why(
            policy=name,
            rule=decision.rule + (f"; {account.field} is nearly spent" if account.is_near else ""),
            config_version=catalogue.version,
            quality_min=limits.quality_min,
            domain=seen.domain,
            complexity=seen.complexity,
            excluded=decision.excluded,
            mode=terms.mode,
            price=account.price,
            propensity=round(decision.ranked.propensity, 6),
            explored=decision.ranked.explored,
            split=terms.lead,
            shadow="" if part else shadow_of(policy, request),
            scores=scores_of(decision.ranked, beliefs),
        )
        return decision, policy, why

    def _session_model(self, tenant: str, chat: Chat) -> str:
        """Whose prompt cache holds the session's earlier messages, as far as this replica has planned them."""
        return self._sessions.get(f"{tenant}/{chat.session}", "") if chat.session else ""

    def _remember(self, tenant: str, chat: Chat, decision: Decision) -> None:
        if not chat.session or not decision.candidates:
            return
        self._sessions[f"{tenant}/{chat.session}"] = decision.candidates[0].model
        self._sessions.move_to_end(f"{tenant}/{chat.session}")
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def _options_now(self, catalogue: Catalogue, now_ms: int) -> list[Option]:
        """Made again only after an apply, on a new day with its prices, or when the fleet changed.

        Entries of the fleet are replaced whole, so comparing them is cheap.
        """
        fleet = self._fleet()
        entries, day = list(fleet.values()), now_ms // DAY_MS
        if catalogue is not self._offered or day != self._day:
            self._offered, self._day, self._offers = catalogue, day, offers_of(catalogue, now_ms)
        elif entries == self._entries:
            return self._options
        self._entries, self._options = entries, options_of(self._offers, fleet)
        return self._options


def _slip(decision: Decision, policy: Policy) -> dict[str, Any]:
    return {
        "candidates": decision.candidates,
        "fallbacks": decision.fallbacks,
        "cascade": decision.cascade,
        "attempts_max": policy.attempts_max,
        "attempt_timeout_ms": policy.attempt_timeout_ms,
    }


def _planned(envelope: Envelope[Any], plan: Plan) -> tuple[Out, ...]:
    topic = PLANS[Lane(envelope.lane)]
    return (Out(topic, envelope.forward(_PLAN, plan_id(envelope.request_id, plan.number), plan)),)


def _steps(plans: list[Planned]) -> Emit:
    return Emit(tuple(Out(PLANS[Lane(envelope.lane)], envelope.forward(_PLAN, id, plan)) for envelope, plan, id in plans))


def _in_steps(plans: list[Planned] | Awaitable[list[Planned]]) -> Emit | Awaitable[Emit]:
    async def read_back(pending: Awaitable[list[Planned]]) -> Emit:
        return _steps(await pending)

    return _steps(plans) if isinstance(plans, list) else read_back(plans)


def _number_wanted(envelope: Envelope[Any]) -> int:
    """Which plan a record asks for, by its id alone: a failed escalation must not pass for the first plan's duplicate."""
    number = envelope.id.rpartition("/")[2]
    is_escalation = number.isdigit() and envelope.id == escalation_id(envelope.request_id, int(number))
    return int(number) if is_escalation else 0
