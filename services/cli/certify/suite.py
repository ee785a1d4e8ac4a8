"""The cases of `baton certify`: per capability four small tasks with answers that can be checked without an opinion.

Change a case, and `SUITE` changes with it: results of different suites cannot be compared.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.cli.certify import judges, pictures
from services.cli.certify.judges import Judge

SUITE = "1"
PASSING_SCORE = 0.75
"""Three of four: one slip is no lack of a capability."""

CLAIMED = frozenset({"json_schema", "tools", "vision", "reasoning"})
"""Tested only of models whose config claims them: others are never asked for them."""

MAX_TOKENS = 800


@dataclass(frozen=True)
class Case:
    """One task. `body` is what is sent, as to `intake`."""

    capability: str
    name: str
    body: Mapping[str, Any]
    judge: Judge
    max_tokens: int = field(default=MAX_TOKENS)


def cases(run: Callable[[str, str], str]) -> tuple[Case, ...]:
    """All of them. `run` executes code with its test, and gives the problem or nothing."""
    made = (_code(run), _maths(), _json_schema(), _tools(), _vision(), _languages(), _long_context(), _reasoning())
    return tuple(case for some in made for case in some)


def _said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _code(run: Callable[[str, str], str]) -> Iterator[Case]:
    asked = (
        ("reverse", "`mirrored` that takes a string and returns it reversed",
         "assert mirrored('abc') == 'cba' and mirrored('') == ''"),
        ("factorial", "`product_to` that returns the factorial of n",
         "assert [product_to(n) for n in (0, 1, 5)] == [1, 1, 120]"),
        ("distinct", "`without_repeats` that returns the distinct values of a list in their order",
         "assert list(without_repeats([3, 1, 3, 2, 1])) == [3, 1, 2]"),
        ("primes", "`is_prime_number` that says whether n is a prime",
         "assert [n for n in range(20) if is_prime_number(n)] == [2, 3, 5, 7, 11, 13, 17, 19]"),
    )  # fmt: skip
    for name, wanted, test in asked:
        text = f"Write a Python function {wanted}. Answer with the code alone, in one block."
        yield Case("code", name, _said(text), judges.program(run, test))


def _maths() -> Iterator[Case]:
    asked = (
        ("product", "What is 37 * 48?", 1776),
        ("brackets", "Compute (125 - 17) / 4 + 3 * 9.", 54),
        ("percent", "What is 15 percent of 260?", 39),
        ("power", "Calculate 2^10 - 24.", 1000),
    )
    for name, text, right in asked:
        yield Case("maths", name, _said(f"{text} End with the result."), judges.number(right))


_ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string"},
        "email": {"type": "string"},
        "date": {"type": "string", "description": "ISO 8601"},
        "quantity": {"type": "integer"},
    },
    "required": ["customer", "email", "date", "quantity"],
    "additionalProperties": False,
}


def _json_schema() -> Iterator[Case]:
    orders = (
        ("order", "Ada Lovelace", "ada@example.com", "2026-03-14", 3),
        ("another_order", "Grace Hopper", "grace.hopper@example.org", "2026-12-09", 40),
        ("third_order", "Alan Turing", "turing@example.net", "2027-06-23", 12),
        ("fourth_order", "Emmy Noether", "emmy@example.com", "2026-04-30", 7),
    )
    for name, customer, email, day, quantity in orders:
        text = f"Extract the order. Customer: {customer}, e-mail {email}, wanted on {day}, quantity: {quantity}."
        schema = {"name": "order", "strict": True, "schema": _ORDER}
        body = _said(text) | {"response_format": {"type": "json_schema", "json_schema": schema}}
        right = {"customer": customer, "email": email, "date": day, "quantity": quantity}
        yield Case("json_schema", name, body, judges.json_of(_ORDER, right))


_PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "name of the city alone"}},
    "required": ["city"],
    "additionalProperties": False,
}


def _tools() -> Iterator[Case]:
    described = {"get_weather": "Current weather of a city", "find_hotel": "Free hotel rooms in a city"}
    tools = [
        {"type": "function", "function": {"name": name, "description": about, "parameters": _PLACE}}
        for name, about in described.items()
    ]
    asked = (
        ("weather", "get_weather", "Please tell me the current weather in Lisbon.", "Lisbon"),
        ("hotel", "find_hotel", "Please find free hotel rooms in Vienna.", "Vienna"),
        ("other_weather", "get_weather", "I need the current weather in Oslo.", "Oslo"),
    )
    for name, tool, text, city in asked:
        yield Case("tools", name, _said(text) | {"tools": tools}, judges.tool_call(tool, _PLACE, {"city": city}))
    sum_ = _said("What is 12 + 30?") | {"tools": tools}
    yield Case("tools", "none_needed", sum_, judges.no_tool_call(judges.number(42)))


def _vision() -> Iterator[Case]:
    colours = {"red": pictures.RED, "green": pictures.GREEN, "blue": pictures.BLUE, "yellow": pictures.YELLOW}
    asked = (("red", "blue", "left"), ("green", "red", "right"), ("yellow", "green", "left"), ("red", "yellow", "right"))
    for left, right, side in asked:
        picture = pictures.halves(colours[left], colours[right])
        wanted = left if side == "left" else right
        others = tuple(name for name in colours if name != wanted)
        text = f"Which colour is the {side} half of this image? Answer with one word: red, green, blue or yellow."
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": picture}}]
        body = {"messages": [{"role": "user", "content": content}]}
        yield Case("vision", f"{left}_{right}_{side}", body, judges.words(wanted, never=others))


def _languages() -> Iterator[Case]:
    asked = (
        ("german", "Der Zug nach Lyon fährt am Montag um 14 Uhr ab. Der Zug nach Rom fährt um 9 Uhr ab. "
         "Wann fährt der Zug nach Lyon ab? Antworte in einem deutschen Satz.", ("der", "um", "fährt", "uhr"), "14"),
        ("spanish", "La tienda de la plaza abre a las 8 de la mañana. El museo de la ciudad abre a las 11. "
         "¿A qué hora abre el museo de la ciudad? Responde con una frase en español.", ("el", "las", "abre"), "11"),
        ("french", "Le train pour Lyon part à 16 heures. Le train pour Paris part à 7 heures. "
         "À quelle heure part le train pour Paris ? Réponds par une phrase en français.", ("le", "part", "heures"), "7"),
        ("german_place", "Das Treffen der Gruppe ist am Freitag in Bremen. Das Essen der Gruppe ist am Samstag in Kiel. "
         "Wo ist das Treffen der Gruppe? Antworte in einem deutschen Satz.", ("das", "ist", "in"), "Bremen"),
    )  # fmt: skip
    for name, text, common, right in asked:
        yield Case("languages", name, _said(text), judges.language(common, judges.words(right)))


_FILLER = (
    "The harbour was quiet that morning and the boats lay at the quay. Two men carried a crate of oranges past the office. "
    "Somebody had left a ladder against the wall of the chandlery. A dog slept in the shade until the bell woke it. "
)
_FILLER_REPEATS = 140
"""About 32,000 characters, 8,000 tokens."""


def _long_context() -> Iterator[Case]:
    needles = (("early", 0.1, "vault", "7402"), ("middle", 0.5, "archive", "9153"), ("late", 0.9, "observatory", "2867"),
               ("two_thirds", 0.66, "granary", "6038"))  # fmt: skip
    for name, depth, place, code in needles:
        at = round(_FILLER_REPEATS * depth)
        text = (
            f"{_FILLER * at}The access code of the {place} is {code}. {_FILLER * (_FILLER_REPEATS - at)}\n\n"
            f"What is the access code of the {place}? Answer with the code."
        )
        yield Case("long_context", name, _said(text), judges.words(code))


def _reasoning() -> Iterator[Case]:
    asked = (
        ("youngest", "Anna is older than Ben. Cara is younger than Ben. Dora is older than Anna. Who is the youngest?", "Cara",
         ("Anna", "Ben", "Dora")),
        ("tallest", "Omar is taller than Lia. Pia is taller than Omar. Lia is taller than Ned. Who is the tallest?", "Pia",
         ("Omar", "Lia", "Ned")),
        ("slowest", "Kim is faster than Lou. Lou is faster than Max. Max is slower than Noa. Noa is slower than Kim. "
         "Who is the slowest?", "Max", ("Kim", "Lou", "Noa")),
        ("heaviest", "Ada is heavier than Bea. Bea is heavier than Cleo. Ada is lighter than Dina. Who is the heaviest?", "Dina",
         ("Ada", "Bea", "Cleo")),
    )  # fmt: skip
    for name, text, right, others in asked:
        yield Case("reasoning", name, _said(f"{text} Answer with the name alone."), judges.words(right, never=others))
