"""The checker is checked: a clean run passes; a fault planted in its evidence is caught by the invariant that names it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from schemas.ledger import Attempt, AttemptPhase, FailureClass
from tests.chaos.auditor import Accepted, Billed, Evidence, LedgerLine, SeenResult, audit

COST = 40
COST_MAX = 100


def started(request: str, attempt: str = "", at_ms: int = 1_000) -> LedgerLine:
    id = attempt or f"{request}/plan/0/0-e1"
    return LedgerLine(at_ms, Attempt(
        attempt_id=id, plan_id=f"{request}/plan/0", request_id=request, tenant="t", phase=AttemptPhase.STARTED,
        model="m", backend="b", executor=id[-2:], started_ms=at_ms, cost_max_microusd=COST_MAX,
    ))


def finished(
    line: LedgerLine, cost: int | None = COST, failure: FailureClass | None = None, after_ms: int = 100
) -> LedgerLine:
    """The closing line of an attempt; without a cost nobody knows it."""
    closed = line.attempt.model_copy(update={
        "phase": AttemptPhase.FINISHED, "finished_ms": line.attempt.started_ms + after_ms, "failure": failure,
        "cost_microusd": cost or 0, "cost_known": cost is not None,
    })
    return LedgerLine(line.logged_ms + after_ms, closed)


def billed(line: LedgerLine, cost: int = COST, after_ms: int = 90) -> Billed:
    return Billed(line.attempt.attempt_id, cost, line.logged_ms + after_ms)


def clean() -> Evidence:
    """Three ordered requests; the second one's executor died in the middle of its first call."""
    a, b, c = started("a"), started("b", at_ms=1_010), started("c", at_ms=1_020)
    again = started("b", "b/plan/0/1-e2", at_ms=5_000)
    results = [SeenResult(0, 0, "a", cost_microusd=COST), SeenResult(0, 1, "b", cost_microusd=COST),
               SeenResult(0, 3, "c", cost_microusd=COST)]
    return Evidence(
        accepted=[Accepted("a", 0, "key"), Accepted("b", 1, "key"), Accepted("c", 2, "key")],
        acknowledged=frozenset("abc"),
        live=results,
        late=results,
        ledger=[a, b, c, finished(a), finished(c), finished(b, None, FailureClass.ORPHANED, 3_980), again, finished(again)],
        invoice=[billed(a), billed(b), billed(c), billed(again)],
        cut_offs=1,
        lag={"baton.output": 0},
    )


def test_a_run_with_a_crash_and_nothing_wrong_passes() -> None:
    report = audit(clean())
    assert report.holds, "\n".join(report.lines())
    assert report.figures["attempts_cut_off"] == 1


def test_a_known_line_beats_an_unknown_one_whichever_came_first() -> None:
    run = clean()
    zombie = finished(started("b", at_ms=1_010))
    for ledger in ([*run.ledger, zombie], [run.ledger[0], run.ledger[1], zombie, *run.ledger[2:]]):
        report = audit(replace(run, ledger=ledger))
        assert report.holds, "\n".join(report.lines())
        assert report.figures["attempts_cost_unknown"] == 0


def _drop_result(run: Evidence) -> Evidence:
    return replace(run, live=run.live[:2], late=run.late[:2])


def _commit_before_produce(run: Evidence) -> Evidence:
    """The request is gone behind intake: no attempt, no bill, no result."""
    return replace(_drop_result(run), ledger=[line for line in run.ledger if line.attempt.request_id != "c"],
                   invoice=[*run.invoice[:2], *run.invoice[3:]])


def _no_fence(run: Evidence) -> Evidence:
    again = SeenResult(0, 4, "a", cost_microusd=COST)
    return replace(run, live=[*run.live, again], late=[*run.late, again])


def _live_duplicate(run: Evidence) -> Evidence:
    return replace(run, live=[*run.live, SeenResult(0, 4, "a", cost_microusd=COST)])


def _no_read_back(run: Evidence) -> Evidence:
    return replace(run, ledger=[line for line in run.ledger if line.attempt.failure is not FailureClass.ORPHANED])


def _refund(run: Evidence) -> Evidence:
    """The attempt that was cut off is written off as free, although the provider billed it."""
    ledger = [
        finished(run.ledger[1], 0, FailureClass.ORPHANED) if line.attempt.failure is FailureClass.ORPHANED else line
        for line in run.ledger
    ]
    return replace(run, ledger=ledger)


def _call_before_ledger(run: Evidence) -> Evidence:
    late = replace(run.ledger[0], logged_ms=run.invoice[0].at_ms + 1)
    return replace(run, ledger=[late, *run.ledger[1:]])


def _call_never_listed(run: Evidence) -> Evidence:
    return replace(run, invoice=[*run.invoice, Billed("a/plan/0/9-e9", COST, 1_500)])


def _dropped_finish(run: Evidence) -> Evidence:
    return replace(run, ledger=[*run.ledger[:3], *run.ledger[4:]])


def _wrong_price(run: Evidence) -> Evidence:
    return replace(run, invoice=[replace(run.invoice[0], cost_microusd=COST + 1), *run.invoice[1:]])


def _over_maximum(run: Evidence) -> Evidence:
    lines = list(run.invoice)
    lines[1] = replace(lines[1], cost_microusd=COST_MAX + 1)
    return replace(run, invoice=lines)


