"""The simulator's rate limits, capacity, log of calls and control plane, without a server."""

import asyncio

import orjson
import pytest
from click.testing import CliRunner

from services.simulator.__main__ import main
from services.simulator.calls import CallLine, Calls, Gates, key_hash, key_of
from services.simulator.capacity import Capacity, Slots
from services.simulator.control import Control, ControlError, Controls, read_control
from services.simulator.draws import draw
from services.simulator.limits import Admission, Limit, Limiter
from services.simulator.profiles import FLEETS
from services.simulator.scopes import ANY, Scope, key_start, narrowest
from services.simulator.weather import Sky, Weather

# Rate limits


def test_a_bucket_holds_a_minute_s_worth_and_refills_evenly() -> None:
    limiter, limit = Limiter(), Limit(rpm=60)
    passed = [limiter.admit(limit, 1, 0.0).retry_after_s is None for _ in range(61)]
    assert passed == [True] * 60 + [False]
    assert limiter.admit(limit, 1, 0.25).retry_after_s == 0.75
    assert limiter.admit(limit, 1, 1.0).retry_after_s is None
    assert limiter.admit(limit, 1, 1.0).retry_after_s == 1.0


def test_waiting_exactly_as_told_is_enough_and_a_millisecond_less_is_not() -> None:
    for trial in range(300):
        limit = Limit(rpm=1 + int(draw(1, trial) * 500), tpm=50 + int(draw(2, trial) * 5_000))
        limiter, now_s, waited = Limiter(), draw(3, trial) * 1e6, 0
        for call in range(20):
            tokens = 1 + int(draw(4, trial * 20 + call) * 200)
            wait_s = limiter.admit(limit, tokens, now_s).retry_after_s
            if wait_s is not None:
                waited += 1
                assert limiter.admit(limit, tokens, now_s + wait_s - 0.0011).retry_after_s is not None
                assert limiter.admit(limit, tokens, now_s + wait_s).retry_after_s is None
                now_s += wait_s
        assert waited or limit.rpm >= 20


def test_tokens_are_limited_too_and_the_longer_wait_is_told() -> None:
    limiter, limit = Limiter(), Limit(rpm=2, tpm=600)
    assert limiter.admit(limit, 500, 0).retry_after_s is None
    assert limiter.admit(limit, 500, 0).retry_after_s == 40  # 400 tokens at 10 per second
    assert limiter.admit(limit, 100, 0).retry_after_s is None
    assert limiter.admit(limit, 1, 0).retry_after_s == 30  # one request at 2 per minute


def test_a_refused_call_takes_nothing() -> None:
    limiter, limit = Limiter(), Limit(rpm=1)
    limiter.admit(limit, 1, 0)
    for at_s in range(1, 60):
        assert limiter.admit(limit, 1, at_s).retry_after_s == 60 - at_s
    assert limiter.admit(limit, 1, 60).retry_after_s is None


def test_the_numbers_for_the_headers_agree_with_the_bucket() -> None:
    limiter = Limiter()
    admission = limiter.admit(Limit(rpm=60, tpm=6_000), 1_000, 0)
    assert admission.requests is not None
    assert admission.tokens is not None
    assert (admission.requests.limit, admission.requests.remaining, admission.requests.reset_s) == (60, 59, 1)
    assert (admission.tokens.limit, admission.tokens.remaining, admission.tokens.reset_s) == (6_000, 5_000, 10)
    later = limiter.admit(Limit(rpm=60, tpm=6_000), 0, 5).tokens
    assert later is not None
    assert (later.remaining, later.reset_s) == (5_500, 5)


def test_a_call_larger_than_its_bucket_passes_when_the_bucket_is_full() -> None:
    limiter, limit = Limiter(), Limit(tpm=100)
    assert limiter.admit(limit, 10_000, 0).retry_after_s is None
    assert limiter.admit(limit, 10_000, 30).retry_after_s == 30
    assert limiter.admit(limit, 10_000, 60).retry_after_s is None


def test_a_limit_may_change_between_calls() -> None:
    limiter = Limiter()
    assert limiter.admit(Limit(rpm=600), 1, 0).retry_after_s is None
    assert limiter.admit(Limit(rpm=1), 1, 0).retry_after_s is None
    assert limiter.admit(Limit(rpm=1), 1, 0).retry_after_s == 60
    assert limiter.admit(Limit(), 1, 0) == Admission(None, None, None)
    assert limiter.admit(Limit(rpm=1), 1, 0).retry_after_s is None


# Capacity


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_beyond_the_capacity_wait_their_turn_first_come_first_served() -> None:
    slots, served = Slots(Capacity(calls=2, queue_max=10)), []
    assert [slots.take() for _ in range(3)] == [True, True, False]

    async def call(number: int) -> None:
        await slots.wait()
        served.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(3)]
    await settled()
    assert (served, slots.waiting, slots.working) == ([], 3, 2)
    slots.leave()
    assert not slots.take()  # nobody overtakes those who wait
    await settled()
    assert served == [0]
    slots.leave()
    slots.leave()
    await asyncio.gather(*tasks)
    assert (served, slots.waiting, slots.working) == ([0, 1, 2], 0, 2)


