"""Whether an answer is in the language it should be in: by script, and by the small words that every sentence has. Pure.

What has no language passes: numbers, names, code, quotations, and texts too short to tell.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.small_words import SMALL_WORDS
from services.quality_gate.subject import Subject, words_of

CHARS_MAX = 300
"""The beginning tells the language; the rest costs time."""
VOTES_MIN = 1.2
SHARE_MIN = 0.6
"""Of the votes of the language with the most: sister languages share many words, a good answer leads or nearly does."""

_LETTERS_OF = {
    "de": "ßäöü", "es": "ñ¿¡", "fr": "çèêœàùé", "pt": "ãõç", "pl": "łąęśżźćń", "it": "ìòàù", "nl": "", "en": "",
}
_LANGUAGES_OF: dict[str, dict[str, float]] = {}
for _code, _words in SMALL_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF.setdefault(_word, {})[_code] = 0.0
for _shares in _LANGUAGES_OF.values():
    for _code in _shares:
        _shares[_code] = 1 / len(_shares)

_SCRIPT_OF = {
    "ru": re.compile("[\u0400-\u04ff]"),
    "ja": re.compile("[\u3040-\u30ff\u4e00-\u9fff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
}
_KANA = re.compile("[\u3040-\u30ff]")
_CHINESE = re.compile(
    "[是的了我你您她很們们這这嗎吗没沒麽麼么让說说對对给從从为过时发發电见长门问间语话谢谁经經样应應该认议论设证识點來學變當體實關與於]"
)
"""Small words of Chinese, and characters that Japan writes otherwise: an address, which has no kana, has none of them."""
_NOT_LATIN = re.compile("[\u0370-\u1cff\u3040-\ud7ff]")
_QUOTED = re.compile(r"[\"“„«»”][^\"“„«»”\n]{1,200}[\"“”»«]")
_QUOTES = "\"“„«»”"
_WORD = re.compile(r"[^\W\d_]+")
_LATIN_WORDS_MIN = 4


def foreign(subject: Subject, spec: CheckSpec) -> str | None:
    if spec.language is not None:
        language = spec.language
    else:
        features = subject.task.features
        language = features.language if features else ""
    if not language or subject.answer.tool_calls:
        return None
    text = subject.prose[:CHARS_MAX]
    if any(quote in text for quote in _QUOTES):
        text = _QUOTED.sub(" ", text)
    wrong = _off_script(text, language) if language in _SCRIPT_OF else _off_words(text, language)
    return f"does not read as {language}" if wrong else None


def _off_script(text: str, language: str) -> bool:
    own = len(_SCRIPT_OF[language].findall(text))
    letters = sum(map(len, _WORD.findall(text)))
    if language == "zh" and len(_KANA.findall(text)) * 10 > own:
        return True
    if language == "ja" and own >= 8 and not _KANA.search(text) and _CHINESE.search(text):
        return True
    if own * 5 >= letters:
        return False
    latin = sum(1 for word in _WORD.findall(text) if word.isascii())
    foreign_script = len(_NOT_LATIN.findall(text)) - own
    return latin >= _LATIN_WORDS_MIN or foreign_script >= _LATIN_WORDS_MIN


def _off_words(text: str, language: str) -> bool:
    if not text.isascii():
        letters = sum(map(len, _WORD.findall(text)))
        if letters >= _LATIN_WORDS_MIN and len(_NOT_LATIN.findall(text)) * 3 > letters:
            return True
    if language not in SMALL_WORDS:
        return False
    votes = _votes(text.lower())
    best = max(votes.values())
    return best >= VOTES_MIN and votes[language] < SHARE_MIN * best


def _votes(lower: str) -> dict[str, float]:
    votes = dict.fromkeys(SMALL_WORDS, 0.0)
    for word in _LANGUAGES_OF.keys() & set(words_of(lower)):
        for code, share in _LANGUAGES_OF[word].items():
            votes[code] += share
    if not lower.isascii():
        for code, letters in _LETTERS_OF.items():
            votes[code] += 0.5 * sum(map(lower.count, letters))
    return votes
