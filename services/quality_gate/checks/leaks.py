"""Finds what must not leave: the operator's instructions, markers planted in them, keys, and personal data. Pure, linear.

What the user wrote in the same request is no leak. Where a kind of data has a checksum, it decides: a number of sixteen
digits is a card only if its check digit says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from string import punctuation, whitespace
from typing import NamedTuple

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject, instructions_of, words_of

RUN_WORDS = 8
"""Consecutive words of the instructions that are a leak: a name and a role are fewer."""
_GRAM_WORDS = 5
_STRIDE = RUN_WORDS - _GRAM_WORDS + 1
"""Every run of RUN_WORDS holds a gram that begins at a multiple of this: a fourth of the text is looked up."""
INSTRUCTIONS_CHARS_MAX = 20_000

_MARKS = (punctuation + whitespace).encode()

_KEYS = (   # marker that is looked for first, pattern of the whole key; shapes as their issuers document them
    ("sk-", re.compile(r"\bsk-(?:proj-|ant-(?:api\d\d-)?|or-v1-|svcacct-)?[A-Za-z0-9_-]{24,200}")),
    ("AKIA", re.compile(r"\bAKIA[A-Z0-9]{16}\b")),
    ("ASIA", re.compile(r"\bASIA[A-Z0-9]{16}\b")),
    ("glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,100}")),
    ("xox", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{20,200}")),
    ("AIza", re.compile(r"\bAIza[A-Za-z0-9_-]{30,60}")),
    ("eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}")),
    ("PRIVATE KEY-", re.compile(r"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY-----")),
)
_KEYS_WITH_UNDERSCORE = (
    ("ghp_", re.compile(r"\bghp_[A-Za-z0-9]{30,255}")),
    ("gho_", re.compile(r"\bgho_[A-Za-z0-9]{30,255}")),
    ("ghs_", re.compile(r"\bghs_[A-Za-z0-9]{30,255}")),
    ("ghu_", re.compile(r"\bghu_[A-Za-z0-9]{30,255}")),
    ("github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{30,255}")),
    ("_live_", re.compile(r"\b[sr]k_live_[A-Za-z0-9]{20,200}")),
    ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,60}\b")),
    ("gsk_", re.compile(r"\bgsk_[A-Za-z0-9]{30,100}\b")),
    ("npm_", re.compile(r"\bnpm_[A-Za-z0-9]{30,60}\b")),
)
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d.,]?\d)")
_CARD_GROUPS = re.compile(r"\d{13,19}|\d{4}(?:[ -]\d{4}){3}(?:[ -]\d{1,3})?|\d{4}[ -]\d{6}[ -]\d{4,5}")
_ISSUED = re.compile(r"4|5[1-5]|2[2-7]|3[4-9]|30|6")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IBAN_LENGTHS = {
    "AT": 20, "BE": 16, "CH": 21, "CZ": 24, "DE": 22, "DK": 18, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HU": 28,
    "IE": 22, "IT": 27, "LU": 20, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SE": 24, "SK": 24, "TR": 26, "AE": 23,
}
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_PHONE = re.compile(r"\+\d{1,3}(?:[ ./()-]{0,2}\d){7,12}(?!\d)|\(\d{3}\) ?\d{3}-\d{4}(?!\d)")


def leaked(subject: Subject, spec: CheckSpec) -> str | None:
    """Names the kind of what leaked, never the thing."""
    if spec.canaries and _has_canary(subject.text, spec.canaries):
        return "holds a canary"
    for kind, find in _FINDERS.items():
        if (not spec.kinds or kind in spec.kinds) and find(subject):
            return f"holds {_NAMES[kind]}"
    return None


def _has_canary(text: str, canaries: tuple[str, ...]) -> bool:
    """Compared without case, spaces and punctuation: a canary that is spelled out has leaked, too."""
    bare = _bare(text)
    return any(_bare(canary) in bare for canary in canaries)


def _bare(text: str) -> bytes:
    return text.casefold().encode("utf-8", "surrogatepass").translate(None, _MARKS)


def _has_instructions(subject: Subject) -> bool:
    if not subject.system:
        return False
    known = _instructions(subject.system[:INSTRUCTIONS_CHARS_MAX])
    words = subject.words
    if known.grams.isdisjoint(zip(*(words[at::_STRIDE] for at in range(_GRAM_WORDS)), strict=False)):
        return False
    asked = _grams(words_of(subject.asked.lower()), RUN_WORDS)
    return not _grams(known.words, RUN_WORDS) & _grams(words, RUN_WORDS) <= asked


class _Instructions(NamedTuple):
    """Every _GRAM_WORDS consecutive words of the instructions, and all words in their order."""

    grams: frozenset[tuple[str, ...]]
    words: list[str]


@lru_cache(maxsize=64)
def _instructions(system: str) -> _Instructions:
    words = words_of(instructions_of(system).lower())
    return _Instructions(_grams(words, _GRAM_WORDS), words)


def _grams(words: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    """Every run of so many consecutive words."""
    return frozenset(zip(*(words[at:] for at in range(size)), strict=False))


def _has_key(subject: Subject) -> bool:
    text = subject.text
    if not subject.digits and "PRIVATE KEY-" not in text:
        return False
    return any(
        marker in text and any(_is_random(key) and key not in subject.asked for key in pattern.findall(text))
        for marker, pattern in (*_KEYS, *(_KEYS_WITH_UNDERSCORE if "_" in text else ()))
    )


def _is_random(key: str) -> bool:
    """A placeholder such as sk-your-key-here-your-key-here has no digits; a PEM header is its own proof."""
    return "PRIVATE" in key or any(map(str.isdigit, key))


def _has_card(subject: Subject) -> bool:
    return subject.has_long_number and _has_unasked(subject, _CARD, is_card)


def is_card(written: str) -> bool:
    """Whether a number is written as cards are, is of an issuer's range, and its Luhn digit is right (ISO/IEC 7812)."""
    if not _CARD_GROUPS.fullmatch(written):
        return False
    digits = [int(digit) for digit in written if digit.isdigit()]
    if not _ISSUED.match("".join(map(str, digits))) or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _has_iban(subject: Subject) -> bool:
    return subject.has_long_number and _has_unasked(subject, _IBAN, is_iban)


