"""Judges of answers: each is made from what is right, and says what is wrong with an answer, or nothing. Pure.

A judge never quotes an answer: what it says becomes a record of the config.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
import orjson

from schemas.messages import Answer

Judge = Callable[[Answer], str]

_NUMBER = re.compile(r"-?\d[\d,  ]*(?:\.\d+)?")
_FENCE = re.compile(r"```[a-zA-Z0-9_+-]*\n(.*?)```", re.DOTALL)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


def number(right: float) -> Judge:
    """The last number of the answer is the right one: models reason first, and conclude at the end."""

    def judge(answer: Answer) -> str:
        said = _NUMBER.findall(_concluded(answer))
        if not said:
            return "there is no number in the answer"
        last = float(re.sub(r"[,  ]", "", said[-1]))
        return "" if abs(last - right) < 1e-6 * max(1.0, abs(right)) else "the number is wrong"

    return judge


def words(*right: str, never: tuple[str, ...] = ()) -> Judge:
    """Every right word stands in the answer, and none that would make it wrong."""

    def judge(answer: Answer) -> str:
        said = set(re.findall(r"[^\W_]+", _concluded(answer).casefold()))
        if not said.issuperset(word.casefold() for word in right):
            return "what was asked for is not in the answer"
        return "the answer says more than one thing" if said.intersection(word.casefold() for word in never) else ""

    return judge


def language(common: tuple[str, ...], judge_content: Judge) -> Judge:
    """The answer is right, and has words of its language: at least one of its common ones."""

    def judge(answer: Answer) -> str:
        said = set(re.findall(r"[^\W_]+", answer.text.casefold()))
        return judge_content(answer) or ("" if said.intersection(common) else "the answer is in another language")

    return judge


def json_of(schema: dict[str, Any], right: Mapping[str, Any]) -> Judge:
    """The answer is JSON of the schema, with these values at least."""

    def judge(answer: Answer) -> str:
        try:
            value = orjson.loads(answer.text)
        except orjson.JSONDecodeError:
            return "the answer is not JSON"
        return _conforms(value, schema, right)

    return judge


def tool_call(name: str, schema: dict[str, Any], right: Mapping[str, Any]) -> Judge:
    """The answer is one call of that tool, with arguments of its schema and these values."""

    def judge(answer: Answer) -> str:
        if len(answer.tool_calls) != 1:
            return f"{len(answer.tool_calls)} tools are called instead of one"
        function = answer.tool_calls[0].get("function", {})
        if function.get("name") != name:
            return "another tool is called"
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except orjson.JSONDecodeError:
            return "the arguments are not JSON"
        return _conforms(arguments, schema, right)

    return judge


def no_tool_call(judge_content: Judge) -> Judge:
    """A tool is offered that has nothing to do with the question: it is not called, and the answer is right."""
    return lambda answer: "a tool is called for nothing" if answer.tool_calls else judge_content(answer)


def program(run: Callable[[str, str], str], test: str) -> Judge:
    """The code of the answer passes the test when it is run; `run` gives the problem, or nothing."""

    def judge(answer: Answer) -> str:
        blocks = _FENCE.findall(answer.text)
        code = "\n\n".join(blocks) if blocks else answer.text
        return run(code, test) if code.strip() else "there is no code in the answer"

    return judge


def _conforms(value: Any, schema: dict[str, Any], right: Mapping[str, Any]) -> str:
    if not jsonschema_rs.is_valid(schema, value):
        return "the JSON is not of its schema"
    wrong = [name for name, expected in right.items() if _plain(value.get(name)) != _plain(expected)]
    return f"wrong values: {', '.join(wrong)}" if wrong else ""


def _plain(value: Any) -> Any:
    return value.strip().casefold() if isinstance(value, str) else value


def _concluded(answer: Answer) -> str:
    """Without what was thought aloud."""
    return _THINKING.sub("", answer.text)
