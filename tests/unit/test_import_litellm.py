"""`baton import litellm`: a proxy's config becomes ours, keys stay references, and whatever is not understood is named."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

from schemas.config import FLAVOURS, ConfigFile, Policy, Prices, Rates
from services.cli.__main__ import main
from services.cli.config_file import parse
from services.cli.importers.imported import Imported, decimal_of
from services.cli.importers.litellm import import_litellm
from services.cli.importers.providers import LITELLM, MODELS_DEV
from services.cli.importers.reading import read_json, read_yaml

SECRET = "sk-do-not-show-4711"

CONFIG = f"""
model_list:
  - model_name: fast
    litellm_params:
      model: azure/gpt-4o-mini-eu
      api_base: https://acme-eu.example/
      api_key: os.environ/AZURE_EU_KEY
      api_version: "2024-10-21"
      rpm: 600
      tpm: 90000
      weight: 2
      timeout: 7.5
      stream_timeout: 3
      max_parallel_requests: 20
      region_name: eu
    model_info: {{base_model: azure/gpt-4o-mini, id: azure-eu}}
  - model_name: fast
    litellm_params: {{model: gpt-4o-mini}}
    tpm: 1000
  - model_name: fast
    litellm_params: {{model: gpt-4o-mini, api_key: {SECRET}}}
  - model_name: big
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}}
  - model_name: long
    litellm_params: {{model: gemini/gemini-2.5-pro}}
  - model_name: own
    litellm_params:
      model: hosted_vllm/qwen3
      api_base: os.environ/VLLM_URL
      input_cost_per_token: 3e-08
      output_cost_per_token: 0.0000001
      temperature: 0.2
      max_tokens: 100
    model_info: {{max_input_tokens: 32768, supports_function_calling: true, team: red}}
  - model_name: free
    litellm_params: {{model: ollama_chat/llama3, api_base: "http://10.0.0.1:11434", api_key: ""}}
    model_info: {{input_cost_per_token: 0, output_cost_per_token: 0, max_input_tokens: 8192}}
  - model_name: cloud
    litellm_params: {{model: bedrock/anthropic.claude-3, aws_secret_access_key: {SECRET}}}
  - model_name: unpriced
    litellm_params: {{model: openai/some-new-model}}
  - model_name: windowless
    litellm_params: {{model: groq/x, input_cost_per_token: 1e-6, output_cost_per_token: 1e-6}}
  - model_name: vectors
    litellm_params: {{model: openai/text-embedding-3-small}}
  - model_name: "openai/*"
    litellm_params: {{model: "openai/*"}}
  - model_name: homeless
    litellm_params: {{model: hosted_vllm/qwen3}}
  - model_name: leaky
    litellm_params: {{model: hosted_vllm/qwen3, api_base: "https://u:{SECRET}@vllm.example/v1"}}
  - model_name: tokened
    litellm_params: {{model: azure/x, api_base: "https://a.example", azure_ad_token: {SECRET}}}
  - just a text
router_settings:
  num_retries: 2
  timeout: 90
  routing_strategy: least-busy
  fallbacks: [{{fast: [big]}}]
  context_window_fallbacks: [{{fast: [long, cloud]}}, {{cloud: [big]}}]
  content_policy_fallbacks: [{{big: [long, own]}}]
  model_group_alias: {{gpt-4: fast, claude: {{model: big, hidden: true}}, lost: nowhere}}
  redis_password: {SECRET}
litellm_settings:
  num_retries: 9
  drop_params: true
general_settings:
  master_key: {SECRET}
environment_variables:
  OPENAI_API_KEY: {SECRET}
