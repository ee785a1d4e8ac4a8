"""How providers differ within their dialect, as data: a row a flavour, a row a kind of model, above both a backend's `quirks`.

Pure. Only what is known to differ stands here: whoever wonders where a parameter went finds it in a `drop`. Sources: Azure OpenAI
REST reference; Groq, Mistral and xAI API references on parameters they refuse; OpenAI's guide on reasoning models; Anthropic's
migration guide and page on effort. Add a flavour: a row, and its name in `schemas/config.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from schemas.config import Backend

SAMPLING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs"})
# What `drop` may name beside a field of the request: a field within, or one of a parameter's values.
MESSAGE_NAMES = "messages[].name"
CLAUDES_EFFORT = "output_config.effort"
EFFORT_NONE = "reasoning_effort=none"


@dataclass(frozen=True, slots=True)
class Flavour:
    """One endpoint's way with its dialect.

    `path` stands after base_url, None as the dialect has it; `{model}` in it is the provider's name of the model. `key_header`
    carries the key, bare; empty: `Authorization: Bearer`; None: as the dialect has it. `drop` are request parameters that
    it refuses, or a name from above. `session_field` takes the session, for its prompt cache. `tool_id_chars`: ids of tool
    calls are exactly so many letters and digits.
    """

    path: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    key_header: str | None = None
    max_tokens_field: str = "max_tokens"
    stream_usage: bool = True
    drop: frozenset[str] = frozenset()
    rename: tuple[tuple[str, str], ...] = ()
    session_field: str = ""
    tool_required: str = "required"
    tool_id_chars: int | None = None


@dataclass(frozen=True, slots=True)
class OfModel:
    """What some models want, whoever configured them. The first row whose dialect, flavours and name fit holds."""

    flavours: frozenset[str]
    name: re.Pattern[str]
    drop: frozenset[str] = frozenset()
    max_tokens_field: str = "max_tokens"
    dialect: str = "openai"


FLAVOURS: Mapping[str, Flavour] = {
    "": Flavour(),
    "openai": Flavour(session_field="prompt_cache_key"),
    "azure": Flavour(
        path="/openai/deployments/{model}/chat/completions",
        query=(("api-version", "2024-10-21"),),
        key_header="api-key",
        session_field="prompt_cache_key",
    ),
    "vllm": Flavour(),
    "ollama": Flavour(),
    "groq": Flavour(drop=frozenset({"logprobs", MESSAGE_NAMES})),
    "mistral": Flavour(
        stream_usage=False,   # it always says, and refuses what it does not know
        drop=frozenset({"logprobs", MESSAGE_NAMES}),
        rename=(("seed", "random_seed"),),
        tool_required="any",
        tool_id_chars=9,
    ),
    "deepseek": Flavour(),
    "openrouter": Flavour(),
    "together": Flavour(),
    "fireworks": Flavour(),
    "xai": Flavour(),
}

_OPENAIS = frozenset({"", "openai", "azure"})
_NEWER = "max_completion_tokens"
_ANY = frozenset(FLAVOURS)
_CLAUDE = r"(?:.*[./])?claude-"
OF_MODELS: tuple[OfModel, ...] = (
    OfModel(_OPENAIS, re.compile(r"o\d+(-|$)|gpt-5(?!\.|-chat)"), SAMPLING | {"stop", EFFORT_NONE}, _NEWER),
    OfModel(_OPENAIS, re.compile(r"gpt-5(\.\d+)?-chat"), frozenset({"reasoning_effort"}), _NEWER),
    OfModel(_OPENAIS, re.compile(r"gpt-5\.[1-4](?!\d)"), frozenset({"stop"}), _NEWER),   # they sample where reasoning is off
    OfModel(_OPENAIS, re.compile(r"gpt-[5-9]"), max_tokens_field=_NEWER),
    OfModel(_OPENAIS, re.compile(r"gpt-[34]|chatgpt-"), frozenset({"reasoning_effort"})),
    OfModel(frozenset({"groq"}), re.compile(r"(?!.*qwen)"), frozenset({EFFORT_NONE})),
    OfModel(
        frozenset({"xai"}),
        re.compile(r"grok-(?:4|code|3-mini)(?!.*non-reasoning)"),
        frozenset({"presence_penalty", "frequency_penalty", "stop"}),
    ),
    # Claude samples by itself from 4.7 on, and takes an effort since Opus 4.5 and Sonnet 4.6.
    OfModel(
        _ANY, re.compile(_CLAUDE + r"[a-z]+-(?:4-[7-9]|[5-9]|[1-9]\d)(?!\d)"), frozenset({"temperature", "top_p"}),
        dialect="anthropic",
    ),
    OfModel(
        _ANY, re.compile(_CLAUDE + r"(?!opus-4-[56](?!\d)|sonnet-4-6(?!\d))"), frozenset({CLAUDES_EFFORT}), dialect="anthropic"
    ),
)


def flavour_of(backend: Backend) -> Flavour:
    """The way of one backend: its flavour, what its model wants, and above both what its quirks say."""
    flavour = FLAVOURS[backend.flavour]
    name = backend.model_name or backend.model
    for row in OF_MODELS:
        if backend.dialect == row.dialect and backend.flavour in row.flavours and row.name.match(name):
            flavour = replace(flavour, max_tokens_field=row.max_tokens_field, drop=flavour.drop | row.drop)
            break
    quirks = backend.quirks
    if quirks is None:
        return flavour
    return replace(
        flavour,
        path=flavour.path if quirks.path is None else quirks.path,
        query=flavour.query if quirks.query is None else tuple(quirks.query.items()),
        headers=flavour.headers if quirks.headers is None else tuple(quirks.headers.items()),
        key_header=flavour.key_header if quirks.key_header is None else quirks.key_header,
        max_tokens_field=quirks.max_tokens_field or flavour.max_tokens_field,
        stream_usage=flavour.stream_usage if quirks.stream_usage is None else quirks.stream_usage,
        drop=flavour.drop if quirks.drop is None else frozenset(quirks.drop),
    )


def located(path: str, model_name: str, query: tuple[tuple[str, str], ...]) -> str:
    """What stands after base_url. The model's name is quoted, so that it can neither leave its place nor add a query."""
    query_text = "?" + urlencode(query) if query else ""
    return path.replace("{model}", quote(model_name, safe="/:@")) + query_text


def key_headers(key: str | None, flavour: Flavour, own: str) -> tuple[tuple[str, str], ...]:
    """The header with the key, and what every call of the backend carries. `own` is the dialect's name of the first."""
    name = own if flavour.key_header is None else flavour.key_header
    if key is None:
        return flavour.headers
    return ((name, key) if name else ("authorization", f"Bearer {key}"), *flavour.headers)
