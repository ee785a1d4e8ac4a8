"""Whether an answer is in the language it should be in: by script, and by the small words that every sentence has. Pure.

What has no language passes: numbers, names, code, quotations, and texts too short to tell.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.checks.subject import Subject, words_of

CHARS_MAX = 300
"""The beginning tells the language; the rest costs time."""
VOTES_MIN = 2.0
SHARE_MIN = 0.6
"""Of the votes of the language with the most: sister languages share many words, a good answer leads or nearly does."""

_SMALL_WORDS = {
    "en": "the of and to is in that it for you with this are what how be on at by from not was have has we they which would your",
    "de": "der die das und ist nicht ein eine zu den mit von wie ich sie auf für im dem es werden kann auch bei um aus wir sich",
    "es": "el la los las de que y en un una es por con para se del no su lo más esta al como sale fue está son pero",
    "fr": "le la les des et est un une pour que qui dans ce il je vous sur avec pas au du plus en ne à se par ou sont nous",
    "it": "il lo gli di che e è un una per con non sono della del più questo nel alla dalle anche in si alle dei delle ma",
    "pt": "o os as de que e um uma para com não por do da em mais como você na no ao foi está às à dos das é sim",
    "nl": "de het een van en is dat niet op te zijn voor met wat hoe ik aan er ook maar wordt om uur in die deze komt",
    "pl": "i w nie na się z do jest to że jak co czy dla od oraz przez są ale o ze po który nie przed",
}
_LETTERS_OF = {
    "de": "ßäöü", "es": "ñ¿¡", "fr": "çèêœàù", "pt": "ãõç", "pl": "łąęśżźćń", "it": "ìòàù", "nl": "", "en": "",
}
_LANGUAGES_OF: dict[str, dict[str, float]] = {}
for _code, _words in _SMALL_WORDS.items():
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
    if language == "ja" and own >= 8 and not _KANA.search(text):
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
    if language not in _SMALL_WORDS:
        return False
    votes = _votes(text.lower())
    best = max(votes.values())
    return best >= VOTES_MIN and votes[language] < SHARE_MIN * best


def _votes(lower: str) -> dict[str, float]:
    votes = dict.fromkeys(_SMALL_WORDS, 0.0)
    for word in _LANGUAGES_OF.keys() & set(words_of(lower)):
        for code, share in _LANGUAGES_OF[word].items():
            votes[code] += share
    if not lower.isascii():
        for code, letters in _LETTERS_OF.items():
            votes[code] += 0.5 * sum(map(lower.count, letters))
    return votes
