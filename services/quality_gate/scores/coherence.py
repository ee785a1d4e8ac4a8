"""Coherence: whether sentences hang together and are sentences at all. Pure; of one plain sentence nothing can be known.

The value is the share of sentences that refer to an earlier one (a shared word, a pronoun, a connective), times factors for
word salad (small words in orders that no language has), stutter, and a sentence that denies another.
"""

from collections.abc import Sequence
from itertools import pairwise

from services.quality_gate.scores.given import Given
from services.quality_gate.scores.words import Sentence, sentences_of

VERSION = 1
BACK = 3
"""Sentences back that one may refer to."""

_REFERS_WORDS = (
    "it its this that these those they them their he she his her then there therefore thus so because since after before next "
    "finally first second third also however but and when if both either such here former latter instead otherwise "
    "dies diese dieser dieses sie er es ihn ihm danach dann deshalb daher denn aber zuerst schließlich dagegen dabei damit darum "
    "este esta esto ese eso él ella luego después entonces por porque además primero finalmente "
    "ce cette ces il elle ils elles ensuite puis donc car mais enfin premièrement ainsi lui leur"
)
_REFERS = frozenset(_REFERS_WORDS.split())
_ARTICLE_WORDS = "the a an der die das ein eine el la los las un una le les une"
_PREPOSITION_WORDS = "of to in on at for with from by into under von zu mit für auf de del para por con en dans pour avec sur"
_CONJUNCTION_WORDS = "and or but because und oder aber weil y o pero porque et ou mais"
_ARTICLES = frozenset(_ARTICLE_WORDS.split())
_PREPOSITIONS = frozenset(_PREPOSITION_WORDS.split())
_CONJUNCTIONS = frozenset(_CONJUNCTION_WORDS.split())
_STUTTER_MIN = 0.05


def coherence(text: str, given: Given) -> tuple[float | None, str]:
    """A value in [0, 1], or None where nothing can be known; and why."""
    sentences = sentences_of(text)
    if not sentences:
        return None, "no sentence"
    salad, stutter = _salad(sentences), _stutter(sentences)
    links = [_is_linked(sentences, at) for at in range(1, len(sentences))]
    if not links and salad < 0.1 and stutter < _STUTTER_MIN:
        return None, "one sentence hangs together by itself"
    linked = sum(links) / len(links) if links else 1.0
    denied = _denies_itself(sentences)
    value = linked * max(0.0, 1 - 4 * salad) * max(0.0, 1 - 2 * stutter) * (0.4 if denied else 1.0)
    return round(value, 3), _why(linked, salad, stutter, denied)


def _why(linked: float, salad: float, stutter: float, denied: bool) -> str:
    found = [
        "sentences do not refer to each other" if linked < 0.5 else "",
        "small words in orders that no language has" if salad >= 0.1 else "",
        "words are repeated" if stutter >= _STUTTER_MIN else "",
        "a sentence denies another" if denied else "",
    ]
    return "; ".join(reason for reason in found if reason)


def _is_linked(sentences: Sequence[Sentence], at: int) -> bool:
    here = sentences[at]
    earlier = sentences[max(0, at - BACK) : at]
    return any(here.stems & other.stems or here.numbers & other.numbers for other in earlier) or any(
        word in _REFERS for word in here.words
    )


def _salad(sentences: Sequence[Sentence]) -> float:
    """Impossible pairs over words: an article before a small word, a small word at the end of a sentence."""
    pairs = words = 0
    for sentence in sentences:
        words += len(sentence.words)
        for first, second in pairwise(sentence.words):
            pairs += first in _ARTICLES and (second in _ARTICLES or second in _PREPOSITIONS or second in _CONJUNCTIONS)
            pairs += first in _PREPOSITIONS and second in _CONJUNCTIONS
        pairs += sentence.words[-1] in _ARTICLES or sentence.words[-1] in _CONJUNCTIONS
    return pairs / words


def _stutter(sentences: Sequence[Sentence]) -> float:
    words = [word for sentence in sentences for word in sentence.words]
    repeats = sum(first == second for first, second in pairwise(words))
    return repeats / len(words)


def _denies_itself(sentences: Sequence[Sentence]) -> bool:
    """Two clauses with the same content words, two at least, of which one denies. Only neighbours are compared."""
    clauses = [clause for sentence in sentences for clause in sentence.clauses if clause.stems]
    return any(
        first.stems == second.stems and first.is_negative != second.is_negative
        for at, first in enumerate(clauses)
        for second in clauses[at + 1 : at + 1 + BACK]
    )
