"""What was accepted, answered, written down and billed becomes a verdict per invariant. Pure: it reads evidence, nothing else.

It believes no stage: requests come from the log that users wrote, results from two readers, money from the provider's own
invoice. A checker that never fails proves nothing, so `test_auditor.py` plants one fault per invariant and `mutants.py` plants
them in the running system.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from schemas.ledger import Attempt, AttemptPhase, FailureClass

EXAMPLES_MAX = 5

ACTIVE_MS = 3_000      # who began no call for so long before a freeze is not known to have been there
ASLEEP_BY_MS = 200     # a signal is not delivered at once

CRASHED = frozenset({FailureClass.ORPHANED, FailureClass.CANCELLED})
"""Failures that say: the executor died or was cut off. Others that leave a cost unknown are the provider's (reset, timeout)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One request that the system owes an answer. `sequence` rises in the order of acceptance, per ordering key."""

    request_id: str
    sequence: int = 0
    ordering_key: str | None = None
    lane: str = "standard"


@dataclass(frozen=True, slots=True)
class SeenResult:
    """One record of `results`, as a reader saw it at one place of the log."""

    partition: int
    offset: int
    request_id: str
    status: str = "delivered"
    cost_microusd: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One record of `attempts`. `logged_ms` is the broker's clock."""

    logged_ms: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Billed:
    """One line of the provider's invoice."""

    attempt_id: str
    cost_microusd: int
    at_ms: int


@dataclass(frozen=True)
class Evidence:
    """Everything a run left behind. `cut_offs` counts executor crashes, freezes and lost sessions; `skew_ms` is what two
    clocks may differ by: none, when broker and provider run on one machine."""

    accepted: Sequence[Accepted]
    acknowledged: frozenset[str]
    live: Sequence[SeenResult]
    late: Sequence[SeenResult]
    ledger: Sequence[LedgerLine]
    invoice: Sequence[Billed]
    cut_offs: int = 0
    drain_ms: int = 0    # how long an executor that gives partitions up waits for its calls; 0: for ever
    freezes: Sequence[tuple[int, int]] = ()      # of executors, past their session timeout: from and until, epoch ms
    skew_ms: int = 0
    pipelines: bool = False      # requests are pipelines: when one fails, what is under way beside it is cut, on purpose
    lag: Mapping[str, int] = field(default_factory=dict)   # records that a consumer group had not finished when all was over


@dataclass(slots=True)
class Entry:
    """One attempt, folded: a known closing line beats an unknown one, whichever came last."""

    attempt: Attempt
    started: int = 0
    known: int = 0
    started_logged_ms: int | None = None
    cut_off: bool = False

    @property
    def is_open(self) -> bool:
        return self.attempt.phase is AttemptPhase.STARTED

    @property
    def is_unknown(self) -> bool:
        """Cut off, and nobody handed in later what it cost."""
        return self.cut_off and not self.attempt.cost_known

    @property
    def cost_upper_microusd(self) -> int:
        attempt = self.attempt
        return attempt.cost_microusd if attempt.cost_known and not self.is_open else attempt.cost_max_microusd


def fold(ledger: Iterable[LedgerLine]) -> dict[str, Entry]:
    """The ledger by attempt id."""
    entries: dict[str, Entry] = {}
    for line in ledger:
        attempt = line.attempt
        entry = entries.setdefault(attempt.attempt_id, Entry(attempt))
        if attempt.phase is AttemptPhase.STARTED:
            entry.started += 1
            if entry.started_logged_ms is None:
                entry.started_logged_ms = line.logged_ms
            continue
        entry.known += attempt.cost_known
        entry.cut_off |= attempt.failure in CRASHED
        if entry.is_open or attempt.cost_known:
            entry.attempt = attempt
    return entries


@dataclass(frozen=True)
class Finding:
    """One invariant's verdict: how much was looked at, and what broke it."""

    id: str
    claim: str
    checked: int
    broken: int = 0
    examples: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.broken == 0


