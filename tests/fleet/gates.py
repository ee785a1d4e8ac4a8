"""Providers that say when to come back: a storm of 429s at one of two backends, then at both, and a limit per minute beside.

Judged on the provider's log of calls and the ledger: who called whom while it had been told to wait, what became of the
plans that waited, and how many calls a minute a backend with a configured limit got.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from schemas.config import ConfigFile
from schemas.ledger import Attempt, AttemptPhase, FailureClass
from services.simulator.calls import CallLine
from tests.support.findings import Finding
from tests.support.fleets import PLAIN, TENANT, backend, fleet
from tests.support.system import Setup, System, evidence, running
from tests.support.traffic import Asked, Stream, of_stream

GATED, LIMITED = "sim-small", "sim-nano"
PROVIDERS = ("alpha", "beta")
EXECUTORS = 2
RATE_S, LIMITED_RATE_S = 60, 20
STORM = {"kind": "error", "status": 429, "retry_after_s": 2, "share": 0.5}
STORM_OVER_S = 3.0          # longer than its Retry-After
BOTH = {"kind": "error", "status": 429}
BOTH_S = 0.5                # long enough that both backends are gated at both executors
RPM = 600
CONCURRENCY = 12            # of one backend at one executor: fewer than the adaptive limit would find
KEY = "EVIDENCE_KEY"

HEARD_MS = 250
"""A call that left before the fleet knew cannot be called back: within this the word is everywhere, if the machine is not
busy with anything else."""

PROMISED_MS = 1_000
"""The same wherever this runs: how old a replica's view of the fleet may be."""

RAMPED_MS = 1_000
ORDER_MS_MAX = 100
TURNED_AWAY_MAX = 0.01
MINUTE_MS = 60_000
LIMITED_MIN = 0.85
BODY = {"max_tokens": 40, "priority": "standard", "tenant": TENANT}


@dataclass(frozen=True)
class Pace:
    """How long what lasts, and the Retry-After of the 429s of both; a limit per minute needs a minute. `heard_ms`: within this
    the word of a gate must be everywhere."""

    calm_s: float
    storm_s: float
    wait_s: float
    limited_s: float
    heard_ms: int

    @property
    def gated_s(self) -> float:
        """Until all gates have opened and the plans behind them have gone."""
        return self.calm_s + (self.storm_s and self.storm_s + STORM_OVER_S) + BOTH_S + 2 * self.wait_s + 2


FULL = Pace(calm_s=3, storm_s=14, wait_s=3, limited_s=68, heard_ms=HEARD_MS)
QUICK = Pace(calm_s=1.5, storm_s=0, wait_s=2.5, limited_s=0, heard_ms=PROMISED_MS)


@dataclass(frozen=True)
class Early:
    """A call that came in the time for which its caller had been told to stay away.

    `after_ms` is counted from the first such word that was still in force, `after_own_ms` from the first that went to the
    same executor; None: it had heard none itself.
    """

    call: CallLine
    after_ms: int
    after_own_ms: int | None


def run(say: Callable[[str], None], pace: Pace = FULL) -> list[Finding]:
    return evidence(_run(say, pace))


def _config(url: str) -> ConfigFile:
    """Two models at two providers; one backend of the second model has a limit per minute of its own."""
    pairs = [(provider, model) for model in (GATED, LIMITED) for provider in PROVIDERS]
    config = fleet(url, *pairs, tenants={TENANT: PLAIN.model_copy(update={"hedge": False})}, key=f"env:{KEY}",
                   concurrency_max=CONCURRENCY)
    limited = backend(url, "alpha", LIMITED, key=f"env:{KEY}", concurrency_max=CONCURRENCY, rpm=RPM)
    return config.model_copy(update={"backends": {**config.backends, "alpha-nano": limited}})


async def _run(say: Callable[[str], None], pace: Pace) -> list[Finding]:
    controls = ({"provider": "alpha", "model": LIMITED, "rpm": RPM},)
    async with running(Setup(_config, {"executor": EXECUTORS}, {KEY: "a key of this run"}, controls=controls), say) as system:
        say(f"{RATE_S} requests/s of {GATED}; {LIMITED_RATE_S}/s of {LIMITED}, of which one backend may get {RPM} a minute")
        gated = Stream("gated", RATE_S, pace.gated_s, {**BODY, "model": GATED})
        sending = asyncio.create_task(
            system.send(gated, Stream("limited", LIMITED_RATE_S, pace.limited_s, {**BODY, "model": LIMITED}))
        )
        await asyncio.sleep(pace.calm_s)
        findings = await _storm(system, pace, say) if pace.storm_s else []
        both_ms = await _both(system, pace, say)
        asked = await system.answered(await sending)
        calls, attempts = await system.simulator.calls(), await system.attempts()
        findings += judge_early(calls, attempts, await system.simulator.gated(), pace.heard_ms)
        findings.append(judge_told(calls, attempts, await system.booked_ms()))
        findings += judge_parked(calls, attempts, of_stream(asked, "gated"), both_ms, pace.heard_ms)
        return [*findings, *(judge_limit(calls) if pace.limited_s else ()), _answered(asked)]


