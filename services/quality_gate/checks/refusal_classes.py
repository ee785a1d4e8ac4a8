"""What the grammars of refusals are made of."""

import re
from typing import NamedTuple


class Grammar(NamedTuple):
    """`words`: one of them stands in every refusal of the language, so most answers are spared its pattern."""

    words: frozenset[str]
    pattern: re.Pattern[str]


def grammar(words: str, *classes: str) -> Grammar:
    return Grammar(frozenset(words.split()), re.compile("|".join(classes)))


def inability(denials: str, idioms: str, serving: str, gap: int = 60) -> str:
    """A denial in the first person, then a verb that serves a request; `idioms` deny nothing that was asked for."""
    return rf"\b(?:{denials})(?!.{{0,{gap}}}?(?:{idioms}))(?=.{{0,{gap}}}?\b(?:{serving}))"
