"""The simulator's weather: outages, phases, skies and scenarios, without a server."""

from statistics import mean, median, quantiles

import pytest

from services.simulator.call import count_tokens
from services.simulator.decide import Behaviour, Moment, decide
from services.simulator.draws import draw, lognormal
from services.simulator.faults import Fault, FaultKind
from services.simulator.outages import FLAP_S, PUBLISHED, Timeline, flaps, flaps_in_s, incidents_of
from services.simulator.profiles import DOWN_MIX, FLEETS, MODELS, model_named
from services.simulator.scenarios import SCENARIOS, STORY, fault_now
from services.simulator.weather import Sky, Weather

DRAWS = 10_000
HOUR = 60.0
CLEAR = Moment()


def a_run(profile: str, calls: int = 5_000, moment: Moment = CLEAR, model: str = "sim-small") -> list[Behaviour]:
    return [decide(MODELS[model], FLEETS[profile], None, False, 7, call, moment) for call in range(calls)]


def kinds(profile: str) -> set[FaultKind]:
    return {one.fault.kind for one in a_run(profile) if one.fault is not None}


# Outages


@pytest.mark.parametrize(
    ("provider", "p25", "p50", "p75", "gap_median_h", "gap_mean_h"),
    [("openai", 33, 75, 180, 48, 133), ("anthropic", 20, 47, 108, 50, 125)],
)
def test_incidents_and_gaps_have_the_published_medians(
    provider: str, p25: float, p50: float, p75: float, gap_median_h: float, gap_mean_h: float
) -> None:
    one = PUBLISHED[provider]
    lengths = [lognormal(one.down_mu, one.down_sigma, draw(1, at)) for at in range(DRAWS)]
    gaps_h = [lognormal(one.up_mu, one.up_sigma, draw(2, at)) / HOUR for at in range(DRAWS)]
    cuts = quantiles(lengths, n=4)
    assert median(lengths) == pytest.approx(p50, rel=0.1)
    assert cuts[0] == pytest.approx(p25, rel=0.15)
    assert cuts[2] == pytest.approx(p75, rel=0.2)
    assert median(gaps_h) == pytest.approx(gap_median_h, rel=0.06)
    assert mean(gaps_h) == pytest.approx(gap_mean_h, rel=0.1)


def test_gaps_between_incidents_are_clustered_not_poisson() -> None:
    one = PUBLISHED["openai"]
    gaps = [lognormal(one.up_mu, one.up_sigma, draw(3, at)) for at in range(DRAWS)]
    tenth = mean(gaps) / 10
    soon = sum(gap < tenth for gap in gaps) / DRAWS
    assert soon > 1.5 * 0.095  # of an exponential distribution 9.5 % are shorter than a tenth of the mean


def test_a_timeline_goes_up_and_down_and_is_scaled() -> None:
    timeline = Timeline(PUBLISHED["openai"], 5, 0.1, first_at_s=3)
    assert [timeline.is_down(at_s) for at_s in (0, 2.99, 3)] == [False, False, True]
    length_s = timeline.changes_in_s(3)
    assert timeline.is_down(3 + length_s * 0.99)
    assert not timeline.is_down(3 + length_s)
    slower = Timeline(PUBLISHED["openai"], 5, 1.0, first_at_s=3)
    assert slower.changes_in_s(3) == pytest.approx(10 * length_s)


def test_a_timeline_is_down_as_long_as_incidents_last_and_up_as_long_as_the_gaps() -> None:
    timeline, at_s = Timeline(PUBLISHED["openai"], 11, 0.1), 0.0
    lengths_s: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(2_000):
        length_s = timeline.changes_in_s(at_s)
        lengths_s[timeline.is_down(at_s)].append(length_s)
        at_s += length_s
    assert median(lengths_s[True]) == pytest.approx(7.5, rel=0.15)
    assert median(lengths_s[False]) == pytest.approx(288, rel=0.15)


def test_a_timeline_is_the_same_in_whatever_order_it_is_asked() -> None:
    times_s = [draw(9, at) * 5_000 for at in range(300)]
    late_first = Timeline(PUBLISHED["anthropic"], 5, 0.1)
    assert late_first.is_down(5_000) in (True, False)
    early_first = Timeline(PUBLISHED["anthropic"], 5, 0.1)
    answers = [late_first.is_down(at_s) for at_s in times_s]
    assert answers == [early_first.is_down(at_s) for at_s in times_s]
    assert {True, False} == set(answers)
    assert answers != [Timeline(PUBLISHED["anthropic"], 6, 0.1).is_down(at_s) for at_s in times_s]


