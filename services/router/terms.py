"""Turns a policy, an account and a caller's wishes into the terms of one choice. Pure: chance follows from the request's id."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from schemas.config import Policy
from schemas.messages import Chat, Features
from services.router.decide import quality_min_of
from services.router.rank import WEIGHTS, Mode, Ranked, Terms
from shared.ids import is_beside
from shared.spend import Standing

SCORES_MAX = 5
"""More would travel with every answer, and seldom explain more."""

SPARE_EXPLORES = 4.0
EXPLORE_MAX = 0.2
"""An account whose price of money is 0 has more than its requests need. What is left over buys knowledge: such an account
explores so many times as often. In `make bench-routing` four times spends 0.99 of the larger budget, once 0.94."""

SORTS: Mapping[str, Mode] = {"price": "price", "latency": "latency", "quality": "quality"}


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class Beliefs:
    """By model, for one request: expected quality, judgements behind it in this domain, expected output tokens.

    `tokens_usual`: output tokens of a model that nothing was learned of; 0 while that is true of all of them.
    """

    quality: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, float] = field(default_factory=dict)
    tokens_out: Mapping[str, int] = field(default_factory=dict)
    tokens_usual: int = 0


@dataclass(slots=True)   # made anew for every request: a frozen one takes three times as long to make
class Request:
    """Who asks. `unit` stays with its arm of a split: the session, or else the request alone."""

    id: str
    lane: str
    tenant: str

    def draw(self, purpose: str, unit: str = "") -> float:
        """Evenly in [0, 1), the same for the same purpose and unit."""
        return zlib.crc32(f"{purpose}/{unit or self.id}".encode()) / 2**32


def terms_of(
    policy: Policy, account: Standing, chat: Chat, task: Features, request: Request, beliefs: Beliefs, cached_by: str = ""
) -> Terms:
    """An account that is nearly used up gets the cheapest able model. Interactive requests are never used for exploring."""
    terms = Terms(
        mode=SORTS[chat.sort] if chat.sort else policy.choose,
        weights=WEIGHTS[request.lane],
        quality_min=quality_min_of(policy, task.complexity),
        quality_within=policy.quality_within,
        microusd_price=1e-6 / float(policy.answer_worth_usd) + _pressure(account),
        target_microusd=account.target_microusd or 0.0,
        explore=0.0 if request.lane == "interactive" else explore_share(policy.explore, account),
        draw=request.draw("explore") if policy.explore else 1.0,
        believed=beliefs.quality,
        evidence=beliefs.evidence,
        tokens_out=beliefs.tokens_out,
        tokens_usual=beliefs.tokens_usual,
        lead=_arm(policy, chat, request) if policy.split else "",
        order=chat.models,
        cached_by=cached_by,
    )
    return replace(terms, mode="price", explore=0.0, quality_min=0.0, lead="") if account.is_near else terms


def explore_share(share: float, account: Standing) -> float:
    """Share of requests that try a little-known model: the policy's, more while the account has money to spare."""
    has_spare = account.target_microusd is not None and account.price == 0.0
    return min(SPARE_EXPLORES * share, EXPLORE_MAX) if has_spare else share


def shadow_of(policy: Policy, request: Request) -> str:
    """The model to ask beside this request, where it belongs to the policy's share and somebody waits for it."""
    rule = policy.shadow
    return rule.model if rule and request.draw("shadow") < rule.share and not is_beside(request.id) else ""


def scores_of(ranked: Ranked, beliefs: Beliefs) -> dict[str, tuple[float, ...]]:
    """For the plan: the SCORES_MAX best able models, as `Why.scores` describes."""
    return {
        (model := each.option.offer.model): (
            each.quality,
            each.cost_microusd,
            each.option.latency_ms,
            each.option.failing,
            round(each.utility, 4),
            beliefs.evidence.get(model, 0.0),
        )
        for each in ranked.prospects[:SCORES_MAX]
    }


def _arm(policy: Policy, chat: Chat, request: Request) -> str:
    return arm_of(policy.split, request.draw("split", f"{request.tenant}/{chat.session}" if chat.session else ""))


def arm_of(split: Mapping[str, float], draw: float) -> str:
    """The arm a draw falls to, by the arms' weights in the order of their names; none of an empty split."""
    total = sum(split.values())
    if total <= 0:
        return ""
    for model, weight in sorted(split.items()):
        draw -= weight / total
        if draw < 0:
            return model
    return max(split)


def _pressure(account: Standing) -> float:
    """Quality that one micro-USD must buy at the account's price of money: λ/B."""
    return account.price / account.target_microusd if account.target_microusd else 0.0