"""

PRICES: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": 0},
    "azure/gpt-4o-mini": {
        "input_cost_per_token": 1.65e-07, "output_cost_per_token": 6.6e-07, "cache_read_input_token_cost": 7.5e-08,
        "max_input_tokens": 128000, "max_output_tokens": 16384, "mode": "chat", "litellm_provider": "azure",
        "supports_function_calling": True, "supports_vision": True, "supports_response_schema": True,
    },
    "gpt-4o-mini": {
        "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08,
        "max_input_tokens": 128000, "max_output_tokens": 4096, "mode": "chat", "litellm_provider": "openai",
        "supports_function_calling": True, "supports_vision": False,
    },
    "claude-sonnet-4-5": {
        "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07,
        "cache_creation_input_token_cost": 3.75e-06, "input_cost_per_token_above_200k_tokens": 6e-06,
        "output_cost_per_token_above_200k_tokens": 2.25e-05, "cache_read_input_token_cost_above_200k_tokens": 6e-07,
        "max_input_tokens": 200000, "max_output_tokens": 64000, "mode": "chat", "litellm_provider": "anthropic",
        "supports_reasoning": True,
    },
    "gemini/gemini-2.5-pro": {
        "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "output_cost_per_reasoning_token": 1.1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06, "max_input_tokens": 1048576, "max_output_tokens": 65535,
        "mode": "chat",
    },
    "text-embedding-3-small": {
        "input_cost_per_token": 2e-08, "output_cost_per_token": 0, "max_input_tokens": 8191, "mode": "embedding",
    },
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    config, prices = tmp_path / "config.yaml", tmp_path / "prices.json"
    config.write_text(CONFIG)
    prices.write_bytes(orjson.dumps(PRICES))
    return config, prices


@pytest.fixture
def imported(files: tuple[Path, Path]) -> Imported:
    return import_litellm(read_yaml(files[0]), read_json(files[1]), 0.6)


def ran(*words: str | Path) -> tuple[str, str, int]:
    done = CliRunner().invoke(main, ["import", *map(str, words)])
    return done.stdout, done.stderr, done.exit_code


def test_deployments_of_one_name_are_one_model_with_several_backends(imported: Imported) -> None:
    config = imported.config()
    assert list(config.models) == ["fast", "big", "long", "own", "free", "gpt-4", "claude"]
    assert {name: backend.model for name, backend in config.backends.items()} == {
        "azure-eu": "fast", "openai/fast": "fast", "anthropic/big": "big", "gemini/long": "long", "vllm/own": "own",
        "ollama/free": "free", "azure-eu/gpt-4": "gpt-4", "openai/fast/gpt-4": "gpt-4", "anthropic/big/claude": "claude",
    }
    fast = config.models["fast"]
    assert (fast.quality, fast.context_tokens, fast.output_tokens_max) == (0.6, 128_000, 4096), "what every backend can do"
    assert fast.capabilities == ("streaming", "tools")
    assert config.models["own"].output_tokens_max == 4096
    assert config.models["gpt-4"].model_dump(exclude={"on_context_length"}) == fast.model_dump(exclude={"on_context_length"})


def test_a_deployment_keeps_its_place_key_limits_and_timeouts(imported: Imported) -> None:
    azure = imported.backends["azure-eu"]
    assert azure.model_dump(exclude_defaults=True, exclude={"prices"}) == {
        "model": "fast", "model_name": "gpt-4o-mini-eu", "provider": "azure", "flavour": "azure",
        "base_url": "https://acme-eu.example", "key": "env:AZURE_EU_KEY", "requires": "AZURE_EU_KEY",
        "quirks": {"query": {"api-version": "2024-10-21"}}, "rpm": 600, "tpm": 90_000, "weight": 2.0, "timeout_ms": 7500,
        "first_token_ms": 3000, "concurrency_max": 20, "region": "eu",
    }
    plain = imported.backends["openai/fast"]
    assert (plain.base_url, plain.key, plain.tpm) == ("https://api.openai.com/v1", "env:OPENAI_API_KEY", 1000)
    assert imported.backends["vllm/own"].base_url == "env:VLLM_URL"
    assert imported.backends["vllm/own"].key is None
    free = imported.backends["ollama/free"]
    assert (free.base_url, free.flavour, free.key) == ("http://10.0.0.1:11434/v1", "ollama", None)
    dialects = {name: imported.backends[name].dialect for name in ("anthropic/big", "gemini/long", "openai/fast")}
    assert dialects == {"anthropic/big": "anthropic", "gemini/long": "gemini", "openai/fast": "openai"}


def rates(prices: Rates) -> dict[str, str]:
    found = prices.model_dump(include={"input", "output", "cached_input", "cache_write", "reasoning"}, exclude_none=True)
    return {name: f"{rate:f}" for name, rate in found.items()}


def test_prices_per_token_become_prices_per_million_exactly_with_every_class_and_tier(imported: Imported) -> None:
    prices = {name: backend.prices for name, backend in imported.backends.items()}
    assert rates(prices["azure-eu"]) == {"input": "0.165", "output": "0.66", "cached_input": "0.075"}
    assert rates(prices["vllm/own"]) == {"input": "0.03", "output": "0.1"}
    big = prices["anthropic/big"]
    assert rates(big) == {"input": "3", "output": "15", "cached_input": "0.3", "cache_write": "3.75"}
    assert [(tier.above_tokens, rates(tier)) for tier in big.tiers] == [
        (200_000, {"input": "6", "output": "22.5", "cached_input": "0.6"})
    ]
    long = prices["gemini/long"]
    assert rates(long) == {"input": "1.25", "output": "10", "reasoning": "11"}
    assert rates(long.tiers[0]) == {"input": "2.5", "output": "10"}, "what a tier does not say is as below it"


def test_a_price_version_changes_with_the_figures_and_only_then(imported: Imported, files: tuple[Path, Path]) -> None:
    again = import_litellm(read_yaml(files[0]), read_json(files[1]), 0.9)
    versions = {name: backend.prices.version for name, backend in imported.backends.items()}
    assert versions == {name: backend.prices.version for name, backend in again.backends.items()}
    assert versions["azure-eu"] != versions["openai/fast"]
    assert versions["azure-eu"] == versions["azure-eu/gpt-4"]
    assert versions["azure-eu"].startswith("litellm-")


def test_chains_retries_and_timeouts_are_taken_over(imported: Imported) -> None:
    config = imported.config()
    assert config.models["fast"].on_context_length == ("long",)
    assert config.models["big"].on_content_filtered == ("long", "own")
    assert config.policies == {"default": Policy(attempts_max=3, attempt_timeout_ms=90_000, deadline_ms=90_000)}


NOT_IMPORTED = {
    "model_list[2] (fast)": "api_key: holds a key itself",
    "model_list[7] (cloud)": "no provider 'bedrock' is known here",
    "model_list[8] (unpriced)": "its price is unknown; give --prices FILE, or set input_cost_per_token and",
    "model_list[9] (windowless)": "its context is unknown; give --prices FILE, or set max_input_tokens",
    "model_list[10] (vectors)": "is no chat model",
    "model_list[11] (openai/*)": "is a wildcard",
    "model_list[12] (homeless)": "api_base: missing",
    "model_list[13] (leaky)": "its URL holds more than host and path, maybe a secret",
    "model_list[14] (tokened)": "azure_ad_token: signs in with a token",
    "model_list[15]": "needs model_name and litellm_params",
    "model_list[5].litellm_params.temperature": "no field of ours",
    "model_list[5].litellm_params.max_tokens": "no field of ours",   # of a request, not of the model
    "model_list[5].model_info.team": "no field of ours",
    "router_settings.routing_strategy": "no field of ours",
    "router_settings.redis_password": "no field of ours",
    "router_settings.fallbacks (fast to big)": "a failing provider is left for",
    "router_settings.model_group_alias.lost": "must lead from a name that is no model",
    "litellm_settings.num_retries": "router_settings says it, too",
    "litellm_settings.drop_params": "no field of ours",
    "general_settings.master_key": "no field of ours",
    "environment_variables.OPENAI_API_KEY": "no field of ours",
    "on_context_length of fast": "no model cloud was imported",
    "on_context_length of cloud": "no model cloud was imported",
}
NOTES = {
    "free": "costs nothing, says the file",
    "gpt-4": "stands beside fast with backends of its own",
    "claude": "stands beside big with backends of its own",
    "model_list[6]": "no word on tools",
}


def test_everything_that_was_not_understood_is_named_with_its_reason_and_nothing_else(imported: Imported) -> None:
    imported.config()
    found = {what: why for why, all_of_it in imported.left_out.items() for what in all_of_it}
    assert set(found) == set(NOT_IMPORTED)
    assert not [what for what, why in found.items() if not why.startswith(NOT_IMPORTED[what])]
    noted = {where.removeprefix("ollama/"): what for what, places in imported.notes.items() for where in places}
    assert set(noted) == set(NOTES)
    assert not [where for where, what in noted.items() if not what.startswith(NOTES[where])]


def test_what_it_prints_is_a_config_without_a_problem_and_says_the_same(files: tuple[Path, Path], imported: Imported) -> None:
    text, told, code = ran("litellm", files[0], "--prices", files[1])
    assert code == 0
    config = parse(text)
    assert config == imported.config()
    assert config.backends["anthropic/big"].prices.tiers[0].cached_input == Decimal("0.6")
    assert "placeholder" in text
    assert "{input: 0.165, output: 0.66, cached_input: 0.075, version: litellm-" in text
    assert told.splitlines()[0] == f"reading {files[0]}"
    assert told.splitlines()[-1] == f"7 models, 9 backends; {len(NOT_IMPORTED)} things not imported"
    assert "not imported: model_list[2] (fast): api_key: holds a key itself; set an environment variable" in told
    assert ran("litellm", files[0], "--prices", files[1])[0] == text, "the same file makes the same text"


def test_no_secret_is_copied_or_shown(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert SECRET not in "".join(ran("litellm", files[0], "--prices", files[1])[:2])
    for broken in (f"model_list: [{SECRET}", f"a: !{SECRET} b", f"model_list: [{{model_name: {SECRET}: x}}]"):
        (tmp_path / "broken.yaml").write_text(broken)
        said = ran("litellm", tmp_path / "broken.yaml")
        assert said[2] == 1
        assert f"{SECRET}:" not in "".join(said[:2])


def test_the_quality_is_what_the_caller_says(files: tuple[Path, Path]) -> None:
    config = parse(ran("litellm", files[0], "--prices", files[1], "--quality", "0.75")[0])
    assert {model.quality for model in config.models.values()} == {0.75}


def test_a_file_is_never_overwritten(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new.yaml"
    text, _, code = ran("litellm", files[0], "--prices", files[1], "-o", out)
    assert (text, code) == ("", 0)
    assert parse(out.read_text()).models
    _, told, code = ran("litellm", files[0], "-o", out)
    assert code == 1
    assert "exists; an import never overwrites" in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model_list: []", "nothing in it could be imported"),
        ("[1, 2]", "nothing in it could be imported"),
        ("a: [", "not YAML"),
        ("model_list: [{model_name: a, litellm_params: {model: gpt-4o}}]", "its price is unknown"),
        ("model_list: [{model_name: a b, litellm_params: {model: gpt-4o, input_cost_per_token: 0, output_cost_per_token: 0},"
         " model_info: {max_input_tokens: 10}}]", "its name must start with a letter or digit"),
        ("model_list: [{model_name: a, litellm_params: {model: gpt-4o, input_cost_per_token: -1, output_cost_per_token: 1}}]",
         "input_cost_per_token: must be a number that is not negative"),
    ],
)
def test_a_file_that_yields_nothing_says_why(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    out, told, code = ran("litellm", tmp_path / "config.yaml")
    assert (out, code) == ("", 1)
    assert says in told


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert "No such file" in ran("litellm", tmp_path / "none.yaml")[1]
    assert "No such file" in ran("models.dev", tmp_path / "none.json")[1]


@pytest.mark.parametrize(
    ("written", "number"),
    [("1.5e-07", "0.00000015"), ("3e-06", "0.000003"), ("0.1", "0.1"), ("0", "0"), ("7", "7"), ("-1", None), (".inf", None),
     (".nan", None), ("true", None), ("[1]", None), ("abc", None)],
)
def test_numbers_are_read_as_they_are_written(written: str, number: str | None, tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(f"n: {written}")
    assert decimal_of(read_yaml(tmp_path / "n.yaml")["n"]) == (None if number is None else Decimal(number))


def test_a_difference_names_what_the_import_would_add_change_and_no_longer_has(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    config = yaml.safe_load(ran("litellm", files[0], "--prices", files[1])[0])
    backends = config["backends"]
    backends["my-openai"] = backends.pop("openai/fast") | {"prices": {"input": 0.2, "output": 0.6, "cached_input": 0.075}}
    backends["old"] = backends["anthropic/big"] | {"model": "older", "model_name": "claude-3"}
    backends["elsewhere"] = backends["anthropic/big"] | {"provider": "other", "model": "older", "model_name": "x"}
    backends["azure-eu"]["rpm"] = 60
    del backends["gemini/long"], backends["anthropic/big/claude"], config["models"]["claude"]
    config["models"]["older"] = {"quality": 0.4, "context_tokens": 1000}
    config["models"]["fast"] |= {"quality": 0.8, "context_tokens": 64_000}
    ours = tmp_path / "baton.yaml"
    ours.write_text(yaml.safe_dump(config | {"policies": {"default": {}}}))
    text, _, code = ran("litellm", files[0], "--prices", files[1], "--diff", ours)
    assert code == 0
    assert text.splitlines() == [
        "~ model fast: context_tokens 64000 -> 128000",
        "+ model claude",
        "~ backend azure-eu: rpm 60 -> 600",
        "~ backend my-openai: prices.input 0.2 -> 0.15",
        "+ backend gemini/long",
        "+ backend anthropic/big/claude",
        "- backend old",
    ]


def test_an_import_does_not_differ_from_itself(files: tuple[Path, Path], tmp_path: Path) -> None:
    ours = tmp_path / "baton.yaml"
    ours.write_text(ran("litellm", files[0], "--prices", files[1])[0])
    assert ran("litellm", files[0], "--prices", files[1], "--diff", ours)[0] == f"nothing differs from {ours}\n"


def test_every_known_provider_has_a_flavour_that_exists() -> None:
    endpoints = [*LITELLM.values(), *MODELS_DEV.values()]
    assert {endpoint.flavour for endpoint in endpoints} <= set(FLAVOURS)
    assert all(endpoint.dialect == "openai" or not endpoint.flavour for endpoint in endpoints)


def test_a_config_of_an_import_needs_nothing_but_tenants(imported: Imported) -> None:
    assert isinstance(imported.config(), ConfigFile)
    assert all(isinstance(backend.prices, Prices) for backend in imported.backends.values())
