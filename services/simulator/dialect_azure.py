"""Azure's form of OpenAI's chat completions: the deployment in the path is the model, every choice carries filter results. Pure.

Source: Azure OpenAI REST reference and its content filtering guide; error bodies as quoted in public issues.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from services.simulator import dialect_openai as openai
from services.simulator.call import Answer, Call, Usage
from services.simulator.dialect import BadRequest, ErrorReply, Failure, Quota, model_of, object_of
from services.simulator.dialect_openai_errors import WORDINGS, Wording, limit_headers, retry_headers, worded

_SAFE: dict[str, Any] = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": {**_SAFE, "jailbreak": {"filtered": False, "detected": False}}}]
_INNER = {
    "code": "ResponsibleAIPolicyViolation",
    "content_filter_result": {
        **_SAFE,
        "jailbreak": {"filtered": False, "detected": False},
        "violence": {"filtered": True, "severity": "medium"},
    },
}
# Gateway errors of Azure have a code and a message only; the others are OpenAI's.
_PLAIN = frozenset({"auth", "permission", "not_found", "rate_limited", "overloaded", "timeout"})
_WORDINGS: Mapping[str, Wording] = MappingProxyType(
    {
        **WORDINGS,
        "auth": (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
            "active subscription and use a correct regional API endpoint for your resource.",
            "",
            None,
            "401",
        ),
        "permission": ("Access denied due to Virtual Network/Firewall rules.", "", None, "AccessDenied"),
        "not_found": (
            "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
            "please wait a moment and try again.",
            "",
            None,
            "DeploymentNotFound",
        ),
        "rate_limited": (
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded token rate limit of your "
            "current pricing tier.{retry_after}",
            "",
            None,
            "429",
        ),
        "overloaded": ("The service is temporarily unable to process your request. Please try again later.", "", None, "503"),
        "timeout": ("The operation was timeout.", "", None, "Timeout"),
        "content_filtered": (
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
            "your prompt and retry. To learn more about our content filtering policies please read our documentation: "
            "go.microsoft.com/fwlink/?linkid=2198766",
            "",
            "prompt",
            "content_filter",
        ),
    }
)
ERROR_CLASSES = frozenset(_WORDINGS)
_OWN_STATUS = MappingProxyType({"timeout": 408, "billing": 429})


def parse(raw: bytes, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    """Read a request; the deployment's name stands for the model's. Raises BadRequest."""
    if "api-version" not in query:
        raise BadRequest("not_found", "Resource not found", code="404")
    body = object_of(raw)
    try:
        model = model_of(path["model"])
    except BadRequest as unknown:
        raise BadRequest("not_found", model=unknown.model) from None
    return openai.call_of(body, model)


def completion(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> bytes:
    """A plain answer with the results of both filters."""
    body = openai.completion_of(call, said, usage, reply_id, created_s)
    body["choices"][0]["content_filter_results"] = {} if said.tool_name else _SAFE
    body["prompt_filter_results"] = _PROMPT_FILTER
    return orjson.dumps(body)


class Chunks(openai.Chunks):
    """OpenAI's events; the first has no choices, only what the filter thinks of the prompt."""

    annotation = b',"content_filter_results":' + orjson.dumps(_SAFE)

    def first(self) -> bytes:
        """The prompt's filter results, then the role."""
        empty = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": _PROMPT_FILTER}
        return b"data: " + orjson.dumps(empty) + b"\n\n" + super().first()

    def error_chunk(self, failure: Failure) -> bytes:
        """The error as Azure words it."""
        return error(failure).body


def chunks(call: Call, said: Answer, usage: Usage, reply_id: str, created_s: int) -> Chunks:
    """The events of a stream."""
    return Chunks(call, said, reply_id, created_s)


def error(failure: Failure) -> ErrorReply:
    """The error of a class as Azure words it."""
    message, kind, param, code = worded(failure, _WORDINGS)
    status = failure.status_of(_OWN_STATUS)
    described: dict[str, Any] = {"code": code, "message": message}
    if failure.error_class not in _PLAIN:
        described |= {"type": kind or None, "param": param}
    if failure.error_class == "content_filtered":
        described |= {"status": status, "innererror": _INNER}
    headers = {**_ids(failure.reply_id), **retry_headers(failure)}
    headers.pop("x-should-retry", None)
    return ErrorReply(status, orjson.dumps({"error": described}), headers)


def headers(reply_id: str, quota: Quota, now_s: float) -> dict[str, str]:
    """OpenAI's names, and Azure's own ids."""
    return {**_ids(reply_id), **limit_headers(quota)}


def _ids(reply_id: str) -> dict[str, str]:
    return {"x-request-id": f"req_{reply_id}", "apim-request-id": reply_id, "x-ms-region": "Simulated"}
