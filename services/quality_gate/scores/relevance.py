"""Relevance: whether an answer speaks of what was asked, by the words they share. Pure; of a few words nothing can be known."""

from services.quality_gate.scores.given import Given
from services.quality_gate.scores.words import stems_of
from services.quality_gate.subject import words_of

VERSION = 1
SHARED_FULL = 3
"""Shared content words that make an answer fully relevant; a question with fewer needs all of its own."""
STEMS_MIN = 3
"""An answer of fewer content words ("Lima.", "391") may well be right without repeating the question."""
_CHARS_MAX = 20_000


def relevance(text: str, given: Given) -> tuple[float | None, str]:
    """A value in [0, 1], or None where nothing can be known; and why."""
    question = stems_of(words_of(given.question[:_CHARS_MAX].lower()))
    answer = stems_of(words_of(text[:_CHARS_MAX].lower()))
    if not question:
        return None, "no question to compare"
    shared = len(question & answer)
    if not shared and len(answer) < STEMS_MIN:
        return None, "too short to tell"
    value = min(1.0, shared / min(SHARED_FULL, len(question)))
    if given.context and answer:
        context = stems_of(words_of(given.context[:_CHARS_MAX].lower()))
        value = max(value, 0.9 * len(answer & context) / len(answer))
    return round(value, 3), "" if value else "shares no word with the question"
