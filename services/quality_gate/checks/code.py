"""Whether code in an answer parses, by the language its fence names. It is parsed and never executed."""

import ast
import re
import textwrap
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping

import orjson

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

CODE_CHARS_MAX = 20_000
"""Per answer. Parsing Python takes about 1 µs per character (measured); a longer block is not looked at."""

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#-]*)")


def broken_code(subject: Subject, spec: CheckSpec) -> str | None:
    """Names the first block that does not parse by its number and line, never by its text."""
    if "```" not in subject.text and "~~~" not in subject.text:
        return None
    left = CODE_CHARS_MAX
    for number, (language, code, closed) in enumerate(blocks(subject.text), 1):
        if language not in PARSERS:
            continue
        if not closed:
            return f"code block {number} does not end"
        left -= len(code)
        if left < 0:
            return None
        if problem := PARSERS[language](code):
            return f"code block {number} ({language}): {problem}"
    return None


def blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """Language, code and whether it is closed, of each fenced block."""
    fence, language, lines = "", "", list[str]()
    for line in text.split("\n"):
        if not fence:
            if (line.find("```") >= 0 or line.find("~~~") >= 0) and (found := _FENCE.match(line)):
                fence, language, lines = found[1], found[2].lower(), []
        elif line.strip() == fence:
            yield language, "\n".join(lines), True
            fence = ""
        else:
            lines.append(line)
    if fence:
        yield language, "\n".join(lines), False


def _python(code: str) -> str | None:
    if ">>> " in code:
        code = "\n".join(line.strip()[4:] for line in code.split("\n") if line.strip().startswith((">>> ", "... ")))
    kept = ["" if line.lstrip().startswith(("%", "!")) else line for line in code.split("\n")]
    code = textwrap.dedent("\n".join(kept))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning quotes the code, and would reach the log
            ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno or 1} does not parse"
    except (RecursionError, MemoryError, ValueError):
        return "cannot be parsed: too deeply nested, or not text"
    return None


def _json(code: str) -> str | None:
    try:
        orjson.loads(code)
    except orjson.JSONDecodeError as error:
        return f"line {error.lineno} does not parse"
    return None


def _json_lines(code: str) -> str | None:
    for number, line in enumerate(code.split("\n"), 1):
        if line.strip() and _json(line):
            return f"line {number} does not parse"
    return None


def _toml(code: str) -> str | None:
    try:
        tomllib.loads(code)
    except (tomllib.TOMLDecodeError, RecursionError):
        return "does not parse"
    return None


PARSERS: Mapping[str, Callable[[str], str | None]] = {
    "python": _python,
    "py": _python,
    "python3": _python,
    "json": _json,
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "toml": _toml,
}
