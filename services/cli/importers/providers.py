"""Where the known providers are and how they are spoken to. Data only; the two formats name them differently."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from services.cli.importers.imported import LeftOutError


@dataclass(frozen=True)
class Endpoint:
    """A provider's door. `base_url` empty: the file must say it. `path`: what is added to a URL that has no path."""

    provider: str
    base_url: str = ""
    key_env: str = ""
    dialect: str = "openai"
    flavour: str = ""
    path: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields of a backend that it settles."""
        known = {"provider": self.provider, "dialect": self.dialect, "flavour": self.flavour, "base_url": self.base_url}
        return {name: value for name, value in known.items() if value}


# fmt: off
OPENAI     = Endpoint("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", flavour="openai")
ANTHROPIC  = Endpoint("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic", path="/v1")
GEMINI     = Endpoint("gemini", "https://generativelanguage.googleapis.com/v1beta", "GEMINI_API_KEY", "gemini", path="/v1beta")
AZURE      = Endpoint("azure", "", "AZURE_API_KEY", flavour="azure")
GROQ       = Endpoint("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", flavour="groq")
MISTRAL    = Endpoint("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", flavour="mistral")
DEEPSEEK   = Endpoint("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", flavour="deepseek")
OPENROUTER = Endpoint("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", flavour="openrouter")
TOGETHER   = Endpoint("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY", flavour="together")
FIREWORKS  = Endpoint("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", flavour="fireworks")
XAI        = Endpoint("xai", "https://api.x.ai/v1", "XAI_API_KEY", flavour="xai")
OLLAMA     = Endpoint("ollama", "http://localhost:11434/v1", flavour="ollama", path="/v1")
VLLM       = Endpoint("vllm", flavour="vllm")
ANY        = Endpoint("openai-compatible")
# fmt: on

LITELLM: Mapping[str, Endpoint] = {
    "openai": OPENAI,
    "azure": AZURE,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "groq": GROQ,
    "mistral": MISTRAL,
    "deepseek": DEEPSEEK,
    "openrouter": OPENROUTER,
    "together_ai": replace(TOGETHER, key_env="TOGETHERAI_API_KEY"),
    "fireworks_ai": FIREWORKS,
    "xai": XAI,
    "ollama": OLLAMA,
    "ollama_chat": OLLAMA,
    "hosted_vllm": VLLM,
    "vllm": VLLM,
    "openai_like": ANY,
    "custom_openai": ANY,
}
"""By the word before the first slash of `litellm_params.model`."""

MODELS_DEV: Mapping[str, Endpoint] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "google": GEMINI,
    "groq": GROQ,
    "mistral": MISTRAL,
    "deepseek": DEEPSEEK,
    "openrouter": OPENROUTER,
    "togetherai": TOGETHER,
    "fireworks-ai": FIREWORKS,
    "xai": XAI,
}
"""By the provider's id."""

DIALECT_OF_NPM = {"@ai-sdk/openai-compatible": "openai", "@ai-sdk/openai": "openai", "@ai-sdk/anthropic": "anthropic"}
"""What a provider of models.dev speaks that is not in the table, by the client it names, where it also gives its URL."""

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def url_of(endpoint: Endpoint, given: str) -> str:
    """The base_url of a URL as another tool has it. Raises LeftOutError where it may hold a secret, quoting nothing."""
    try:
        parts = urlsplit(given)
    except ValueError:
        raise LeftOutError("its URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LeftOutError("its URL must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc:
        raise LeftOutError("its URL holds more than host and path, maybe a secret; give it without user, ? and #")
    return given.rstrip("/") + ("" if parts.path.strip("/") else endpoint.path)


def env_name(name: str) -> str:
    """The name of an environment variable. Raises LeftOutError."""
    if not _ENV.fullmatch(name):
        raise LeftOutError("names an environment variable that cannot be one")
    return name
