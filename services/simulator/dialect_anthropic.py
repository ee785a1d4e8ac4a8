"""Anthropic's Messages: bytes in to a `Call`, an `Answer` out to bytes. Pure: no I/O, no clock.

Source: Anthropic's API reference, messages and streaming. Requests are read in `dialect_anthropic_request.py`, errors and
headers are in `dialect_anthropic_errors.py`.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from services.simulator.call import Answer, Call, Usage
from services.simulator.dialect import EVENTS, PIECE, Failure
from services.simulator.dialect_anthropic_errors import ERROR_CLASSES, error, event, headers, message_of, usage_of
from services.simulator.dialect_anthropic_request import parse

__all__ = ["ERROR_CLASSES", "Chunks", "chunks", "completion", "error", "headers", "parse"]

_STOP_REASON = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_SIGNATURE = "c2lnbmVkIGJ5IHRoZSBzaW11bGF0b3I="
_THOUGHT = "Let me look at what is asked, at what is given, and at what follows from both, one step at a time. "


def completion(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes:
    """A plain message."""
    content: list[dict[str, Any]] = []
    if said.reasoning_tokens:
        content.append({"type": "thinking", "thinking": _thinking(said), "signature": _SIGNATURE})
    if said.tool_name:
        content.append({**_tool_use(said, reply_id), "input": _input(said.text)})
    elif said.text:
        content.append({"type": "text", "text": said.text})
    message = message_of(call, reply_id, usage)
    message["content"] = content
    message |= _stop(said)
    return orjson.dumps(message)


class Chunks:
    """The events of one stream, as `dialect.Chunks` describes them. Thinking is said aloud, in a block of its own."""

    content_type = EVENTS
    silent_tokens = 0

    def __init__(self, call: Call, said: Answer, usage: Usage, reply_id: str) -> None:
        self._said = said
        self._thinks, self._answers = bool(said.reasoning_tokens), bool(said.text or said.tool_name)
        self._start = message_of(call, reply_id, usage)
        self._block = _tool_use(said, reply_id) if said.tool_name else {"type": "text", "text": ""}
        self._index = 0

    def first(self) -> bytes:
        """The message with what the prompt counts, the first block, a ping."""
        opened = b""
        if self._thinks:
            opened = self._opened({"type": "thinking", "thinking": "", "signature": ""})
        elif self._answers:
            opened = self._opened(self._block)
        return event("message_start", {"message": self._start}) + opened + event("ping", {})

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Thinking, then text or fragments of the tool's input, a word at a time."""
        for piece in PIECE.findall(_thinking(self._said)):
            yield piece, self._delta(b'{"type":"thinking_delta","thinking":' + orjson.dumps(piece) + b"}")
        head = b'{"type":"input_json_delta","partial_json":' if self._said.tool_name else b'{"type":"text_delta","text":'
        for piece in PIECE.findall(self._said.text):
            yield piece, self._thought() + self._delta(head + orjson.dumps(piece) + b"}")

    def last(self, usage: Usage) -> bytes:
        """The end of the block, the stop reason and the final count."""
        return self._last(_stop(self._said), usage)

    def end(self) -> bytes:
        """The end marker."""
        return event("message_stop", {})

    def broken(self) -> bytes:
        """An event that is not JSON."""
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'

    def error(self, failure: Failure) -> bytes:
        """An error event; nothing comes after it. What is filtered is no error but a stop reason."""
        if failure.error_class == "content_filtered":
            return self._last({"stop_reason": "refusal", "stop_sequence": None}, failure.usage) + self.end()
        return b"event: error\ndata: " + error(failure).body + b"\n\n"

    def _last(self, stop: dict[str, Any], usage: Usage) -> bytes:
        closed = self._thought() + (self._closed() if self._answers else b"")
        return closed + event("message_delta", {"delta": stop, "usage": usage_of(usage)})

    def _thought(self) -> bytes:
        """Once: the end of the thinking block and the beginning of the answer's."""
        if not self._thinks or self._index:
            return b""
        over = self._delta(orjson.dumps({"type": "signature_delta", "signature": _SIGNATURE})) + self._closed()
        self._index = 1
        return over + (self._opened(self._block) if self._answers else b"")

    def _opened(self, block: dict[str, Any]) -> bytes:
        return event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, delta: bytes) -> bytes:
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % self._index
        return head + delta + b"}\n\n"

    def _closed(self) -> bytes:
        return event("content_block_stop", {"index": self._index})


def chunks(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> Chunks:
    """The events of a stream."""
    return Chunks(call, said, usage, reply_id)


def _thinking(said: Answer) -> str:
    """Exactly as many tokens of thought as the answer took."""
    letters = said.reasoning_tokens * 4
    return (_THOUGHT * (letters // len(_THOUGHT) + 1))[:letters]


def _tool_use(said: Answer, reply_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{reply_id}", "name": said.tool_name, "input": {}}


def _input(arguments: str) -> object:
    """Arguments that were cut off are no JSON; a plain answer cannot show them."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}


def _stop(said: Answer) -> dict[str, Any]:
    if said.stop_text:
        return {"stop_reason": "stop_sequence", "stop_sequence": said.stop_text}
    return {"stop_reason": _STOP_REASON[said.finish], "stop_sequence": None}
