"""OpenAI's chat completions: a response, whole or streamed, to a `Reply`. Pure.

Sources: OpenAI API reference (chat completion object, chunk object), vLLM's OpenAI-compatible server.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer
from services.executor.adapters import hints
from services.executor.adapters.openai_errors import failed, failure_of, is_error
from services.executor.adapters.streams import AnswerStream
from services.executor.reply import Reply

_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "model_length": "length",   # Mistral's
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_FAILED = {
    "content_filter": FailureClass.CONTENT_FILTERED,
    "insufficient_system_resource": FailureClass.OVERLOADED,   # DeepSeek's
    "error": FailureClass.STREAM_ERROR,
}


def reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """What a whole response says. An error body behind a 200 is an error; a 200 without a finish reason is truncated."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if status != 200 or is_error(parsed):
        return failed(status, headers, parsed)
    if not isinstance(parsed, dict) or "choices" not in parsed:
        return Reply(status, failure=FailureClass.MALFORMED, provider_request_id=headers.get("x-request-id", ""))
    return _answered(parsed, headers)


def stream(headers: Mapping[str, str]) -> "OpenaiStream":
    """A reader for one streamed response."""
    return OpenaiStream(headers)


def _answered(parsed: dict[str, Any], headers: Mapping[str, str]) -> Reply:
    usage, request_id = usage_of(parsed.get("usage")), headers.get("x-request-id", "")
    served = parsed.get("model")
    model_served = served if isinstance(served, str) else ""
    found, failure = _read(parsed["choices"])
    answer = None
    if found is not None:
        answer = Answer(
            **found, model_served=model_served, usage=usage or Usage(estimated=True), provider_request_id=request_id
        )
    limits = hints.openai_limits(headers)
    return Reply(200, answer, failure, usage, model_served, request_id, limits=limits)


def _read(choices: object) -> tuple[dict[str, Any] | None, FailureClass | None]:
    """The fields of an answer, or what is wrong with it. A refusal is an answer, for the gate to judge."""
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None, FailureClass.MALFORMED
    finish, failure = _finished(choice.get("finish_reason"))
    if finish is None:
        return None, failure
    try:
        text = _text(message.get("content")) or _text(message.get("refusal"))
        calls = _calls(message.get("tool_calls"))
        logprobs = logprobs_of(choice.get("logprobs"))
    except (AttributeError, LookupError, TypeError):
        return None, FailureClass.MALFORMED
    return {"text": text, "tool_calls": calls, "finish": finish, "logprobs": logprobs}, None


def _finished(reason: object) -> tuple[str | None, FailureClass | None]:
    """How an answer ended, or the failure it ended with; a reason that nobody knows does not say that it is whole."""
    finish = _FINISH.get(reason) if isinstance(reason, str) else None
    if finish is not None:
        return finish, None
    return None, _FAILED.get(str(reason), FailureClass.TRUNCATED)


def _text(content: object) -> str:
    """The text of a content; Mistral's thinking models send parts. Raises TypeError for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise TypeError("neither text nor parts")
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _calls(calls: object) -> tuple[dict[str, Any], ...]:
    found = calls or []
    if not isinstance(found, list) or not all(isinstance(call, dict) for call in found):
        raise TypeError("not tool calls")
    return tuple(found)


def logprobs_of(found: Any) -> tuple[dict[str, Any], ...]:
    """Per token its log-probability and the alternatives; raises TypeError or LookupError for another shape."""
    tokens = found.get("content") if found else None
    return tuple(
        {
            "token": token["token"],
            "logprob": token["logprob"],
            "top": [{"token": one["token"], "logprob": one["logprob"]} for one in token.get("top_logprobs") or ()],
        }
        for token in tokens or ()
    )


def usage_of(found: object) -> Usage | None:
    """Tokens as counted, or None when they are not all there: an invented zero would be a wrong bill."""
    if not isinstance(found, dict):
        return None
    tokens_in, tokens_out = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
    if tokens_in is None or tokens_out is None:
        return None
    reasoning = _detail(found.get("completion_tokens_details"), "reasoning_tokens")
    if reasoning and found.get("total_tokens") == tokens_in + tokens_out + reasoning:
        tokens_out += reasoning   # xAI counts them beside the completion
    cached = _detail(found.get("prompt_tokens_details"), "cached_tokens") or _count(found.get("prompt_cache_hit_tokens")) or 0
    return Usage(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_cached=cached,
        tokens_cache_write=_detail(found.get("prompt_tokens_details"), "cache_write_tokens"),
        tokens_reasoning=reasoning,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _detail(details: object, name: str) -> int:
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


class OpenaiStream(AnswerStream):
    """Chunks. The finish reason stands in or behind the last one with text; usage and `[DONE]` may follow, or not."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._refusals: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._places: dict[int, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        choices = event.get("choices")
        if choices:
            self.alive += 1
            choice = choices[0]
            delta = choice.get("delta")
            if delta:
                self._add(delta)
            if choice.get("logprobs"):
                self.logprobs.extend(logprobs_of(choice["logprobs"]))
            if choice.get("finish_reason"):   # some servers send "" until the last
                self.finish_with(*_finished(choice["finish_reason"]))
        elif is_error(event):
            self._error(event)
            return
        if not self.model and event.get("model"):
            self.model = str(event["model"])
        usage = event.get("usage") or (event.get("x_groq") or {}).get("usage")
        if usage:
            self.usage = usage_of(usage) or self.usage
            self.over = self.over or (self.finished and self.usage is not None and not choices)

    def answer(self, usage: Usage) -> Answer | None:
        return Answer(
            text="".join(self.texts) or "".join(self._refusals),
            tool_calls=tuple(_joined(call, place) for place, call in enumerate(self._calls.values())),
            finish=self.finish or "",
            model_served=self.model,
            logprobs=tuple(self.logprobs),
            usage=usage,
            provider_request_id=self.request_id(),
        )

    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    def limited(self, reply: Reply) -> Reply:
        return reply._replace(limits=hints.openai_limits(self.headers))

    def is_same(self, event: dict[str, Any]) -> bool:
        """OpenAI pads every chunk at random, so that equal ones are one."""
        return "obfuscation" in event

    def _add(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        if content:
            text = _text(content)
            self.texts.append(text)
            self.came(len(text))
        for name in ("reasoning_content", "reasoning", "refusal"):
            thought = delta.get(name)
            if thought:
                self.came(len(thought))
                if name == "refusal":
                    self._refusals.append(_text(thought))
        for fragment in delta.get("tool_calls") or ():
            self._add_call(fragment)

    def _add_call(self, fragment: dict[str, Any]) -> None:
        """A call's head, or a piece of its arguments. Some servers send whole calls, all of them with index 0 or none."""
        index, id, function = fragment.get("index") or 0, fragment.get("id"), fragment.get("function") or {}
        place = self._places.get(index)
        if place is None or (id and self._calls[place]["id"] not in ("", id)):
            place = self._places[index] = len(self._calls)
            self._calls[place] = {"id": "", "name": "", "arguments": []}
        call = self._calls[place]
        call["id"] = call["id"] or id or ""
        call["name"] = call["name"] or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call["arguments"].append(_text(arguments))
        self.came(len(arguments) + len(function.get("name") or ""))

    def _error(self, event: dict[str, Any]) -> None:
        found = failed(200, self.headers, event)
        self.said, self.wait_ms = found.said, found.wait_ms
        self.fail(failure_of(200, event))


def _joined(call: dict[str, Any], place: int) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"id": call["id"] or f"call_{place}", "type": "function", "function": function}
