"""Providers that speak OpenAI's dialect in their own way, and what a backend's quirks change of it."""

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from schemas.config import FLAVOURS as NAMES
from schemas.config import Backend, Quirks
from schemas.messages import Chat
from services.executor.adapters import ADAPTERS
from services.executor.adapters.flavours import FLAVOURS, flavour_of
from tests.support.builders_executor import SECRET, a_backend

CHAT = Chat(
    messages=({"role": "user", "content": "hi", "name": "Ann"},),
    temperature=0.3,
    top_p=0.9,
    seed=7,
    stop=("END",),
    presence_penalty=0.1,
    frequency_penalty=0.2,
    logprobs=2,
    tools=({"type": "function", "function": {"name": "f"}},),
    tool_choice="required",
    session="s-1",
)


def sent(backend: Backend, chat: Chat = CHAT, streamed: bool = False) -> dict[str, Any]:
    name = backend.model_name or backend.model
    found = orjson.loads(ADAPTERS[backend.dialect].body(chat, name, 100, streamed, flavour_of(backend)))
    assert isinstance(found, dict)
    return found


def path(backend: Backend, streamed: bool = False) -> str:
    return ADAPTERS[backend.dialect].path(backend.model_name or backend.model, streamed, flavour_of(backend))


def headers(backend: Backend) -> dict[str, str]:
    return dict(ADAPTERS[backend.dialect].headers(SECRET, flavour_of(backend)))


def test_every_flavour_of_the_config_has_a_row_and_none_is_nameless() -> None:
    assert set(FLAVOURS) == set(NAMES)


def test_an_unknown_flavour_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(ValidationError, match=r"flavour: unknown 'acme'; known: openai, azure, .*xai"):
        a_backend(flavour="acme")


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
def test_a_flavour_belongs_to_the_openai_dialect(dialect: str) -> None:
    with pytest.raises(ValidationError, match="flavour: groq is a way of the openai dialect"):
        a_backend(dialect=dialect, flavour="groq")


@pytest.mark.parametrize("flavour", ["", "vllm", "ollama", "deepseek", "openrouter", "together", "fireworks"])
def test_a_plain_flavour_takes_everything(flavour: str) -> None:
    backend = a_backend(flavour=flavour)
    body = sent(backend)
    assert path(backend) == "/chat/completions"
    assert body["max_tokens"] == 100
    assert (body["seed"], body["tool_choice"], body["top_logprobs"], body["messages"][0]["name"]) == (7, "required", 2, "Ann")
    assert "prompt_cache_key" not in body
    assert headers(backend)["authorization"] == f"Bearer {SECRET}"


def test_azure_has_the_deployment_in_the_path_and_a_header_for_the_key() -> None:
    backend = a_backend(flavour="azure", model_name="my deployment?")
    assert path(backend) == "/openai/deployments/my%20deployment%3F/chat/completions?api-version=2024-10-21"
    assert headers(backend)["api-key"] == SECRET
    assert "authorization" not in headers(backend)
    assert sent(backend)["prompt_cache_key"] == "s-1"


def test_groq_gets_no_log_probabilities_and_no_names() -> None:
    body = sent(a_backend(flavour="groq"))
    assert not {"logprobs", "top_logprobs"} & set(body)
    assert body["messages"] == [{"role": "user", "content": "hi"}]


def test_mistral_has_other_names_and_short_ids() -> None:
    call = {"id": "call_0123456789abcdef", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = (
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "1"},
        {"role": "assistant", "tool_calls": [{**call, "id": "abcDEF123"}]},
    )
    body = sent(a_backend(flavour="mistral"), CHAT.model_copy(update={"messages": messages}), streamed=True)
    assert (body["random_seed"], body["tool_choice"]) == (7, "any")
    assert not {"seed", "stream_options", "logprobs"} & set(body)
    id = body["messages"][0]["tool_calls"][0]["id"]
    assert (len(id), id.isalnum()) == (9, True)
    assert body["messages"][1]["tool_call_id"] == id
    assert body["messages"][2]["tool_calls"][0]["id"] == "abcDEF123"


SAMPLING = {"temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"}


