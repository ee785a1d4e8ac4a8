"""What the router believes of the catalogue's models: the published quality entries, kept decoded between requests."""

from collections.abc import Callable, Iterable, Mapping

from schemas.messages import Chat, Features
from schemas.quality import QualityEntry
from services.router.offers import Offer
from services.router.terms import Beliefs
from shared.quality import ALL, Knowledge, tier_of, with_words
from shared.words import picker, sketch, text_asked

REFRESH_MS = 250
"""How long entries are taken for unchanged: looking through hundreds of them costs more than a decision."""

NOTHING = Beliefs()


class Believer:
    """Mutable only in what it has read so far; the same entries make the same beliefs."""

    def __init__(self, entries: Callable[[], Mapping[str, QualityEntry]]) -> None:
        self._entries = entries
        self._knowledge = Knowledge()
        self._read_ms = 0

    def beliefs(self, offers: Iterable[Offer], chat: Chat, task: Features, tenant: str, now_ms: int) -> Beliefs:
        """Of every model something was learned of; of the others the catalogue's figures hold."""
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
    """The same of a text that is a sketch already."""
    known, tier = list(priors), tier_of(task.complexity)
    pick = picker(buckets) if buckets else None
    quality: dict[str, float] = {}
    for model, prior in known:
        expected = knowledge.quality(model, task.domain, tier, tenant, prior)
        words = knowledge.words(model) if pick else None
        if words and pick:
            move_max = knowledge.words_move_max(model, tenant)
            overall = knowledge.quality(model, ALL, 0, tenant, prior)
            expected = with_words(expected, overall, words.logit_of(pick, len(buckets)), move_max, len(known))
        quality[model] = round(expected, 4)
    return Beliefs(
        quality,
        {model: knowledge.evidence(model, task.domain) for model, _ in known},
        {model: knowledge.tokens_out(model, task.domain, task.tokens_out) for model, _ in known},
    )
