"""`baton certify`: asks a model the suite's tasks through the running Baton, judges the answers, and writes its certificate.

The tasks are ordinary requests pinned to the model, so the executor makes the calls and the ledger has them.
"""

from collections.abc import Mapping, Sequence

import click
import orjson

from schemas.certificate import CapabilityScore, CaseOutcome, Certificate
from schemas.config import ConfigRecord, Model
from schemas.messages import Result
from schemas.topology import CONFIG
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.apply import apply_certificate
from services.cli.certify.sandbox import problem_of
from services.cli.certify.suite import CLAIMED, PASSING_SCORE, SUITE, Case, cases
from services.cli.results_table import usd
from services.cli.send import Correspondence, correspondence, record_of
from shared.broker import Broker
from shared.catalogue import Catalogue
from shared.clock import SystemClock
from shared.errors import ConfigError
from shared.table import Table

DEADLINE_MS = 120_000
WAIT_S = 150.0


async def certify_model(
    broker: Broker, model: str, only: Sequence[str] = (), tenant: str | None = None
) -> tuple[Certificate, int]:
    """Test a model and put its certificate into force. Returns it with the micro-USD it cost.

    Capabilities that are not tested this time keep what was found of them before. Raises ConfigError for a model that is
    not in the catalogue, BrokerUnavailableError.
    """
    catalogue = await _catalogue(broker)
    if model not in catalogue.models:
        raise ConfigError(f"{model}: not in the catalogue; known: {', '.join(sorted(catalogue.models))}")
    chosen = chosen_cases(cases(problem_of), catalogue.models[model], only)
    async with correspondence(broker) as line:
        results = await _answers(line, model, chosen, tenant)
    tested = judged(chosen, results)
    known = catalogue.certificates.get(model)
    kept = known.capabilities if known and known.suite == SUITE else {}
    certificate = Certificate(suite=SUITE, tested_ms=SystemClock().now_ms(), capabilities={**kept, **tested})
    await apply_certificate(broker, model, certificate)
    return certificate, sum(result.cost_microusd for result in results.values())


def chosen_cases(all_cases: Sequence[Case], model: Model, only: Sequence[str]) -> list[Case]:
    """Those of the capabilities that are wanted and, where the config says who has them, that the model claims."""
    claimed = {case.capability for case in all_cases} - CLAIMED | set(model.capabilities)
    return [case for case in all_cases if case.capability in claimed and (not only or case.capability in only)]


def judged(asked: Sequence[Case], results: Mapping[str, Result]) -> dict[str, CapabilityScore]:
    """What the answers show, by capability. `results` by the name of the case; a case without one has failed."""
    found: dict[str, list[CaseOutcome]] = {}
    for case in asked:
        result = results.get(case_key(case))
        problem = _problem(case, result)
        id = result.request_id if result else ""
        outcome = CaseOutcome(case=case.name, passed=not problem, request_id=id, problem=problem)
        found.setdefault(case.capability, []).append(outcome)
    return {capability: _tested(outcomes) for capability, outcomes in found.items()}


def case_key(case: Case) -> str:
    """Unique over the suite."""
    return f"{case.capability}/{case.name}"


def _tested(outcomes: Sequence[CaseOutcome]) -> CapabilityScore:
    score = sum(outcome.passed for outcome in outcomes) / len(outcomes)
    return CapabilityScore(score=round(score, 4), certified=score >= PASSING_SCORE, evidence=tuple(outcomes))


def _problem(case: Case, result: Result | None) -> str:
    if result is None:
        return f"no result within {WAIT_S:g} s"
    if result.answer is None:
        return f"{result.reason.value if result.reason else result.status.value}: {result.message}".removesuffix(": ")
    return case.judge(result.answer)


async def _answers(line: Correspondence, model: str, asked: Sequence[Case], tenant: str | None) -> dict[str, Result]:
    """By the key of the case; those that came in time."""
    ids = await line.send([record_of(_body(case, model, tenant)) for case in asked])
    keys = {id: case_key(case) for id, case in zip(ids, asked, strict=True)}
    found: dict[str, Result] = {}
    async for result, _ in line.answers(WAIT_S):
        if result.request_id in keys:
            found[keys[result.request_id]] = result
        if len(found) == len(keys):
            break
    return found


def _body(case: Case, model: str, tenant: str | None) -> bytes:
    options = {"model": model, "max_tokens": case.max_tokens, "temperature": 0, "deadline_ms": DEADLINE_MS}
    marked = {"app": "certify", "metadata": {"certify": case_key(case)}}
    return orjson.dumps({**case.body, **options, **marked, **({"tenant": tenant} if tenant else {})})


async def _catalogue(broker: Broker) -> Catalogue:
    table: Table[ConfigRecord] = Table(broker, CONFIG)
    await table.start()
    await table.close()
    return Catalogue.from_records(table.values)


# On the command line --------------------------------------------------------------------------------------------------


@click.command("certify")
@click.argument("model")
@click.option("--only", multiple=True, metavar="CAPABILITY", help="Test only this; may be given several times.")
@click.option("--tenant", help="Who asks, and pays. Default: the tenant that needs no key.")
@bootstrap_option
def certify(model: str, only: tuple[str, ...], tenant: str | None, bootstrap: str | None) -> None:
    """Test what MODEL can do with a small suite of checked tasks, and write its certificate to the config."""

    async def tested() -> tuple[Certificate, int]:
        async with connected(known_settings(bootstrap)) as broker:
            return await certify_model(broker, model, only, tenant)

    certificate, cost_microusd = run(tested())
    for line in lines_of(certificate):
        click.echo(line)
    click.echo(f"{usd(cost_microusd)} USD, suite {certificate.suite}; in force")


def lines_of(certificate: Certificate) -> list[str]:
    """One per capability, and beneath it one per case that failed."""
    lines = []
    for name, tested in sorted(certificate.capabilities.items()):
        lines.append(f"{'✓' if tested.certified else '✗'} {name:13} {tested.score:.2f}")
        lines += [
            f"    {outcome.case}: {outcome.problem} ({outcome.request_id or 'no request'})"
            for outcome in tested.evidence
            if not outcome.passed
        ]
    return lines
