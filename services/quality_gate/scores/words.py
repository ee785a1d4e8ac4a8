"""Texts as scores see them: sentences and clauses with their content words, numbers, names and negations. Pure, linear."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from services.quality_gate.small_words import SMALL_WORDS
from services.quality_gate.subject import words_of

SENTENCES_MAX = 200
CHARS_MAX = 20_000
STEM_CHARS = 5
"""Words are the same when they begin alike: enough for plural, tense and case in the languages known here."""

_MORE_SMALL_WORDS = (
    "was were will would can could may might should must do does did been being its their his her our your my me us them there "
    "here these those then than so such any some all each other about into over after before between during also very more most "
    "only just if but or as an i he she who whom whose where when why because while wurde wurden wird hat haben hatte "
    "son ser han ha hay muy sobre entre cuando sont a ont été fait cette ces leur leurs elle il"
)
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+|(?<=[。！？])")
_CLAUSE = re.compile(r"[,;:–—]\s+|\s(?:and|but|while|und|aber|y|pero|et|mais|e|ma)\s")
_NUMBER = re.compile(r"\d[\d.,:]*\d|\d")
_NAME = re.compile(r"(?<![.!?:\"“]\s)(?<=[\w,;)]\s)[A-ZÀ-ÖØ-Þ][\w-]+")
_NEGATION_WORDS = (
    "not no never none nobody nothing neither nor cannot without "
    "nicht kein keine keinen keinem keiner nie niemals ohne nunca sin jamás ne pas jamais sans aucun aucune non"
)
_NEGATIONS = frozenset(_NEGATION_WORDS.split())
_NOT_CONTENT = _NEGATIONS.union(_MORE_SMALL_WORDS.split(), *(words.split() for words in SMALL_WORDS.values()))
_OPPOSITES = {
    "closed": "open", "forbidden": "allowed", "prohibited": "allowed", "fell": "rose", "declined": "rose", "dropped": "rose",
    "decreased": "increased", "lost": "won", "rejected": "approved", "verboten": "erlaubt", "geschlossen": "geöffnet",
    "cerrado": "abierto", "prohibido": "permitido", "fermé": "ouvert", "interdit": "permis",
}
"""A word and what it denies: "closed" counts as "not open"."""
_DENYING = _NEGATIONS.union(_OPPOSITES)
_NUMBER_WORDS = {
    word: str(value)
    for words in (
        "one two three four five six seven eight nine ten eleven twelve", "ein zwei drei vier fünf sechs sieben acht neun zehn",
        "uno dos tres cuatro cinco seis siete ocho nueve diez", "un deux trois quatre cinq six sept huit neuf dix",
    )
    for value, word in enumerate(words.split(), 1)
    if value > 1   # "one" and "ein" are seldom counts
} | {"twice": "2", "zweimal": "2"}


class Clause(NamedTuple):
    """Content words by their stems, and whether the clause denies."""

    stems: frozenset[str]
    is_negative: bool


class Sentence(NamedTuple):
    """Of one sentence: stems of content words, numbers without separators, stems of names, and its clauses."""

    stems: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    clauses: tuple[Clause, ...]
    words: tuple[str, ...]


@lru_cache(maxsize=4)
def sentences_of(text: str) -> list[Sentence]:
    """At most SENTENCES_MAX of the first CHARS_MAX characters; pieces without a word are left out. Remembered for the scores
    of one answer, which read the same texts."""
    pieces = _SENTENCE.split(text[:CHARS_MAX])
    found = (_sentence(piece) for piece in pieces[:SENTENCES_MAX])
    return [sentence for sentence in found if sentence.words]


def stems_of(words: Iterable[str]) -> frozenset[str]:
    """The first letters of each content word; opposites stand for what they deny."""
    return frozenset(filter(None, map(_stem, words)))


@lru_cache(maxsize=8_192)
def _stem(word: str) -> str:
    """Empty for what is no content word. Texts use the same words again and again: a look-up is all that most cost."""
    if len(word) < 2 or word in _NOT_CONTENT or word in _NUMBER_WORDS or word[0].isdigit():
        return ""
    return _OPPOSITES.get(word, word)[:STEM_CHARS]


def _sentence(piece: str) -> Sentence:
    lower = piece.lower()
    words = words_of(lower)
    numbers = {_NUMBER_WORDS[word] for word in _NUMBER_WORDS.keys() & set(words)}
    numbers.update(number.translate(_SEPARATORS) for number in _NUMBER.findall(piece))
    names = frozenset(name.lower()[:STEM_CHARS] for name in _NAME.findall(piece))
    clauses = tuple(map(_clause, _CLAUSE.split(lower)))
    stems = clauses[0].stems if len(clauses) == 1 else stems_of(words)
    return Sentence(stems, frozenset(numbers), names, clauses, tuple(words))


_SEPARATORS = str.maketrans("", "", ".,:")


def _clause(lower: str) -> Clause:
    words = words_of(lower)
    denials = lower.count("n't") + lower.count("n’t")
    if not _DENYING.isdisjoint(words):
        denials += sum(word in _DENYING for word in words)
        if "ne" in words and ("pas" in words or "jamais" in words):
            denials -= 1   # French denies once with two words
    return Clause(stems_of(words), denials % 2 == 1)
