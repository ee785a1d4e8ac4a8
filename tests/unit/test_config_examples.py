"""The default config agrees with the simulator, and the example requests come out as they say they do."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas.messages import STATUS_OF, Status
from services.cli.config_file import load
from services.intake.decide import read, tenant_of_record
from services.preprocessing.decide import decide
from services.simulator.profiles import MODELS
from shared.catalogue import Catalogue

ROOT = Path(__file__).resolve().parents[2]
CONFIG = load(ROOT / "baton.yaml")
CATALOGUE = Catalogue(1, CONFIG.models, CONFIG.backends, CONFIG.tenants, CONFIG.policies)
LINES = (ROOT / "schemas/examples/requests.jsonl").read_bytes().splitlines()


def parsed(line: bytes) -> dict[str, Any] | None:
    try:
        body: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return body


EXAMPLES = [body for line in LINES if (body := parsed(line))]


@pytest.mark.parametrize("name", [name for name in CONFIG.backends if CONFIG.backends[name].model in MODELS])
def test_what_the_config_says_of_the_simulator_is_what_the_simulator_does(name: str) -> None:
    backend = CONFIG.backends[name]
    model, real = CONFIG.models[backend.model], MODELS[backend.model]
    prices = (backend.prices.input, backend.prices.cached_input, backend.prices.output)
    assert prices == tuple(Decimal(n) / 1000 for n in (real.input_nanousd, real.cached_nanousd, real.output_nanousd))
    assert (model.quality, model.context_tokens) == (real.quality, real.context_tokens)
    assert set(model.capabilities) == real.capabilities | {"streaming"}


def test_there_are_examples_of_every_outcome_a_request_alone_can_bring_about() -> None:
    expected = Counter(body["metadata"]["expect"] for body in EXAMPLES)
    assert len(LINES) == 28
    assert len(EXAMPLES) == 27
    assert set(expected) == {Status.DELIVERED, Status.REJECTED, Status.EXPIRED, Status.OVER_BUDGET}
    assert all(body["metadata"]["title"] for body in EXAMPLES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: str((parsed(line) or {}).get("metadata", {}).get("title")))
def test_an_example_is_rejected_exactly_if_it_says_so(line: bytes) -> None:
    submission = read(line)
    failure = submission.failure
    assert tenant_of_record(submission.options.get("tenant"), CATALOGUE) == "demo"
    if failure is None:
        failure = decide(submission.body, CATALOGUE.models, CATALOGUE.policy_of("demo").prompt_bytes_max).failure
    body = parsed(line)
    expect = body["metadata"]["expect"] if body else Status.REJECTED
    assert (failure is not None) == (expect == Status.REJECTED)
    assert failure is None or STATUS_OF[failure.reason] is Status.REJECTED


def test_the_examples_need_every_capability_that_a_request_can_need() -> None:
    needed: set[str] = set()
    for line in LINES:
        task = decide(read(line).body, CATALOGUE.models, 10**6)
        needed |= set(task.features.needs) if task.features else set()
    assert needed == {"tools", "json_schema", "vision"}


def test_the_repeated_request_is_the_same_request() -> None:
    keys = [body.get("idempotency_key") for body in EXAMPLES]
    twice = [line for line, body in zip([x for x in LINES if parsed(x)], EXAMPLES, strict=True) if body.get("idempotency_key")]
    assert len([key for key in keys if key]) == len(twice) == 2
    assert twice[0] == twice[1]
    assert [body["ordering_key"] for body in EXAMPLES if "ordering_key" in body] == ["letter-8841"] * 3
