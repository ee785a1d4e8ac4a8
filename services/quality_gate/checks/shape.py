"""Checks of an answer's shape: is there one, is it whole, as long as asked, of the asked-for form. Pure, linear in its length."""

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from string import punctuation

import jsonschema_rs

from schemas.checks import CheckSpec, whole_match
from schemas.messages import Answer, Task
from services.quality_gate.subject import Subject

_INVISIBLE = " \t\r\n\v\f\u00a0\u2003\u200b\u200c\u200d\u2060\ufeff"
_EMPTY_FENCE = re.compile(r"(?:```|~~~)[\w-]*\s*(?:```|~~~)")
_THOUGHTS_END = "</think>"

_EMPHASIS = " \t\r\n*_`\"'“”„«»"
_NUMBER = re.compile(
    r"[-+−]?(?:(?P<thousands>[1-9]\d{0,2}(?:,\d{3})+(?:\.\d{1,30})?)|\d{1,30}(?:[.,]\d{1,30})?|\.\d{1,30})"
    r"(?:[eE][-+−]?\d{1,3})?\s?%?\.?",
    re.ASCII,
)
_MARKS = punctuation.encode()
_NOT_ASCII_MARKS = re.compile("[–—…·•’“”„«»、。，！？：；「」]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def empty(subject: Subject, spec: CheckSpec) -> str | None:
    if subject.answer.tool_calls:
        return None
    text = subject.text.strip(_INVISIBLE)
    if text.startswith("<think>"):
        text = text.partition(_THOUGHTS_END)[2].strip(_INVISIBLE)
        return None if text else "thoughts, and no answer after them"
    if not text:
        return "no text and no tool call"
    return "an empty code block" if len(text) < 60 and _EMPTY_FENCE.fullmatch(text) else None


def truncated(subject: Subject, spec: CheckSpec) -> str | None:
    if subject.answer.finish != "length" or is_callers_limit(subject.answer, subject.task):
        return None
    return "the model ran into its output limit"


def is_callers_limit(answer: Answer, task: Task) -> bool:
    """Whether the answer used up the caller's own max_tokens: then it is what was asked for.

    Nine tenths, because some providers count the last tokens or the reasoning apart.
    """
    asked = task.chat.max_tokens if task.chat else None
    if answer.finish != "length" or asked is None:
        return False
    usage = answer.usage
    return usage.estimated or usage.tokens_out == 0 or usage.tokens_out * 10 >= asked * 9


def cut_note(subject: Subject, spec: CheckSpec) -> str:
    return "cut at the caller's max_tokens" if is_callers_limit(subject.answer, subject.task) else ""


def off_length(subject: Subject, spec: CheckSpec) -> str | None:
    """Characters without white space around; words by white space, and one per character where no spaces are written."""
    text = subject.text.strip()
    if wrong := _outside(len(text), spec.chars_min, spec.chars_max, "characters"):
        return wrong
    if spec.words_min is None and (spec.words_max is None or _gaps(text) < spec.words_max):
        return None
    return _outside(words_in(text), spec.words_min, spec.words_max, "words")


def _gaps(text: str) -> int:
    """White space in a text, at least as much as there are words less one; infinite where words are written without it."""
    return sum(map(text.count, " \n\t\r\v\f")) if text.isascii() else len(text)


def words_in(text: str) -> int:
    if not text.isascii():
        text = _NOT_ASCII_MARKS.sub("", _CJK.sub(" x ", text))
    # A dash between spaces is no word, one within a word does not part it.
    return len(text.encode("utf-8", "surrogatepass").translate(None, _MARKS).split())


def _outside(count: int, least: int | None, most: int | None, unit: str) -> str | None:
    if least is not None and count < least:
        return f"{count} {unit}, fewer than {least}"
    if most is not None and count > most:
        return f"{count} {unit}, more than {most}"
    return None


def off_format(subject: Subject, spec: CheckSpec) -> str | None:
    if spec.regex is not None:
        return None if _matches(spec.regex, subject.text.strip()) else "does not match the pattern"
    plain = subject.text.strip(_EMPHASIS)
    bare = plain.rstrip(".。").strip(_EMPHASIS)
    if spec.choices:   # of which one may itself end with a stop or consist of asterisks
        given = {text.casefold() for text in (subject.text.strip(), plain, bare)}
        return "is none of the choices" if given.isdisjoint(_folded(spec.choices)) else None
    return _off_number(bare, spec)


def _off_number(bare: str, spec: CheckSpec) -> str | None:
    """A comma parts thousands where it can, as in English, and is a decimal comma otherwise."""
    written = _NUMBER.fullmatch(bare)
    if not written:
        return "is not a number"
    try:
        value = Decimal(bare.replace(",", "" if written["thousands"] else ".").replace("−", "-").rstrip("% ."))
    except InvalidOperation:
        return "is not a number"
    if spec.min is not None and value < Decimal(str(spec.min)):
        return f"is below {spec.min:g}"
    if spec.max is not None and value > Decimal(str(spec.max)):
        return f"is above {spec.max:g}"
    return None


def _matches(regex: str, text: str) -> bool:
    try:
        return _compiled(regex).is_valid(text)
    except UnicodeEncodeError:  # half of a character, which no pattern can match
        return False


@lru_cache(maxsize=256)
def _compiled(regex: str) -> jsonschema_rs.Validator:
    return whole_match(regex)


@lru_cache(maxsize=256)
def _folded(choices: tuple[str, ...]) -> frozenset[str]:
    return frozenset(choice.strip().casefold() for choice in choices)
