"""Pulls facts out of a prompt by pattern: e-mail addresses, dates, numbers, names, links and labelled values."""

import re
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from services.simulator.arithmetic import Number, find_arithmetic
from services.simulator.languages import Language, language_of, salient, word_set, words_of

_READ_CHARS = 200_000
_EMAIL = re.compile(r"[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_URL = re.compile(r"https?://[^\s<>\"')]{1,200}")
_PHONE = re.compile(r"(?<!\w)\+?\d[\d ()/-]{6,18}\d(?!\w)")
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:[.,]\d{1,6})?(?![\w@])")
_NAME = re.compile(r"\b[A-ZÄÖÜÉ][a-zäöüßéèñçáíóú]{1,30}(?: [A-ZÄÖÜÉ][a-zäöüßéèñçáíóú'-]{1,30}){1,2}\b")
_PROPER = re.compile(r"(?<=[a-z,;:0-9] )[A-ZÄÖÜÉ][a-zäöüßéèñçáíóú]{2,30}\b")
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DOTTED = re.compile(r"\b(\d{1,2})[./](\d{1,2})[./](\d{4})\b")
# fmt: off
_MONTHS = ("january", "february", "march", "april", "may", "june",
           "july", "august", "september", "october", "november", "december")
# fmt: on
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in _MONTHS)
_DAY_MONTH = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})\.?,? (\d{{4}})\b", re.IGNORECASE)
_MONTH_DAY = re.compile(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\S)[^.!?\n]*)*[.!?]*")
_COMMANDS = word_set("extract return give please find get use answer reply summarise summarize write call")


@dataclass(frozen=True)
class Facts:
    """What a text says, looked up only when asked."""

    text: str

    @cached_property
    def source(self) -> str:
        return self.text[:_READ_CHARS]

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def language(self) -> Language:
        return language_of(self.words)

    @cached_property
    def salient(self) -> list[str]:
        return salient(self.words, self.language)

    @cached_property
    def computed(self) -> tuple[str, Number] | None:
        return find_arithmetic(self.text.lower())

    @cached_property
    def emails(self) -> list[str]:
        return _once(_EMAIL.findall(self.source))

    @cached_property
    def urls(self) -> list[str]:
        return _once(_URL.findall(self.source))

    @cached_property
    def phones(self) -> list[str]:
        return _once([hit for hit in _PHONE.findall(self.source) if not _ISO.fullmatch(hit)])

    @cached_property
    def numbers(self) -> list[float]:
        text = self.source
        for pattern in (_ISO, _DOTTED, _DAY_MONTH, _MONTH_DAY):
            text = pattern.sub(" ", text)
        return [float(hit.replace(",", ".")) for hit in _NUMBER.findall(text)]

    @cached_property
    def dates(self) -> list[str]:
        """ISO dates, in order of appearance."""
        found = [(hit.start(), (hit[1], hit[2], hit[3])) for hit in _ISO.finditer(self.source)]
        found += [(hit.start(), (hit[3], hit[2], hit[1])) for hit in _DOTTED.finditer(self.source)]
        found += [(hit.start(), (hit[3], _month(hit[2]), hit[1])) for hit in _DAY_MONTH.finditer(self.source)]
        found += [(hit.start(), (hit[3], _month(hit[1]), hit[2])) for hit in _MONTH_DAY.finditer(self.source)]
        return _once([day for _, (y, m, d) in sorted(found) if (day := _iso(y, m, d))])

    @cached_property
    def names(self) -> list[str]:
        """Two or three capitalised words in a row, a command at the start of a sentence left out."""
        hits = [" ".join(w for w in hit.split() if w.lower() not in _COMMANDS) for hit in _NAME.findall(self.source)]
        return _once([hit for hit in hits if hit])

    @cached_property
    def proper(self) -> list[str]:
        """Capitalised words inside sentences: places, products, first names."""
        named = {word for name in self.names for word in name.split()}
        return _once([word for word in _PROPER.findall(self.source) if word not in named])

    @cached_property
    def sentences(self) -> list[str]:
        return [hit.strip() for hit in _SENTENCE.findall(self.source) if hit.strip()]

    def labelled(self, label: str, value: str) -> str | None:
        """What follows a label in the text: `name: Ada`, `age is 42`, `total of 19.90`. `value` is a pattern."""
        spaced = re.escape(label.replace("_", " ")).replace("\\ ", r"[\s_-]")
        found = re.search(rf"\b{spaced}\b\s*(?:is|was|ist|est|es|of|=|:)\s*({value})", self.source, re.IGNORECASE)
        return found[1].strip() if found else None


def _once(hits: list[str]) -> list[str]:
    return list(dict.fromkeys(hits))


def _iso(year: str, month: str, day: str) -> str:
    """The date as ISO 8601, or nothing if there is no such day."""
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return ""


def _month(name: str) -> str:
    return str(next(i for i, month in enumerate(_MONTHS, 1) if month.startswith(name[:3].lower())))
