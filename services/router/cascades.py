"""Whether a choice becomes a cascade: a cheap model first, a dearer one where the first answer will not do. Pure.

The rule that says what pays is `shared/cascade.py`; when to ask on is the gate's part.
"""

from schemas.config import CascadeRule, Policy
from schemas.messages import Cascade, Chat
from services.router.rank import Prospect, Ranked, Terms
from shared.cascade import Call, pays
from shared.spend import Standing


def rule_of(policy: Policy, account: Standing, chat: Chat, lead: str) -> CascadeRule | None:
    """The policy's, unless the caller or a split has chosen already, or the account is nearly used up."""
    is_chosen = bool(chat.model or chat.models or chat.sort or lead or account.is_near)
    return None if is_chosen else policy.cascade


def begun(
    ranked: Ranked, terms: Terms, rule: CascadeRule, time_left_ms: int, budget_left_microusd: int | None, depth: int
) -> tuple[Ranked, Cascade | None]:
    """The order with the cascade's two models first, or the same order where none pays. `depth`: models asked so far, and one.

    Before the model that was ranked first goes the best one that pays there. Is none cheap enough, the first one may begin,
    and what would be asked after it is the one of the highest quality less cost.
    """
    if depth >= rule.depth_max or ranked.explored or len(ranked.prospects) < 2:
        return ranked, None
    direct = ranked.prospects[0]

    def is_worth(first: Prospect, following: Prospect) -> bool:
        can_gain = rule.threshold is not None or following.quality > terms.microusd_price * following.cost_microusd
        return can_gain and pays(_call(first), _call(following), time_left_ms, budget_left_microusd, depth)

    firsts = [each for each in ranked.prospects if is_worth(each, direct)] if depth == 1 else []
    followings = [each for each in ranked.prospects if is_worth(direct, each)] if not firsts else [direct]
    if not followings:
        return ranked, None
    first = max(firsts, key=lambda each: (each.quality, -each.cost_microusd)) if firsts else direct
    following = max(followings, key=lambda each: each.quality - terms.microusd_price * each.cost_microusd)
    rest = (each for each in ranked.prospects if each is not first and each is not following)
    return Ranked((first, following, *rest), ranked.propensity), _cascade(first, following, terms, rule)


def _call(prospect: Prospect) -> Call:
    return Call(prospect.quality, prospect.cost_microusd, prospect.option.latency_ms)


def _cascade(first: Prospect, following: Prospect, terms: Terms, rule: CascadeRule) -> Cascade:
    return Cascade(
        model=first.option.offer.model,
        believed=first.quality,
        following=following.option.offer.model,
        quality=following.quality,
        cost_microusd=following.cost_microusd,
        latency_ms=following.option.latency_ms,
        microusd_price=terms.microusd_price,
        threshold=rule.threshold,
    )