async def _storm(system: System, pace: Pace, say: Callable[[str], None]) -> list[Finding]:
    simulator = system.simulator
    since_ms = await simulator.control(provider="alpha", model=GATED, fault=STORM)
    say(f"alpha answers half of the calls of {GATED} with 429, Retry-After {STORM['retry_after_s']} s")
    await asyncio.sleep(pace.storm_s)
    await simulator.control(provider="alpha", model=GATED, fault=None)
    await asyncio.sleep(STORM_OVER_S)
    calls = [call for call in await simulator.calls(since_ms) if call.provider == "alpha" and call.model == GATED]
    told = sum(call.status == 429 for call in calls)
    return [Finding("429s of the storm, each with a Retry-After", f"{told} of {len(calls)} calls", "≥ 5", told >= 5)]


async def _both(system: System, pace: Pace, say: Callable[[str], None]) -> int:
    """Gate both backends. Returns when it began."""
    began_ms = await system.simulator.control(model=GATED, fault={**BOTH, "retry_after_s": pace.wait_s})
    say(f"both answer every call of it with 429, Retry-After {pace.wait_s:g} s, for {BOTH_S} s; then all is well")
    await asyncio.sleep(BOTH_S)
    await system.simulator.control(model=GATED, fault=None)
    return began_ms


def _answered(asked: Sequence[Asked]) -> Finding:
    answered = sum(one.is_delivered for one in asked)
    return Finding("requests answered, of all", f"{answered} of {len(asked)}", "all", answered == len(asked))


# --- The judgement, pure -----------------------------------------------------------------------------------------


def early_calls(calls: Sequence[CallLine], executor_of: Mapping[str, str]) -> list[Early]:
    """Calls that came after their (provider, key, model) had been told to wait, and before that wait was over."""
    told: dict[tuple[str, str, str], list[CallLine]] = {}
    for call in calls:
        if call.status == 429 and call.retry_after_ms:
            told.setdefault((call.provider, call.key, call.model), []).append(call)
    found = []
    for call in calls:
        words = [
            word for word in told.get((call.provider, call.key, call.model), ())
            if word is not call and word.done_ms <= call.at_ms < word.done_ms + word.retry_after_ms
        ]
        if not words:
            continue
        mine = executor_of.get(call.attempt_id)
        own = [word.done_ms for word in words if mine is not None and executor_of.get(word.attempt_id) == mine]
        after_own_ms = call.at_ms - min(own) if own else None
        found.append(Early(call, call.at_ms - min(word.done_ms for word in words), after_own_ms))
    return found


def sent_though_told(calls: Sequence[CallLine], attempts: Sequence[Attempt], booked_ms: Mapping[str, int]) -> int:
    """Calls that an executor made though it had itself booked a 429 with a wait for that backend, and that wait was not over,
    when the call's own line came into the log: nothing leaves before that. No matter how slow the log or the machine is."""
    waits: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for line in attempts:
        if line.phase is AttemptPhase.FINISHED and line.failure is FailureClass.RATE_LIMITED and line.wait_ms:
            told_ms = line.finished_ms or line.started_ms
            waits.setdefault((line.executor, line.backend), []).append((told_ms, told_ms + line.wait_ms))
    made = {call.attempt_id for call in calls}
    return sum(
        any(begin_ms < booked_ms[line.attempt_id] and line.started_ms < end_ms
            for begin_ms, end_ms in waits.get((line.executor, line.backend), ()))
        for line in attempts if line.phase is AttemptPhase.STARTED and line.attempt_id in made
    )


def judge_early(
    calls: Sequence[CallLine], attempts: Sequence[Attempt], gated: Sequence[Mapping[str, object]], heard_ms: int = HEARD_MS
) -> Iterator[Finding]:
    """`gated`: the provider's own count. It goes by the word that holds longest, this file by the first one."""
    early = early_calls(calls, {line.attempt_id: line.executor for line in attempts})
    late = [one for one in early if one.after_ms > heard_ms]
    counts = ", ".join(f"> {ms} ms: {sum(one.after_ms > ms for one in early)}" for ms in (0, 100, heard_ms))
    yield Finding("early calls, that long after the 429 left", counts, f"> {heard_ms} ms: 0", not late)
    own = [one.after_own_ms for one in early if one.after_own_ms is not None]
    shown = f"{len(own)} (the last after {max(own, default=0)} ms)"
    yield Finding("of these, by executors told themselves: sent before that", shown, "reported", True)
    yield Finding("early calls by the provider's own count", str(len(gated)), f"≤ {len(early)}, as above",
                  len(gated) <= len(early))


