"""Factuality as support: how far each claim of an answer stands in the given context. Pure; without a context it is unknown.

A claim is a sentence. Its support is the share of its content words that stand in the context, near each other, times a
factor for everything that may not differ: numbers, names, denials. The worst claim weighs most, for one false sentence makes
an answer false. This finds contradictions and inventions that words show; it does not understand, and calls nothing true.
"""

from collections.abc import Sequence

from services.quality_gate.scores.given import Given
from services.quality_gate.scores.words import Clause, Sentence, sentences_of

VERSION = 1
CONTEXT_STEMS_MIN = 5

# Set on the labelled answers that are not held out, where AUC is flat around them.
NUMBER_ABSENT, NUMBER_ELSEWHERE = 0.15, 0.75
NAME_ABSENT, NAME_ELSEWHERE = 0.35, 0.6
DENIED = 0.35
DENIAL_OVERLAP_MIN = 0.5
"""Of a clause's content words that another must share before their denials are compared."""
WORST_WEIGHT = 0.7
NAMES_ARE_NOUNS_SHARE = 0.2
"""Of all words that are capitalised within sentences: above it the language writes its nouns so, and they are no names."""


def factuality(text: str, given: Given) -> tuple[float | None, str]:
    """A value in [0, 1], or None where nothing can be known; and why, without a word of the answer."""
    context = sentences_of(given.context)
    known = frozenset[str]().union(*(sentence.stems for sentence in context))
    if len(known) < CONTEXT_STEMS_MIN:
        return None, "no context was given"
    claims = [sentence for sentence in sentences_of(text) if len(sentence.stems) + len(sentence.numbers) >= 2]
    if not claims:
        return None, "no claim to compare"
    judge = _Context(context)
    supports = [judge.support(claim) for claim in claims]
    worst = min(supports)
    value = WORST_WEIGHT * worst + (1 - WORST_WEIGHT) * sum(supports) / len(supports)
    weak = sum(support < 0.5 for support in supports)
    return round(value, 3), f"{weak} of {len(claims)} claims have little support" if weak else ""


class _Context:
    """The context's sentences in windows of two, its clauses, and by each content word the ones that hold it."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        self._windows = [_joined(sentences[at : at + 2]) for at in range(len(sentences))]
        self._clauses = [clause for sentence in sentences for clause in sentence.clauses]
        self._all = _joined(sentences)
        self._windows_of = _places([window.stems | window.numbers for window in self._windows])
        self._clauses_of = _places([clause.stems for clause in self._clauses])
        words = sum(len(sentence.words) for sentence in sentences)
        self._name_absent = 0.7 if len(self._all.names) > NAMES_ARE_NOUNS_SHARE * words else NAME_ABSENT

    def support(self, claim: Sentence) -> float:
        stems = claim.stems or claim.names
        shared = _shared(stems | claim.numbers, self._windows_of)
        if not shared:
            return 0.0
        most = max(shared.values())
        value = max(self._support_in(self._windows[place], claim, stems) for place, count in shared.items() if count == most)
        return value * (DENIED if any(map(self._denies, claim.clauses)) else 1.0)

    def _support_in(self, window: Sentence, claim: Sentence, stems: frozenset[str]) -> float:
        near, anywhere = _share(stems, window.stems), _share(stems, self._all.stems)
        value = 0.5 * near + 0.5 * anywhere
        value *= _factor(claim.numbers, window.numbers, self._all.numbers, NUMBER_ABSENT, NUMBER_ELSEWHERE)
        return value * _factor(claim.names, window.stems, self._all.stems, self._name_absent, NAME_ELSEWHERE)

    def _denies(self, clause: Clause) -> bool:
        """Whether a clause denies what the closest one of the context says, or the other way round.

        Of several that are as close one that agrees is taken: the doubt is the answer's.
        """
        shared = _shared(clause.stems, self._clauses_of)
        if not shared:
            return False
        most = max(shared.values())
        closest = [self._clauses[place] for place, count in shared.items() if count == most]
        if any(other.is_negative == clause.is_negative for other in closest):
            return False
        return most >= DENIAL_OVERLAP_MIN * len(clause.stems)


def _places(sets: Sequence[frozenset[str]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, stems in enumerate(sets):
        for stem in stems:
            places.setdefault(stem, []).append(place)
    return places


def _shared(stems: frozenset[str], places: dict[str, list[int]]) -> dict[int, int]:
    """How many of some words each place holds; places that hold none are not in it."""
    counts: dict[int, int] = {}
    for stem in stems:
        for place in places.get(stem, ()):
            counts[place] = counts.get(place, 0) + 1
    return counts


def _joined(sentences: Sequence[Sentence]) -> Sentence:
    def union(name: str) -> frozenset[str]:
        return frozenset[str]().union(*(getattr(sentence, name) for sentence in sentences))

    return Sentence(union("stems"), union("numbers"), union("names"), (), ())


def _share(part: frozenset[str], whole: frozenset[str]) -> float:
    return len(part & whole) / len(part) if part else 1.0


def _factor(said: frozenset[str], near: frozenset[str], anywhere: frozenset[str], absent: float, elsewhere: float) -> float:
    if said - anywhere:
        return absent
    return elsewhere if said - near else 1.0
