"""What the bench makes of its samples; and that each stage alone is measured along a request's whole path."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.topology import STAGES
from tests.bench import __main__ as bench
from tests.bench import peers, stages
from tests.bench.cpu import Meter, cpu_s, family, rss_mb
from tests.bench.gate_lag import trend
from tests.bench.report import (
    Target,
    latencies,
    medians,
    percentile,
    rounded,
    rounded_all,
    shown,
    table,
    targets_table,
    write_section,
)

SERVICES = [stage.name for stage in STAGES]


def some_figures(**fields: Any) -> dict[str, Any]:
    """What a run ends in, before rounding."""
    loads = ("relay", "reply", "results", "simulator")
    rate = {f"{name}_{part}": 10.0 for name in loads for part in ("p50_ms", "p99_ms", "cpu_ms_per_request")}
    process = {"cpu_ms_per_request": 0.03, "rss_mb": 64.123}
    processes = {name: process | {"ready_s": 1.234} for name in SERVICES} | {"broker": process, "simulator": process}
    defaults = {
        "rates": {str(rate_s): rate | {"processes": dict.fromkeys(processes, process)} for rate_s in (50, 200)},
        "idle_cpu_percent": {"baton": 8.0, "relay": 4.0, "broker": 2.0},
        "processes": processes,
        "sustained_rps": 1500.0,
        "cpu_ms_per_request": 0.3,
        "relay_rps": 11_000.0,
        "relay_cpu_ms": 0.1,
        "overload": {
            "2": {
                "offered_rps": 3000.0,
                "delivered_rps": 1450.0,
                "in_vain_percent": 1.0,
                "requests": 45_000,
                "ends": {"delivered": 30_000, "expired deadline_passed": 15_000},
            },
        },
        "stages": {"router": {size_kb: dict.fromkeys(stages.PARTS, 12.345) for size_kb in stages.SIZES_KB}},
        "gate": {"checks_default_us": 12.0, "checks_all_us": 140.0, "scores_us": 1700.0},
        "pipelines": {"extra_step_ms": 12.0, "relay_of_its_hops_ms": 8.5},
        "calls": {
            "openai, plain": {"bare_us": 100.0, "ours_us": 150.0},
            "openai, streamed": {"bare_us": 300.0, "ours_us": 400.0, "events": 50, "ours_us_per_event": 8.0},
        },
    }
    return defaults | fields


# Samples -----------------------------------------------------------------------------------------------------------------


def test_a_percentile_is_one_of_the_samples() -> None:
    samples = [float(value) for value in range(100, 0, -1)]
    assert [percentile(samples, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]


def test_of_one_sample_every_percentile_is_that_sample() -> None:
    assert {percentile([7.0], share) for share in (0.0, 0.5, 0.99)} == {7.0}


def test_a_lag_that_rises_is_told_from_one_that_wavers() -> None:
    slope, error = trend([place * 3 + place % 2 for place in range(100)])
    assert slope - 2 * error > 2.9
    slope, error = trend([8 + place % 5 for place in range(100)])
    assert slope - 2 * error < 0


def test_without_samples_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


def test_latencies_are_named_after_their_load_with_the_unit_last() -> None:
    assert latencies("relay", [1.0, 2.0, 30.0]) == {"relay_p50_ms": 2.0, "relay_p99_ms": 30.0}


def test_rounds_become_medians_so_one_bad_round_does_not_count() -> None:
    assert medians([{"rps": 100.0}, {"rps": 104.0}, {"rps": 9.0}]) == {"rps": 100.0}


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0.0), (0.012345, 0.0123), (1.2345, 1.23), (99.96, 100.0), (1234.5, 1230.0), (-5.678, -5.68)]
)
def test_a_figure_has_three_significant_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected


def test_counts_are_not_rounded() -> None:
    assert rounded_all({"a": [1.23456, 45_678], "b": "x", "c": True}) == {"a": [1.23, 45_678], "b": "x", "c": True}
    assert (shown(45_678), shown(45_678.0), shown(0.25), shown(None)) == ("45,678", "45,700", "0.25", "")


# Tables and targets ------------------------------------------------------------------------------------------------------


def test_a_table_aligns_names_left_and_numbers_right() -> None:
    assert table("Title", ("name", "ms"), [("relay", 9.5), ("x", None), ("reply", 1234)]).split("\n") == [
        "",
        "Title",
        "  name      ms",
        "  ─────  ─────",
        "  relay    9.5",
        "  x",
        "  reply  1,234",
    ]


@pytest.mark.parametrize(
    ("figure", "is_floor", "met"), [(0.7, False, True), (0.71, False, False), (0.7, True, True), (0.69, True, False)]
)
def test_a_target_is_met_on_its_own_side_of_the_limit(figure: float, is_floor: bool, met: bool) -> None:
    assert Target("CPU", figure, 0.7, "ms", is_floor).is_met is met


def test_a_missed_target_is_marked() -> None:
    missed, met = Target("sustained", 900, 1200, "requests/s", is_floor=True), Target("CPU", 0.4, 0.7, "ms")
    lines = targets_table([missed, met]).split("\n")
    assert [line.endswith("MISSED") for line in lines[-2:]] == [True, False]
    assert "≥ 1,200" in lines[-2]


# A run's end -------------------------------------------------------------------------------------------------------------


def test_every_budget_of_the_design_has_a_target() -> None:
    targets = bench.targets_of(some_figures())
    assert all(target.is_met for target in targets)
    assert set(SERVICES) <= {target.name.strip() for target in targets}
    assert len(targets) == len(SERVICES) + 14


def test_the_relay_of_the_same_run_is_the_measure_of_latency_and_the_providers_own_time_does_not_count() -> None:
    figures = some_figures()
    at_50 = figures["rates"]["50"] | {"relay_p50_ms": 8.0, "simulator_p50_ms": 2.0}
    figures["rates"]["50"] = at_50 | {"reply_p50_ms": 14.0}
    assert all(target.is_met for target in bench.targets_of(figures))
    figures["rates"]["50"] = at_50 | {"reply_p50_ms": 14.1}
    (missed,) = (target for target in bench.targets_of(figures) if not target.is_met)
    assert missed.name == "HTTP p50 at 50/s without the provider's own (1.5 × the relay chain)"


def test_the_relay_of_the_same_run_is_the_measure_of_cpu() -> None:
    (missed,) = (target for target in bench.targets_of(some_figures() | {"relay_cpu_ms": 0.03}) if not target.is_met)
    assert missed.name == "CPU per request over a record's in the relay chain, at their most"


def test_broker_and_simulator_are_shown_but_are_no_service() -> None:
    text = "\n".join(bench.tables(some_figures()))
    assert all(name in text for name in ("broker", "simulator", *SERVICES))
    figures = some_figures()
    figures["processes"]["broker"] = {"cpu_ms_per_request": 9.0, "rss_mb": 900.0}
    assert all(target.is_met for target in bench.targets_of(figures))


def test_peers_are_compared_at_the_same_load() -> None:
    names = ["1 caller", "8 callers", "64 callers", "50/s", "100/s", "200/s"]
    load = {"rps": 100.0, "reply_p50_ms": 12.0, "reply_p99_ms": 20.0, "failed": 0}
    cost = {"cpu_ms_per_request": 10.0, "broker_cpu_ms_per_request": 0.0}
    theirs = {"loads": dict.fromkeys(names, load | cost), "rss_mb": 350.0, "rss_mb_largest": 350.0, "ready_s": 12.0}
    ours = theirs | {"loads": dict.fromkeys(names, load | cost | {"rps": 1000.0, "cpu_ms_per_request": 1.0})}
    swift = {"topics": cost | {"rps": 1000.0, "cpu_ms_per_request": 0.8}}
    slow = {"topics": cost | {"rps": 999.0, "cpu_ms_per_request": 0.9}}
    gateways = {"direct": theirs, "litellm": theirs, "baton": ours | swift}
    assert [target.is_met for target in peers.targets_of(gateways)] == [True] * 5
    assert [target.is_met for target in peers.targets_of(gateways | {"baton": theirs | slow})] == [False] * 4 + [True]
    assert len(peers.tables(gateways)) == 2


def test_one_bench_leaves_the_figures_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    write_section(path, "bench", {"stages": {"router": {1: {"handle_us": 50.0}}}})
    write_section(path, "peers", {"rounds": 3})
    write_section(path, "bench", {"sustained_rps": 1500.0})
    assert orjson.loads(path.read_bytes()) == {"bench": {"sustained_rps": 1500.0}, "peers": {"rounds": 3}}


# What needs no services --------------------------------------------------------------------------------------------------


async def test_each_stage_alone_is_measured_along_the_whole_path() -> None:
    costs = await (await stages.line()).through(size_kb=1)
    assert [*costs, "monitor"] == SERVICES
    assert all(set(parts) == set(stages.PARTS) and parts["handle_us"] > 0 for parts in costs.values())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_meter_sees_the_cpu_time_of_a_process() -> None:
    own = int(Path("/proc/self").resolve().name)
    meter = Meter({"own": own})
    began_s = cpu_s(own)
    while cpu_s(own) - began_s < 0.05:
        sum(range(1000))
    assert meter.spent_ms()["own"] >= 50 - 1e-6
    assert rss_mb(own) > 5
    assert own in family(own)