def judge_told(calls: Sequence[CallLine], attempts: Sequence[Attempt], booked_ms: Mapping[str, int]) -> Finding:
    sent = sent_though_told(calls, attempts, booked_ms)
    return Finding("calls whose line came into the log after their executor was told", str(sent), "0", not sent)


def judge_parked(
    calls: Sequence[CallLine], attempts: Sequence[Attempt], asked: Sequence[Asked], both_ms: int, heard_ms: int
) -> Iterator[Finding]:
    """What waited while both were gated: asked after everybody had heard, and so long before the first gate opened that it was
    at its executor by then."""
    words = [call for call in calls if call.model == GATED and call.status == 429 and call.at_ms >= both_ms]
    opens_ms = max((word.done_ms + word.retry_after_ms for word in words), default=both_ms)
    first_ms = min((min(word.done_ms + word.retry_after_ms for word in words if word.provider == name)
                    for name in {word.provider for word in words}), default=both_ms)
    parked = [one for one in asked if both_ms + heard_ms <= one.due_ms < first_ms - heard_ms]
    answered = sum(one.is_delivered for one in parked)
    yield Finding("plans that waited for a gate, and were answered", f"{answered} of {len(parked)}", "all",
                  answered == len(parked) > 0)
    counts = [herd(calls, provider, first_ms, opens_ms + RAMPED_MS) for provider in PROVIDERS]
    most = EXECUTORS * CONCURRENCY
    yield Finding("most calls of a backend under way at once, at the opening", ", ".join(map(str, counts)),
                  f"≤ {most}", max(counts) <= most)
    late_ms = out_of_order_ms(parked, attempts)
    yield Finding("a plan sent before an older one: younger by, at most", f"{late_ms} ms",
                  f"≤ {ORDER_MS_MAX} ms", late_ms <= ORDER_MS_MAX)


def herd(calls: Sequence[CallLine], provider: str, from_ms: int, to_ms: int) -> int:
    """The most calls to `provider` that were under way at the same time, of those that arrived in the given span.

    Not those that arrived within some time of each other: quick answers make room for the next call.
    """
    mine = [call for call in calls if call.provider == provider and call.model == GATED and from_ms <= call.at_ms < to_ms]
    # Of one millisecond the ends come first: a place is given on after it was given back.
    changes = sorted([(call.at_ms, 1) for call in mine] + [(call.done_ms, -1) for call in mine])
    return max(accumulate(change for _, change in changes), default=0)


def out_of_order_ms(asked: Sequence[Asked], attempts: Sequence[Attempt]) -> int:
    """Over all pairs that one executor sent in the wrong order: by how much the one that went first was the younger, at most."""
    accepted_ms = {one.result.request_id: one.result.accepted_ms for one in asked if one.result is not None}
    last_of: dict[str, Attempt] = {}
    for line in attempts:
        if line.phase is AttemptPhase.STARTED and line.request_id in accepted_ms:
            last_of[line.request_id] = max(line, last_of.get(line.request_id, line), key=lambda one: one.started_ms)
    worst_ms, newest_ms = 0, {}
    for line in sorted(last_of.values(), key=lambda one: (one.started_ms, accepted_ms[one.request_id])):
        mine_ms = accepted_ms[line.request_id]
        worst_ms = max(worst_ms, newest_ms.get(line.executor, mine_ms) - mine_ms)
        newest_ms[line.executor] = max(mine_ms, newest_ms.get(line.executor, mine_ms))
    return worst_ms


def judge_limit(calls: Sequence[CallLine]) -> Iterator[Finding]:
    mine = [call for call in calls if call.provider == "alpha" and call.model == LIMITED]
    at_ms = [call.at_ms for call in mine]
    counts = [bisect_left(at_ms, start_ms + MINUTE_MS) - place for place, start_ms in enumerate(at_ms)]
    most = max(counts, default=0)
    yield Finding(f"most calls in a minute of a backend with rpm {RPM}", str(most),
                  f"{LIMITED_MIN * RPM:.0f} … {RPM}", LIMITED_MIN * RPM <= most <= RPM)
    turned_away = sum(call.status == 429 for call in mine) / max(len(mine), 1)
    yield Finding("of them turned away by the provider's own limiter", f"{turned_away:.1%}", f"≤ {TURNED_AWAY_MAX:.0%}",
                  turned_away <= TURNED_AWAY_MAX)
