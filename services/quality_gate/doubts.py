"""Whether an answer that passes its checks is doubted so much that a cascade asks its next model."""

from collections.abc import Callable, Mapping

from schemas.envelope import Envelope
from schemas.messages import Completion
from schemas.quality import QualityEntry
from shared.cascade import Call, answer_sketch, asks_on, confidence
from shared.quality import ANSWERS, Knowledge

REFRESH_MS = 1_000
"""Weights on the words of answers are published every ten seconds."""


class Doubts:
    """Mutable only in what it has read so far of the published weights."""

    def __init__(self, entries: Callable[[], Mapping[str, QualityEntry]]) -> None:
        self._entries = entries
        self._knowledge = Knowledge()
        self._read_ms = 0

    def of(self, envelope: Envelope[Completion], now_ms: int) -> float | None:
        """The chance that the answer is right, where the plan's cascade asks on; None: it does not."""
        completion, answer = envelope.payload, envelope.payload.answer
        rule = completion.cascade
        if rule is None or answer is None or answer.model != rule.model:
            return None
        sure = self._confidence(completion, envelope.tenant, now_ms)
        following = Call(rule.quality, rule.cost_microusd, rule.latency_ms)
        budget = envelope.budget_microusd
        left = None if budget is None else budget - envelope.spent_microusd
        is_doubted = asks_on(sure, following, rule.microusd_price, envelope.deadline_ms - now_ms, left, rule.threshold)
        return round(sure, 4) if is_doubted else None

    def _confidence(self, completion: Completion, tenant: str, now_ms: int) -> float:
        rule, answer = completion.cascade, completion.answer
        assert rule is not None, "asked of cascades"
        assert answer is not None, "asked of answers"
        if now_ms - self._read_ms >= REFRESH_MS:
            entries = {key: entry for key, entry in self._entries().items() if entry.domain == ANSWERS}
            self._knowledge.refresh(entries)
            self._read_ms = now_ms
        words = self._knowledge.words(rule.model, ANSWERS)
        if words is None:
            return rule.believed
        move_max = self._knowledge.words_move_max(rule.model, tenant, ANSWERS)
        return confidence(rule.believed, words.logit(answer_sketch(answer.text, answer.logprobs)), move_max)
