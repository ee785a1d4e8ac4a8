"""Circuits: that they open when a backend is out, never by bad luck, and close by probes alone.

Simulated calls through what is shipped, Delta → fold → judge; seconds to run, and the same figures each time.
"""

from collections.abc import Callable
from math import cos, pi
from random import Random

from schemas.fleet import Circuit, FleetEntry, Observation
from services.monitor.decide import FleetView, judge
from shared.circuit import CircuitRules
from shared.delta import Delta, Seen
from shared.windows import Ring, fold
from tests.fleet.rig import BACKEND, BAD, FLEET, REFUSED, START_MS, TURNED_AWAY, Answer, Rig, good
from tests.support.findings import Finding

RULES = CircuitRules()
BAD_DAY_SHARE = 0.0726
"""The share of failures on a bad day of a large provider."""

DAY_S = 86_400
USUAL_S = 240
REPORTERS = 3
GOOD = good()
Failing = Callable[[Random], bool]


def run(say: Callable[[str], None], calls: int = 1_000_000) -> list[Finding]:
    """Every promise of the circuits."""
    findings: list[Finding] = []
    for section in (a_bad_day(calls), a_bursty_day(calls), *OTHERS):
        say(f"{len(findings)} findings; {section.__name__.replace('_', ' ')}")
        findings += section()
    return findings


# --- a, b: a day of many calls -----------------------------------------------------------------------------------


def openings_of_a_day(calls: int, fails: Failing, seed: int, seconds: int = DAY_S) -> int:
    """How often the circuit opens while `calls` come over a day, few at night and many at noon.

    Every second the replicas report and the monitor judges. An opening closes again at once: each is counted alone.
    """
    random, ring, entry = Random(seed), Ring(), FleetEntry(backend=BACKEND)
    others, deltas = FleetView(FLEET, {}, []), [Delta() for _ in range(REPORTERS)]
    openings = 0
    owed = 0.0
    for second in range(seconds):
        now_ms = START_MS + second * 1000
        owed += calls / seconds * (1 - 0.9 * cos(2 * pi * second / seconds))
        for _ in range(int(owed)):
            random.choice(deltas).record(BAD if fails(random) else GOOD)
        owed -= int(owed)
        for number, delta in enumerate(deltas):
            seen = delta.take(BACKEND, f"r{number}", second, now_ms)
            if seen is not None:
                fold(ring, seen, now_ms)
                entry = judge(entry, ring, others, now_ms, 0.0, RULES)
        if entry.circuit is not Circuit.CLOSED:
            openings += 1
            entry = FleetEntry(backend=BACKEND, since_ms=now_ms)
    return openings


def bursts(share: float, burst_calls: int = 20, failing_in_burst: float = 0.6) -> Failing:
    """Failures with this mean that come in spells of about `burst_calls` calls."""
    share_in_burst = share / failing_in_burst
    ends = 1 / burst_calls
    begins = ends * share_in_burst / (1 - share_in_burst)
    in_burst = False

    def fails(random: Random) -> bool:
        nonlocal in_burst
        in_burst = random.random() >= ends if in_burst else random.random() < begins
        return in_burst and random.random() < failing_in_burst

    return fails


def a_bad_day(calls: int) -> Callable[[], list[Finding]]:
    def a_bad_day() -> list[Finding]:
        openings = openings_of_a_day(calls, lambda random: random.random() < BAD_DAY_SHARE, seed=1)
        promise = f"openings in a day of {calls:,} calls of which {BAD_DAY_SHARE:.2%} fail, independently"
        return [Finding(promise, str(openings), "0", openings == 0)]

    return a_bad_day


def a_bursty_day(calls: int) -> Callable[[], list[Finding]]:
    def a_bursty_day() -> list[Finding]:
        openings = openings_of_a_day(calls, bursts(BAD_DAY_SHARE), seed=2)
        return [Finding("the same in bursts: spells of 20 calls of which 60 % fail", str(openings), "no bound", True)]

    return a_bursty_day


# --- c: an outage ------------------------------------------------------------------------------------------------


