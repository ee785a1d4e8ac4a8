"""Whether what an answer cites is in what it was given: numbered sources, named documents, addresses. Pure, linear.

A kind of citation is judged only where the prompt has sources of that kind; else nothing can be known, and it passes.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

_GIVEN = re.compile(r"\[\^?(\d{1,3})\]")
_CITED = re.compile(r"(?<!\w)\[\^?(\d{1,3}(?:\s?[,–-]\s?\d{1,3}){0,20})\]|【(\d{1,3})[^】\n]{0,20}】")
_RANGE = re.compile(r"(\d{1,3})\s?[–-]\s?(\d{1,3})")
_NUMBER = re.compile(r"\d{1,3}")
_DOCUMENT = re.compile(r"\b([A-Za-z]{2,20})-(\d{1,6})\b")
_ADDRESS = re.compile(r"https?://[^\s<>\"')\]]{1,500}")
_SOURCE_WORDS = frozenset(("doc", "source", "ref", "page", "section", "document", "chunk", "passage", "article", "ticket"))


def absent_citation(subject: Subject, spec: CheckSpec) -> str | None:
    text = subject.prose
    if "[" in text or "【" in text:
        given = {int(number) for number in _GIVEN.findall(subject.prompt)}
        if given and any(number not in given for number in _cited(text, given)):
            return "cites a number that no source has"
    if "-" in text and not _documents(text, _families(subject.prompt)) <= _documents(subject.prompt):
        return "cites a document that was not given"
    if "://" in text:
        known = {_bare(address) for address in _ADDRESS.findall(subject.prompt)}
        if known and any(_bare(address) not in known for address in _ADDRESS.findall(text)):
            return "gives an address that no source has"
    return None


def _cited(text: str, given: set[int]) -> set[int]:
    """The numbers that a text cites. Several in one bracket are a plain list where one is 0, comes twice, or, of three and
    more, none is a source's."""
    numbers: set[int] = set()
    for listed, single in _CITED.findall(text):
        listing = list(map(int, _NUMBER.findall(listed or single)))
        here = set(listing)
        is_plain = len(listing) > 1 and (0 in here or len(here) < len(listing))
        for first, last in _RANGE.findall(listed):
            here.update(range(int(first), int(last) + 1))
        if not is_plain and (len(listing) < 3 or here & given):
            numbers |= here
    return numbers


def _families(prompt: str) -> frozenset[str]:
    """Words by which the prompt numbers its documents: `doc` of doc-7."""
    return frozenset(word.lower() for word, _ in _DOCUMENT.findall(prompt)) & _SOURCE_WORDS


def _documents(text: str, families: frozenset[str] = _SOURCE_WORDS) -> set[tuple[str, str]]:
    return {(word.lower(), number) for word, number in _DOCUMENT.findall(text) if word.lower() in families} if families else set()


def _bare(address: str) -> str:
    return address.rstrip(".,;:!?)*_/").lower()