def _billed_twice(run: Evidence) -> Evidence:
    half = replace(run.invoice[0], cost_microusd=COST // 2)
    return replace(run, invoice=[half, half, *run.invoice[1:]])


def _result_cost(run: Evidence) -> Evidence:
    results = [replace(run.late[0], cost_microusd=0), *run.late[1:]]
    return replace(run, late=results)


def _overtaken(run: Evidence) -> Evidence:
    first, second, third = run.late
    results = [replace(first, request_id="b"), replace(second, request_id="a"), third]
    return replace(run, live=results, late=results)


def _phantom(run: Evidence) -> Evidence:
    ghost = SeenResult(1, 0, "nobody")
    return replace(run, live=[*run.live, ghost], late=[*run.late, ghost])


def _phantom_attempt(run: Evidence) -> Evidence:
    line = started("nobody")
    return replace(run, ledger=[*run.ledger, line, finished(line, 0)])


def _id_used_twice(run: Evidence) -> Evidence:
    return replace(run, ledger=[run.ledger[0], *run.ledger])


def _too_many_unknown(run: Evidence) -> Evidence:
    return replace(run, cut_offs=0)


def _lost_by_the_broker(run: Evidence) -> Evidence:
    return replace(run, acknowledged=frozenset("abcd"))


def _aborted_read(run: Evidence) -> Evidence:
    return replace(run, live=[*run.live[:2], replace(run.live[2], offset=2)])


def _zombie(run: Evidence) -> Evidence:
    """e1 is stopped after its third call, e2 goes on, e1 wakes up and calls again."""
    late = started("c", "c/plan/0/1-e1", at_ms=7_000)
    ledger = [*run.ledger, late, finished(late)]
    return replace(run, freezes=[(1_500, 6_500)], ledger=ledger, invoice=[*run.invoice, billed(late)])


def _stuck(run: Evidence) -> Evidence:
    return replace(run, lag={"baton.output": 3})


PLANTED: dict[Callable[[Evidence], Evidence], str] = {
    _drop_result: "none-lost",
    _commit_before_produce: "none-lost",
    _no_fence: "no-duplicates",
    _live_duplicate: "no-duplicates-live",
    _no_read_back: "none-left-open",
    _refund: "ledger-is-invoice",
    _call_before_ledger: "write-ahead",
    _call_never_listed: "every-call-listed",
    _dropped_finish: "none-left-open",
    _wrong_price: "ledger-is-invoice",
    _over_maximum: "unknown-within-max",
    _billed_twice: "billed-once",
    _result_cost: "result-cost",
    _overtaken: "order-kept",
    _phantom: "no-phantoms",
    _phantom_attempt: "no-phantoms",
    _id_used_twice: "attempts-unique",
    _too_many_unknown: "unknown-bounded",
    _lost_by_the_broker: "accepted-in-log",
    _aborted_read: "readers-agree",
    _zombie: "zombies-silent",
    _stuck: "all-consumed",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_fault_is_caught_by_the_invariant_that_names_it(plant: Callable[[Evidence], Evidence]) -> None:
    report = audit(plant(clean()))
    assert PLANTED[plant] in report.broken, "\n".join(report.lines())


def test_every_invariant_has_a_planted_fault() -> None:
    assert {finding.id for finding in audit(clean()).findings} == set(PLANTED.values())


def _cut_off_by_a_living_executor(after_ms: int) -> Evidence:
    """e1's second call is closed by e2, which got its partition; e1 goes on with its third one."""
    run = clean()
    orphaned = finished(started("b", at_ms=1_010), None, FailureClass.ORPHANED, after_ms)
    later = started("a", "a/plan/0/1-e1", at_ms=9_000)
    others = [line for line in run.ledger if line.attempt.failure is not FailureClass.ORPHANED]
    results = [replace(run.late[0], cost_microusd=2 * COST), *run.late[1:]]
    return replace(run, ledger=[*others, orphaned, later, finished(later)], invoice=[*run.invoice, billed(later)],
                   live=results, late=results, cut_offs=0, drain_ms=5_000)


def test_a_call_that_outlasts_a_rebalance_is_no_crash_and_a_shorter_one_that_is_cut_off_is() -> None:
    assert audit(_cut_off_by_a_living_executor(after_ms=5_001)).holds
    assert audit(_cut_off_by_a_living_executor(after_ms=4_999)).broken == ("unknown-bounded",)


def test_an_attempt_whose_executor_handed_in_its_cost_after_all_is_not_unknown() -> None:
    run = clean()
    handed_in = finished(started("b", at_ms=1_010), after_ms=6_000)
    report = audit(replace(run, ledger=[*run.ledger, handed_in], cut_offs=0))
    assert "unknown-bounded" not in report.broken, "\n".join(report.lines())


def test_a_zombie_that_wakes_up_and_is_silent_is_fine() -> None:
    assert audit(replace(clean(), freezes=[(1_500, 6_500)])).holds


def test_ordering_keys_are_compared_within_a_lane_only() -> None:
    run = clean()
    accepted = [replace(run.accepted[0], lane="batch"), *run.accepted[1:]]
    assert audit(replace(_overtaken(run), accepted=accepted)).broken == ()