async def test_a_full_queue_takes_nobody() -> None:
    slots = Slots(Capacity(calls=1, queue_max=1))
    assert slots.take()
    assert not slots.is_full()
    waiting = asyncio.create_task(slots.wait())
    await settled()
    assert slots.is_full()
    slots.leave()
    await waiting
    assert not slots.is_full()


async def test_a_caller_who_gives_up_neither_keeps_its_place_nor_loses_the_slot() -> None:
    slots = Slots(Capacity(calls=1, queue_max=5))
    assert slots.take()
    gone, served, late = (asyncio.create_task(slots.wait()) for _ in range(3))
    await settled()
    gone.cancel()
    slots.leave()  # before the cancelled task has run
    late.cancel()
    await asyncio.gather(gone, served, late, return_exceptions=True)
    assert (served.cancelled(), slots.waiting, slots.working) == (False, 0, 1)
    last = asyncio.create_task(slots.wait())
    await settled()
    slots.leave()
    last.cancel()  # in the very moment in which it is served
    await asyncio.gather(last, return_exceptions=True)
    assert slots.working == 0


async def test_more_capacity_serves_those_who_wait_at_once() -> None:
    slots = Slots(Capacity(calls=1, queue_max=5))
    assert slots.take()
    tasks = [asyncio.create_task(slots.wait()) for _ in range(3)]
    await settled()
    slots.capacity = Capacity(calls=3)
    slots.widen()
    assert (slots.working, slots.waiting) == (3, 1)
    slots.capacity = Capacity()
    slots.widen()
    await asyncio.gather(*tasks)
    assert slots.working == 4


# The log of calls


def a_line(at_ms: int, status: int = 200) -> CallLine:
    return CallLine(at_ms, at_ms + 5, "alpha", "sim-nano", "", "a-1", status, "", 0, False)


def test_the_log_holds_the_last_calls_and_reads_from_a_time_on() -> None:
    calls = Calls(calls_max=3)
    for at_ms in (10, 20, 30, 40):
        calls.add(a_line(at_ms))
    lines = [orjson.loads(line) for line in b"".join(calls.read()).splitlines()]
    assert [line["at_ms"] for line in lines] == [20, 30, 40]
    assert lines[0] == a_line(20)._asdict()
    assert [orjson.loads(line)["at_ms"] for line in b"".join(calls.read(30)).splitlines()] == [30, 40]


def test_a_call_before_its_wait_is_over_is_counted_with_the_time_since_the_429() -> None:
    gates = Gates()
    gates.arrived("alpha", "k", "m", 0)
    gates.told("alpha", "k", "m", 1_000, 2_000)
    for key, at_ms in (("k", 1_250), ("other", 1_300), ("k", 2_999), ("k", 3_000), ("k", 9_000)):
        gates.arrived("alpha", key, "m", at_ms)
    report = gates.as_dict()
    assert report["count"] == 2
    assert [call["after_ms"] for call in report["calls"]] == [250, 1_999]
    assert {call["retry_after_ms"] for call in report["calls"]} == {2_000}


def test_a_shorter_wait_told_later_does_not_end_the_longer_one() -> None:
    gates = Gates()
    gates.told("alpha", "k", "m", 0, 10_000)
    gates.told("alpha", "k", "m", 1_000, 1_000)
    gates.arrived("alpha", "k", "m", 5_000)
    assert gates.as_dict()["count"] == 1


def test_a_key_is_the_same_in_every_header_and_never_kept() -> None:
    literal = "sk-very-secret"
    headers = ("x-api-key", "x-goog-api-key", "api-key")
    hashes = {key_of({"authorization": f"Bearer {literal}"}), *(key_of({name: literal}) for name in headers)}
    assert hashes == {key_hash(literal)}
    assert len(key_hash(literal)) == 12
    assert key_of({}) == ""


# Control


def controls(*bodies: object) -> Controls:
    state = Controls(1.0, Weather(Sky(FLEETS["steady"])))
    for body in bodies:
        state.apply(read_control(orjson.dumps(body)), 0.0)
    return state


def test_a_limit_of_a_key_is_narrower_than_a_provider_s_and_that_than_a_model_s() -> None:
    state = controls(
        {"rpm": 1},
        {"model": "sim-nano", "rpm": 2},
        {"provider": "beta", "rpm": 3},
        {"provider": "beta", "model": "sim-nano", "rpm": 4},
        {"key": "sk-one", "rpm": 5},
    )
    of = [
        state.limit(*call)
        for call in (
            ("alpha", "sim-small"),
            ("alpha", "sim-nano"),
            ("beta", "sim-small"),
            ("beta", "sim-nano"),
            ("beta", "sim-nano", key_hash("sk-one")),
        )
    ]
    assert [limit.rpm for limit in of if limit] == [1, 2, 3, 4, 5]


def test_a_limit_changes_only_what_the_body_holds_and_zero_clears_what_it_covers() -> None:
    state = controls({"provider": "beta", "rpm": 10}, {"provider": "beta", "tpm": 500})
    assert state.limit("beta", "sim-nano") == Limit(10, 500)
    state.apply(read_control(b'{"rpm": 0, "tpm": 0}'), 0)
    assert (state.limits, state.limit("beta", "sim-nano")) == ({}, None)


