"""`make judge MODEL=name`: has a model of the running Baton grade the labelled answers, and says what its grades are worth.

Each grading is an ordinary request pinned to the model, as the gate's own is. Fitted to one half of the answers, the calibration
is judged by the other. What it prints goes under the policy's `judge`.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import click
import orjson

from schemas.messages import Lane, Result
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.results_table import usd
from services.cli.send import Correspondence, correspondence, record_of
from services.quality_gate.judge import Calibration, Material, grades_of, grading
from services.quality_gate.scores.given import given
from tests.bench.report import table
from tests.gate.labelled_set import Labelled, labelled

RUBRICS = ("factuality", "relevance", "coherence")
DEADLINE_MS = 120_000
WAIT_S = 300.0
GRADED_MIN = 20
"""Fewer say nothing about a judge."""

Pair = tuple[float, bool]   # a grade in [0, 1], and whether people called the answer good


@click.command()
@click.argument("model")
@click.option("--rubric", type=click.Choice(RUBRICS), default=RUBRICS[0], show_default=True, help="What it is asked to grade.")
@click.option("--tenant", help="Who asks, and pays. Default: the tenant that needs no key.")
@bootstrap_option
def main(model: str, rubric: str, tenant: str | None, bootstrap: str | None) -> None:
    """What MODEL's grades are worth as a judge, by the labelled answers; and the calibration for the policy."""
    cases = [case for case in labelled() if case.check == rubric]
    click.echo(f"{model} grades {len(cases)} answers by the rubric {rubric}; answers come as Baton delivers them")

    async def graded() -> dict[int, Result]:
        async with connected(known_settings(bootstrap)) as broker, correspondence(broker) as line:
            return await _results(line, [_body(place, case, model, rubric, tenant) for place, case in enumerate(cases)])

    results = run(graded())
    pairs = pairs_of(cases, results, rubric)
    click.echo(f"{len(pairs)} of {len(cases)} graded in form, {usd(sum(each.cost_microusd for each in results.values()))} USD")
    if len(pairs) < GRADED_MIN:
        ungraded = [results.get(place) for place in range(len(cases)) if place not in pairs]
        raise click.ClickException(f"too few to judge {model} by: {_why(ungraded)}")
    # By the hash of the place, so that neither half has all answers of one kind.
    click.echo(report(model, rubric, [pairs[place] for place in sorted(pairs, key=lambda place: sha256(b"%d" % place).digest())]))


def pairs_of(cases: Sequence[Labelled], results: Mapping[int, Result], rubric: str) -> dict[int, Pair]:
    """By the place of the case; those that were graded in the form that was asked for."""
    found: dict[int, Pair] = {}
    for place, result in results.items():
        grades = grades_of(result.answer.text, (rubric,)) if result.answer is not None else None
        if grades is not None:
            found[place] = (grades[rubric], cases[place].is_good)
    return found


def _why(ungraded: Sequence[Result | None]) -> str:
    """Of one of them, what became of it."""
    result = next(filter(None, ungraded), None)
    if result is None:
        return f"no answers within {WAIT_S:.0f} s"
    ended = result.message or (result.reason.value if result.reason else "the answer is not in the form that was asked for")
    return f"{ended}; more of it: baton explain {result.request_id}"


def report(model: str, rubric: str, pairs: Sequence[Pair]) -> str:
    """Grades and labels as a table, how far off they are before and after, and the lines for the policy."""
    rows = [
        (f"{grade:g}", len(labels), sum(labels), sum(labels) / len(labels))
        for grade in sorted({grade for grade, _ in pairs})
        for labels in ([label for each, label in pairs if each == grade],)
    ]
    seen, unseen = pairs[::2], pairs[1::2]
    raw, mended = error_of(unseen, float), error_of(unseen, Calibration.fit(seen).of)
    steps = ", ".join(f"[{grade:.3g}, {share:.3g}]" for grade, share in Calibration.fit(pairs).pairs)
    return "\n".join(
        (
            table("Grades, and the answers that people called good", ("grade", "answers", "good", "share"), rows),
            f"\nmean squared error of answers it was not fitted to: {raw:.3f} as the judge says, {mended:.3f} calibrated",
            "\njudge:   # of grades by this rubric; by others they mean something else",
            f"  rubric: [{rubric}]\n  calibration: {{{model}: [{steps}]}}",
        )
    )


def error_of(pairs: Sequence[Pair], value: Callable[[float], float]) -> float:
    return sum((value(grade) - label) ** 2 for grade, label in pairs) / len(pairs)


async def _results(line: Correspondence, bodies: Sequence[bytes]) -> dict[int, Result]:
    """By the place of the body; those that came in time."""
    places = {id: place for place, id in enumerate(await line.send([record_of(body) for body in bodies]))}
    found: dict[int, Result] = {}
    async for result, _ in line.answers(WAIT_S):
        if result.request_id in places:
            found[places[result.request_id]] = result
        if len(found) == len(places):
            break
    return found


def _body(place: int, case: Labelled, model: str, rubric: str, tenant: str | None) -> bytes:
    found = given(case.task)
    chat = grading(Material(found.question, found.context, case.answer.text), (rubric,))
    options = {"model": model, "priority": Lane.BATCH, "deadline_ms": DEADLINE_MS, "app": "judge", "metadata": {"case": place}}
    return orjson.dumps(chat.model_dump(mode="json", exclude_defaults=True) | options | ({"tenant": tenant} if tenant else {}))


if __name__ == "__main__":
    main()
