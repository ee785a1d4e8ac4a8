"""The labelled answers, read from `labelled/*.yaml`: what was asked, what was answered, and whether the check should pass it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.checks import SCORES, CheckSpec
from schemas.ledger import Usage
from schemas.messages import Answer, Chat, Features, Task

FOLDER = Path(__file__).parent / "labelled"
HELD_OUT_BELOW = 102
"""Of 256 values of an answer's first hash byte: two fifths were held out while checks were tuned. Documents
that say `held_out` were written when the checks were there, and are held out as a whole, or not any more."""

_CALL = ({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},)


@dataclass(frozen=True)
class Labelled:
    """One answer to one task for one check. `flaw` names what was planted, `why` what makes the case worth having."""

    check: str
    place: str
    is_good: bool
    answer: Answer
    task: Task
    spec: CheckSpec
    why: str = ""
    flaw: str = ""
    is_mended: bool = False
    as_a_whole: bool | None = None

    @property
    def is_held_out(self) -> bool:
        if self.as_a_whole is not None:
            return self.as_a_whole
        return hashlib.sha256(self.answer.text.encode()).digest()[0] < HELD_OUT_BELOW


def labelled(folder: Path = FOLDER) -> list[Labelled]:
    """All of them, by file and place."""
    found: list[Labelled] = []
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found += _with_contexts(document) if "contexts" in document else _cases(document)
    return found


def _cases(document: dict[str, Any]) -> Iterator[Labelled]:
    check = document["check"]
    for number, case in enumerate(document["cases"], 1):
        is_good = "good" in case
        yield Labelled(
            check=check,
            place=_place(document, number),
            is_good=is_good,
            answer=_answer(case, case["good" if is_good else "bad"]),
            task=_task(document | case),
            spec=_spec(check, case),
            why=case.get("why", ""),
            is_mended=case.get("repaired", False),
            as_a_whole=document.get("held_out"),
        )


def _with_contexts(document: dict[str, Any]) -> Iterator[Labelled]:
    check = document["check"]
    for number, block in enumerate(document["contexts"], 1):
        task = _task({"ask": f"Context:\n{block['context']}\n\nQuestion: {block['ask']}"})
        flawed = [("", text) for text in block["good"]] + list(block["bad"].items())
        for place, (flaw, text) in enumerate(flawed, 1):
            yield Labelled(
                check=check,
                place=_place(document, f"{number}.{place}"),
                is_good=not flaw,
                answer=Answer(text=text),
                task=task,
                spec=_spec(check, {}),
                flaw=flaw,
                as_a_whole=document.get("held_out"),
            )


def _place(document: dict[str, Any], number: int | str) -> str:
    file = f"{document['file']}/" if "file" in document else ""
    return f"{file}{document['check']}/{number}"


def _spec(check: str, case: dict[str, Any]) -> CheckSpec:
    settings = case.get("with", {"min": 0.5} if check in SCORES else {})
    return CheckSpec.model_validate({"check": check, **settings})


def _answer(case: dict[str, Any], written: Any) -> Answer:
    usage = Usage(tokens_in=10, tokens_out=case.get("tokens_out", 20), estimated=case.get("estimated", False))
    text = case.get("prefix", "") + _text(written)
    return Answer(text=text, finish=case.get("finish", "stop"), usage=usage, tool_calls=_CALL if case.get("tool") else ())


def _text(written: Any) -> str:
    """A text, a list of its parts, or a part that repeats: secrets and loops are not written out in the files."""
    if isinstance(written, list):
        return "".join(map(_text, written))
    return written["repeat"] * written["times"] if isinstance(written, dict) else written


def _task(said: dict[str, Any]) -> Task:
    system = [{"role": "system", "content": said["system"]}] if "system" in said else []
    user = {"role": "user", "content": said.get("ask", "Please answer.")}
    form = None
    if said.get("json_object"):
        form = {"type": "json_object"}
    elif "schema" in said and not said.get("no_format"):
        form = {"type": "json_schema", "json_schema": {"name": "asked", "schema": said["schema"]}}
    chat = Chat(messages=(*system, user), max_tokens=said.get("max_tokens"), response_format=form)
    return Task(chat=chat, features=Features(tokens_in=10, tokens_out=20, tokens_out_max=100, language=said.get("lang", "en")))