def test_a_provider_named_after_a_published_history_has_it() -> None:
    assert incidents_of("anthropic") == PUBLISHED["anthropic"]
    assert incidents_of("alpha") == PUBLISHED["openai"]


def test_flapping_is_up_first_and_changes_every_twenty_seconds() -> None:
    assert [flaps(at_s) for at_s in (0, 19.9, 20, 39.9, 40)] == [False, False, True, True, False]
    assert (flaps_in_s(0), flaps_in_s(FLAP_S)) == (FLAP_S, FLAP_S)


# Skies


def skies(profile: str, *providers: str, since_s: float = 100.0) -> Weather:
    weather = Weather(Sky(FLEETS["steady"]), seed=7)
    for at, provider in enumerate(providers):
        weather.put(provider, Sky(FLEETS[profile], since_s + at * 5))
    return weather


def test_only_the_provider_with_the_profile_goes_down() -> None:
    weather = skies("flapping", "beta")
    assert [weather.is_down("beta", at_s) for at_s in (100, 120, 140)] == [False, True, False]
    assert not weather.is_down("alpha", 120)


def test_providers_of_a_joint_outage_go_down_together_though_they_joined_one_after_the_other() -> None:
    weather = skies("joint_outage", "alpha", "beta")
    times_s = [100 + at * 3 for at in range(1, 3_000)]
    down = {provider: [weather.is_down(provider, at_s) for at_s in times_s] for provider in ("alpha", "beta")}
    assert down["alpha"] == down["beta"]
    assert any(down["alpha"])


def test_providers_of_separate_outages_go_down_each_on_its_own() -> None:
    weather = skies("outage", "alpha", "beta")
    times_s = [110 + at * 3 for at in range(3_000)]
    down = {provider: [weather.is_down(provider, at_s) for at_s in times_s] for provider in ("alpha", "beta")}
    assert down["alpha"] != down["beta"]


def test_the_first_incident_begins_when_asked_and_anew_when_the_profile_is_put_again() -> None:
    weather = Weather(Sky(FLEETS["steady"]))
    weather.put("beta", Sky(FLEETS["outage"], since_s=50, outage_at_s=2))
    assert [weather.is_down("beta", at_s) for at_s in (51.9, 52)] == [False, True]
    report = weather.as_dict("beta", 52)
    assert report["is_down"]
    assert report["changes_in_s"] > 0
    weather.put(None, Sky(FLEETS["outage"], since_s=52, outage_at_s=1))
    assert [weather.is_down("beta", at_s) for at_s in (52.9, 53)] == [False, True]


# Profiles


def test_while_down_every_call_fails_with_the_errors_of_an_outage() -> None:
    faults = {one.fault for one in a_run("outage", 500, Moment(is_down=True))}
    assert faults == {fault for _, fault in DOWN_MIX}
    assert {one.fault for one in a_run("outage", 500)} == {None}


def test_a_429_storm_tells_half_of_its_callers_how_long_to_wait() -> None:
    faults = [one.fault for one in a_run("storm_429") if one.fault is not None]
    assert len(faults) / 5_000 == pytest.approx(0.8, abs=0.02)
    assert {fault.status for fault in faults} == {429}
    assert sum(fault.retry_after_s is None for fault in faults) / len(faults) == pytest.approx(0.5, abs=0.03)


def test_a_brownout_answers_everything_eight_times_later() -> None:
    brownout, steady = a_run("brownout", 200), a_run("steady", 200)
    assert {one.fault for one in brownout} == {None}
    assert [one.ttft_ms for one in brownout] == [one.ttft_ms * 8 for one in steady]
    assert [one.ms_per_token for one in brownout] == [one.ms_per_token for one in steady]


def test_a_heavy_tail_is_about_eight_times_the_median_at_p99_and_has_a_bound() -> None:
    calls = a_run("heavy_tail", 40_000)
    ttft_ms = [one.ttft_ms / 120 for one in calls]
    cuts = quantiles(ttft_ms, n=100)
    assert {one.fault for one in calls} == {None}
    assert median(ttft_ms) == pytest.approx(1, rel=0.03)
    assert 7 < cuts[98] < 10
    assert max(ttft_ms) == 60


