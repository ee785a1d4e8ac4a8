"""Faults, latencies, control and prices of the simulator, without a server."""

import ast
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import orjson
import pytest

from services import simulator
from services.simulator.control import ControlError, Controls, read_control
from services.simulator.decide import Behaviour, decide
from services.simulator.dialect_openai import ERROR_CLASSES
from services.simulator.faults import ERROR_STATUS, Fault, FaultKind
from services.simulator.profiles import ERROR_MIX, FLEETS, MODELS, cost_microusd
from services.simulator.scopes import Scope
from services.simulator.weather import Sky, Weather

CALLS = 5_000


def a_run(profile: str, calls: int = CALLS, seed: int = 7, rule: Fault | None = None) -> list[Behaviour]:
    behaviours: list[Behaviour] = []
    in_burst = False
    for call in range(calls):
        behaviour = decide(MODELS["sim-small"], FLEETS[profile], rule, in_burst, seed, call)
        in_burst = behaviour.in_burst
        behaviours.append(behaviour)
    return behaviours


def error_share(behaviours: list[Behaviour]) -> float:
    return sum(one.fault is not None and one.fault.kind is not FaultKind.SLOW for one in behaviours) / len(behaviours)


def test_a_seed_makes_the_same_run_again_and_another_seed_another() -> None:
    assert a_run("typical", 500) == a_run("typical", 500)
    assert a_run("typical", 500) != a_run("typical", 500, seed=8)


@pytest.mark.parametrize(
    ("profile", "calls", "share", "tolerance"),
    [
        ("steady", CALLS, 0, 0),
        ("calm", CALLS, 0.002, 0.0015),
        ("typical", CALLS, 0.018, 0.004),
        ("bad_day", 40_000, 0.073, 0.01),
    ],
)
def test_a_profile_fails_as_often_as_it_says(profile: str, calls: int, share: float, tolerance: float) -> None:
    assert error_share(a_run(profile, calls)) == pytest.approx(share, abs=tolerance)


def test_typical_errors_are_of_every_kind_in_the_mix() -> None:
    seen = {one.fault for one in a_run("typical") if one.fault is not None}
    assert {fault for _, fault in ERROR_MIX} <= seen


def test_errors_of_a_bad_day_come_in_bursts() -> None:
    failed = [one.fault is not None for one in a_run("bad_day", 40_000)]
    after_a_failure = [later for earlier, later in pairwise(failed) if earlier]
    assert sum(after_a_failure) / len(after_a_failure) > 4 * sum(failed) / len(failed)


def test_latency_has_the_median_of_the_model_and_a_heavy_tail() -> None:
    ttft_ms = [one.ttft_ms for one in a_run("steady")]
    cuts = quantiles(ttft_ms, n=100)
    assert median(ttft_ms) == pytest.approx(120, rel=0.05)
    assert 2.2 < cuts[94] / 120 < 3.2  # p95 and p99 of public router data: about 2.5 and 7 times p50
    assert 3.5 < cuts[98] / 120 < 9
    assert max(ttft_ms) <= 60 * 120


def test_a_slow_call_is_slower_by_its_factor() -> None:
    fast = decide(MODELS["sim-small"], FLEETS["steady"], None, False, 1, 0)
    slow = decide(MODELS["sim-small"], FLEETS["steady"], Fault(kind=FaultKind.SLOW, factor=8), False, 1, 0)
    assert (slow.ttft_ms, slow.ms_per_token) == (fast.ttft_ms * 8, fast.ms_per_token * 8)


def test_a_rule_hits_its_share_of_the_calls() -> None:
    rule = Fault(kind=FaultKind.RESET, share=0.3)
    hits = sum(one.by_rule for one in a_run("steady", rule=rule))
    assert hits / CALLS == pytest.approx(0.3, abs=0.03)


def test_a_model_named_after_a_fault_has_it() -> None:
    behaviour = decide(MODELS["sim-fault-429"], FLEETS["steady"], None, False, 1, 0)
    assert behaviour.fault is not None
    assert (behaviour.fault.status, behaviour.fault.retry_after_s) == (429, 2)


