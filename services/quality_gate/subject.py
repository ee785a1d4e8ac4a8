"""What a check looks at: one answer to one task, and what of the prompt it may be compared with. Read once for all checks."""

import re
from functools import cached_property
from typing import Any

from schemas.messages import Answer, Score, Task

_FENCED = re.compile(r"(?ms)^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)")
_INLINE = re.compile(r"`[^`\n]{1,400}`")
_SOURCES_MARK = re.compile(
    r"(?im)^[ \t]*(?:<(?:context|documents?|sources?)>|\[1\]|"
    r"(?:context|sources?|documents?|text|kontext|quellen|contexto|contexte)[ \t]*:)"
)

_LONG_NUMBER = re.compile(r"[0-9][0-9 -]{6,40}[0-9]")
_LONG_NUMBER_DIGITS = 8
_NOT_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_MARKS = b".,;:!?()[]{}\"'`*#<>=/-_|"
_TO_SPACES = bytes.maketrans(_MARKS, b" " * len(_MARKS))
_OTHER_MARKS = "’“”„«»¿¡…–—、。，！？：；「」"


def words_of(lower: str) -> list[str]:
    """Words of a text. Bytes are replaced in C: a tenth of what a regular expression takes, whatever the script."""
    if not lower.isascii():
        for mark in _OTHER_MARKS:
            if mark in lower:
                lower = lower.replace(mark, " ")
    return lower.encode("utf-8", "surrogatepass").translate(_TO_SPACES).decode("utf-8", "surrogatepass").split()


class Subject:
    """An answer and its task. Everything derived is computed when the first check asks for it."""

    def __init__(self, answer: Answer, task: Task, scores: tuple[Score, ...] = ()) -> None:
        self.answer = answer
        self.scores = {score.name: score for score in scores}
        self.task = task
        self.text = answer.text

    @cached_property
    def lower(self) -> str:
        return self.text.lower().replace("’", "'")

    @cached_property
    def words(self) -> list[str]:
        """The words in lower case, without the marks around them."""
        return words_of(self.lower)

    @cached_property
    def digits(self) -> int:
        """How many digits the text has."""
        return len(self.text.encode("utf-8", "surrogatepass").translate(None, _NOT_DIGITS))

    @cached_property
    def has_long_number(self) -> bool:
        """Whether there is what every card, account and security number holds: quick looks that spare the slow ones."""
        return self.digits >= _LONG_NUMBER_DIGITS and _LONG_NUMBER.search(self.text) is not None

    @cached_property
    def prose(self) -> str:
        """The text without code: blocks and what stands between backticks."""
        if "`" not in self.text and "~~~" not in self.text:
            return self.text
        return _INLINE.sub(" ", _FENCED.sub(" ", self.text))

    @cached_property
    def prompt(self) -> str:
        """Everything the model was given to read, in one text."""
        return "\n".join(text for _, text in self._messages)

    @cached_property
    def asked(self) -> str:
        """What the user wrote; the system's instructions are not part of it."""
        return "\n".join(text for role, text in self._messages if role == "user")

    @cached_property
    def system(self) -> str:
        """What the operator wrote."""
        return "\n".join(text for role, text in self._messages if role in ("system", "developer"))

    @cached_property
    def _messages(self) -> list[tuple[str, str]]:
        return messages_of(self.task)


def instructions_of(system: str) -> str:
    """What of a system text nobody should read: up to where sources begin, which answers are meant to use."""
    sources = _SOURCES_MARK.search(system)
    return system[: sources.start()] if sources else system


def messages_of(task: Task) -> list[tuple[str, str]]:
    """Role and text of each message of a task; parts that are no text, such as images, are left out."""
    if task.chat is None:
        return []
    return [(str(message.get("role", "")), _text_of(message.get("content"))) for message in task.chat.messages]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
