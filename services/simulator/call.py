"""The dialect-free middle: what a caller asked (`Call`), what the model says (`Answer`), what it counts (`Usage`).

Tokens, everywhere in the simulator: bytes of UTF-8 text divided by four, rounded up, at least one if there is text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from services.simulator.profiles import ModelProfile

IMAGE_TOKENS = 85  # what an image counts, whatever its size

Role = Literal["user", "assistant", "tool"]
ToolChoice = Literal["auto", "none", "any", "named"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is its JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model called in an earlier turn; `arguments` is compact JSON. The id is the dialect's own business."""

    name: str
    arguments: str
    call_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation. `images` are data URLs or addresses; a tool's result is a turn with the tool's name."""

    role: Role
    text: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    call_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One request for an answer: the same in every dialect. `prompt` is the last turn's text, `prefix` all text before it."""

    model: ModelProfile
    prompt: str
    system: str
    prefix: str
    role: Role
    tokens_in: int
    turns: tuple[Turn, ...] = ()
    seed: str = ""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None  # kept, without effect: the same call has the same answer
    top_p: float | None = None
    logprobs: int | None = None  # None: not asked for; else how many alternatives per token
    streamed: bool = False
    with_usage: bool = True
    as_events: bool = True  # a stream as server-sent events; without, as one JSON array
    wants_json: bool = False
    schema: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    tool_named: str = ""  # the tool of the choice `named`
    cacheable: bool = True  # whether the prompt may be read from the provider's cache
    pays_cache_writes: bool = field(default=False, compare=False)  # whether putting it there is billed


@dataclass(frozen=True, slots=True)
class Answer:
    """Text or one tool call (its arguments as JSON text); `finish` is stop, length or tool_calls."""

    text: str
    finish: str = "stop"
    tool_name: str = ""
    reasoning_tokens: int = 0
    stop_text: str = ""  # the stop sequence that ended it
    certainty: float = 0.9  # mean probability of its tokens, told by log probabilities only


@dataclass(frozen=True, slots=True)
class Usage:
    """As reported and as billed. `reasoning_tokens` are part of `tokens_out`; cache reads and writes of `tokens_in`."""

    tokens_in: int
    tokens_out: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0


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