def test_a_limit_of_zero_is_an_exception_to_a_wider_one() -> None:
    state = controls({"rpm": 10}, {"provider": "beta", "rpm": 0})
    assert (state.limit("beta", "sim-nano"), state.limit("alpha", "sim-nano")) == (Limit(), Limit(10))


def test_a_key_is_revoked_alone_by_itself_or_by_its_hash_and_restored() -> None:
    for key in ("sk-one", key_hash("sk-one"), key_hash("sk-one")[:5]):
        state = controls({"provider": "beta", "key": key, "revoked": True})
        calls = (("beta", "sk-one"), ("beta", "sk-two"), ("alpha", "sk-one"))
        assert [state.is_revoked(provider, key_hash(one)) for provider, one in calls] == [True, False, False]
        assert not state.is_revoked("beta", "")
        assert "sk-one" not in orjson.dumps(state.as_dict(0)).decode()
        state.apply(read_control(b'{"revoked": false}'), 0)
        assert not state.is_revoked("beta", key_hash("sk-one"))


def test_capacity_holds_for_a_provider_or_for_all() -> None:
    state = controls({"provider": "beta", "capacity": 4}, {"provider": "beta", "queue_max": 0})
    assert (state.capacity_of("beta"), state.capacity_of("alpha")) == (Capacity(4, 0), Capacity())
    state.apply(read_control(b'{"capacity": 9}'), 0)
    assert state.capacity_of("beta") == state.capacity_of("alpha") == Capacity(9)


def test_a_rule_for_a_model_covers_its_instances_and_one_for_an_instance_only_that() -> None:
    state = controls({"model": "sim-s01", "fault": {"kind": "hang"}}, {"model": "sim-s01@run7", "fault": {"kind": "reset"}})
    kinds = [rule.fault.kind for name in ("sim-s01@run7", "sim-s01@run8", "sim-s01") if (rule := state.rule("alpha", name))]
    assert kinds == ["reset", "hang", "hang"]


def test_what_is_in_force_can_be_read() -> None:
    state = controls(
        {"provider": "beta", "profile": "outage", "outage_at_s": 2, "time_scale": 0.5, "scenario_scale": 0.1},
        {"provider": "beta", "capacity": 4, "rpm": 60, "key": "abcdef"},
        {"key": "sk-one", "revoked": True},
    )
    shown = orjson.loads(orjson.dumps(state.as_dict(3.0)))
    assert (shown["scenario_scale"], shown["time_scale"], shown["profiles"]) == (0.1, 0.5, {"beta": "outage"})
    assert shown["weather"]["beta"]["is_down"]
    assert shown["capacities"] == {"beta": {"capacity": 4, "queue_max": 100}}
    assert shown["limits"] == [{"provider": "beta", "model": "*", "key": "abcdef", "rpm": 60, "tpm": 0}]
    assert shown["revoked"] == [{"provider": "*", "key": key_hash("sk-one")}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"capacity": -1}', "capacity"),
        (b'{"queue_max": "many"}', "queue_max"),
        (b'{"rpm": -1}', "rpm"),
        (b'{"tpm": 1.5}', "tpm"),
        (b'{"revoked": true}', "key"),
        (b'{"time_scale": 0}', "time_scale"),
        (b'{"scenario_scale": -1}', "scenario_scale"),
        (b'{"outage_at_s": 3}', "outage_at_s"),
        (b'{"profile": "outage", "outage_at_s": -3}', "outage_at_s"),
        (b'{"model": "sim-s99@run7"}', "model"),
        (b'{"fault": {"kind": "drip", "stall_s": -1}}', "fault.stall_s"),
        (b'{"fault": {"kind": ["drip"]}}', "fault.kind"),
        (b'{"fault": {"kind": "error_in_200", "error_class": "gone"}}', "fault"),
    ],
)
def test_a_bad_body_is_refused_with_the_field_named(body: bytes, field: str) -> None:
    with pytest.raises(ControlError) as caught:
        read_control(body)
    assert caught.value.field == field


def test_the_start_of_a_hash_is_told_from_a_literal_key() -> None:
    assert (key_start("*"), key_start("abcd12")) == ("*", "abcd12")
    assert key_start("abc") == key_hash("abc")
    assert narrowest({Scope(key=key_start("sk-x")): 1}, "alpha", "m", key_hash("sk-x")) == 1
    assert narrowest({Scope(ANY, ANY, "abcd"): 1}, "alpha", "m", "") is None


def test_every_field_of_a_control_body_can_be_left_out() -> None:
    assert read_control(b"{}") == Control()
    before = controls().as_dict(0)
    assert controls({}).as_dict(0) == before


def test_the_command_line_takes_control_bodies_and_names_the_field_that_is_wrong() -> None:
    for body in ('{"profile": "sunny"}', "{"):
        result = CliRunner().invoke(main, ["--control", body])
        assert result.exit_code == 2
        assert "--control" in result.output
        assert ("profile: 'sunny' is unknown" in result.output) == (body != "{")