@pytest.mark.parametrize("flavour", ["", "openai", "azure"])
@pytest.mark.parametrize("name", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-mini"])
def test_a_reasoning_model_of_openai_counts_its_completion_and_samples_by_itself(flavour: str, name: str) -> None:
    body = sent(a_backend(flavour=flavour, model_name=name))
    assert body["max_completion_tokens"] == 100
    assert not (SAMPLING | {"max_tokens", "stop"}) & set(body)


@pytest.mark.parametrize("name", ["gpt-5.2", "gpt-5-chat-latest", "gpt-6"])
def test_later_models_of_openai_sample_where_they_are_told(name: str) -> None:
    body = sent(a_backend(flavour="openai", model_name=name))
    assert body["max_completion_tokens"] == 100
    assert set(body) >= SAMPLING


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-oss-120b", "omni", "o"])
def test_other_models_have_max_tokens(name: str) -> None:
    assert sent(a_backend(flavour="openai", model_name=name))["max_tokens"] == 100


def test_a_model_of_another_provider_with_such_a_name_is_left_alone() -> None:
    assert sent(a_backend(flavour="vllm", model_name="o3-local"))["temperature"] == 0.3


@pytest.mark.parametrize(
    ("name", "is_sent"), [("gpt-5.1", False), ("gpt-5.4-mini", False), ("gpt-5.5", True), ("gpt-6", True), ("gpt-4o", True)]
)
def test_openais_thinking_models_get_no_stop_before_5_5(name: str, is_sent: bool) -> None:
    assert ("stop" in sent(a_backend(flavour="openai", model_name=name))) is is_sent


@pytest.mark.parametrize(
    ("flavour", "name", "effort", "is_sent"),
    [
        ("openai", "gpt-4o-mini", "none", False),
        ("openai", "gpt-4.1", "none", False),
        ("openai", "gpt-5.1-chat-latest", "none", False),
        ("openai", "gpt-5", "none", False),
        ("openai", "o3", "none", False),
        ("openai", "o3", "low", True),
        ("openai", "gpt-5", "minimal", True),
        ("openai", "gpt-5.2", "none", True),
        ("groq", "openai/gpt-oss-120b", "none", False),
        ("groq", "openai/gpt-oss-120b", "low", True),
        ("groq", "qwen/qwen3-32b", "none", True),
        ("openrouter", "openai/gpt-4o", "none", True),
    ],
)
def test_an_effort_is_sent_to_models_that_know_it(flavour: str, name: str, effort: str, is_sent: bool) -> None:
    body = sent(a_backend(flavour=flavour, model_name=name), CHAT.model_copy(update={"reasoning_effort": effort}))
    assert ("reasoning_effort" in body) is is_sent


@pytest.mark.parametrize(
    ("name", "samples", "has_effort"),
    [
        ("claude-3-7-sonnet-20250219", True, False),
        ("claude-opus-4-20250514", True, False),
        ("claude-sonnet-4-5-20250929", True, False),
        ("claude-haiku-4-5", True, False),
        ("claude-opus-4-5", True, True),
        ("claude-sonnet-4-6", True, True),
        ("claude-opus-4-7", False, True),
        ("claude-sonnet-5", False, True),
        ("us.anthropic.claude-opus-5-v1:0", False, True),
        ("another-model", True, True),
    ],
)
def test_a_claude_gets_what_its_generation_takes(name: str, samples: bool, has_effort: bool) -> None:
    for given in ({"temperature": 0.3, "top_p": None}, {"temperature": None, "top_p": 0.9}):
        body = sent(a_backend(dialect="anthropic", model_name=name), CHAT.model_copy(update={**given, "reasoning_effort": "low"}))
        assert bool({"temperature", "top_p"} & set(body)) is samples
        assert ("output_config" in body) is has_effort


def test_xais_thinking_models_refuse_penalties_and_stops() -> None:
    assert not {"stop", "presence_penalty"} & set(sent(a_backend(flavour="xai", model_name="grok-4-0709")))
    assert set(sent(a_backend(flavour="xai", model_name="grok-4-fast-non-reasoning"))) >= {"stop", "presence_penalty"}


def test_quirks_stand_above_the_flavour() -> None:
    quirks = Quirks(
        path="/deployments/{model}",
        query={"api-version": "v2"},
        headers={"x-team": "blue"},
        key_header="",
        max_tokens_field="limit",
        stream_usage=False,
        drop=("seed",),
    )
    backend = a_backend(flavour="azure", model_name="o3", quirks=quirks)
    body = sent(backend, streamed=True)
    assert path(backend) == "/deployments/o3?api-version=v2"
    assert headers(backend)["x-team"] == "blue"
    assert headers(backend)["authorization"] == f"Bearer {SECRET}"
    assert body["limit"] == 100
    assert body["temperature"] == 0.3
    assert not {"seed", "stream_options"} & set(body)


def test_quirks_that_say_nothing_change_nothing() -> None:
    assert flavour_of(a_backend(flavour="azure", quirks=Quirks())) == flavour_of(a_backend(flavour="azure"))


def test_quirks_hold_in_every_dialect() -> None:
    anthropic = a_backend(dialect="anthropic", quirks=Quirks(path="/v2/messages", key_header="", drop=("temperature",)))
    assert (path(anthropic), headers(anthropic)["authorization"]) == ("/v2/messages", f"Bearer {SECRET}")
    assert "temperature" not in sent(anthropic)
    gemini = a_backend(dialect="gemini", quirks=Quirks(path="/publishers/google/models/{model}", drop=("seed", "topP")))
    assert path(gemini, streamed=True) == "/publishers/google/models/small:streamGenerateContent?alt=sse"
    assert not {"seed", "topP"} & set(sent(gemini)["generationConfig"])
