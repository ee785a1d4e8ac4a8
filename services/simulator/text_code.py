"""Writes a small Python function for a prompt that asks for code: a working one where the table knows the task."""

import re

from services.simulator.facts import Facts
from services.simulator.languages import word_set

_CUE = re.compile(
    r"\b(?:function|code|python|script|implement|class|method|program|funktion|programm|función|código|fonction|programme)\b"
)
_TASKS = (  # what the prompt mentions -> parameter, body
    (r"palindrom", "text: str", "return text == text[::-1]"),
    (r"revers|umkehr|invert|invers", "text: str", "return text[::-1]"),
    (r"factorial|fakult|factorielle", "n: int", "return 1 if n < 2 else n * {name}(n - 1)"),
    (r"fibonacci", "n: int", "return n if n < 2 else {name}(n - 1) + {name}(n - 2)"),
    (r"prime|primo|premier|primzahl", "n: int", "return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))"),
    (r"vowel|vokal|vocal|voyelle", "text: str", 'return sum(char in "aeiou" for char in text.lower())'),
    (r"duplicat|unique|distinct", "values: list", "return list(dict.fromkeys(values))"),
    (r"sort|trie|orden", "values: list", "return sorted(values)"),
    (r"average|mean|mittel|promedio|moyenne", "values: list", "return sum(values) / len(values)"),
    (r"largest|biggest|maxim|größt|mayor", "values: list", "return max(values)"),
    (r"smallest|minim|kleinst|menor", "values: list", "return min(values)"),
    (r"\bsum|\badd|summe|suma|somme", "values: list", "return sum(values)"),
    (r"count|length|zähl|cuenta|compte", "values: list", "return len(values)"),
    (r"even|gerade|\bpar\b|pair", "n: int", "return n % 2 == 0"),
)
_NAMED = re.compile(r"(?:`|\b(?:named|called|namens)\s+`?)([A-Za-z_][A-Za-z0-9_]{2,40})(?:`|\b)")
_NOT_NAMES = word_set("function code python script implement class method program return returns def using that")


def asks_for_code(lowered: str) -> bool:
    """Whether the prompt wants a program."""
    return _CUE.search(lowered) is not None


def code(facts: Facts, right: bool) -> str:
    """A function in a Markdown fence. The wrong one computes and forgets to return."""
    lowered = facts.text.lower()
    words = [w.lower() for w in facts.salient if w.lower() not in _NOT_NAMES and w.isascii() and w.isalpha()]
    wanted = _NAMED.search(facts.source)
    name = wanted[1] if wanted else "_".join(words[:3]) or "solve"
    arguments, body = next(
        ((arguments, body) for pattern, arguments, body in _TASKS if re.search(pattern, lowered)),
        ("value", f'return {{"{words[0] if words else "value"}": value}}'),
    )
    body = body.replace("{name}", name) if right else body.replace("{name}", name).replace("return ", "result = ", 1)
    about = " ".join(words[:5]) or "value"
    return f'```python\ndef {name}({arguments}):\n    """Work on: {about}."""\n    {body}\n```'