@dataclass(frozen=True)
class Report:
    """All verdicts of one run."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(finding.holds for finding in self.findings)

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(finding.id for finding in self.findings if not finding.holds)

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [
            f"{'PASS' if finding.holds else 'FAIL'}  {finding.id:<20} {finding.checked:>7} {finding.broken:>6}  {finding.claim}"
            for finding in self.findings
        ]
        examples = [f"      {finding.id}: {example}" for finding in self.findings for example in finding.examples]
        return [f"{'':4}  {'invariant':<20} {'checked':>7} {'broken':>6}", *rows, *examples]


def audit(evidence: Evidence) -> Report:
    """Every invariant on this evidence."""
    audited = _Audit(evidence)
    return Report(tuple(audited.findings()), audited.figures())


def finding(id: str, claim: str, checked: int, broken: Iterable[str]) -> Finding:
    found = list(broken)
    return Finding(id, claim, checked, len(found), tuple(found[:EXAMPLES_MAX]))


def _twice(ids: Iterable[str]) -> list[str]:
    return [f"{id}: {count} times" for id, count in Counter(ids).items() if count > 1]


class _Audit:
    """The evidence with its indexes; one method per group of invariants."""

    def __init__(self, evidence: Evidence) -> None:
        self.seen = evidence
        self.ids = {request.request_id for request in evidence.accepted}
        self.entries = fold(evidence.ledger)
        self.billed: dict[str, int] = defaultdict(int)
        for line in evidence.invoice:
            self.billed[line.attempt_id] += line.cost_microusd

    def findings(self) -> Iterator[Finding]:
        yield from self._results()
        yield from self._identity()
        yield from self._ledger()
        yield from self._money()
        yield self._order()
        lag = self.seen.lag
        yield finding("all-consumed", "every group has finished everything it was given", len(lag),
                       (f"{group}: {records} records behind" for group, records in lag.items() if records))

    # I1, R2: one result each, whoever reads -------------------------------------------------------------------------

    def _results(self) -> Iterator[Finding]:
        seen = self.seen
        answered = {result.request_id for result in seen.late}
        yield finding("accepted-in-log", "every acknowledged request is in the log", len(seen.acknowledged),
                       sorted(seen.acknowledged - self.ids))
        yield finding("none-lost", "every accepted request has a result", len(self.ids), sorted(self.ids - answered))
        yield finding("no-duplicates", "no request has two results (late reader)", len(seen.late),
                       _twice(result.request_id for result in seen.late))
        yield finding("no-duplicates-live", "no request has two results (reader running all along)", len(seen.live),
                       _twice(result.request_id for result in seen.live))
        late = {(result.partition, result.offset): result.request_id for result in seen.late}
        live = {(result.partition, result.offset): result.request_id for result in seen.live}
        yield finding("readers-agree", "what was once read as committed stays so, and nothing else appears", len(late),
                       (f"{place}: live {live.get(place)}, late {late.get(place)}" for place in sorted(late.keys() | live.keys())
                        if late.get(place) != live.get(place)))

    # I2, I5: everything belongs to a request, every attempt is one ---------------------------------------------------

    def _identity(self) -> Iterator[Finding]:
        owners = {id: entry.attempt.request_id for id, entry in self.entries.items()}
        phantoms = [f"result of {result.request_id}" for result in self.seen.late if result.request_id not in self.ids]
        phantoms += [f"attempt {id}" for id, request_id in owners.items() if request_id not in self.ids]
        yield finding("no-phantoms", "every result and attempt names an accepted request",
                       len(self.seen.late) + len(owners), phantoms)
        yield finding("attempts-unique", "an attempt id is started once and has at most one known cost", len(owners), (
            f"{id}: started {entry.started} times, known {entry.known} times"
            for id, entry in self.entries.items() if entry.started > 1 or entry.known > 1))

    # I3: on the books before the call -------------------------------------------------------------------------------

    def _ledger(self) -> Iterator[Finding]:
        unlisted, late = [], []
        for line in self.seen.invoice:
            entry = self.entries.get(line.attempt_id)
            if entry is None:
                unlisted.append(f"{line.attempt_id or 'no attempt id'}: {line.cost_microusd} micro-USD")
            elif entry.started_logged_ms is None or entry.started_logged_ms > line.at_ms + self.seen.skew_ms:
                late.append(f"{line.attempt_id}: started logged at {entry.started_logged_ms}, billed at {line.at_ms}")
        yield finding("every-call-listed", "every billed call is on the ledger", len(self.seen.invoice), unlisted)
        yield finding("write-ahead", "its started line was logged before it was billed", len(self.seen.invoice), late)
        yield finding("none-left-open", "every started attempt is closed", len(self.entries),
                       (f"{id} by {entry.attempt.executor}" for id, entry in self.entries.items() if entry.is_open))
        cut_off = [id for id, entry in self.entries.items() if entry.is_unknown and not self._is_cut_on_purpose(entry)]
        yield self._zombies()
        executors = sorted({self.entries[id].attempt.executor for id in cut_off})
        cut_offs, peak = self.seen.cut_offs, self.in_flight_peak
        claim = f"attempts cut off: {len(cut_off)} of {len(executors)} executors <= {cut_offs} cut-offs x {peak} in flight"
        yield finding("unknown-bounded", claim, len(cut_off), cut_off[cut_offs * peak:] + executors[cut_offs:])

    def _is_cut_on_purpose(self, entry: Entry) -> bool:
        return (self.seen.pipelines and entry.attempt.failure is FailureClass.CANCELLED) or self._is_given_away(entry)

    def _is_given_away(self, entry: Entry) -> bool:
        """A fault elsewhere moved its partition, and the call outlasted the drain: its executor lived on, and called again."""
        attempt, drain_ms = entry.attempt, self.seen.drain_ms
        lived_on = self.last_begun_ms[attempt.executor] > (attempt.finished_ms or attempt.started_ms)
        return bool(drain_ms) and lived_on and _duration_ms(attempt) > drain_ms

    @cached_property
    def last_begun_ms(self) -> dict[str, int]:
        """When each executor began its last call."""
        last: dict[str, int] = {}
        for entry in self.entries.values():
            attempt = entry.attempt
            last[attempt.executor] = max(last.get(attempt.executor, 0), attempt.started_ms)
        return last

    def _zombies(self) -> Finding:
        """An executor that woke up after its partitions were given away begins no call. Who slept is told by its silence,
        while another one went on."""
        begun = sorted((entry.attempt.started_ms, entry.attempt.executor, id) for id, entry in self.entries.items())
        broken = []
        for from_ms, until_ms in self.seen.freezes:
            awake = {executor for at_ms, executor, _ in begun if from_ms + ASLEEP_BY_MS < at_ms < until_ms}
            asleep = {executor for at_ms, executor, _ in begun if from_ms - ACTIVE_MS < at_ms <= from_ms} - awake
            if awake:
                broken += [f"{id} {at_ms - until_ms} ms after it woke" for at_ms, executor, id in begun
                           if at_ms >= until_ms and executor in asleep]
        return finding("zombies-silent", "who woke up too late begins no call", len(self.seen.freezes), broken)

    @cached_property
    def in_flight_peak(self) -> int:
        """Most attempts that were under way at once; those that were cut off count until the call was given up."""
        steps: list[tuple[int, int]] = []
        longest_ms = max((_duration_ms(e.attempt) for e in self.entries.values() if not e.cut_off), default=0)
        for entry in self.entries.values():
            lasted_ms = _duration_ms(entry.attempt)
            steps.append((entry.attempt.started_ms, 1))
            steps.append((entry.attempt.started_ms + (min(lasted_ms, longest_ms) if entry.cut_off else lasted_ms), -1))
        peak = now = 0
        for _, change in sorted(steps):
            now += change
            peak = max(peak, now)
        return peak

    # I4, I5: money --------------------------------------------------------------------------------------------------

    def _money(self) -> Iterator[Finding]:
        known = {id: e for id, e in self.entries.items() if not e.is_open and e.attempt.cost_known}
        unknown = {id: e for id, e in self.entries.items() if id not in known}
        ledger, invoice = sum(e.attempt.cost_microusd for e in known.values()), sum(self.billed.get(id, 0) for id in known)
        yield finding("ledger-is-invoice", f"known attempts: ledger {ledger} = invoice {invoice} micro-USD", len(known), (
            f"{id}: ledger {entry.attempt.cost_microusd}, invoice {self.billed.get(id, 0)}"
            for id, entry in known.items() if entry.attempt.cost_microusd != self.billed.get(id, 0)))
        yield finding("unknown-within-max", "an attempt of unknown cost was billed no more than its maximum", len(unknown), (
            f"{id}: billed {self.billed.get(id, 0)}, maximum {entry.attempt.cost_max_microusd}"
            for id, entry in unknown.items() if self.billed.get(id, 0) > entry.attempt.cost_max_microusd))
        yield finding("billed-once", "a call is billed once", len(self.seen.invoice),
                       _twice(line.attempt_id for line in self.seen.invoice))
        yield finding("result-cost", "a result's cost is the sum of its attempts", len(self.seen.late), self._result_costs())

    @cached_property
    def walked_twice(self) -> set[str]:
        """Requests with a plan on which more than one executor made calls: after a crash, or beside a zombie."""
        walkers: dict[str, set[str]] = defaultdict(set)
        for entry in self.entries.values():
            walkers[entry.attempt.plan_id].add(entry.attempt.executor)
        plans = {plan_id for plan_id, executors in walkers.items() if len(executors) > 1}
        return {entry.attempt.request_id for entry in self.entries.values() if entry.attempt.plan_id in plans}

    def _result_costs(self) -> Iterator[str]:
        """Exact where nothing was cut off and no plan was walked twice; else it lies below the upper bound: a result tells
        what was known when it was decided, and the ledger of a call that a zombie made beside it, too."""
        by_request: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries.values():
            by_request[entry.attempt.request_id].append(entry)
        for result in self.seen.late:
            entries = by_request.get(result.request_id, [])
            known = sum(entry.attempt.cost_microusd for entry in entries if entry.attempt.cost_known)
            is_cut = self.seen.pipelines and result.status != "delivered"   # siblings that end beside its end are not counted
            if is_cut or any(entry.cut_off or entry.is_open for entry in entries) or result.request_id in self.walked_twice:
                upper = sum(entry.cost_upper_microusd for entry in entries)
                if result.cost_microusd > upper:
                    yield f"{result.request_id} {result.status}: {result.cost_microusd} > {upper} micro-USD"
            elif result.cost_microusd != known:
                yield f"{result.request_id} {result.status}: {result.cost_microusd}, its attempts {known} micro-USD"

    # I7: order ------------------------------------------------------------------------------------------------------

    def _order(self) -> Finding:
        """Per ordering key and lane: results come in the order of acceptance."""
        ordered = {request.request_id: request for request in self.seen.accepted if request.ordering_key is not None}
        last: dict[tuple[str | None, str], Accepted] = {}
        answered: set[str] = set()
        broken = []
        for result in sorted(self.seen.late, key=lambda result: (result.partition, result.offset)):
            request = ordered.get(result.request_id)
            if request is None or result.request_id in answered:
                continue
            answered.add(result.request_id)
            line = (request.ordering_key, request.lane)
            before = last.get(line)
            if before is not None and before.sequence > request.sequence:
                broken.append(f"{line}: {request.request_id} ({request.sequence}) after {before.request_id} ({before.sequence})")
                continue
            last[line] = request
        return finding("order-kept", "results of one ordering key come in the order of acceptance", len(ordered), broken)

    def figures(self) -> dict[str, int]:
        """What the run consisted of."""
        statuses = Counter(result.status for result in self.seen.late)
        reasons = Counter(result.reason for result in self.seen.late if result.reason)
        failures = Counter(str(e.attempt.failure) for e in self.entries.values() if e.attempt.failure is not None)
        return {
            "accepted": len(self.ids),
            "results": len(self.seen.late),
            "attempts": len(self.entries),
            "invoice_lines": len(self.seen.invoice),
            "invoice_microusd": sum(self.billed.values()),
            "requests_walked_twice": len(self.walked_twice),
            "attempts_cut_off": sum(entry.cut_off for entry in self.entries.values()),
            "attempts_cost_unknown": sum(not e.is_open and not e.attempt.cost_known for e in self.entries.values()),
            "cut_offs": self.seen.cut_offs,
            "in_flight_peak": self.in_flight_peak,
            **{f"results_{status}": count for status, count in sorted(statuses.items())},
            **{f"because_{reason}": count for reason, count in sorted(reasons.items())},
            **{f"attempts_{failure}": count for failure, count in sorted(failures.items())},
        }


def _duration_ms(attempt: Attempt) -> int:
    return (attempt.finished_ms or attempt.started_ms) - attempt.started_ms
