"""Whether the sums written out in an answer add up: `17 * 23 = 391`, `15 % of 80 = 12`. Exact, pure, linear in the text.

Only what is certainly arithmetic on numbers is reckoned: letters as variables, differing units, remainders and functions make
a line none of our business.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

LINES_MAX = 40
LINE_CHARS_MAX = 400
TOKENS_MAX = 24
DIGITS_MAX = 18
EXPONENT_MAX = 64
POWER_BITS_MAX = 4_096
"""A power of a power, and so on, has more digits than there are atoms."""

_TOKEN = re.compile(r"(?P<number>\d[\d.,]*\d|\d)|(?P<sign>[-+*/^()%])|(?P<equals>[=≈])|(?P<word>[^\W\d_]+)|(?P<other>\S)")
_SAME = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "$": None, "€": None, "£": None, "≃": "≈"})
_OF = frozenset(("of", "von", "de", "di", "van"))
_NOT_OURS = re.compile(r"\bmod\b|\\|==|!=|<=|>=|=>")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?")
_PLAIN = re.compile(r"\d+(?:\.\d+)?")


Read = Callable[[str], Fraction | None]
"""Reads a number as it is written in one language; None: it is not written so."""


class _Token(NamedTuple):
    kind: str     # number, sign, equals, word, other
    text: str
    glued: bool   # no space before it


class _Side(NamedTuple):
    """An expression on one side of an equals sign: its signs and numbers, and the units its numbers have."""

    parts: tuple[str, ...]
    units: frozenset[str]

    @property
    def is_sum(self) -> bool:
        return any(part in "+-*/^" for part in self.parts[1:])


def wrong_sum(subject: Subject, spec: CheckSpec) -> str | None:
    if "=" not in subject.text and "≈" not in subject.text:
        return None
    lines = [line for line in subject.prose.split("\n") if "=" in line or "≈" in line]
    for number, line in enumerate(lines[:LINES_MAX], 1):
        if _is_ours(line) and not all(_holds(*equation) for equation in _equations(line)):
            return f"line {number} of those with an equals sign does not add up"
    return None


def _is_ours(line: str) -> bool:
    return len(line) <= LINE_CHARS_MAX and any(map(str.isdigit, line)) and not _NOT_OURS.search(line)


def _equations(line: str) -> Iterator[tuple[_Side, _Side, bool]]:
    """Pairs of neighbouring sides, and whether they are only said to be about equal."""
    sides: list[list[_Token]] = [[]]
    about: list[bool] = []
    line = line.translate(_SAME)
    for found in _TOKEN.finditer(line):
        glued = found.start() > 0 and not line[found.start() - 1].isspace()
        if found.lastgroup == "equals":
            sides.append([])
            about.append(found[0] == "≈")
        else:
            sides[-1].append(_Token(str(found.lastgroup), found[0], glued))
    for place, is_about in enumerate(about):
        left, right = _suffix(sides[place]), _prefix(sides[place + 1])
        if left and right and (left.is_sum or right.is_sum) and len(left.units | right.units) <= 1:
            yield left, right, is_about


def _suffix(tokens: Sequence[_Token]) -> _Side | None:
    """The longest expression that ends a side."""
    tokens = tokens[-TOKENS_MAX:]
    for start in range(len(tokens)):
        before = tokens[start - 1] if start else None
        if before is not None and (before.kind == "number" or (before.kind == "sign" and before.text not in "(-")):
            continue  # a longer expression would have begun before
        if before is not None and tokens[start].glued and (before.kind == "word" or before.text == ")"):
            continue  # F(3), x2
        if (side := _side(tokens[start:])) is not None:
            return side
    return None


def _prefix(tokens: Sequence[_Token]) -> _Side | None:
    """The longest expression that begins a side; None where what follows would change its value."""
    tokens = tokens[:TOKENS_MAX]
    for end in range(len(tokens), 0, -1):
        after = tokens[end] if end < len(tokens) else None
        if (side := _side(tokens[:end])) is None:
            continue
        joins = after is not None and (after.text in "+-*/^(%" or (after.kind == "word" and after.glued))
        return None if joins else side
    return None


def _side(tokens: Sequence[_Token]) -> _Side | None:
    """Signs and numbers of an expression; a word is a unit only right after a number. None: it is no expression."""
    parts: list[str] = []
    units: set[str] = set()
    for before, token in zip((None, *tokens), tokens, strict=False):
        after_number = before is not None and (before.kind == "number" or before.text == "%")
        if token.kind == "word":
            if parts and parts[-1] == "%" and token.text.lower() in _OF:
                parts[-1:] = ["/", "100", "*"]
            elif after_number and not (token.glued and len(token.text) == 1):
                units.add(token.text.lower())
            else:
                return None
        elif token.kind == "other":
            return None
        else:
            parts.append(token.text)
    parts = [part for part in parts if part != "%"]
    if all(_value(parts, read) is None for read in (_in_english, _in_german)):
        return None
    return _Side(tuple(parts), frozenset(units))


def _holds(left: _Side, right: _Side, is_about: bool) -> bool:
    """In either way of writing numbers; and with or without a dash before it that may be a bullet."""
    starts = (left.parts, left.parts[1:]) if left.parts[0] == "-" else (left.parts,)
    judged = False
    for read in (_in_english, _in_german):
        goal = _value(right.parts, read)
        for parts in starts:
            value = _value(parts, read)
            if value is None or goal is None:
                continue
            judged = True
            if abs(value - goal) <= _slack(right, goal, is_about):
                return True
    return not judged


def _slack(right: _Side, goal: Fraction, is_about: bool) -> Fraction:
    """Half of the last place shown, where the right side is one number; two percent where it says "about"."""
    shown = right.parts[-1] if len(right.parts) <= 2 else ""
    decimals = len(re.split(r"[.,]", shown)[-1]) if "." in shown or "," in shown else 0
    places = Fraction(1, 2 * 10**decimals) if shown else Fraction(0)
    return max(places, abs(goal) / 50) if is_about else places


def _in_english(text: str) -> Fraction | None:
    if _THOUSANDS.fullmatch(text) or _PLAIN.fullmatch(text):
        return Fraction(text.replace(",", ""))
    return None


def _in_german(text: str) -> Fraction | None:
    if _DECIMAL_COMMA.fullmatch(text):
        return Fraction(text.replace(".", "").replace(",", "."))
    return None


def _value(parts: Sequence[str], read: Read) -> Fraction | None:
    """The value of an expression; None where it is none, divides by zero or grows without need."""
    if sum(map(len, parts)) > TOKENS_MAX * DIGITS_MAX or any(len(part) > DIGITS_MAX for part in parts):
        return None
    try:
        reader = _Reader(parts, read)
        value = reader.sum()
        return value if reader.place == len(parts) else None
    except (_NoExpressionError, ZeroDivisionError):
        return None


class _NoExpressionError(Exception):
    """These tokens are no expression."""


class _Reader:
    """Recursive descent over signs and numbers: sum, product, power, then a number or a sum in parentheses."""

    def __init__(self, parts: Sequence[str], read: Read) -> None:
        self._parts = parts
        self._read = read
        self.place = 0

    def sum(self) -> Fraction:
        value = self._product()
        while (sign := self._take("+-")) is not None:
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while (sign := self._take("*/")) is not None:
            value = value * self._power() if sign == "*" else value / self._power()
        return value

    def _power(self) -> Fraction:
        value = self._single()
        if self._take("^") is None:
            return value
        exponent = self._single()
        if exponent.denominator != 1 or abs(exponent) > EXPONENT_MAX or (value == 0 and exponent < 0):
            raise _NoExpressionError
        if max(abs(value.numerator), value.denominator).bit_length() * abs(exponent) > POWER_BITS_MAX:
            raise _NoExpressionError
        return Fraction(value ** int(exponent))

    def _single(self) -> Fraction:
        if self._take("-") is not None:
            return -self._single()
        if self._take("(") is not None:
            value = self.sum()
            if self._take(")") is None:
                raise _NoExpressionError
            return value
        if self.place >= len(self._parts) or (number := self._read(self._parts[self.place])) is None:
            raise _NoExpressionError
        self.place += 1
        return number

    def _take(self, signs: str) -> str | None:
        if self.place < len(self._parts) and self._parts[self.place] in signs:
            self.place += 1
            return self._parts[self.place - 1]
        return None
