"""Reads what a `Chat` holds in OpenAI's form, for dialects that put it otherwise: texts, images, tools, tool calls. Pure."""

import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

_MIME_OF = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_SCHEMAS = frozenset({"anyOf", "oneOf", "prefixItems"})


def texts(content: object) -> list[str]:
    """The texts of a content, none of them empty. What an assistant refused with is what it said."""
    if isinstance(content, str):
        return [content] if content else []
    parts = content if isinstance(content, list) else []
    found = (part.get("text") or part.get("refusal") for part in parts)
    return [text for text in found if text]


def said_by(assistant: dict[str, Any]) -> list[str]:
    """The texts of an assistant's message."""
    return texts(assistant.get("content")) or texts(assistant.get("refusal"))


def data_url(url: str) -> tuple[str, str] | None:
    """MIME type and base64 of a data URL; None for a URL that points elsewhere."""
    if not url.startswith("data:"):
        return None
    head, _, data = url[5:].partition(",")
    mime, *options = head.split(";")
    if "base64" in options:
        return mime, data
    return mime, base64.b64encode(unquote_to_bytes(data)).decode()


def mime_of(url: str) -> str:
    """The MIME type that a URL's ending tells; empty when it tells none."""
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    return _MIME_OF.get(ending, "")


def arguments_of(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call's arguments as the object that other dialects want. What is no object is kept under `arguments`."""
    text = call["function"]["arguments"]
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        found = text
    return found if isinstance(found, dict) else {"arguments": found}


def functions(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The functions that tools describe."""
    return [tool["function"] for tool in tools]


def schema_of(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    """The JSON Schema that an answer must meet, if one is asked for."""
    if response_format is None or response_format.get("type") != "json_schema":
        return None
    schema = response_format["json_schema"]["schema"]
    return schema if isinstance(schema, dict) else None


def closed(schema: Any) -> Any:
    """A copy in which no object takes properties that it does not name, as Anthropic wants it; what fits it fits the original.

    Left as they are, for the provider to refuse: an object without properties, which could only be empty; maps; and the members
    of an `allOf`, each of which would forbid what the others ask for.
    """
    if not isinstance(schema, dict):
        return schema
    copy = dict(schema)
    for key, found in schema.items():
        if key in _NAMED_SCHEMAS and isinstance(found, dict):
            copy[key] = {name: closed(one) for name, one in found.items()}
        elif key in _SCHEMAS and isinstance(found, list):
            copy[key] = [closed(one) for one in found]
        elif key == "items":
            copy[key] = closed(found)
    if copy.get("properties") and copy.get("additionalProperties", True) is True:
        copy["additionalProperties"] = False
    return copy


def wants_object(response_format: dict[str, Any] | None) -> bool:
    """Whether any JSON object will do."""
    return response_format is not None and response_format.get("type") == "json_object"


def named(choice: object) -> str:
    """The function that a tool choice names; empty when it names none."""
    function = choice.get("function") if isinstance(choice, dict) else None
    return str(function["name"]) if isinstance(function, dict) else ""


def call_of(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call in the form in which answers hold it."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
