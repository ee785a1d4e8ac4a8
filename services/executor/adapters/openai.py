"""OpenAI's chat completions, as OpenAI, Azure, vLLM, Ollama and most gateways speak them. Pure.

Sources: OpenAI API reference (chat, error codes), vLLM's OpenAI-compatible server.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer, Chat
from services.executor.reply import Reply

PATH = "/chat/completions"
_OPTIONAL = ("temperature", "top_p", "seed", "tool_choice", "response_format")

_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

# An error's `code`, else its `type`, is more exact than the status.
_CLASS_OF_CODE = {
    "rate_limit_exceeded": FailureClass.RATE_LIMITED,
    "slow_down": FailureClass.RATE_LIMITED,
    "insufficient_quota": FailureClass.QUOTA_EXHAUSTED,
    "credit_balance_exhausted": FailureClass.QUOTA_EXHAUSTED,
    "organization_spend_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "project_spend_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "organization_usage_limit_exceeded": FailureClass.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": FailureClass.QUOTA_EXHAUSTED,
    "context_length_exceeded": FailureClass.CONTEXT_LENGTH,
    "string_above_max_length": FailureClass.TOO_LARGE,
    "invalid_api_key": FailureClass.AUTH,
    "model_not_found": FailureClass.NOT_FOUND,
    "DeploymentNotFound": FailureClass.NOT_FOUND,
    "content_filter": FailureClass.CONTENT_FILTERED,
    "content_policy_violation": FailureClass.CONTENT_FILTERED,
    "server_error": FailureClass.SERVER_ERROR,
    "InternalServerError": FailureClass.SERVER_ERROR,
    "server_is_overloaded": FailureClass.OVERLOADED,
    "service_unavailable_error": FailureClass.OVERLOADED,
}

_CLASS_OF_STATUS = {
    400: FailureClass.INVALID,
    401: FailureClass.AUTH,
    402: FailureClass.QUOTA_EXHAUSTED,
    403: FailureClass.AUTH,
    404: FailureClass.NOT_FOUND,
    405: FailureClass.NOT_FOUND,
    408: FailureClass.TIMEOUT,
    413: FailureClass.TOO_LARGE,
    422: FailureClass.INVALID,
    429: FailureClass.RATE_LIMITED,
    503: FailureClass.OVERLOADED,
    504: FailureClass.TIMEOUT,
    529: FailureClass.OVERLOADED,
}

# Servers without codes say it in words; vLLM also names the parameter.
_CONTEXT_PARAMS = frozenset({"input_tokens"})
_CONTEXT_WORDS = ("context length", "context window", "maximum context", "prompt is too long")


def headers(key: str | None) -> tuple[tuple[str, str], ...]:
    """Bearer key, and no compression: answers are small and CPU time is not."""
    plain = (("content-type", "application/json"), ("accept", "application/json"), ("accept-encoding", "identity"))
    return plain if key is None else (*plain, ("authorization", f"Bearer {key}"))


def body(chat: Chat, model_name: str, tokens_out_max: int | None) -> bytes:
    """The request's body; what the caller left out is left out, but for the bound of the output."""
    wanted: dict[str, Any] = {"model": model_name, "messages": chat.messages}
    if tokens_out_max is not None:
        wanted["max_tokens"] = tokens_out_max
    if chat.stop:
        wanted["stop"] = chat.stop
    if chat.tools:
        wanted["tools"] = chat.tools
    for name in _OPTIONAL:
        value = getattr(chat, name)
        if value is not None:
            wanted[name] = value
    return orjson.dumps(wanted)


def reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """What a whole response says. An error body behind a 200 is an error; a 200 without a finish reason is truncated."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    request_id = headers.get("x-request-id", "")
    if status != 200:
        return Reply(status, failure=_failure(status, parsed), provider_request_id=request_id)
    if not isinstance(parsed, dict) or "choices" not in parsed:
        wrong = _failure(status, parsed) if _error_in(parsed) else FailureClass.MALFORMED
        return Reply(status, failure=wrong, provider_request_id=request_id)
    return _answered(parsed, request_id)


def _answered(parsed: dict[str, Any], request_id: str) -> Reply:
    usage = _usage(parsed.get("usage"))
    model_served = parsed.get("model")
    served = model_served if isinstance(model_served, str) else ""

    def failed(failure: FailureClass) -> Reply:
        return Reply(200, None, failure, usage, served, request_id)

    choices = parsed["choices"]
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return failed(FailureClass.MALFORMED)
    finish = _FINISH.get(str(choice.get("finish_reason")))
    if finish is None:
        return failed(FailureClass.TRUNCATED)
    if finish == "content_filter":
        return failed(FailureClass.CONTENT_FILTERED)
    text, tool_calls = _content(message)
    if text is None or tool_calls is None:
        return failed(FailureClass.MALFORMED)
    answer = Answer(
        text=text,
        tool_calls=tool_calls,
        finish=finish,
        model_served=served,
        usage=usage or Usage(estimated=True),
        provider_request_id=request_id,
    )
    return Reply(200, answer, None, usage, served, request_id)


def _content(message: dict[str, Any]) -> tuple[str | None, tuple[dict[str, Any], ...] | None]:
    """Text and tool calls; None for either that is not what the dialect says. A refusal is an answer, for the gate to judge."""
    text = message.get("content")
    if text is None:
        text = message.get("refusal") or ""
    calls = message.get("tool_calls") or []
    are_calls = isinstance(calls, list) and all(isinstance(call, dict) for call in calls)
    return (text if isinstance(text, str) else None), (tuple(calls) if are_calls else None)


def _usage(found: object) -> Usage | None:
    """Tokens as counted, or None when they are not all there: an invented zero would be a wrong bill."""
    if not isinstance(found, dict):
        return None
    tokens_in, tokens_out = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
    if tokens_in is None or tokens_out is None:
        return None
    return Usage(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_cached=_detail(found.get("prompt_tokens_details"), "cached_tokens"),
        tokens_reasoning=_detail(found.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _detail(details: object, name: str) -> int:
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _error_in(parsed: object) -> bool:
    return isinstance(parsed, dict) and (bool(parsed.get("error")) or parsed.get("object") == "error")


def _failure(status: int, parsed: object) -> FailureClass:
    """Code before type before words before status. Ollama's error is a bare string, old vLLM's is not nested."""
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    told: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    for name in ("code", "type"):
        known = _CLASS_OF_CODE.get(str(told.get(name)))
        if known is not None:
            return known
    words = str(told.get("message") or "").lower()
    is_too_long = told.get("param") in _CONTEXT_PARAMS or any(word in words for word in _CONTEXT_WORDS)
    if is_too_long and status in (200, 400, 413, 422):
        return FailureClass.CONTEXT_LENGTH
    if status == 200:
        return FailureClass.NOT_FOUND if "not found" in words else FailureClass.MALFORMED
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    if 300 <= status < 400:
        return FailureClass.NOT_FOUND  # a redirect is not followed: the key goes to its base_url alone
    return FailureClass.SERVER_ERROR if status >= 500 else FailureClass.UNKNOWN