@pytest.mark.parametrize(
    ("model", "tokens", "cost"),
    [
        ("sim-nano", (10, 0, 20), 5),  # 0.5 + 4 = 4.5, half up
        ("sim-nano", (9, 0, 0), 0),  # 0.45
        ("sim-small", (1000, 0, 1000), 750),
        ("sim-large", (2000, 1024, 1), 3730),  # 976 * 2.5 + 1024 * 1.25 + 10
        ("sim-reason", (1_000_000, 0, 1_000_000), 25_000_000),
    ],
)
def test_a_cost_is_rounded_once_half_up(model: str, tokens: tuple[int, int, int], cost: int) -> None:
    assert cost_microusd(MODELS[model], *tokens) == cost


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"colour": 1}', "colour"),
        (b'{"profile": "sunny"}', "profile"),
        (b'{"model": "gpt-9"}', "model"),
        (b'{"latency_scale": -1}', "latency_scale"),
        (b'{"fault": {"kind": "fire"}}', "fault.kind"),
        (b'{"fault": {"kind": "slow", "factor": "much"}}', "fault.factor"),
        (b'{"fault": {"kind": "error", "error_class": "gone"}}', "fault"),
        (b'{"fault": {"kind": "error", "status": 200}}', "fault"),
        (b'{"fault": {"kind": "hang", "times": -1}}', "fault.times"),
    ],
)
def test_a_bad_control_body_is_refused_with_the_field_named(body: bytes, field: str) -> None:
    with pytest.raises(ControlError) as caught:
        read_control(body)
    assert caught.value.field == field


def controls(*bodies: object) -> Controls:
    state = Controls(1.0, Weather(Sky(FLEETS["steady"])))
    for body in bodies:
        state.apply(read_control(orjson.dumps(body)), 0.0)
    return state


def test_the_most_specific_rule_wins_and_null_clears_what_it_covers() -> None:
    state = controls(
        {"fault": {"kind": "hang"}},
        {"provider": "beta", "model": "sim-small", "fault": {"kind": "reset"}},
    )
    assert state.rules[Scope()].fault.kind is FaultKind.HANG
    rule = state.rule("beta", "sim-small")
    assert rule is not None
    assert rule.fault.kind is FaultKind.RESET
    state.apply(read_control(b'{"provider": "beta", "fault": null}'), 0.0)
    assert list(state.rules) == [Scope()]
    state.apply(read_control(b'{"latency_scale": 0}'), 0.0)
    assert (state.latency_scale, len(state.rules)) == (0, 1)
    state.apply(read_control(b'{"fault": null}'), 0.0)
    assert state.rule("beta", "sim-small") is None


def test_a_rule_is_gone_after_its_times() -> None:
    state = controls({"fault": {"kind": "error", "times": 2}})
    rule = state.rule("alpha", "sim-nano")
    assert rule is not None
    state.hit(rule)
    assert state.rule("alpha", "sim-large") is rule
    state.hit(rule)
    assert state.rule("alpha", "sim-nano") is None


def test_a_profile_holds_for_one_provider_or_for_all() -> None:
    state = controls({"provider": "beta", "profile": "bad_day"})
    assert (state.weather.of("alpha").fleet.name, state.weather.of("beta").fleet.name) == ("steady", "bad_day")
    state.apply(read_control(b'{"profile": "calm"}'), 0.0)
    assert (state.weather.of("alpha").fleet.name, state.weather.of("beta").fleet.name) == ("calm", "calm")


def test_an_error_fault_needs_only_a_status_or_only_a_class() -> None:
    assert Fault(kind=FaultKind.ERROR, status=503).error_class == "overloaded"
    assert Fault(kind=FaultKind.ERROR, error_class="quota_exhausted").status == 429


def test_every_error_class_has_a_body_in_the_dialect() -> None:
    assert set(ERROR_STATUS) == ERROR_CLASSES


def test_the_simulator_imports_nothing_else_of_the_project() -> None:
    for file in Path(next(iter(simulator.__path__))).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                foreign = name.split(".")[0] in ("services", "shared", "schemas")
                assert not foreign or name.startswith("services.simulator"), f"{file.name} imports {name}"
