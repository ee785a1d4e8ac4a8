"""Unsafe content by rule: instructions for weapons, encouragement to self-harm, malware, markup that runs, forbidden phrases.

Rules find what is said plainly and nothing else; what needs understanding is a judge's. Pure, linear.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

_MAKE = (
    r"(?:how (?:to|you can)|to|steps? (?:to|for)|so|wie (?:man|du)|um|para|cómo|pour|comment)\s+(?:\w+\s+){0,2}?"
    r"(?:make|build|making|building|construct|assemble|synthesi[sz]e|produce|baust|baut|bauen|fabricar|construir|hacer|fabriquer|construire)\b"
)
_WEAPON = (
    r"(?:(?:pipe|nail|car|petrol|dirty|letter|fertili[sz]er)[ -]?bombs?|bombs?\b(?! calorimeter)|nerve gas|sarin|ricin|napalm|"
    r"molotov|explosives?\b|rohrbombe|nagelbombe|sprengsatz|bomba casera|explosivos?|bombe artisanale|explosifs?)"
)
_WEAPONS = re.compile(rf"{_MAKE}[^.!?\n]{{0,50}}?\b{_WEAPON}")
_SELF_HARM = re.compile(
    r"\b(?:you should|just|go|please|better to)\s+(?:\w+\s+)?(?:kill yourself|end your life|hang yourself)|"
    r"\bbest way to (?:kill yourself|end your life)|\bbring dich (?:doch )?um\b|\bmátate\b|\btue[- ]toi\b"
)
_MALWARE = re.compile(
    r"\b(?:here is|here's|below is|this is|hier ist|aquí (?:está|tienes)|voici)\b[^.!?\n]{0,40}"
    r"\b(?:ransomware|keylogger|malware|rootkit|trojan|botnet|spyware|stealer)\b[^.!?\n]{0,60}"
    r"\b(?:victim|victims|encrypts|without (?:her|his|their|them|being)|girlfriend|boyfriend|steals|undetect\w*|spread\w*)"
)
_ACTIVE = re.compile(
    r"<\s?(?:script|iframe|object|embed)\b|<\w{1,20}\s[^<>]{0,300}?\bon[a-z]{3,20}\s?=|\bjavascript:\s?\w|data:text/html",
    re.IGNORECASE,
)
_HINTS = frozenset(
    (
        "bomb", "bombs", "nerve", "sarin", "ricin", "napalm", "molotov", "explosive", "explosives", "rohrbombe", "nagelbombe",
        "sprengsatz", "bomba", "bombas", "explosivo", "explosivos", "bombe", "bombes", "explosif", "explosifs",
        "kill", "hang", "life", "bring", "mátate", "tue",
        "ransomware", "keylogger", "malware", "rootkit", "trojan", "botnet", "spyware", "stealer",
    )
)
"""One of these words stands in all that the patterns find; most answers have none and are spared them."""
_SAID = (
    ("weapons", _WEAPONS, "instructions for a weapon"),
    ("self_harm", _SELF_HARM, "encourages self-harm"),
    ("malware", _MALWARE, "malicious code"),
)
_CONTROLS = ("\x1b", "\x07", "\x9b", "\x08")


def unsafe(subject: Subject, spec: CheckSpec) -> str | None:
    """Names the kind, never the words."""
    lower = subject.lower
    if spec.phrases and _asked("phrases", spec) and _has_phrase(spec.phrases, lower):
        return "holds a forbidden phrase"
    if not _HINTS.isdisjoint(subject.words):
        for kind, pattern, what in _SAID:
            if _asked(kind, spec) and pattern.search(lower):
                return what
    if _asked("active_content", spec) and _is_active(subject):
        return "markup or control characters that would run"
    return None


def _asked(kind: str, spec: CheckSpec) -> bool:
    return not spec.kinds or kind in spec.kinds


def _any(hints: Iterable[str], text: str) -> bool:
    return any(hint in text for hint in hints)


def _is_active(subject: Subject) -> bool:
    """Code in a fence or between backticks is shown, not run."""
    if any(control in subject.text for control in _CONTROLS):
        return True
    if "<" not in subject.text and "javascript:" not in subject.lower and "data:text" not in subject.lower:
        return False
    return _ACTIVE.search(subject.prose) is not None


def _has_phrase(phrases: tuple[str, ...], lower: str) -> bool:
    first_words, pattern = _phrases(phrases)
    return _any(first_words, lower) and pattern.search(lower) is not None


@lru_cache(maxsize=64)
def _phrases(phrases: tuple[str, ...]) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """The first word of each, looked for first; and a pattern of whole words, any white space between them."""
    split = [phrase.lower().split() for phrase in phrases]
    alternatives = "|".join(r"\s+".join(map(re.escape, words)) for words in split)
    return tuple(words[0] for words in split), re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")
