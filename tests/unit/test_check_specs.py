"""How a policy names its checks: by name, or with settings; and what is said of settings that cannot work."""

import pytest
from pydantic import ValidationError

from schemas.checks import SETTINGS, CheckSpec
from schemas.config import Policy
from services.cli.config_file import parse
from shared.errors import ConfigError

CONFIG = """
models: {m: {quality: 0.5, context_tokens: 8192, capabilities: []}}
backends: {b: {model: m, provider: p, base_url: "http://127.0.0.1:1/v1", prices: {input: 1, output: 1}}}
tenants: {t: {}}
policies:
  default:
    checks:
      - not_empty
"""


def test_a_bare_name_stays_a_bare_name_and_settings_survive_the_config_topic() -> None:
    policy = Policy.model_validate({"checks": ["not_empty", {"check": "length", "words_max": 3}]})
    written = policy.model_dump(mode="json", exclude_defaults=True)
    assert written == {"checks": ["not_empty", {"check": "length", "words_max": 3}]}
    assert Policy.model_validate(written) == policy


def test_the_default_checks_of_a_policy_are_not_written() -> None:
    assert Policy().model_dump(mode="json", exclude_defaults=True) == {}


def test_a_check_of_a_newer_release_may_have_any_known_setting() -> None:
    assert CheckSpec.model_validate({"check": "of_tomorrow", "regex": "x"}).regex == "x"
    assert "of_tomorrow" not in SETTINGS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"check": "length"}, "check: length needs chars_min"),
        ({"check": "length", "words_min": 9, "words_max": 3}, "words_min: is above words_max"),
        ({"check": "not_empty", "regex": "a"}, "regex: not_empty does not read it; it reads no settings"),
        ({"check": "format"}, "check: format needs exactly one of"),
        ({"check": "format", "regex": "a", "choices": ["b"]}, "check: format needs exactly one of"),
        ({"check": "format", "regex": "(?=a)a"}, "regex: not in RE2 syntax"),
        ({"check": "format", "regex": r"(a)\1"}, "regex: not in RE2 syntax"),
        ({"check": "in_language", "language": "tlh"}, "language: not one that can be told apart"),
        ({"check": "no_leak", "canaries": ["abc"]}, "canaries: each needs 6 characters"),
        ({"check": "no_leak", "kinds": ["weapons"]}, "kinds: unknown 'weapons'; known: system_prompt"),
        ({"check": "safe_content", "phrases": [" "]}, "phrases: an empty one"),
        ({"check": "relevance"}, "min: give the least score"),
        ({"check": "factuality", "min": 1.5}, "min: give the least score"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_field_and_fix(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        CheckSpec.model_validate(spec)
    assert message in str(error.value.errors()[0]["msg"])


def test_a_config_file_says_line_and_fix_of_a_check_and_never_shows_a_canary() -> None:
    wrong = CONFIG + "      - {check: length, word_max: 3}\n      - {check: no_leak, canaries: [[s3cret]]}\n"
    with pytest.raises(ConfigError) as error:
        parse(wrong)
    assert 'baton.yaml:9: policies.default.checks.1.word_max: unknown field; did you mean "words_max"?' in str(error.value)
    assert "baton.yaml:10: policies.default.checks.2.canaries" in str(error.value)
    assert "s3cret" not in str(error.value)