@pytest.mark.parametrize(
    ("profile", "error_class", "status"), [("quota_exhausted", "quota_exhausted", 429), ("key_revoked", "auth", 401)]
)
def test_a_refusing_profile_refuses_every_call(profile: str, error_class: str, status: int) -> None:
    assert {(one.fault.error_class, one.fault.status) for one in a_run(profile, 200) if one.fault} == {(error_class, status)}
    assert all(one.fault for one in a_run(profile, 200))


def test_a_stream_cutter_and_a_liar_spoil_half_of_the_answers_in_all_their_ways() -> None:
    cutter = {FaultKind.CUT_STREAM, FaultKind.STALL_STREAM, FaultKind.DRIP, FaultKind.MALFORMED, FaultKind.DUPLICATE}
    assert kinds("stream_cutter") == cutter
    assert kinds("liar") == {FaultKind.WRONG_USAGE, FaultKind.ERROR_IN_200, FaultKind.NO_DONE}
    for profile in ("stream_cutter", "liar"):
        assert sum(one.fault is None for one in a_run(profile)) / 5_000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("profile", FLEETS)
def test_the_weights_of_every_mix_are_a_whole(profile: str) -> None:
    assert sum(weight for weight, _ in FLEETS[profile].mix) == pytest.approx(1)


# Scenarios


def test_there_are_sixteen_scenarios_and_each_is_a_model_whose_answers_are_right() -> None:
    assert list(SCENARIOS) == [f"sim-s{number:02}" for number in range(1, 17)]
    for name in (*SCENARIOS, "sim-scenario-fallback", "sim-noprefill"):
        assert (MODELS[name].quality, MODELS[name].immune) == (1.0, True)
    assert MODELS["sim-scenario-fallback"].context_tokens == 200_000
    assert {name for name in SCENARIOS if MODELS[name].afterword} == {f"sim-s{at:02}" for at in (8, 9, 10, 11, 14)}
    assert count_tokens(STORY) == 60


def fault_of(name: str, call: int = 0, age_s: float = 0.0, scale: float = 1.0) -> Fault | None:
    return decide(MODELS[name], FLEETS["steady"], None, False, 7, call, Moment(age_s=age_s, scenario_scale=scale)).fault


@pytest.mark.parametrize(("name", "status"), [("sim-s01", 429), ("sim-s03", 500), ("sim-s05", 0)])
def test_a_scenario_that_fails_once_is_fine_afterwards(name: str, status: int) -> None:
    first = fault_of(name)
    assert first is not None
    assert first.status == status
    assert fault_of(name, call=1) is None


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if not one.times and not one.down_s])
def test_the_other_scenarios_never_end(name: str) -> None:
    assert fault_of(name) == fault_of(name, call=1_000, age_s=1e6) == SCENARIOS[name].fault


def test_a_provider_that_is_down_for_a_minute_is_healthy_afterwards_whatever_the_calls() -> None:
    assert [fault_of("sim-s15", call=9, age_s=age_s) is None for age_s in (0, 59.9, 60)] == [False, False, True]
    assert [fault_of("sim-s15", call=9, age_s=age_s, scale=0.1) is None for age_s in (5.9, 6)] == [False, True]


def test_the_scale_shortens_a_scenario_s_silence_but_not_its_retry_after() -> None:
    hang, late, limited = (fault_now(SCENARIOS[name], 0, 0, 0.1) for name in ("sim-s06", "sim-s07", "sim-s01"))
    assert hang is not None
    assert late is not None
    assert limited is not None
    assert (hang.hang_s, late.delay_ms, limited.retry_after_s) == (12, 2_000, 2)


def test_the_weather_leaves_scenarios_alone() -> None:
    assert {one.fault for one in a_run("quota_exhausted", 50, Moment(is_down=True), "sim-scenario-fallback")} == {None}
    brownout, steady = a_run("brownout", 1, model="sim-noprefill"), a_run("steady", 1, model="sim-noprefill")
    assert brownout == steady


def test_an_instance_is_its_model_under_another_name() -> None:
    instance = model_named("sim-s15@run7")
    assert instance is not None
    assert (instance.name, instance.scenario) == ("sim-s15@run7", SCENARIOS["sim-s15"])
    assert model_named("sim-s15") is MODELS["sim-s15"]
    assert model_named("sim-s99@run7") is None
    assert model_named("gpt-9") is None
