"""Finds an arithmetic expression in a prompt and evaluates it: bounded, by a list of operators, never `eval`."""

import ast
import operator
import re
from collections.abc import Callable
from types import MappingProxyType

Number = int | float

_EXPRESSION_CHARS_MAX = 200
_DEPTH_MAX = 24
_MAGNITUDE_MAX = 10**40
_EXPONENT_MAX = 64

_SPOKEN = (
    (re.compile(r"\b(\d[\d.]*)\s?(?:%|percent|prozent|por ciento|pour cent)\s(?:of|von|de)\s(?=\d)"), r"\1/100*"),
    (re.compile(r"\b(?:times|multiplied by|mal|multipliziert mit|fois|multiplié par|por|multiplicado por)\b"), "*"),
    (re.compile(r"\b(?:divided by|geteilt durch|divisé par|dividido por|dividido entre)\b"), "/"),
    (re.compile(r"\b(?:plus|más)\b"), "+"),
    (re.compile(r"\b(?:minus|moins|menos)\b"), "-"),
    (re.compile(r"(?<=\d)\s*[x×]\s*(?=\d)"), "*"),
)
_RUN = re.compile(r"[\d(][\d\s+*/%().^÷-]*[\d)]")
_HAS_OPERATION = re.compile(r"\d\s*\)*\s*(?:[+*%^÷]|/(?=\s)|\s-\s|\s/\s|-(?!\d+-))\s*\(*\s*-?\d|\d/\d+\s*(?:=|\?|$)")
_DATE = re.compile(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}$")
_CUE = re.compile(
    r"what is|what's|calculate|compute|evaluate|how much|solve|result of|=|was ist|was ergibt|wie viel|berechne|"
    r"combien|calcule|qu'est-ce que|cuánto|cuanto|calcula"
)

_BINARY: MappingProxyType[type[ast.operator], Callable[[Number, Number], Number]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: operator.pow,
    }
)


def find_arithmetic(lowered: str) -> tuple[str, Number] | None:
    """The first expression the lower-case prompt asks to compute, as written, and its value."""
    if not any(char.isdigit() for char in lowered[:2000]):
        return None
    text = lowered[:2000]
    for spoken, sign in _SPOKEN:
        text = spoken.sub(sign, text)
    asked = _CUE.search(text) is not None
    for match in _RUN.finditer(text):
        written = match.group().strip()
        if _DATE.match(written) or not _HAS_OPERATION.search(written):
            continue
        if not asked and len(written) < 0.8 * len(text.strip(" .?!")):
            continue
        value = evaluate(written)
        if value is not None:
            return written, value
    return None


def evaluate(expression: str) -> Number | None:
    """The value, or None if the text is no expression, too large, or undefined."""
    if len(expression) > _EXPRESSION_CHARS_MAX:
        return None
    try:
        tree = ast.parse(expression.replace("^", "**").replace("÷", "/"), mode="eval")
        value = _value(tree.body, _DEPTH_MAX)
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def spell(value: Number) -> str:
    """A number as a person writes it: no float noise."""
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _value(node: ast.expr, depth: int) -> Number:
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return _bounded(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, depth - 1)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, depth - 1), _value(node.right, depth - 1)
        if isinstance(node.op, ast.Pow) and (abs(right) > _EXPONENT_MAX or (left < 0 and right != int(right))):
            raise ValueError("too large, or not real")
        return _bounded(_BINARY[type(node.op)](left, right))
    raise ValueError("not arithmetic")


def _bounded(value: Number) -> Number:
    if not abs(value) <= _MAGNITUDE_MAX:  # also false for nan
        raise ValueError("too large")
    return value
