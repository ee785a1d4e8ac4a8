"""`baton explain`: every reason a plan holds is printed, and no prompt, answer or comment."""

from schemas.ledger import Attempt, AttemptPhase
from schemas.messages import Check, Excluded, Lane, Reason, Status, Tried, Verdict
from schemas.quality import Cell, Feedback, QualityEntry
from schemas.topology import ATTEMPTS, FEEDBACK, PLANS, VERDICTS, Topic
from services.cli.explain import explained
from services.cli.trace import Step
from shared.broker import Record
from shared.codec import encode, headers_for
from tests.support.builders import (
    NOW_MS,
    REQUEST_ID,
    a_chat,
    a_failure,
    a_plan,
    a_task,
    a_why,
    an_answer,
    an_envelope,
)


def a_step(topic: Topic, value: object, after_ms: int) -> Step:
    headers = headers_for(topic, "test", value if topic is not FEEDBACK and topic is not ATTEMPTS else None)  # type: ignore[arg-type]
    return Step(topic, Record(topic.name, 0, 0, NOW_MS + after_ms, b"k", encode(topic, value), headers))  # type: ignore[arg-type]


def the_steps() -> list[Step]:
    why = a_why(
        policy="careful", config_version=7, quality_min=0.6, domain="code", complexity=0.4,
        excluded=(Excluded(model="large", reason="every circuit is open"),), mode="utility", price=1.5, propensity=0.95,
        scores={"small": (0.5, 100, 0, 0.02, 0.61, 12.5), "medium": (0.7, 900, 800, 0.25, 0.4, 0)},
    )  # fmt: skip
    plan = a_plan("small", task=a_task(a_chat("a private prompt")), why=why)
    finished = Attempt(
        attempt_id="a", plan_id="p", request_id=REQUEST_ID, tenant="acme", phase=AttemptPhase.FINISHED, model="small",
        backend="small-a", started_ms=NOW_MS, finished_ms=NOW_MS + 250, cost_microusd=120,
    )  # fmt: skip
    started = finished.model_copy(update={"phase": AttemptPhase.STARTED})
    verdict = Verdict(
        status=Status.DELIVERED, answer=an_answer("a private answer"), checks=(Check(name="not_empty", passed=True),),
        tried=(Tried(model="nano", backend="n", failed_checks=("not_refused",)),), attempts=2, cost_microusd=140, decided_ms=1,
    )  # fmt: skip
    said = Feedback(request_id=REQUEST_ID, tenant="acme", score=0.25, comment="a private comment")
    return [
        a_step(PLANS[Lane.STANDARD], an_envelope(plan), 12),
        a_step(ATTEMPTS, started, 13),
        a_step(ATTEMPTS, finished, 263),
        a_step(VERDICTS, an_envelope(verdict), 264),
        a_step(FEEDBACK, said, 9_000),
    ]


LEARNED = QualityEntry(
    model="small", domain="code",
    cells=(Cell(tier=1, tenant="acme", count=3, score_sum=1), Cell(tier=1, tenant="globex", count=1, score_sum=1)),
)  # fmt: skip


def test_a_plan_says_its_rule_its_figures_its_candidates_and_what_was_left_out() -> None:
    text = "\n".join(explained(the_steps(), {"small/code": LEARNED}))
    for said in (
        "+12 ms  plan 0 for acme, lane standard",
        "cheapest of 1 able models",
        "policy careful, config version 7",
        "quality_min 0.6, domain code, complexity 0.4, mode utility, price 1.5, propensity 0.95",
        "+ small: quality 0.500, 0.000100 USD, at most 0.000500, latency not yet known, share failing 0.02, utility 0.61, "
        "judgements 12.5; small-a",
        "· medium is able, too: quality 0.7, micro-USD 900, p95 ms 800, share failing 0.25, utility 0.4, judgements 0",
        "learned by now: at code mean score 0.500, 4.0 judgements of 2 tenants",
        "- large: every circuit is open",
    ):
        assert said in text, said


def test_what_came_of_it_follows_in_order() -> None:
    lines = explained(the_steps(), {})
    said = [line.split("  ", 1)[1] for line in lines if line.startswith("+")]
    assert [line.split(" ")[0] for line in said][:2] == ["plan", "primary"]
    assert any("verdict delivered; 2 calls" in line for line in lines)
    assert any("nano failed not_refused" in line for line in lines)
    assert lines[-1] == "+9000 ms  feedback of a person: 0.25"


def test_nothing_that_users_or_models_wrote_is_shown() -> None:
    assert "private" not in "\n".join(explained(the_steps(), {}))


def test_a_plan_without_a_candidate_says_why() -> None:
    failed = a_plan(candidates=(), failure=a_failure(Reason.OVER_BUDGET, "router"))
    text = "\n".join(explained([a_step(PLANS[Lane.BATCH], an_envelope(failed), 1)], {}))
    assert "✗ over_budget: for the caller" in text
