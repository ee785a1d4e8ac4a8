"""Dialects: how a chat becomes a provider's request, and its response a `Reply`. Add a dialect: one module, one row.

An adapter is pure and does no I/O. Raw bodies and keys never leave it: only class, status, request id, usage, finish.
"""

from collections.abc import Mapping
from typing import Protocol

from schemas.messages import Chat
from services.executor.adapters import openai
from services.executor.reply import Reply


class Adapter(Protocol):
    """What a dialect's module offers; `self` is the module."""

    PATH: str

    def headers(self, key: str | None) -> tuple[tuple[str, str], ...]:
        """The headers of every call with this key."""

    def body(self, chat: Chat, model_name: str, tokens_out_max: int | None) -> bytes:
        """The request's body; `tokens_out_max` bounds the answer, so that its cost is bounded."""

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
        """What a whole response says. Never raises: what cannot be read is `malformed`."""


ADAPTERS: dict[str, Adapter] = {"openai": openai}
