"""Anthropic's Messages: a response, whole or streamed, to a `Reply`. Thoughts are counted, never shown. Pure.

Source: Anthropic API reference: message, streaming, stop reasons.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer
from services.executor.adapters import hints, parts
from services.executor.adapters.anthropic_errors import failed, failure_of, is_error, request_id
from services.executor.adapters.streams import AnswerStream
from services.executor.reply import Reply

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",   # the model wanted to go on: what is there is not the whole of it
}
_REFUSED = "refusal"
_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """What a whole response says. An error body behind a 200 is an error; a 200 without a stop reason is truncated."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if status != 200 or is_error(parsed):
        return failed(status, headers, parsed)
    found = Reply(200, provider_request_id=request_id(headers, parsed), limits=hints.anthropic_limits(headers))
    if not isinstance(parsed, dict) or not isinstance(parsed.get("content"), list):
        return found._replace(failure=FailureClass.MALFORMED)
    return _answered(parsed, found)


def stream(headers: Mapping[str, str]) -> "AnthropicStream":
    """A reader for one streamed response."""
    return AnthropicStream(headers)


def _answered(parsed: dict[str, Any], found: Reply) -> Reply:
    found = found._replace(usage=usage_of(parsed.get("usage")), model_served=str(parsed.get("model") or ""))
    finish, failure = _finished(parsed.get("stop_reason"))
    if finish is None:
        return found._replace(failure=failure, said=_refusal(parsed))
    try:
        text = "".join(block["text"] for block in parsed["content"] if block["type"] == "text")
        calls = tuple(_call(block) for block in parsed["content"] if block["type"] == "tool_use")
    except (LookupError, TypeError):
        return found._replace(failure=FailureClass.MALFORMED)
    answer = Answer(
        text=text,
        tool_calls=calls,
        finish=finish,
        model_served=found.model_served,
        usage=found.usage or Usage(estimated=True),
        provider_request_id=found.provider_request_id,
    )
    return found._replace(answer=answer)


def _call(block: dict[str, Any]) -> dict[str, Any]:
    return parts.call_of(block["id"], block["name"], orjson.dumps(block["input"]).decode())


def _finished(reason: object) -> tuple[str | None, FailureClass | None]:
    finish = _FINISH.get(reason) if isinstance(reason, str) else None
    if finish is not None:
        return finish, None
    return None, FailureClass.CONTENT_FILTERED if reason == _REFUSED else FailureClass.TRUNCATED


def _refusal(holder: dict[str, Any]) -> str:
    """Why the model's maker refused; the bare word where it does not say more."""
    details = holder.get("stop_details")
    words = details.get("explanation") or details.get("category") if isinstance(details, dict) else None
    return hints.said(words) or _REFUSED


def usage_of(found: object) -> Usage | None:
    """Tokens as counted, input from and to the cache included; None when input or output is not there."""
    if not isinstance(found, dict):
        return None
    tokens_in, tokens_out, cached, written = (_count(found.get(name)) for name in _COUNTS)
    if tokens_in is None or tokens_out is None:
        return None
    details = found.get("output_tokens_details")
    return Usage(
        tokens_in=tokens_in + (cached or 0) + (written or 0),
        tokens_out=tokens_out,
        tokens_cached=cached or 0,
        tokens_cache_write=written or 0,
        tokens_reasoning=(_count(details.get("thinking_tokens")) or 0) if isinstance(details, dict) else 0,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class AnthropicStream(AnswerStream):
    """Events of a message: blocks that start, grow and stop, then the stop reason with the final count, then the end."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._counts: dict[str, Any] = {}
        self._open: dict[int, dict[str, Any]] = {}
        self._calls: list[dict[str, Any]] = []
        self._blocks = 0
        self._misplaced = False
        self._id = request_id(headers, None)

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "ping":
            return
        self.alive += 1
        if kind == "content_block_delta":
            self._grow(event["index"], event["delta"])
        elif kind == "content_block_start":
            self._start(event["index"], event["content_block"])
        elif kind == "content_block_stop":
            self._stop(event["index"])
        elif kind == "message_start":
            self._begin(event["message"])
        elif kind == "message_delta":
            self._end(event["delta"], event.get("usage"))
        elif kind == "message_stop":
            self.over = True
        elif is_error(event):
            found = failed(200, self.headers, event)
            self.said, self.wait_ms = found.said, found.wait_ms
            self.fail(failure_of(200, event))

    def answer(self, usage: Usage) -> Answer | None:
        """The answer, if every block that began has ended and every tool's input is JSON, or was cut by its length."""
        if self._misplaced or self._open:
            return None
        if self.finish != "length" and not all(_is_json(call["function"]["arguments"]) for call in self._calls):
            return None
        return Answer(
            text="".join(self.texts),
            tool_calls=tuple(self._calls),
            finish=self.finish or "",
            model_served=self.model,
            usage=usage,
            provider_request_id=self._id,
        )

    def request_id(self) -> str:
        return self._id

    def limited(self, reply: Reply) -> Reply:
        return reply._replace(limits=hints.anthropic_limits(self.headers))

    def _begin(self, message: dict[str, Any]) -> None:
        self.model = str(message.get("model") or "")
        self._count(message.get("usage"))

    def _start(self, index: int, block: dict[str, Any]) -> None:
        if index in self._open or index != self._blocks:
            self._misplaced = self._misplaced or self._open.get(index, {}).get("block") != block
            return
        self._blocks += 1
        self._open[index] = {"block": block, "input": []}
        if block["type"] == "text" and block.get("text"):
            self.texts.append(block["text"])
            self.came(len(block["text"]))
        elif block["type"] == "tool_use":
            self.came(len(block["name"]))

    def _grow(self, index: int, delta: dict[str, Any]) -> None:
        kind = delta["type"]
        if index not in self._open:
            self._misplaced = True
        elif kind == "text_delta":
            self.texts.append(delta["text"])
            self.came(len(delta["text"]))
        elif kind == "input_json_delta":
            self._open[index]["input"].append(delta["partial_json"])
            self.came(len(delta["partial_json"]))
        elif kind == "thinking_delta":
            self.came(len(delta["thinking"]))

    def _stop(self, index: int) -> None:
        opened = self._open.pop(index, None)
        block = opened["block"] if opened else {}
        if opened and block["type"] == "tool_use":
            arguments = "".join(opened["input"]) or orjson.dumps(block.get("input") or {}).decode()
            self._calls.append(parts.call_of(block["id"], block["name"], arguments))

    def _end(self, delta: dict[str, Any], usage: object) -> None:
        """The stop reason, and the count that is final: the one before was of a message just begun."""
        self._count(usage)
        if delta.get("stop_reason") is not None:
            self.finish_with(*_finished(delta["stop_reason"]))
            self.said = _refusal(delta)
        if isinstance(usage, dict) and "output_tokens" in usage:
            self.usage = usage_of(self._counts)

    def _count(self, usage: object) -> None:
        """Counts are cumulative, and those that do not change are not said again."""
        if isinstance(usage, dict):
            self._counts |= {name: value for name, value in usage.items() if value is not None}

    def _estimated(self) -> Usage:
        counted = usage_of(self._counts)
        seen = super()._estimated()
        return seen if counted is None else counted.model_copy(update={"tokens_out": seen.tokens_out, "estimated": True})


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