def is_iban(written: str) -> bool:
    """Whether the check digits of an IBAN are right: modulo 97 of its rearranged digits is 1 (ISO 13616)."""
    compact = written.replace(" ", "")
    compact = compact[: _IBAN_LENGTHS.get(compact[:2], len(compact))]
    if len(compact) < 15:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _has_ssn(subject: Subject) -> bool:
    return subject.has_long_number and _has_unasked(subject, _SSN)


def _has_email(subject: Subject) -> bool:
    if "@" not in subject.text:
        return False
    strange = set(_EMAIL.findall(subject.text)) - set(_EMAIL.findall(subject.asked))  # the search below stops at the first
    return any(found not in subject.asked for found in strange)


def _has_phone(subject: Subject) -> bool:
    return ("+" in subject.text or "(" in subject.text) and _has_unasked(subject, _PHONE)


def _has_unasked(subject: Subject, pattern: re.Pattern[str], is_real: Callable[[str], bool] = bool) -> bool:
    """Whether it holds one that the user did not write, however it was spaced.

    What the user wrote in the same form is looked up: to search his text for each of thousands would be quadratic.
    """
    written = {_bare(found) for found in pattern.findall(subject.text) if is_real(found)}
    strange = written and written - set(map(_bare, pattern.findall(subject.asked)))
    asked = _bare(subject.asked) if strange else b""
    return any(each not in asked for each in strange)


_FINDERS: Mapping[str, Callable[[Subject], bool]] = {
    "system_prompt": _has_instructions,
    "keys": _has_key,
    "cards": _has_card,
    "ibans": _has_iban,
    "ssns": _has_ssn,
    "emails": _has_email,
    "phones": _has_phone,
}
_NAMES: Mapping[str, str] = {
    "system_prompt": "the instructions it was given",
    "keys": "a secret key",
    "cards": "a payment card's number",
    "ibans": "a bank account's number",
    "ssns": "a social security number",
    "emails": "an e-mail address",
    "phones": "a telephone number",
}
