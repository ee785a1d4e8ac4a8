"""What a prompt gives: the question, and the context that an answer may be held to. Pure.

A context is what is marked as one, what a tool returned, or the long part of a message beside a short question. A prompt
without any has no context, and nothing can be known of an answer's support.
"""

import re
from typing import NamedTuple

from schemas.messages import Task
from services.quality_gate.subject import instructions_of, messages_of

CONTEXT_CHARS_MIN = 200
"""A shorter part of a message is a part of the question."""

_CONTEXT_MARK = re.compile(
    r"(?im)^[ \t]*(?:<(?:context|documents?|sources?|text)>|"
    r"(?:context|sources?|documents?|text|article|passage|kontext|quellen?|contexto|fuentes?|contexte)[ \t]*:)[ \t]*"
)
_QUESTION_MARK = re.compile(
    r"(?im)^[ \t]*(?:</(?:context|documents?|sources?|text)>|(?:question|task|frage|aufgabe|pregunta|tarea|tâche)[ \t]*:)[ \t]*"
)


class Given(NamedTuple):
    question: str
    context: str


def given(task: Task) -> Given:
    """The question and the context of a task; either may be empty."""
    messages = messages_of(task)
    contexts = [text for role, text in messages if role == "tool"]
    contexts += [text[len(instructions_of(text)) :] for role, text in messages if role in ("system", "developer")]
    asked = next((text for role, text in reversed(messages) if role == "user"), "")
    question, own = _parted(asked)
    return Given(question.strip(), "\n".join(part.strip() for part in (*contexts, own) if part.strip()))


def _parted(asked: str) -> tuple[str, str]:
    """Question and context of one message."""
    start = _CONTEXT_MARK.search(asked)
    if start is not None:
        end = _QUESTION_MARK.search(asked, start.end())
        if end is None:
            return asked[: start.start()], asked[start.end() :]
        return f"{asked[: start.start()]}\n{asked[end.end() :]}", asked[start.end() : end.start()]
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", asked) if paragraph.strip()]
    if len(paragraphs) < 2:
        return asked, ""
    question = min((paragraphs[0], paragraphs[-1]), key=lambda paragraph: ("?" not in paragraph, len(paragraph)))
    rest = "\n".join(paragraph for paragraph in paragraphs if paragraph is not question)
    return (question, rest) if len(rest) >= CONTEXT_CHARS_MIN else (asked, "")
