"""Tells from a text alone whether it ends as a whole one: no provider's word is needed. Pure; looks at the last lines only."""

import re

import orjson

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

_TAIL_CHARS = 2_000
_DANGLING_WORDS = (
    "and or but the a an of to in on at for with from by as because that which who whose if when while than then nor into "
    "is are was were be been has have had not no its their this these those between after before under over about "
    "und oder aber der die das dem den des ein eine einen einem zu von mit für auf im am weil dass wenn als sowie "
    "y o pero el los las un una de del que con para por en porque si como "
    "et ou mais le les une des du au aux dans pour avec sur qui parce "
    "e il lo gli della del dalla dal nella con per che "
    "os uma da do na no com para em "
    "en of maar het een van met voor "
    "i oraz ale że z w na do a potem "
    "и а но или в на с что который затем"
)
_DANGLING = frozenset(_DANGLING_WORDS.split())
_MARKER_ALONE = re.compile(r"(?:\d{1,3}[.)]|[A-Za-z][.)]|[-*+•])")
_SENTENCE_ENDS = (". ", "! ", "? ")
_CLOSERS = {"(": ")", "{": "}", "[": "]", "“": "”", "„": "“", "«": "»"}
_ENDS_OPEN = (",", ";", ":", "+", "=", "×", "/", "(", "[", "{", " -", " –", "\\", "、", "，", "：")


def cut_off(subject: Subject, spec: CheckSpec) -> str | None:
    text = subject.text.rstrip()
    if not text or subject.answer.tool_calls:
        return None
    if text.count("```") % 2 or text.count("~~~") % 2:
        return "ends within a code block"
    if text.endswith(("```", "~~~")):
        return None
    if text[0] in "{[" and _is_open_json(text):
        return "ends within JSON"
    line = text[-_TAIL_CHARS:].rpartition("\n")[2].strip()
    return _cut_line(line, text)


def _is_open_json(text: str) -> bool:
    """Whether it begins as JSON, is none, and does not end as JSON would."""
    if len(text) > 1 and text[0] == "[" and text[1] not in '[{"0123456789-tfn \n\t]':
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text[-1] not in "}].!?)"
    return False


def _cut_line(line: str, text: str) -> str | None:
    if line != text.strip() and _MARKER_ALONE.fullmatch(line):   # alone it is an answer: "B.", "42."
        return "ends with an empty list item"
    if line.startswith("|") and not line.endswith("|"):
        return "ends within a table"
    if line.endswith(_ENDS_OPEN) and not line.endswith("://"):
        return "ends where something must follow"
    if _is_open(line):
        return "ends within brackets or quotes"
    if not line[-1].isalnum():
        return None
    before, _, word = line.rpartition(" ")
    if before and word in _DANGLING:   # a capital would make it a name or a heading
        return "ends in the middle of a sentence"
    # A paragraph of whole sentences whose last one lacks its stop was cut; a line or a list without stops is a style.
    if len(text) >= 300 and sum(map(line.count, _SENTENCE_ENDS)) >= 3:
        return "ends in the middle of a sentence"
    return None


def _is_open(line: str) -> bool:
    """Whether something was opened on the last line and never closed. Ends that close a sentence are trusted."""
    if line.endswith((".", "!", "?", "。")) and not line.endswith("..."):
        return False
    for opener, closer in _CLOSERS.items():
        if line.count(opener) > line.count(closer):
            return True
    if line.count('"') % 2 and not line.endswith('"'):
        return True
    dollars = line.count("$")
    return dollars % 2 == 1 and not line[line.rfind("$") + 1 :][:1].isdigit() and not line.endswith("$")
