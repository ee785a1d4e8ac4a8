"""Streamed answers as the three dialects send them, event by event, so that tests can cut, garble and repeat them."""

from collections.abc import Sequence
from typing import Any

import orjson

WORDS = ("One", " two", " three", ", Grüße", " 😀", "\n\n", "four", " five", " six", " seven", " eight", " nine", ".")
TEXT = "".join(WORDS)
TOKENS_IN, TOKENS_OUT = 25, 40


def event(data: object, name: str = "") -> bytes:
    """One server-sent event."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def openai_chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk; without a delta one without choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices} | fields


def openai_usage(tokens_out: int = TOKENS_OUT) -> dict[str, Any]:
    return {"prompt_tokens": TOKENS_IN, "completion_tokens": tokens_out, "total_tokens": TOKENS_IN + tokens_out}


def openai_events(words: Sequence[str] = WORDS) -> list[bytes]:
    """A whole stream: role, words, finish reason, usage, end marker."""
    return [
        event(openai_chunk({"role": "assistant", "content": ""})),
        *(event(openai_chunk({"content": word})) for word in words),
        event(openai_chunk({}, "stop")),
        event(openai_chunk(usage=openai_usage())),
        event(b"[DONE]"),
    ]


def typed(kind: str, **fields: Any) -> bytes:
    """One of Anthropic's events."""
    return event({"type": kind, **fields}, kind)


def anthropic_start(**usage: int) -> bytes:
    counts = {"input_tokens": TOKENS_IN, "output_tokens": 1} | usage
    return typed("message_start", message={"id": "msg_1", "model": "m-1", "content": [], "usage": counts})


def anthropic_end(reason: str = "end_turn", tokens_out: int = TOKENS_OUT, **delta: Any) -> list[bytes]:
    stop = {"stop_reason": reason, "stop_sequence": None} | delta
    return [typed("message_delta", delta=stop, usage={"output_tokens": tokens_out}), typed("message_stop")]


def anthropic_block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    """A block from its start to its end."""
    return [
        typed("content_block_start", index=index, content_block=block),
        *(typed("content_block_delta", index=index, delta=delta) for delta in deltas),
        typed("content_block_stop", index=index),
    ]


def anthropic_text(index: int, words: Sequence[str] = WORDS) -> list[bytes]:
    return anthropic_block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": word} for word in words))


def anthropic_events(words: Sequence[str] = WORDS) -> list[bytes]:
    """A whole stream, with a ping and a thought."""
    thought = anthropic_block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "Let me see"})
    return [anthropic_start(), typed("ping"), *thought, *anthropic_text(1, words), *anthropic_end()]


def gemini_piece(*parts: dict[str, Any], finish: str | None = None, counted: int | None = None, **fields: Any) -> dict[str, Any]:
    """A response with a piece of the answer."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": TOKENS_IN} | ({} if counted is None else {"candidatesTokenCount": counted})
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m-1", "responseId": "resp-1"} | fields


def gemini_events(words: Sequence[str] = WORDS) -> list[bytes]:
    """A whole stream; it ends with its body."""
    pieces = [gemini_piece({"text": word}, counted=place + 1) for place, word in enumerate(words)]
    last = gemini_piece({"text": ""}, finish="STOP", counted=TOKENS_OUT)
    return [event(piece).replace(b"\n\n", b"\r\n\r\n") for piece in (*pieces, last)]


EVENTS = {"openai": openai_events, "anthropic": anthropic_events, "gemini": gemini_events}
