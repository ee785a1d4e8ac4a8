"""The catalogue is what the records of the config topic say, and one bad record takes nothing else with it."""

from decimal import Decimal
from typing import Any

from schemas.config import ConfigRecord, Policy
from shared.catalogue import EMPTY, VERSION_KEY, Catalogue

MODEL = {"quality": 0.5, "context_tokens": 1000}
BACKEND = {"model": "small", "provider": "p", "base_url": "http://h/v1", "prices": {"input": "0.15", "output": "0.6"}}


def records(**specs: dict[str, Any]) -> dict[str, ConfigRecord]:
    """Records by key; the names of the arguments are `kind__name`."""
    made = {VERSION_KEY: ConfigRecord(kind="version", name="current", version=7)}
    for key, spec in specs.items():
        kind, _, name = key.partition("__")
        made[f"{kind}/{name}"] = ConfigRecord.model_validate({"kind": kind, "name": name, "version": 7, "spec": spec})
    return made


def test_records_are_grouped_by_kind() -> None:
    catalogue = Catalogue.from_records(
        records(model__small=MODEL, backend__b=BACKEND, tenant__t={"open": True}, policy__default={"attempts_max": 5})
    )
    assert catalogue.version == 7
    assert catalogue.models["small"].context_tokens == 1000
    assert catalogue.backends["b"].prices.input == Decimal("0.15")
    assert catalogue.tenants["t"].open
    assert catalogue.policies["default"].attempts_max == 5
    assert catalogue.problems == ()


def test_backends_of_a_model_are_sorted_and_none_for_an_unknown_one() -> None:
    other = BACKEND | {"model": "large"}
    catalogue = Catalogue.from_records(
        records(model__small=MODEL, model__large=MODEL, backend__z=BACKEND, backend__a=BACKEND, backend__l=other)
    )
    assert catalogue.backends_of("small") == ("a", "z")
    assert catalogue.backends_of("large") == ("l",)
    assert catalogue.backends_of("unknown") == ()


def test_a_tenant_has_its_policy_and_everybody_else_the_default() -> None:
    catalogue = Catalogue.from_records(
        records(
            tenant__strict={"policy": "careful"},
            tenant__lost={"policy": "gone"},
            policy__default={"attempts_max": 2},
            policy__careful={"attempts_max": 9},
        )
    )
    assert catalogue.policy_of("strict").attempts_max == 9
    assert catalogue.policy_of("lost").attempts_max == 2
    assert catalogue.policy_of("unknown").attempts_max == 2


def test_before_the_first_apply_there_is_nothing_but_a_default_policy() -> None:
    assert Catalogue.from_records({}) == EMPTY
    assert EMPTY.version == 0
    assert EMPTY.backends_of("any") == ()
    assert EMPTY.policy_of("anybody") == Policy()


def test_a_bad_record_is_left_out_and_named_and_the_rest_stays_usable() -> None:
    catalogue = Catalogue.from_records(
        records(model__small=MODEL, model__bad={"quality": "sk-oops"}, backend__b=BACKEND)
    )
    assert set(catalogue.models) == {"small"}
    assert catalogue.backends_of("small") == ("b",)
    (problem,) = catalogue.problems
    assert problem.startswith("model/bad: ")
    assert "quality" in problem
    assert "context_tokens" in problem
    assert "sk-oops" not in problem


def test_a_backend_without_its_model_is_left_out_and_named() -> None:
    catalogue = Catalogue.from_records(records(backend__b=BACKEND))
    assert catalogue.backends == {}
    assert catalogue.problems == ("backend/b: no model 'small'; define it under models",)


def test_fields_of_a_newer_release_are_ignored() -> None:
    newer = BACKEND | {"colour": "red", "prices": {"input": 1, "output": 2, "batch": 0.5}}
    catalogue = Catalogue.from_records(records(model__small=MODEL | {"shape": "round"}, backend__b=newer))
    assert catalogue.problems == ()
    assert catalogue.backends_of("small") == ("b",)
