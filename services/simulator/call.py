"""The dialect-free middle: what a caller asked (`Call`), what the model says (`Answer`), what it counts (`Usage`).

Tokens, everywhere in the simulator: bytes of UTF-8 text divided by four, rounded up, at least one if there is text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.simulator.profiles import ModelProfile

IMAGE_TOKENS = 85  # what an image counts, whatever its size


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is its JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request for an answer. `prompt` is the last message's text, `prefix` the text of all messages before it."""

    model: ModelProfile
    prompt: str
    system: str
    prefix: str
    role: str
    tokens_in: int
    seed: str = ""
    max_tokens: int | None = None
    streamed: bool = False
    with_usage: bool = False
    wants_json: bool = False
    schema: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_forced: str = ""  # "", a tool's name, or "*" for any


@dataclass(frozen=True, slots=True)
class Answer:
    """Text or one tool call (its arguments as JSON text); `finish` is stop, length or tool_calls."""

    text: str
    finish: str = "stop"
    tool_name: str = ""
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """As reported and as billed. `reasoning_tokens` are part of `tokens_out`, `cached_tokens` of `tokens_in`."""

    tokens_in: int
    tokens_out: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class Prefixes:
    """Prompt prefixes a backend has seen, the oldest forgotten first: what a provider's prompt cache would hold."""

    prefixes_max: int = 4096
    seen: dict[int, None] = field(default_factory=dict)

    def has(self, seed: int) -> bool:
        """Whether the prefix was seen before; from now on it was."""
        known = self.seen.pop(seed, 0) is None
        self.seen[seed] = None
        if len(self.seen) > self.prefixes_max:
            del self.seen[next(iter(self.seen))]
        return known


def count_tokens(text: str) -> int:
    """Tokens of a text by the simulator's rule; an empty text has none."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def answer_tokens(answer: Answer) -> int:
    """Tokens of an answer, reasoning included."""
    return count_tokens(answer.tool_name + answer.text) + answer.reasoning_tokens


def first_tokens(text: str, tokens: int) -> str:
    """The longest start of the text that counts at most so many tokens, never half a character."""
    return text.encode("utf-8", "surrogatepass")[: tokens * 4].decode("utf-8", "ignore")
