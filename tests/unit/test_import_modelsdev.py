"""`baton import models.dev`: its api.json becomes models and backends, and whatever is not understood is named."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from schemas.config import Prices
from services.cli.__main__ import main
from services.cli.config_file import parse
from services.cli.importers.imported import Imported
from services.cli.importers.modelsdev import import_modelsdev
from services.cli.importers.reading import read_json


def a_model(**fields: Any) -> dict[str, Any]:
    usual = {
        "name": "A Model", "family": "a", "attachment": False, "reasoning": False, "tool_call": True, "temperature": True,
        "knowledge": "2025-01", "release_date": "2025-02-03", "last_updated": "2025-02-03", "open_weights": False,
        "modalities": {"input": ["text"], "output": ["text"]}, "limit": {"context": 128000, "output": 16384},
        "cost": {"input": 0.15, "output": 0.6, "cache_read": 0.075},
    }
    return usual | fields


def a_provider(word: str, models: dict[str, Any], npm: str = "@ai-sdk/x", **fields: Any) -> dict[str, Any]:
    usual = {"id": word, "name": word, "env": [f"{word.upper()}_API_KEY"], "npm": npm, "doc": "https://docs.example"}
    return usual | {"models": models} | fields


TIERED = {
    "input": 1.25, "output": 10, "cache_read": 0.31, "cache_write": 4.5, "reasoning": 12, "input_audio": 3,
    "context_over_200k": {"input": 2.5, "output": 15},
    "tiers": [{"input": 3, "output": 20, "cache_read": 0.7, "tier": {"type": "context", "size": 500000}}],
}
FILE: dict[str, Any] = {
    "openai": a_provider("openai", {
        "mini": a_model(structured_output=True, modalities={"input": ["text", "image"], "output": ["text"]}),
        "thinker": a_model(reasoning=True, temperature=False, limit={"context": 400000, "input": 272000, "output": 100000}),
        "old": a_model(status="deprecated"),
        "speaker": a_model(modalities={"input": ["text"], "output": ["audio"]}),
        "secret-price": a_model(cost=None),
        "windowless": a_model(limit={"context": 0, "output": 0}),
    }),
    "anthropic": a_provider("anthropic", {"sonnet": a_model(experimental={"modes": {}}, status="beta")}),
    "google": a_provider("google", {"pro": a_model(cost=TIERED, interleaved=True)}, env=["GOOGLE_API_KEY", "GEMINI_API_KEY"]),
    "azure": a_provider("azure", {"mini": a_model()}),
    "acme": a_provider(
        "acme",
        {
            "mini": a_model(limit={"context": 64000, "output": 0}, tool_call=False, cost={"input": 0, "output": 0}),
            "@hf/odd name": a_model(),
            "claude": a_model(provider={"npm": "@ai-sdk/anthropic"}),
            "responder": a_model(provider={"npm": "@ai-sdk/openai", "shape": "responses"}),
            "alien": a_model(provider={"npm": "@ai-sdk/cohere"}),
        },
        npm="@ai-sdk/openai-compatible", api="https://api.acme.example/v1/", env=["ACME_ACCOUNT", "ACME_TOKEN"], motto="fast",
    ),
    "accounts": a_provider("accounts", {"a": a_model()}, npm="@ai-sdk/openai-compatible", api="https://${ID}.example/v1"),
    "leaky": a_provider("leaky", {"a": a_model()}, npm="@ai-sdk/openai-compatible", api="https://x.example/v1?key=s3cret"),
    "openrouter": a_provider("openrouter", {"openai/mini": a_model()}, api="https://openrouter.ai/api/v1"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "api.json"
    path.write_bytes(orjson.dumps(FILE))
    return path


@pytest.fixture
def imported(file: Path) -> Imported:
    return import_modelsdev(read_json(file), (), 0.6)


def ran(*words: str | Path) -> tuple[str, str, int]:
    done = CliRunner().invoke(main, ["import", "models.dev", *map(str, words)])
    return done.stdout, done.stderr, done.exit_code


def test_providers_become_backends_with_their_dialect_place_and_key(imported: Imported) -> None:
    found = {
        name: (backend.model, backend.dialect, backend.flavour, backend.base_url, backend.key)
        for name, backend in imported.backends.items()
    }
    assert found == {
        "openai/mini": ("mini", "openai", "openai", "https://api.openai.com/v1", "env:OPENAI_API_KEY"),
        "openai/thinker": ("thinker", "openai", "openai", "https://api.openai.com/v1", "env:OPENAI_API_KEY"),
        "anthropic/sonnet": ("sonnet", "anthropic", "", "https://api.anthropic.com/v1", "env:ANTHROPIC_API_KEY"),
        "gemini/pro": ("pro", "gemini", "", "https://generativelanguage.googleapis.com/v1beta", "env:GEMINI_API_KEY"),
        "acme/mini": ("mini", "openai", "", "https://api.acme.example/v1", "env:ACME_TOKEN"),
        "acme/hf/odd-name": ("hf/odd-name", "openai", "", "https://api.acme.example/v1", "env:ACME_TOKEN"),
        "acme/claude": ("claude", "anthropic", "", "https://api.acme.example/v1", "env:ACME_TOKEN"),
        "openrouter/openai/mini": (
            "openai/mini", "openai", "openrouter", "https://openrouter.ai/api/v1", "env:OPENROUTER_API_KEY"
        ),
    }
    assert imported.backends["acme/hf/odd-name"].model_name == "@hf/odd name"
    assert imported.backends["acme/mini"].model_name == ""
    assert all(backend.requires == (backend.key or "").removeprefix("env:") for backend in imported.backends.values())


def test_models_of_one_id_are_one_model_that_can_do_what_all_its_backends_can(imported: Imported) -> None:
    models = imported.config().models
    assert list(models) == ["mini", "thinker", "sonnet", "pro", "hf/odd-name", "claude", "openai/mini"]
    mini = models["mini"]
    assert (mini.quality, mini.context_tokens, mini.output_tokens_max, mini.capabilities) == (0.6, 64_000, 16_384, ("streaming",))


def test_modalities_flags_and_limits_become_capabilities_and_windows(file: Path) -> None:
    models = import_modelsdev(read_json(file), ("openai",), 0.6).config().models
    assert models["mini"].capabilities == ("json_schema", "streaming", "tools", "vision")
    assert models["thinker"].capabilities == ("reasoning", "streaming", "tools")
    assert models["thinker"].context_tokens == 372_000, "what goes in and what comes out, each at its most"


def test_a_model_that_takes_no_temperature_is_never_sent_one_unless_its_flavour_knows_better(
    tmp_path: Path,
) -> None:
    cold = {name: a_model(temperature=False) for name in ("o3", "thinker")}
    acme = a_provider("acme", cold, npm="@ai-sdk/openai-compatible", api="https://api.acme.example/v1")
    path = tmp_path / "api.json"
    path.write_bytes(orjson.dumps({"acme": acme} | {word: a_provider(word, cold) for word in ("openai", "anthropic", "groq")}))
    imported = import_modelsdev(read_json(path), (), 0.6)
    quirks = {name: backend.quirks.drop for name, backend in imported.backends.items() if backend.quirks}
    assert quirks == {"acme/thinker": ("temperature",), "anthropic/thinker": ("temperature",)}
    assert list(imported.notes.values()) == [["groq/o3", "groq/thinker"]]


def test_prices_keep_every_class_of_token_and_every_tier_exactly(imported: Imported) -> None:
    prices = imported.backends["gemini/pro"].prices
    assert prices == Prices.model_validate({
        "input": "1.25", "output": "10", "cached_input": "0.31", "cache_write": "4.5", "reasoning": "12",
        "version": prices.version,
        "tiers": [
            {"above_tokens": 500_000, "input": "3", "output": "20", "cached_input": "0.7"},
            {"above_tokens": 200_000, "input": "2.5", "output": "15"},
        ],
    })
    assert prices.version.startswith("models.dev-")
    assert imported.backends["openai/mini"].prices.cached_input == Decimal("0.075")


NOT_IMPORTED = {
    "openai/old": "is deprecated",
    "openai/speaker": "is no chat model",
    "openai/secret-price": "its price is unknown",
    "openai/windowless": "its context is unknown",
    "azure (1 models)": "is spoken to in a way that is not known here",
    "acme/responder": "is spoken to in a way of its own",
    "acme/alien": "is spoken to in a way that is not known here",
    "accounts (1 models)": "its URL differs from account to account",
    "leaky (1 models)": "its URL holds more than host and path",
    "motto (1 times)": "no field of ours",
    "experimental (1 times)": "no field of ours",
    "interleaved (1 times)": "no field of ours",
    "cost.input_audio (1 times)": "no field of ours",
}


def test_everything_that_was_not_understood_is_named_with_its_reason_and_nothing_else(imported: Imported) -> None:
    imported.config()
    found = {what: why for why, all_of_it in imported.left_out.items() for what in all_of_it}
    assert set(found) == set(NOT_IMPORTED)
    assert not [what for what, why in found.items() if not why.startswith(NOT_IMPORTED[what])]
    assert {where for places in imported.notes.values() for where in places} == {"acme/mini", "anthropic/sonnet"}


def test_what_it_prints_is_a_config_without_a_problem_and_says_the_same(file: Path, imported: Imported) -> None:
    text, told, code = ran(file)
    assert code == 0
    assert parse(text) == imported.config()
    assert told.splitlines()[-1] == f"7 models, 8 backends; {len(NOT_IMPORTED)} things not imported"
    assert "s3cret" not in text + told


def test_only_the_providers_asked_for_are_imported(file: Path) -> None:
    text, told, _ = ran(file, "--provider", "openai", "--provider", "nobody")
    assert {backend.provider for backend in parse(text).backends.values()} == {"openai"}
    assert "not imported: nobody: no such provider in the file" in told
    assert "acme" not in told


def test_a_difference_speaks_of_the_imported_providers_alone(file: Path, tmp_path: Path) -> None:
    ours = tmp_path / "baton.yaml"
    ours.write_text(ran(file)[0].replace("cached_input: 0.075", "cached_input: 0.07", 1))
    assert ran(file, "--provider", "openai", "--diff", ours)[0].splitlines() == [
        "~ model mini: context_tokens 64000 -> 128000, capabilities [streaming] -> [json_schema, streaming, tools, vision]",
        "~ backend openai/mini: prices.cached_input 0.07 -> 0.075",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not JSON"),
        (b"[]", "nothing in it could be imported"),
        (orjson.dumps({"openai": a_provider("openai", {"a": a_model(cost={"input": -1, "output": 1})})}), "cost.input: must be"),
        (orjson.dumps({"openai": a_provider("openai", {"a": a_model(cost=TIERED | {"tiers": [{}]})})}), "cost.tiers: each needs"),
        (orjson.dumps({"openai": a_provider("openai", {"a": 5})}), "is no chat model"),
        (b'{"openai": {"models": {"a": {"cost": {"input": NaN}}}}}', "is not JSON"),
    ],
)
def test_a_file_that_yields_nothing_says_why(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "api.json").write_bytes(content)
    out, told, code = ran(tmp_path / "api.json")
    assert (out, code) == ("", 1)
    assert says in told
