import pytest

from schemas.config import ConfigFile
from schemas.generate import CHECKOUT
from services.cli.config_file import load, parse
from services.cli.up import OPEN_KEY, open_key, real_backends


@pytest.fixture
def config() -> ConfigFile:
    return parse("""
models: {m: {quality: 0.5, context_tokens: 1000, capabilities: []}}
backends:
  alpha: {model: m, provider: alpha, base_url: env:BATON_SIMULATOR_ALPHA_URL, requires: BATON_SIMULATOR_ALPHA_URL,
               prices: {input: 1, output: 1}}
  real:  {model: m, provider: openai, base_url: https://api.example/v1, requires: OPENAI_API_KEY, prices: {input: 1, output: 1}}
tenants: {demo: {open: true}}
policies: {default: {}}
""")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, []),
        ({"OPENAI_API_KEY": " "}, []),
        ({"BATON_SIMULATOR_ALPHA_URL": "http://127.0.0.1:9"}, []),
        ({"OPENAI_API_KEY": "k"}, ["real"]),
    ],
)
def test_only_a_key_that_is_set_makes_a_provider_real(config: ConfigFile, env: dict[str, str], expected: list[str]) -> None:
    assert real_backends(config, env) == expected


def test_the_shipped_open_tenant_has_the_known_key_until_another_one_is_set() -> None:
    shipped = load(CHECKOUT / "baton.yaml")
    assert open_key(shipped, {}) == open_key(shipped, {"BATON_DEMO_KEY": " "}) == OPEN_KEY
    assert open_key(shipped, {"BATON_DEMO_KEY": "my own"}) == {}, "nor is mine written into .run/up.json"


def test_a_tenant_that_is_not_open_is_not_opened_by_a_key_that_everybody_knows() -> None:
    shipped = load(CHECKOUT / "baton.yaml")
    closed = {name: tenant.model_copy(update={"open": False}) for name, tenant in shipped.tenants.items()}
    assert open_key(shipped.model_copy(update={"tenants": closed}), {}) == {}
