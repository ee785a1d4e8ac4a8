"""Answers who is the tallest, youngest, slowest … where the prompt says who is taller, older or slower than whom."""

import re
from collections import defaultdict

_PAIRS = (("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("heavier", "lighter"), ("richer", "poorer"))
_MORE = {more: (more, True) for more, _ in _PAIRS} | {less: (more, False) for more, less in _PAIRS}
_MOST = {word.removesuffix("r") + "st": found for word, found in _MORE.items()}
_TOLD = re.compile(r"\b([A-Z]\w*) is (\w+) than ([A-Z]\w*)")
_ASKED = re.compile(r"\bwho is the (\w+)\?", re.IGNORECASE)
_NAMES_MAX = 50


def extreme_asked(text: str) -> str | None:
    """The name, if the prompt asks for one and what it tells leaves one only."""
    asked = _ASKED.search(text)
    quality, wants_most = _MOST.get(asked[1].lower(), ("", True)) if asked else ("", True)
    beyond: defaultdict[str, set[str]] = defaultdict(set)      # name → those who are more so
    names: set[str] = set()
    for one, word, other in _TOLD.findall(text)[:_NAMES_MAX]:
        said, is_more = _MORE.get(word, ("", True))
        if said and said == quality:
            names |= {one, other}
            less, more = (other, one) if is_more == wants_most else (one, other)
            beyond[less].add(more)
    left = [name for name in names if not beyond[name]]
    return left[0] if len(left) == 1 else None
