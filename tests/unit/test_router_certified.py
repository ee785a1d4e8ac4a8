"""A policy may require certificates: then a model is only asked for what it was seen to do."""

from typing import Any

import pytest

from schemas.certificate import CapabilityScore, Certificate
from schemas.config import ConfigRecord, Policy
from schemas.messages import Plan, Reason
from services.router.certified import LONG_CONTEXT_TOKENS, certified_for
from services.router.main import Router
from shared.catalogue import VERSION_KEY, Catalogue
from tests.support.builders import ManualClock, a_backend, a_context, a_model, a_task, an_envelope, some_features


def a_catalogue(require_certified: object, **certified: tuple[str, ...]) -> Catalogue:
    """Small and large, as the `config` topic would have them; each certified for what is given, in nothing else."""
    models = {"small": a_model(quality=0.5, capabilities=("tools",)), "large": a_model(quality=0.9, capabilities=("tools",))}
    objects: dict[str, Any] = {
        **{f"model/{name}": model for name, model in models.items()},
        **{f"backend/{name}-a": a_backend(name, "1" if name == "small" else "9") for name in models},
        "policy/default": Policy.model_validate({"require_certified": require_certified}),
    }
    for name, capabilities in certified.items():
        tested = {each: CapabilityScore(score=1, certified=True) for each in capabilities}
        tested["maths"] = CapabilityScore(score=0.5, certified=False)
        objects[f"certificate/{name}"] = Certificate(suite="1", tested_ms=1, capabilities=tested)
    records = {key: a_record(key, value.model_dump(mode="json")) for key, value in objects.items()}
    return Catalogue.from_records(records | {VERSION_KEY: a_record(VERSION_KEY, {})})


def a_record(key: str, spec: dict[str, Any]) -> ConfigRecord:
    kind, _, name = key.partition("/")
    return ConfigRecord.model_validate({"kind": kind, "name": name, "version": 7, "spec": spec})


def planned(catalogue: Catalogue, **features: Any) -> Plan:
    assert catalogue.problems == ()
    router = Router(lambda: catalogue, dict, ManualClock())
    (out,) = router.handle(an_envelope(a_task(**features)), a_context()).outputs
    plan: Plan = out.value.payload  # type: ignore[union-attr]
    return plan


@pytest.mark.parametrize("required", [True, ("code",), ("code", "tools")])
def test_only_models_that_were_seen_to_do_it_are_planned_and_the_others_are_named(required: object) -> None:
    plan = planned(a_catalogue(required, large=("code",)), domain="code")
    assert [candidate.model for candidate in plan.candidates] == ["large"]
    assert [(left.model, left.reason) for left in plan.why.excluded] == [("small", "is not certified for code")]


@pytest.mark.parametrize("required", [False, (), ("tools",), ("maths", "vision")])
def test_what_the_policy_does_not_require_needs_no_certificate(required: object) -> None:
    assert planned(a_catalogue(required), domain="code").candidates[0].model == "small"


def test_a_model_that_failed_the_test_is_as_untested_and_where_none_passed_the_caller_hears_what_to_do() -> None:
    plan = planned(a_catalogue(True, small=("tools",), large=("tools",)), domain="maths")
    assert plan.failure is not None
    assert plan.failure.reason is Reason.NO_ABLE_MODEL
    assert "baton certify" in plan.failure.message


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({}, ()),
        ({"domain": "maths"}, ("maths",)),
        ({"needs": ("tools", "vision", "logprobs")}, ("tools", "vision")),
        ({"language": "de"}, ("languages",)),
        ({"tokens_in": LONG_CONTEXT_TOKENS + 1, "domain": "code"}, ("code", "long_context")),
    ],
)
def test_what_must_be_certified_follows_from_the_task(features: dict[str, Any], wanted: tuple[str, ...]) -> None:
    assert certified_for(True, some_features(**features)) == wanted


def test_a_policy_that_requires_what_nobody_tests_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match="require_certified: unknown poetry; known: code, maths"):
        Policy.model_validate({"require_certified": ["poetry"]})
