"""Dialects: how a chat becomes a provider's request, and its response a `Reply`. Add a dialect: its modules, and one row.

An adapter is pure and does no I/O. Raw bodies and keys never leave it: only class, status, request id, usage, finish.
"""

from collections.abc import Mapping
from typing import Protocol

from schemas.ledger import FailureClass
from schemas.messages import Chat
from services.executor.adapters import anthropic, gemini, openai
from services.executor.adapters.flavours import Flavour
from services.executor.reply import Reply


class Stream(Protocol):
    """Reads one streamed response; `streams.py` says what its flags mean."""

    started: bool
    finished: bool
    over: bool
    alive: int

    def feed(self, piece: bytes) -> None:
        """Takes bytes as they come."""

    def result(self, broken: FailureClass | None = None) -> Reply:
        """What it amounts to; `broken` says how it ended, if not by itself. Never raises."""


class Adapter(Protocol):
    """What a dialect's module offers; `self` is the module."""

    def path(self, model_name: str, streamed: bool, flavour: Flavour) -> str:
        """What stands after a backend's base_url, query included."""

    def headers(self, key: str | None, flavour: Flavour) -> tuple[tuple[str, str], ...]:
        """The headers of every call with this key."""

    def body(self, chat: Chat, model_name: str, tokens_out_max: int | None, streamed: bool, flavour: Flavour) -> bytes:
        """The request's body; `tokens_out_max` bounds the answer, so that its cost is bounded."""

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
        """What a whole response says. Never raises: what cannot be read is `malformed`."""

    def stream(self, headers: Mapping[str, str]) -> Stream:
        """A reader for a streamed response."""


ADAPTERS: dict[str, Adapter] = {"openai": openai, "anthropic": anthropic, "gemini": gemini}
