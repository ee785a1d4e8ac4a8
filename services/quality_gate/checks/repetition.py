"""Finds answers that loop. A loop is what compresses far better than language does, so a compressor is the detector.

Linear, in C, for any script. Prose of 1 KB compresses to half, most tables and JSON to a quarter, a loop to a twentieth. Rows
that differ in a number alone compress as a loop does, and are none: each says something new.
"""

import re
import zlib

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

BYTES_MIN = 150
"""Shorter texts compress badly whatever they say; a short refrain is no loop."""
WINDOWS_BYTES = (1_024, 4_096)
"""Of the end, where loops are: the small window finds a phrase that has just begun to repeat, the large one a paragraph."""
LOOP_SHARE_MAX = 0.145
"""Compressed over plain size below which a text is a loop. Of the labelled answers the good ones lie above 0.4, loops below
0.1; the line stands nearer to the loops, because a table of hundreds of rows is no loop."""
TAIL_WORDS = 150
LINES_MIN = 8
"""Whole ones in a window; fewer tell nothing about whether they recur."""
_LINE_END = re.compile(rb"[\n}]")
_HEADER_BYTES = 8
_LEVEL = 1


def repetitive(subject: Subject, spec: CheckSpec) -> str | None:
    tail = subject.words[-TAIL_WORDS:]
    if len(tail) == TAIL_WORDS and len(set(tail)) * 2 > TAIL_WORDS:
        return None  # so many different words do not loop within the window; scripts without spaces never get here
    raw = subject.text[-WINDOWS_BYTES[-1] :].encode("utf-8", "surrogatepass")
    if len(raw) < BYTES_MIN:
        return None
    small, large = WINDOWS_BYTES
    if _loops(raw[-small:]) or (len(raw) > 2 * small and _loops(raw[-large:])):
        return "its end repeats itself"
    return None


def _loops(raw: bytes) -> bool:
    return _share(raw) < LOOP_SHARE_MAX and not _says_something_new(raw)


def _says_something_new(raw: bytes) -> bool:
    """Whether one of the later lines, or objects of a list, is none of the earlier ones. The first and last may be cut."""
    lines = [line for line in _LINE_END.split(raw)[1:-1] if line.strip()]
    middle = len(lines) // 2
    return len(lines) >= LINES_MIN and not set(lines[middle:]) <= set(lines[:middle])


def _share(raw: bytes) -> float:
    return max(0, len(zlib.compress(raw, _LEVEL)) - _HEADER_BYTES) / len(raw)