def judged_until_open(outcomes: str) -> int:
    """Calls until the circuit is open, each reported by itself a tenth of a second after the other. `outcomes` repeats."""
    ring, entry, delta = Ring(), FleetEntry(backend=BACKEND), Delta()
    for number in range(1, 200):
        now_ms = START_MS + number * 100
        delta.record(BAD if outcomes[number % len(outcomes)] == "F" else GOOD)
        fold(ring, delta.take(BACKEND, "r0", number, now_ms) or _nothing(now_ms), now_ms)
        entry = judge(entry, ring, FleetView(FLEET, {}, []), now_ms, 0.0, RULES)
        if entry.circuit is Circuit.OPEN:
            return number
    return 999


def _nothing(now_ms: int) -> Observation:
    return Observation(backend=BACKEND, reporter="r0", sequence=0, at_ms=now_ms)


def an_outage() -> list[Finding]:
    row, half = judged_until_open("F"), judged_until_open("FFFFFFS")
    rig = Rig(lambda now_ms, random: BAD).run(seconds=10, calls_s=20)
    delay_ms = rig.openings[0].since_ms - rig.calls[0][0] if rig.openings else 99_999
    at_once = "of three replicas at 20 calls/s: from the first failure to open"
    return [
        Finding("hard failures until an outage opens the circuit", str(row), "≤ 8", row <= 8),
        Finding("calls until it opens when every seventh succeeds", str(half), "≤ 30", half <= 30),
        Finding(at_once, f"{delay_ms} ms", "≤ 1000 ms", delay_ms <= 1000),
    ]


# --- d: flapping -------------------------------------------------------------------------------------------------


def openings_allowed(seconds: float) -> int:
    """By cooldowns that double, each as short as chance may make it."""
    elapsed_ms, openings = 0.0, 0
    while elapsed_ms <= seconds * 1000:
        cooldown_ms = min(RULES.cooldown_ms << min(openings, 30), RULES.cooldown_ms_max)
        elapsed_ms += cooldown_ms * (1 - RULES.cooldown_jitter)
        openings += 1
    return openings


