"""One conversation with everything a chat may hold, as every dialect's request must carry it."""

from typing import Any

from schemas.messages import Chat

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"celsius": {"type": "number"}}, "required": ["celsius"], "additionalProperties": False}
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather at a place.", "parameters": PLACE, "strict": True},
}
NOW = {"type": "function", "function": {"name": "now"}}


def a_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATION: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How warm is it here?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/map.webp?x=1"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [a_call("call_1", "weather", '{"place":"Bonn"}'), a_call("call_2", "now", "{}")],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius": 21}'},
    {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    {"role": "user", "content": "And tomorrow?"},
)


ANTHROPIC_MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How warm is it here?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/map.webp?x=1"}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"place": "Bonn"}},
            {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": '{"celsius": 21}'},
            {"type": "tool_result", "tool_use_id": "call_2", "content": "noon"},
            {"type": "text", "text": "And tomorrow?"},
        ],
    },
]
"""The same in Anthropic's words; what the system says stands outside."""


def a_chat(**fields: Any) -> Chat:
    """The conversation with every parameter that all dialects have."""
    defaults: dict[str, Any] = {
        "messages": CONVERSATION,
        "temperature": 1.5,
        "top_p": 0.9,
        "stop": ("END", "STOP"),
        "tools": (WEATHER, NOW),
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "warmth", "schema": SCHEMA, "strict": True}},
        "reasoning_effort": "low",
    }
    return Chat(**(defaults | fields))


def a_plain_chat(*texts: str, **fields: Any) -> Chat:
    """Turns of user and assistant."""
    roles = ("user", "assistant")
    return Chat(messages=tuple({"role": roles[at % 2], "content": text} for at, text in enumerate(texts or ("hi",))), **fields)
