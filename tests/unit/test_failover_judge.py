"""What `make failover` makes of calls, ledger and entries; and that each promise can be broken."""

from dataclasses import replace

from schemas.fleet import Circuit, FleetEntry, Transition
from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Result, Status
from services.simulator.calls import CallLine
from tests.failover.judge import Outage, Seen, calls_per_request, judge, probes_per_period, reaction_ms, steps_of_ramp
from tests.support.traffic import Asked

BROKE, HEALED, HALF_OPEN, CLOSED, END = 10_000, 16_000, 17_000, 17_200, 36_000
RAMP_MS = 6_000
OUTAGE = Outage("alpha-small", "alpha", BROKE, HEALED, END, RAMP_MS)


def call(attempt_id: str, provider: str, at_ms: int) -> CallLine:
    return CallLine(at_ms, at_ms + 5, provider, "sim-small", "", attempt_id, 200, "", 0, False)


def lines(
    attempt_id: str, backend: str, at_ms: int, kind: AttemptKind = AttemptKind.PRIMARY, failure: FailureClass | None = None
) -> list[Attempt]:
    started = Attempt(
        attempt_id=attempt_id, plan_id="p", request_id=attempt_id.partition("/")[0], tenant="t", phase=AttemptPhase.STARTED,
        kind=kind, model="sim-small", backend=backend, started_ms=at_ms,
    )
    ended = {"phase": AttemptPhase.FINISHED, "finished_ms": at_ms + 5, "failure": failure}
    return [started, started.model_copy(update=ended)]


def part_of(at_ms: int) -> float:
    """The failing backend's share of calls in a good run: half, none, the steps of the ramp, half."""
    if at_ms < BROKE + 100:
        return 0.5
    if at_ms < CLOSED:
        return 0.0
    step = (at_ms - CLOSED) * 3 // RAMP_MS
    return (0.05, 0.12, 0.25)[step] if step < 3 else 0.5


def a_good_run() -> Seen:
    """A hundred requests a second; those that the dead backend fails go to the other one; three probes."""
    calls: list[CallLine] = []
    attempts: list[Attempt] = []
    asked: list[Asked] = []
    gone = 0.0
    for number, at_ms in enumerate(range(0, END, 10)):
        gone += part_of(at_ms)
        backends, gone = (["alpha"], gone - 1) if gone >= 1 else (["beta"], gone)
        if backends == ["alpha"] and BROKE <= at_ms < HEALED:
            backends.append("beta")
        for count, provider in enumerate(backends):
            kind = AttemptKind.FAILOVER if count else AttemptKind.PRIMARY
            failure = FailureClass.SERVER_ERROR if len(backends) > count + 1 else None
            attempts += lines(f"r{number}/{count}", f"{provider}-small", at_ms + count, kind, failure)
            calls.append(call(f"r{number}/{count}", provider, at_ms + count))
        result = Result(request_id=f"r{number}", tenant="t", status=Status.DELIVERED, accepted_ms=at_ms, decided_ms=at_ms)
        asked.append(Asked("load", str(number), at_ms, result=result, ended_ms=at_ms + 10))
    for number in range(3):
        attempts += lines(f"probe{number}/0", "alpha-small", HALF_OPEN + 50, AttemptKind.PROBE)
        calls.append(call(f"probe{number}/0", "alpha", HALF_OPEN + 50))
    return Seen(calls, attempts, [entry()], asked)


def entry() -> FleetEntry:
    story = ((BROKE + 100, Circuit.OPEN), (HALF_OPEN, Circuit.HALF_OPEN), (CLOSED, Circuit.CLOSED))
    return FleetEntry(
        backend="alpha-small", since_ms=CLOSED,
        history=tuple(Transition(at_ms=at_ms, circuit=circuit, reason="") for at_ms, circuit in story),
    )


def broken(seen: Seen) -> list[str]:
    return [finding.promise for finding in judge(OUTAGE, seen) if not finding.holds]


def test_a_run_that_keeps_every_promise_has_no_finding_against_it() -> None:
    assert broken(a_good_run()) == []


def test_a_request_is_routed_to_a_backend_when_it_called_it_at_least_once() -> None:
    seen = a_good_run()
    of_it, of_anyone = calls_per_request(OUTAGE, seen)
    assert set(of_it) == {1}
    assert set(of_anyone) == {2}
    again = replace(seen, calls=[*seen.calls, *(replaced for one in seen.calls for replaced in hammered(one))])
    assert broken(again)[:2] == [
        "calls of it per request routed to it (that called it at least once)", "calls of any provider per such request",
    ]


def hammered(one: CallLine) -> list[CallLine]:
    """A second call of the backend that is down."""
    return [one] if one.provider == "alpha" and BROKE <= one.at_ms < HEALED else []


def test_a_call_that_the_ledger_does_not_have_is_found() -> None:
    seen = a_good_run()
    stray = call("nobody/0", "beta", 20_000)
    assert broken(replace(seen, calls=[*seen.calls, stray])) == ["calls that the provider saw and the ledger does not have"]


def test_failing_for_longer_than_five_seconds_is_found() -> None:
    seen = a_good_run()
    asked = [replace(one, result=None) if BROKE <= one.due_ms < BROKE + 6_000 else one for one in seen.asked]
    assert broken(replace(seen, asked=asked)) == ["from the outage's start until every second has ≥ 99 % success"]


def test_probes_are_counted_per_half_open_period_whoever_makes_them() -> None:
    seen = a_good_run()
    assert probes_per_period(OUTAGE, seen) == [3]
    fourth = replace(seen, calls=[*seen.calls, call("probe0/0", "alpha", HALF_OPEN + 90)])
    assert broken(fourth) == ["probes of the whole fleet in each half-open period"]


def test_a_herd_on_the_recovered_backend_is_found() -> None:
    seen = a_good_run()
    herd = [line.model_copy(update={"backend": "alpha-small"}) if CLOSED <= line.started_ms < CLOSED + 1_500 else line
            for line in seen.attempts]
    found = broken(replace(seen, attempts=herd))
    assert "while ramping, its highest share, of its usual one" in found
    assert "share of its usual traffic in each step of the ramp, and after it" in found


def test_a_backend_that_never_closes_or_stays_idle_after_it_has_closed_is_found() -> None:
    seen = a_good_run()
    never = entry().model_copy(update={"history": entry().history[:2]})
    assert "it comes back" in broken(replace(seen, entries=[never]))
    idle = [line.model_copy(update={"backend": "beta-small"}) if line.started_ms >= CLOSED else line for line in seen.attempts]
    assert "from closed to 90% of its usual share" in broken(replace(seen, attempts=idle))
    assert steps_of_ramp(OUTAGE, idle, CLOSED, 0.5) == [0.0, 0.0, 0.0, 0.0]


def test_the_reaction_ends_with_the_last_bin_that_touches_the_backend_and_probes_are_no_part_of_it() -> None:
    attempts = [
        *lines("a/0", "x", 1_000, failure=FailureClass.SERVER_ERROR),
        *lines("b/0", "x", 1_300),
        *lines("c/0", "y", 1_310),
        *lines("d/0", "x", 1_900, AttemptKind.PROBE),
        *lines("e/0", "y", 1_910),
    ]
    assert reaction_ms(attempts, "x", 1_000, 3_000) == 295
    assert reaction_ms(attempts, "y", 1_000, 3_000) is None