def flapping() -> list[Finding]:
    seconds, calls_s = 1800, 10
    rig = Rig(lambda now_ms, _: BAD if (now_ms - START_MS) // 20_000 % 2 else GOOD, seed=3).run(seconds, calls_s)
    allowed, openings = openings_allowed(seconds), len(rig.openings)
    early = [now for before, now in rig.steps() if before.circuit is Circuit.OPEN and now.since_ms < before.cooldown_until_ms]
    lost = rig.lost() / rig.wanted
    return [
        Finding("20 s well, 20 s out, for 30 min: openings", str(openings), f"≤ {allowed}", openings <= allowed),
        Finding("the same: left open before its cooldown was over", str(len(early)), "0", not early),
        Finding("the same: calls that met the outage, of all", f"{lost:.2%}", "≤ 2 %", lost <= 0.02),
    ]


# --- e: a brownout -----------------------------------------------------------------------------------------------


def brownout(slower: float, longer: float, streams: bool, seed: int) -> FleetEntry:
    """The entry after two minutes of slow, or long, answers that follow four usual ones."""

    def answer(now_ms: int, random: Random) -> Seen:
        is_late = now_ms - START_MS > USUAL_S * 1000
        factor, length = (slower, longer) if is_late else (1.0, 1.0)
        tokens_out = round(random.randint(3, 300) * length)
        first_token_ms = random.lognormvariate(5.5, 0.4) * factor
        latency_ms = first_token_ms + tokens_out * random.lognormvariate(2.3, 0.3) * factor
        return good(latency_ms, tokens_out, first_token_ms if streams else None)

    rig = Rig(answer, seed=seed).run(seconds=USUAL_S + 120, calls_s=3)
    return rig.openings[0] if rig.openings else rig.entry


def slow_answers() -> list[Finding]:
    findings = []
    for streams, what in ((True, "first tokens"), (False, "answers per token")):
        entry = brownout(slower=8, longer=1, streams=streams, seed=5)
        after_s = (entry.since_ms - START_MS) / 1000 - USUAL_S
        is_open = "as long as usual" in entry.reason and after_s <= 75
        findings.append(Finding(f"{what} eight times as slow: open after", f"{after_s:.0f} s", "≤ 75 s", is_open))
    for longer in (2, 8):
        entry = brownout(slower=1, longer=longer, streams=False, seed=6)
        is_closed = entry.circuit is Circuit.CLOSED
        findings.append(Finding(f"answers {longer} times as long", entry.circuit.value, "closed", is_closed))
    return findings


# --- f, g: probes ------------------------------------------------------------------------------------------------


def probing() -> list[Finding]:
    """A backend that is out, then turns probes away, then is well, whatever the number of replicas."""
    most, unclosed, unearned = 0, 0, 0
    for replicas in range(1, 9):
        rig = Rig(_out_then_busy_then_well, replicas, seed=replicas).run(seconds=150, calls_s=20)
        most = max(most, *rig.probes.values())
        unclosed += rig.entry.circuit is not Circuit.CLOSED
        unearned += sum(
            now.circuit is Circuit.CLOSED and (before.circuit is Circuit.OPEN or rig.probes.get(now.probe_epoch, 0) < 3)
            for before, now in rig.steps()
        )
    return [
        Finding("probes in one half-open period, with 1 … 8 replicas", str(most), "≤ 3", most <= RULES.probes),
        Finding("fleets that do not come back after an outage and a rate limit", str(unclosed), "0", unclosed == 0),
        Finding("closed without three probes", str(unearned), "0", unearned == 0),
    ]


def _out_then_busy_then_well(now_ms: int, _: Random) -> Seen:
    after_s = (now_ms - START_MS) / 1000
    if after_s < 30:
        return BAD
    return TURNED_AWAY if after_s < 60 else GOOD


def random_days() -> list[Finding]:
    """Any weather: each rig changes between good, bad, turned away and refused at random."""
    days, closings, unearned = 40, 0, 0
    for seed in range(days):
        rig = Rig(_weather(seed), replicas=1 + seed % 5, seed=seed).run(seconds=300, calls_s=8)
        for before, now in rig.steps():
            if now.circuit is Circuit.CLOSED:
                closings += 1
                unearned += before.circuit is Circuit.OPEN or rig.probes.get(now.probe_epoch, 0) < RULES.probes
    promise = f"of {closings} closings in {days} random runs: without three probes"
    return [Finding(promise, str(unearned), "0", unearned == 0 and closings > 0)]


def _weather(seed: int) -> Answer:
    changes = Random(seed)
    spells = [changes.choice((GOOD, GOOD, BAD, TURNED_AWAY, REFUSED)) for _ in range(200)]
    spell_ms = changes.choice((1_000, 5_000, 20_000))
    return lambda now_ms, _: spells[(now_ms - START_MS) // spell_ms % len(spells)]


# --- an only backend ---------------------------------------------------------------------------------------------


def nothing_else_to_call() -> list[Finding]:
    """Its circuit may not open: what is kept up is a trickle, which also finds out that it is well again."""

    def answer(now_ms: int, _: Random) -> Seen:
        return BAD if 60_000 <= now_ms - START_MS < 180_000 else GOOD

    rig = Rig(answer, fleet=(BACKEND,), seed=8).run(seconds=180, calls_s=20)
    out_s = 120
    share = rig.lost() / (out_s * 20)
    held = rig.entry.share
    recovered_s = next((second for second in range(1, 61) if rig.run(1, 20).entry.share == 1.0), 99)
    opened = len(rig.openings)
    return [
        Finding("an only backend that is out: openings", str(opened), "0", opened == 0),
        Finding("the same: share of calls that still reach it", f"{share:.0%}, then {held:.0%}", "≤ 10 %", share <= 0.10),
        Finding("the same: from well again to all of its traffic", f"{recovered_s} s", "≤ 60 s", recovered_s <= 60),
    ]


OTHERS = (an_outage, flapping, slow_answers, probing, random_days, nothing_else_to_call)
