"""`baton explain`: why a request went where it went, from its own records. It only reads, and shows no prompt and no answer.

Whatever a plan says of its decision is printed, so that a figure the router adds shows here without a change.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from pydantic import BaseModel

from schemas.envelope import Envelope
from schemas.ledger import Attempt, AttemptPhase
from schemas.messages import Candidate, Plan, Verdict, Why
from schemas.quality import Feedback, QualityEntry
from schemas.topology import ATTEMPTS, FEEDBACK, PLANS, QUALITY, RESULTS, VERDICTS, Topic
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.describe import describe, held_against
from services.cli.request_ids import RequestId
from services.cli.results_table import usd
from services.cli.trace import Step, accepted_ms, steps_of
from shared.broker import Broker
from shared.codec import decode
from shared.quality import ALL, key_of
from shared.table import Table

TOPICS = (*PLANS.values(), ATTEMPTS, VERDICTS, RESULTS, FEEDBACK)
SAID_APART = {"rule", "excluded", "policy", "config_version", "scores"}      # of a `Why`: lines of their own
SCORES = ("quality", "micro-USD", "p95 ms", "share failing", "utility", "judgements")


@click.command("explain")
@click.argument("request_id", type=RequestId())
@bootstrap_option
def explain(request_id: str, bootstrap: str | None) -> None:
    """Why a request went where it went: candidates, figures, what was left out, and what came of it."""

    async def found() -> tuple[list[Step], Mapping[str, QualityEntry]]:
        async with connected(known_settings(bootstrap)) as broker:
            return await steps_of(broker, request_id, TOPICS), await _quality(broker)

    steps, quality = run(found())
    if not steps:
        raise click.ClickException(f"no plan or result of a request {request_id}; see: baton trace {request_id}")
    for line in explained(steps, quality):
        click.echo(line)


async def _quality(broker: Broker) -> Mapping[str, QualityEntry]:
    table: Table[QualityEntry] = Table(broker, QUALITY)
    await table.start()
    await table.close()
    return table.values


def explained(steps: Sequence[Step], quality: Mapping[str, QualityEntry]) -> list[str]:
    """Lines to read: every plan with its reasons, the calls it led to, the verdict, the feedback."""
    began_ms = accepted_ms(list(steps))
    lines: list[str] = []
    for step in steps:
        at = f"{step.record.timestamp_ms - began_ms:+d} ms"
        if step.topic in PLANS.values():
            plan: Envelope[Plan] = decode(step.topic, step.record.value)
            lines += [f"{at}  plan {plan.payload.number} for {plan.tenant}, lane {plan.lane}", *_plan(plan.payload, quality)]
        else:
            lines += [f"{at}  {line}" for line in _after(step.topic, step)]
    return lines


def _plan(plan: Plan, quality: Mapping[str, QualityEntry]) -> Iterable[str]:
    why = plan.why
    yield f"    {why.rule}" if why.rule else "    nothing was decided"
    if plan.failure:
        yield f"    ✗ {plan.failure.reason.value}: {plan.failure.message}"
    yield f"    policy {why.policy or 'none'}, config version {why.config_version}"
    yield f"    {', '.join(_figures(why, SAID_APART))}"
    for candidate in plan.candidates:
        yield from _candidate(candidate, why, quality)
    if plan.cascade:
        yield f"    cascade: {', '.join(_figures(plan.cascade, set()))}"
    rest = why.scores.keys() - {candidate.model for candidate in plan.candidates}
    yield from (f"    · {model} is able, too: {_scores(why.scores[model])}" for model in why.scores if model in rest)
    yield from (f"    - {left.model}: {left.reason}" for left in why.excluded)
    for chain in plan.fallbacks:
        yield f"    after {chain.model}, {chain.failure.value}: {', '.join(each.model for each in chain.candidates)}"


def _candidate(candidate: Candidate, why: Why, quality: Mapping[str, QualityEntry]) -> Iterable[str]:
    latency = f"p95 {candidate.latency_ms} ms" if candidate.latency_ms else "latency not yet known"
    cost = f"{usd(candidate.cost_microusd)} USD, at most {usd(candidate.cost_max_microusd)}"
    apart = {"model", "backends", "quality", "cost_microusd", "cost_max_microusd", "latency_ms"}
    scored = [_scores(why.scores[candidate.model][3:])] if candidate.model in why.scores else []
    more = "".join(f", {figure}" for figure in (*scored, *_figures(candidate, apart)))
    yield f"    + {candidate.model}: quality {candidate.quality:.3f}, {cost}, {latency}{more}; {', '.join(candidate.backends)}"
    learned = [entry for domain in (why.domain, ALL) if (entry := quality.get(key_of(candidate.model, domain)))]
    yield from (f"        learned by now: {_learned(entry)}" for entry in learned)


def _scores(figures: Sequence[float]) -> str:
    """The last of `Why.scores`, by name; a newer router may say more."""
    shown = [f"{value:.4g}" for value in figures]
    named = [f"{name} {value}" for name, value in zip(SCORES[-len(shown) :], shown, strict=False)]
    return ", ".join(named)


def _learned(entry: QualityEntry) -> str:
    """Of one table. What every tenant said counts here alike; the router weighs it (shared/quality.py)."""
    count, score_sum = sum(cell.count for cell in entry.cells), sum(cell.score_sum for cell in entry.cells)
    where = "everything" if entry.domain == ALL else entry.domain
    mean = f"mean score {score_sum / count:.3f}" if count else "no score"
    return f"at {where} {mean}, {count:.1f} judgements of {len({cell.tenant for cell in entry.cells})} tenants"


def _figures(found: BaseModel, apart: set[str]) -> list[str]:
    """What else a record says, field by field; what is as if it had not been said is left out."""
    said = found.model_dump(mode="json", exclude_defaults=True, exclude=apart)
    return [f"{name} {_shown(value)}" for name, value in said.items()]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + "}"
    return "[" + ", ".join(_shown(each) for each in value) + "]" if isinstance(value, list) else str(value)


def _after(topic: Topic, step: Step) -> Iterable[str]:
    """What came of a plan, a line each. Of an answer nothing, of a feedback its score."""
    found = decode(topic, step.record.value)
    if isinstance(found, Attempt):
        if found.phase is AttemptPhase.FINISHED:
            yield describe(topic, step.record)
    elif isinstance(found, Feedback):
        of_model = f" on {found.model}" if found.model else ""
        yield f"feedback of a {found.judge.value}{of_model}: {found.score:.2f}"
    elif topic is VERDICTS:
        yield from _verdict(found.payload)


def _verdict(verdict: Verdict) -> Iterable[str]:
    reason = f", {verdict.reason.value} at {verdict.stage}" if verdict.reason else ""
    yield f"verdict {verdict.status.value}{reason}; {verdict.attempts} calls, {usd(verdict.cost_microusd)} USD"
    yield from (f"    {'✓' if check.passed else '✗'} {check.name} {check.detail}".rstrip() for check in verdict.checks)
    for tried in verdict.tried:
        yield f"    {held_against(tried)}"
