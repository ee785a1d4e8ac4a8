"""What the router believes of the catalogue's models: the published quality entries, kept decoded between requests."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from schemas.messages import Chat, Features
from schemas.quality import QualityEntry
from services.router.offers import Offer
from services.router.terms import Beliefs
from shared.quality import ALL, REST, Knowledge, tier_of, with_words
from shared.words import Words, picker, sketch, text_asked

REFRESH_MS = 250
"""How long entries are taken for unchanged: looking through hundreds of them costs more than a decision."""

MEMO_MAX = 4_096
NOTHING = Beliefs()


class Believer:
    """Mutable only in what it has read so far; the same entries make the same beliefs."""

    def __init__(self, entries: Callable[[], Mapping[str, QualityEntry]]) -> None:
        self._entries = entries
        self._knowledge = Knowledge()
        self._read_ms = 0

    def beliefs(self, offers: Iterable[Offer], chat: Chat, task: Features, tenant: str, now_ms: int) -> Beliefs:
        """Of every model something was learned of; of the others the catalogue's figures hold, and the usual length."""
        if now_ms - self._read_ms >= REFRESH_MS:
            self._knowledge.refresh(self._entries())
            self._read_ms = now_ms
        if not self._knowledge.models():
            return NOTHING
        priors = [(offer.model, offer.quality) for offer in offers]
        return believed(self._knowledge, priors, text_asked(chat.messages), task, tenant)


def believed(knowledge: Knowledge, priors: Iterable[tuple[str, float]], text: str, task: Features, tenant: str) -> Beliefs:
    """Pure. `priors`: the models to compare, with the catalogue's quality of each. Reads the text only where words are known."""
    known = [(model, prior) for model, prior in priors if model in knowledge.models()]
    worded = any(knowledge.words(model) for model, _ in known)
    return of_sketch(knowledge, known, sketch(text) if worded else (), task, tenant)


def of_sketch(
    knowledge: Knowledge, priors: Iterable[tuple[str, float]], buckets: tuple[int, ...], task: Features, tenant: str
) -> Beliefs:
    """The same of a text that is a sketch already. What the tables say is made once until one of them changes."""
    known, tier = tuple(priors), tier_of(task.complexity)
    at = (known, task.domain, tier, task.tokens_out, tenant if knowledge.knows(tenant) else REST)
    told: _Told | None = knowledge.memo.get(at)
    if told is None:
        if len(knowledge.memo) >= MEMO_MAX:
            knowledge.memo.clear()
        told = knowledge.memo[at] = _tables_say(knowledge, *at)
    if not buckets or not told.worded:
        return told.beliefs
    pick, count, quality = picker(buckets), len(buckets), dict(told.beliefs.quality)
    for model, overall, words, move_max in told.worded:
        expected = with_words(quality[model], overall, words.logit_of(pick, count), move_max, len(known))
        quality[model] = round(expected, 4)
    return Beliefs(quality, told.beliefs.evidence, told.beliefs.tokens_out, told.beliefs.tokens_usual)


def _tables_say(
    knowledge: Knowledge, known: tuple[tuple[str, float], ...], domain: str, tier: int, tokens_out: int, tenant: str
) -> "_Told":
    worded = [
        (model, knowledge.quality(model, ALL, 0, tenant, prior), words, knowledge.words_move_max(model, tenant))
        for model, prior in known
        if (words := knowledge.words(model)) is not None
    ]
    usual = knowledge.tokens_usual(domain, tokens_out)
    beliefs = Beliefs(
        {model: round(knowledge.quality(model, domain, tier, tenant, prior), 4) for model, prior in known},
        {model: round(knowledge.evidence(model, domain), 1) for model, _ in known},
        {model: knowledge.tokens_out(model, domain, usual) for model, _ in known},
        usual,
    )
    return _Told(beliefs, worded)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the tables say, and of each model with words its mean, its words, and how far they may move the belief."""

    beliefs: Beliefs
    worded: list[tuple[str, float, Words, float]]
