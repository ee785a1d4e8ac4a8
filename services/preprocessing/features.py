"""Turns a chat into what can be seen in it without a model: tokens, needs, language, domain, complexity. Pure.

Everything here is an estimate and costs microseconds: bytes are counted in C, words are read only at the beginning and
at the end of the last user message.
"""

import re
from typing import Any

from schemas.messages import Chat, Features
from services.preprocessing.subjects import SUBJECTS, SUBJECTS_OF
from services.preprocessing.words import (
    HARD_WORDS,
    LANGUAGES_OF,
    ORDERS,
    PUNCTUATION,
    SCRIPTS,
    STOP_WORDS,
    STRONG_CUES,
    WEIGHT_OF,
)
from shared.tokens import needs_of, texts_of, tokens_in, tokens_out_max

_TOKENS_OUT = {"code": 600, "maths": 500, "summarisation": 250, "extraction": 150}
_TOKENS_OUT_ELSE = 300
_DOMAIN_COMPLEXITY = {"maths": 0.30, "code": 0.25, "extraction": 0.05, "translation": 0.05}

_HEAD_CHARS, _TAIL_CHARS, _SYSTEM_CHARS, _LANGUAGE_CHARS = 2_000, 500, 300, 500
_ORDER_WORDS = 8
_DIGITS = "0123456789"
_FORMULA = re.compile(r"[\dx)](?: ?[+*^=×÷] ?| [-/] )[-(]?\d")
_NOT_LATIN = re.compile(r"[\u0370-\U0010ffff]")


def features(chat: Chat) -> Features:
    """What the router decides by. Token counts are estimates; see `shared/tokens.py` for how far off they may be."""
    question, system = _question(chat.messages)
    words = words_of(_probe(question, system))
    distinct = set(words)
    domain = _domain(words, distinct, question[:_HEAD_CHARS])
    tokens, tokens_earlier = tokens_in(chat)
    expected = tokens if domain == "translation" else _TOKENS_OUT.get(domain, _TOKENS_OUT_ELSE)
    allowed = tokens_out_max(chat)
    needs = needs_of(chat)
    return Features(
        tokens_in=tokens,
        tokens_out=min(expected, allowed),
        tokens_out_max=allowed,
        needs=needs,
        language=_language(question[:_LANGUAGE_CHARS], words),
        domain=domain,
        tokens_earlier=tokens_earlier,
        complexity=complexity(domain, tokens, distinct, len(chat.messages), len(needs)),
    )


def complexity(domain: str, tokens_in: int, words: set[str], messages: int, needs: int) -> float:
    """A first guess in [0, 1], a sum of what tends to make a task hard; each part is capped, so no text can force 1.

    0.10  + domain (maths 0.30, code 0.25, extraction and translation 0.05, else 0)
          + 0.08 per different word that asks for reasoning (why, prove, compare …), at most 0.24
          + 0.20 · tokens_in / 4,000, at most 0.20
          + 0.03 per earlier message, at most 0.12   + 0.05 per needed capability, at most 0.10
    """
    reasoning = len(words & HARD_WORDS)
    value = (
        0.10
        + _DOMAIN_COMPLEXITY.get(domain, 0.0)
        + min(0.24, 0.08 * reasoning)
        + min(0.20, 0.20 * tokens_in / 4_000)
        + min(0.12, 0.03 * max(0, messages - 1))
        + min(0.10, 0.05 * needs)
    )
    return round(min(1.0, value), 3)


def _question(messages: tuple[dict[str, Any], ...]) -> tuple[str, str]:
    """Text of the last user message and of the first system message."""
    question = next((" ".join(texts_of(message)) for message in reversed(messages) if message["role"] == "user"), "")
    system = next((" ".join(texts_of(message)) for message in messages if message["role"] == "system"), "")
    return question, system


def _probe(question: str, system: str) -> str:
    """Where people say what they want: the beginning and the end of a message, and the beginning of the system text."""
    if len(question) > _HEAD_CHARS + _TAIL_CHARS:
        question = f"{question[:_HEAD_CHARS]} {question[-_TAIL_CHARS:]}"
    return f"{question} {system[:_SYSTEM_CHARS]}"


def words_of(text: str) -> list[str]:
    """The words of a text in lower case. Replacing runs in C: a third of what a regular expression takes."""
    text = text.lower()
    for mark in PUNCTUATION:
        if mark in text:
            text = text.replace(mark, " ")
    return text.split()


def _domain(words: list[str], distinct: set[str], head: str) -> str:
    """What is to be done where the first words say it; else the task or subject with the most votes, at least two; else chat.

    A fence, a formula, a sum asked for count two. Ties: earlier row, tasks before subjects.
    """
    for word in words[:_ORDER_WORDS]:
        if word in ORDERS:
            return ORDERS[word]
    votes = dict.fromkeys(STRONG_CUES, 0)
    for word in distinct & WEIGHT_OF.keys():
        domain, weight = WEIGHT_OF[word]
        votes[domain] += weight
    if "```" in head or "def " in head or "();" in head or {"write", "function"} <= distinct:
        votes["code"] += 2
    if any(digit in head for digit in _DIGITS) and (
        _FORMULA.search(head) or ("how" in distinct and distinct & {"many", "much"})
    ):
        votes["maths"] += 2
    subjects = dict.fromkeys(SUBJECTS, 0)
    for word in distinct & SUBJECTS_OF.keys():
        for subject in SUBJECTS_OF[word]:
            subjects[subject] += 1
    votes |= subjects
    best = max(votes, key=votes.__getitem__)
    return best if votes[best] >= 2 else "chat"


def _language(head: str, words: list[str]) -> str:
    """The script where it tells the language, else the stop words of the beginning; English in doubt."""
    if not head.isascii() and _NOT_LATIN.search(head):
        counts = {code: len(pattern.findall(head)) for code, pattern in SCRIPTS}
        if counts["ja"]:  # Japanese mixes kana with the characters of Chinese
            return "ja"
        best = max(counts, key=counts.__getitem__)
        if counts[best] * 3 >= len(head):
            return best
    votes = dict.fromkeys(STOP_WORDS, 0)
    for word in set(words[:100]) & LANGUAGES_OF.keys():
        for code in LANGUAGES_OF[word]:
            votes[code] += 1
    return max(votes, key=votes.__getitem__)
