"""Google's Gemini: bytes in to a `Call`, an `Answer` out to bytes. Pure: no I/O, no clock.

Source: the Gemini API reference, generateContent and streamGenerateContent. Requests are read in
`dialect_gemini_request.py`, errors are in `dialect_gemini_errors.py`.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from services.simulator.call import Answer, Call, Usage
from services.simulator.dialect import EVENTS, JSON, PIECE, Failure, Quota
from services.simulator.dialect_gemini_errors import ERROR_CLASSES, error, usage_of
from services.simulator.dialect_gemini_request import parse
from services.simulator.logprobs import Token, tokens_of

__all__ = ["ERROR_CLASSES", "Chunks", "chunks", "completion", "error", "headers", "parse"]

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
Part = dict[str, Any]


def completion(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes:
    """A whole GenerateContentResponse."""
    part = _part(said)
    candidate: dict[str, Any] = {"content": _content(part), "finishReason": _finish(said, part), "index": 0}
    if call.logprobs is not None and not said.tool_name:
        candidate |= _logprobs_of(tokens_of(call, said, PIECE.findall(said.text)))
    return orjson.dumps({"candidates": [candidate], "usageMetadata": usage_of(usage), **_ids(call, reply_id)})


def headers(reply_id: str, quota: Quota, now_s: float) -> dict[str, str]:
    """Gemini tells neither an id nor what is left."""
    return {}


class Chunks:
    """The events of one stream: each is a whole response. Without `alt=sse` they are the elements of one JSON array."""

    def __init__(self, call: Call, said: Answer, usage: Usage, reply_id: str) -> None:
        self._call, self._said = call, said
        self._prompt = {"promptTokenCount": usage.tokens_in, "totalTokenCount": usage.tokens_in}
        self._ids = _ids(call, reply_id)
        self._is_array = not call.as_events
        self.content_type = EVENTS if call.as_events else JSON
        self.silent_tokens = said.reasoning_tokens

    def first(self) -> bytes:
        """Nothing comes before the first piece."""
        return b"[" if self._is_array else b""

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Text a word at a time; a tool call is never split, and one that is no JSON is not said at all."""
        if self._said.tool_name:
            part = _part(self._said)
            yield self._said.text, self._piece(part) if part else b""
            return
        pieces = PIECE.findall(self._said.text)
        if self._call.logprobs is None:
            for piece in pieces:
                yield piece, self._piece({"text": piece})
        else:
            for token in tokens_of(self._call, self._said, pieces):
                yield token.text, self._piece({"text": token.text}, _logprobs_of([token]))

    def last(self, usage: Usage) -> bytes:
        """The finish reason and the count."""
        return self._last(_finish(self._said, _part(self._said)), usage)

    def end(self) -> bytes:
        """Events have no end marker: the connection ends. An array is closed."""
        return b"]" if self._is_array else b""

    def broken(self) -> bytes:
        """A response that is not JSON."""
        return self._framed(b'{"candidates": [{"content": {"parts": [{"te')

    def error(self, failure: Failure) -> bytes:
        """An error where a response should be, then the end. What is filtered is no error but a finish reason."""
        if failure.error_class == "content_filtered":
            return self._last("SAFETY", failure.usage) + self.end()
        body = error(failure).body
        return body + b"]" if self._is_array else _event(body)

    def _last(self, finish: str, usage: Usage) -> bytes:
        candidate = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": finish, "index": 0}
        response = orjson.dumps({"candidates": [candidate], "usageMetadata": usage_of(usage), **self._ids})
        return response if self._is_array else _event(response)

    def _piece(self, part: Part, more: dict[str, Any] | None = None) -> bytes:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0, **(more or {})}
        response = {"candidates": [candidate], "usageMetadata": self._prompt, **self._ids}
        return self._framed(orjson.dumps(response))

    def _framed(self, response: bytes) -> bytes:
        return response + b",\r\n" if self._is_array else _event(response)


def chunks(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> Chunks:
    """The events of a stream."""
    return Chunks(call, said, usage, reply_id)


def _event(response: bytes) -> bytes:
    return b"data: " + response + b"\r\n\r\n"


def _ids(call: Call, reply_id: str) -> dict[str, str]:
    return {"modelVersion": call.model.name, "responseId": reply_id}


def _part(said: Answer) -> Part | None:
    """Text or a tool call; nothing if there is no text, or if the arguments were cut off."""
    if not said.tool_name:
        return {"text": said.text} if said.text else None
    try:
        return {"functionCall": {"name": said.tool_name, "args": orjson.loads(said.text)}}
    except orjson.JSONDecodeError:
        return None


def _content(part: Part | None) -> dict[str, Any]:
    return {"parts": [part], "role": "model"} if part else {"role": "model"}


def _finish(said: Answer, part: Part | None) -> str:
    broken = said.tool_name and part is None and said.finish != "length"
    return "MALFORMED_FUNCTION_CALL" if broken else _FINISH[said.finish]


def _logprobs_of(tokens: list[Token]) -> dict[str, Any]:
    def one(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "tokenId": sum(text.encode("utf-8", "replace")), "logProbability": logprob}

    if not tokens:
        return {}
    result: dict[str, Any] = {"chosenCandidates": [one(token.text, token.logprob) for token in tokens]}
    if tokens[0].others:
        result["topCandidates"] = [{"candidates": [one(*other) for other in token.others]} for token in tokens]
    mean = sum(token.logprob for token in tokens) / len(tokens)
    return {"avgLogprobs": mean, "logprobsResult": result}
