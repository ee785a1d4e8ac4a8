"""A mistake in baton.yaml is answered with its line, its field and its fix, whatever the mistake."""

from pathlib import Path

import pytest

from schemas.config import ConfigFile
from services.cli.config_file import load, offered, parse
from shared.errors import ConfigError
from shared.spend import standing

SMALL = """\
models:
  small: {quality: 0.5, context_tokens: 1000}
backends:
  b:
    model: small
    provider: p
    base_url: http://127.0.0.1/v1
    key: env:SOME_KEY
    prices: {input: 0.15, output: 0.6}
tenants:
  t:
    keys: [env:T_KEY]
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def problem_of(old: str, new: str) -> str:
    """The one problem of the small config with one change."""
    assert old in SMALL
    (problem,) = problems_of(SMALL.replace(old, new, 1))
    return problem


def test_a_config_is_read_with_exact_prices_and_defaults() -> None:
    config = parse(SMALL)
    assert str(config.backends["b"].prices.input) == "0.15"
    assert config.policies["default"].attempts_max == 3


def test_a_wrong_value_is_named_with_line_field_value_and_fix() -> None:
    assert problem_of("input: 0.15", "input: cheap") == (
        "baton.yaml:9: backends.b.prices.input: input should be a valid decimal "
        '(found "cheap"); give USD per million tokens'
    )


def test_a_missing_field_is_named_at_the_line_of_its_object() -> None:
    assert problem_of("    provider: p\n", "").startswith("baton.yaml:4: backends.b.provider: missing; ")


def test_a_budget_too_small_to_be_counted_is_named_with_its_fix() -> None:
    assert problem_of("keys: [env:T_KEY]", "budget_usd_per_month: 0.0000005") == (
        "baton.yaml:12: tenants.t.budget_usd_per_month: below 0.000001 USD, and spending is counted in no smaller parts; raise it"
    )
    least = parse(SMALL.replace("keys: [env:T_KEY]", "budget_usd_per_day: 0.000001"))
    assert standing("t", least.tenants["t"], None, 0).left_microusd == 1


def test_an_unknown_field_gets_the_nearest_name() -> None:
    assert problem_of("keys:", "kyes:") == 'baton.yaml:12: tenants.t.kyes: unknown field; did you mean "keys"?'
    assert "known: keys, open, policy" in problem_of("keys: [env:T_KEY]", "zzz: 1")


def test_a_name_that_nothing_defines_is_named_where_it_stands() -> None:
    assert problem_of("model: small", "model: smal") == (
        'baton.yaml:5: backends.b.model: no model "smal"; did you mean "small"?'
    )
    assert "baton.yaml:12: tenants.t.policy: no policy" in problem_of("keys: [env:T_KEY]", "policy: zzz")
    assert "baton.yaml:12: tenants.t.models.0: no model" in problem_of("keys: [env:T_KEY]", "models: [zzz]")


@pytest.mark.parametrize("chain", ["on_context_length", "on_content_filtered"])
def test_a_fallback_that_no_model_is_is_named_where_it_stands(chain: str) -> None:
    (problem,) = problems_of(SMALL.replace("{quality", f"{{{chain}: [small, smal], quality"))
    assert problem == f'baton.yaml:2: models.small.{chain}.1: no model "smal"; did you mean "small"?'


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("prices: {input: 1, output: 2, tiers: [{above_token: 5, input: 1, output: 2}]}", "tiers.0.above_token: unknown field"),
        ("prices: {input: 1, output: 2, tiers: [{input: 1, output: 2}]}", "tiers.0.above_tokens: missing; give the input"),
        ("price_changes: [{input: 1, outputt: 2}]", 'price_changes.0.outputt: unknown field; did you mean "output"?'),
        ("price_changes: [{input: 1, output: 2}]", "price_changes: each needs effective_from"),
        ("price_changes: [{input: 1, output: 2, effective_from: soon}]", 'effective_from: input should be a valid date'),
        ("quirks: {pth: /x}", 'quirks.pth: unknown field; did you mean "path"?'),
        ("flavour: azur", "flavour: unknown 'azur'; known: openai, azure"),
        ("dialect: cohere", "dialect: input should be 'openai', 'anthropic' or 'gemini'"),
    ],
)
def test_a_mistake_deep_within_a_backend_is_named_with_its_fix(fields: str, says: str) -> None:
    replaced = "prices: {input: 0.15, output: 0.6}" if fields.startswith("prices:") else "key: env:SOME_KEY"
    told = problems_of(SMALL.replace(replaced, fields))
    assert any(says in problem for problem in told), told
    assert all(problem.startswith(("baton.yaml:8: ", "baton.yaml:9: ")) for problem in told)


def test_a_config_without_default_policy_is_refused() -> None:
    (problem,) = problems_of(SMALL + "policies:\n  other: {}\n")
    assert problem == "baton.yaml:13: policies.default: missing; every tenant falls back to it"


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    text = SMALL.replace("0.5,", "5,").replace("model: small", "model: smal").replace("0.6", "-1").replace("t:\n", "t t:\n")
    lines = [int(problem.split(":")[1]) for problem in problems_of(text)]
    assert lines == [2, 5, 9, 11]


def test_a_name_that_stands_twice_is_refused() -> None:
    text = SMALL.replace("backends:", "  small: {quality: 0.9, context_tokens: 1}\nbackends:")
    assert problems_of(text) == ["baton.yaml:3: models.small: defined in line 2 and again here; remove one of them"]


def test_a_name_with_a_space_is_refused() -> None:
    (problem,) = problems_of(SMALL.replace("  t:", '  "t t":'))
    assert problem.startswith("baton.yaml:11: tenants.t t: names start with a letter or digit")


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_a_number_without_end_is_refused(number: str) -> None:
    assert problem_of("    key: env:SOME_KEY", f"    weight: {number}").endswith("weight: must be a finite number")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("key: env:SOME_KEY", "key: sk-canary"),
        ("keys: [env:T_KEY]", "keys: [sk-canary]"),
        ("keys: [env:T_KEY]", "keys: sk-canary"),
        ("keys: [env:T_KEY]", "keys: [{value: sk-canary}]"),
        ("keys: [env:T_KEY]", "api_key: sk-canary"),
        ("http://127.0.0.1/v1", "ftp://user:sk-canary@host"),
        ("key: env:SOME_KEY", "quirks: {headers: {x-key: [sk-canary]}}"),
        ("key: env:SOME_KEY", "quirks: {query: sk-canary}"),
        ("\n    keys: [env:T_KEY]", " sk-canary"),
    ],
)
def test_what_stands_in_a_field_for_keys_is_never_shown(old: str, new: str) -> None:
    assert "sk-canary" not in problem_of(old, new)


def test_text_that_is_not_yaml_is_named_with_its_line() -> None:
    assert problems_of("models:\n\tsmall: 1\n")[0].startswith("baton.yaml:2: not YAML: ")
    assert problems_of("a: \x07")[0].startswith("baton.yaml:1: not YAML")
    assert problems_of("")[0].startswith("baton.yaml:1: expected models:, backends:")
    assert problems_of("- a\n")[0].startswith("baton.yaml:1: expected models:, backends:")


def test_a_value_may_be_shared_by_an_anchor_and_its_own_fields_win() -> None:
    shared = SMALL.replace("  b:\n", "  b: &b\n").replace(
        "tenants:", "  c:\n    <<: *b\n    provider: q\n    weight: 2\ntenants:"
    )
    config = parse(shared)
    assert config.backends["c"] == config.backends["b"].model_copy(update={"provider": "q", "weight": 2})
    assert problems_of(shared.replace("weight: 2", "weight: none")) == [
        'baton.yaml:13: backends.c.weight: input should be a valid number, unable to parse string as a number '
        '(found "none"); give weight'
    ]


def test_an_alias_that_holds_itself_is_refused() -> None:
    assert "holds itself" in problems_of(SMALL.replace("[env:T_KEY]", "&k [env:T_KEY, *k]"))[0]


def test_a_tag_runs_nothing() -> None:
    (problem,) = problems_of(SMALL.replace("provider: p", "provider: !!python/name:os.system x"))[:1]
    assert problem.startswith("baton.yaml:6: backends.b.provider: cannot be read as")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"models: \xff")
    for name in ("none.yaml", "latin.yaml", "."):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            load(tmp_path / name)


# What is offered --------------------------------------------------------------------------------------------------------


def with_backend(**fields: str) -> ConfigFile:
    config = parse(SMALL)
    return config.model_copy(update={"backends": {"b": config.backends["b"].model_copy(update=fields)}})


KEYS = {"SOME_KEY": "k", "T_KEY": "k"}


def test_a_backend_is_left_out_when_its_environment_is_not_set() -> None:
    config = parse(SMALL)
    both = {"b": config.backends["b"], "c": config.backends["b"].model_copy(update={"requires": "C_KEY"})}
    config = config.model_copy(update={"backends": both})
    choice = offered(config, KEYS | {"C_KEY": " "})
    assert list(choice.config.backends) == ["b"]
    assert choice.left_out == ("left out: c (C_KEY not set)",)
    assert list(offered(config, KEYS | {"C_KEY": "x"}).config.backends) == ["b", "c"]


def test_a_url_is_taken_from_the_environment() -> None:
    config = with_backend(base_url="env:MY_URL")
    assert offered(config, KEYS | {"MY_URL": "http://h/v1"}).config.backends["b"].base_url == "http://h/v1"
    with pytest.raises(ConfigError, match="MY_URL must hold http"):
        offered(config, KEYS | {"MY_URL": "h/v1"})


def test_a_config_without_any_backend_to_offer_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"left out: b \(MY_URL not set\)"):
        offered(with_backend(base_url="env:MY_URL"), KEYS)


def test_keys_that_do_not_resolve_here_are_told_and_kept() -> None:
    choice = offered(parse(SMALL), {})
    assert choice.config == parse(SMALL)
    assert [line.split(":")[0] for line in choice.left_out] == ["backends.b.key", "tenants.t.keys"]
