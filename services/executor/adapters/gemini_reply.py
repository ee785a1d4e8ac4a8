"""Gemini's generateContent: a response, whole or streamed, to a `Reply`. Thoughts are counted, never shown. Pure.

Source: Gemini API reference: GenerateContentResponse, Candidate, FinishReason, UsageMetadata, LogprobsResult.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer
from services.executor.adapters import hints, parts
from services.executor.adapters.gemini_errors import failed, failure_of, is_error
from services.executor.adapters.streams import AnswerStream
from services.executor.reply import Reply

SIGNATURE_KEYS = ("extra_content", "google", "thought_signature")   # where Google's own OpenAI endpoint has it

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_FILTERED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"}
)
_MALFORMED = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"}
)


def reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """What a whole response says. It is read as a stream of one event is: the objects are the same."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if status != 200 or is_error(parsed):
        return failed(status, headers, parsed)
    if not isinstance(parsed, dict) or not ("candidates" in parsed or "promptFeedback" in parsed):
        return Reply(status, failure=FailureClass.MALFORMED)
    return GeminiStream(headers).read_whole(parsed)


def stream(headers: Mapping[str, str]) -> "GeminiStream":
    """A reader for one streamed response."""
    return GeminiStream(headers)


def _finished(reason: str) -> tuple[str | None, FailureClass | None]:
    if reason in _FINISH:
        return _FINISH[reason], None
    if reason in _FILTERED:
        return None, FailureClass.CONTENT_FILTERED
    return None, FailureClass.MALFORMED if reason in _MALFORMED else FailureClass.TRUNCATED


def usage_of(found: object) -> Usage | None:
    """Tokens as counted, thoughts as output; None without a count of the prompt. A count of 0 is not sent at all."""
    if not isinstance(found, dict) or _count(found, "promptTokenCount") is None:
        return None
    thoughts = _count(found, "thoughtsTokenCount") or 0
    return Usage(
        tokens_in=(_count(found, "promptTokenCount") or 0) + (_count(found, "toolUsePromptTokenCount") or 0),
        tokens_out=(_count(found, "candidatesTokenCount") or 0) + thoughts,
        tokens_cached=_count(found, "cachedContentTokenCount") or 0,
        tokens_reasoning=thoughts,
    )


def _count(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def logprobs_of(found: Any) -> list[dict[str, Any]]:
    """Per token its log-probability and the alternatives."""
    chosen = found.get("chosenCandidates") or []
    tops = found.get("topCandidates") or [{}] * len(chosen)
    return [
        {**_logprob(token), "top": [_logprob(one) for one in top.get("candidates") or ()]}
        for token, top in zip(chosen, tops, strict=True)
    ]


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logprob": token.get("logProbability", 0.0)}


class GeminiStream(AnswerStream):
    """Every event is a whole response with a piece of the answer. Some models give a finish reason with every one of them,
    so only the body's own end tells the last.
    """

    outlives_its_finish: ClassVar[bool] = True

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._calls: list[dict[str, Any]] = []
        self._counted: Usage | None = None
        self._id = ""

    def read_whole(self, parsed: dict[str, Any]) -> Reply:
        """The reply to a response that came in one piece. A candidate without a finish reason is truncated."""
        try:
            self.take(parsed)
        except (ValueError, AttributeError, LookupError, TypeError):
            return Reply(200, failure=FailureClass.MALFORMED)
        self.read_any = bool(parsed.get("candidates"))
        return self.result()._replace(streamed=False, usage=self.usage, tokens_seen=0)

    def take(self, event: dict[str, Any]) -> None:
        if is_error(event):
            found = failed(200, self.headers, event)
            self.said, self.wait_ms = found.said, found.wait_ms
            self.fail(failure_of(200, event))
            return
        self.alive += 1
        self._id = self._id or str(event.get("responseId") or "")
        self.model = self.model or str(event.get("modelVersion") or "")
        self._counted = usage_of(event.get("usageMetadata")) or self._counted
        candidates = event.get("candidates")
        if candidates:
            self._add(candidates[0])
        elif (event.get("promptFeedback") or {}).get("blockReason"):
            self._blocked(event["promptFeedback"])
        if self.finish is not None or self.failure is not None:
            self.usage = self._counted   # what was counted before the end is not the whole

    def answer(self, usage: Usage) -> Answer | None:
        return Answer(
            text="".join(self.texts),
            tool_calls=tuple(self._calls),
            finish="tool_calls" if self._calls and self.finish == "stop" else self.finish or "",
            model_served=self.model,
            logprobs=tuple(self.logprobs),
            usage=usage,
            provider_request_id=self._id,
        )

    def request_id(self) -> str:
        return self._id

    def is_same(self, event: dict[str, Any]) -> bool:
        """Counts are cumulative: an event with text that counts no more than the one before it is that one again."""
        return "candidatesTokenCount" in (event.get("usageMetadata") or {})

    def _add(self, candidate: dict[str, Any]) -> None:
        for part in (candidate.get("content") or {}).get("parts") or ():
            if "functionCall" in part:
                self._call(part)
            elif part.get("text"):
                self.came(len(part["text"]))
                if not part.get("thought"):
                    self.texts.append(part["text"])
        if candidate.get("logprobsResult"):
            self.logprobs.extend(logprobs_of(candidate["logprobsResult"]))
        reason = candidate.get("finishReason")
        if reason is not None and reason != "FINISH_REASON_UNSPECIFIED":
            self.finish_with(*_finished(reason))
            self.said = _refused(reason, candidate) if self.failure is FailureClass.CONTENT_FILTERED else ""

    def _call(self, part: dict[str, Any]) -> None:
        """A call, with an id where it has none: the same of the same response, another of any other."""
        call = part["functionCall"]
        name, arguments = call["name"], orjson.dumps(call.get("args") or {}).decode()
        mark = f"{self._id}/{len(self._calls)}/{name}/{arguments}"
        id = call.get("id") or f"call_{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
        found = parts.call_of(id, name, arguments)
        if part.get("thoughtSignature"):
            top, middle, key = SIGNATURE_KEYS
            found[top] = {middle: {key: part["thoughtSignature"]}}
        self._calls.append(found)
        self.came(len(name) + len(arguments))

    def _estimated(self) -> Usage:
        seen, counted = super()._estimated(), self._counted
        if counted is None:
            return seen
        return counted.model_copy(update={"tokens_out": max(counted.tokens_out, seen.tokens_out), "estimated": True})

    def _blocked(self, feedback: dict[str, Any]) -> None:
        self.finish_with(None, FailureClass.CONTENT_FILTERED)
        self.said = hints.said(feedback.get("blockReasonMessage")) or _refused(str(feedback["blockReason"]), feedback)


def _refused(reason: str, holder: dict[str, Any]) -> str:
    """The provider's reason: its message, or the name of the reason and the categories that were blocked."""
    if isinstance(holder.get("finishMessage"), str):
        return hints.said(holder["finishMessage"])
    ratings = holder.get("safetyRatings") or ()
    categories = [str(one.get("category")) for one in ratings if isinstance(one, dict) and one.get("blocked")]
    return hints.said(f"blocked: {reason}" + (f" ({', '.join(categories)})" if categories else ""))
