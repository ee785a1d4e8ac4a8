"""`baton pipelines`: what it prints of a file, and of a request on its way."""

from pathlib import Path

from click.testing import CliRunner

from schemas.messages import Completion, Plan, Task, Why
from schemas.slips import Slip, Yield
from services.cli.pipelines import pipelines, progress_of
from tests.support.builders import a_candidate, an_answer
from tests.unit.test_pipeline_check import SMALL

NESTED = SMALL + """\
  p:
    sequence:
      - {name: a, step: {prompt: "First: {{ request.text }}", model: small}}
      - parallel:
          merge: vote
          quorum: 1
          limit_ms: 500
          branches:
            - loop: {at_most: 2, until: {value: output.text, contains: [x, y]}, body: {step: {}}}
            - branch: {cases: [{when: {value: a.text, equals: "1"}, then: {step: {}}}], default: {pipeline: q}}
  q: {step: {prompt: "Q"}}
"""


def invoke(tmp_path: Path, *args: str, text: str = NESTED) -> tuple[int, str]:
    file = tmp_path / "b.yaml"
    file.write_text(text)
    result = CliRunner().invoke(pipelines, [*args, "--file", str(file)])
    return result.exit_code, result.output


def test_check_says_how_many_steps_each_may_take(tmp_path: Path) -> None:
    code, said = invoke(tmp_path, "check")
    lines = ["p: sequence, at most 4 steps", "q: step, at most 1 step", "2 pipelines, nothing wrong"]
    assert (code, said.splitlines()) == (0, lines)


def test_check_fails_with_the_line_of_what_is_wrong(tmp_path: Path) -> None:
    code, said = invoke(tmp_path, "check", text=NESTED.replace("a.text", "b.text"))
    assert code == 1
    assert "b.yaml:16: pipelines.p.sequence.1.parallel.branches.1.branch.cases.0.when.value: 'b' has not run" in said


def test_show_draws_the_tree_with_paths_and_references_written_out(tmp_path: Path) -> None:
    code, said = invoke(tmp_path, "show", "p")
    assert code == 0
    assert "p.0 a = step by small: First: {{ request.text }}" in said
    assert "p.1 parallel, merge vote, quorum 1 of 2, at most 500 ms" in said
    assert "p.1.0 loop until output.text contains x, y, at most 2 turns" in said
    assert "p.1.1.0 where a.text is 1: step" in said
    assert "p.1.1.1 else: step: Q" in said


def test_show_draws_mermaid_with_every_box_reached(tmp_path: Path) -> None:
    code, said = invoke(tmp_path, "show", "p", "--mermaid")
    lines = said.splitlines()
    assert (code, lines[0], lines[1]) == (0, "flowchart TD", "  asked((request))")
    assert '  p_1_1 -- "where a.text is 1" --> p_1_1_0' in lines
    assert lines[-1] == "  p_1_join --> ended((result))"


def test_show_names_those_that_there_are(tmp_path: Path) -> None:
    code, said = invoke(tmp_path, "show", "nope")
    assert code == 1
    assert "there are p, q" in said


def test_progress_tells_step_model_and_price_and_nothing_that_was_said() -> None:
    before = Yield(path="p.0", text="secret", cost_microusd=5)
    slip = Slip(pipeline="p@1", tree="{}", step="p.1.0", deadline_ms=1, yields=(before,))
    why = Why(policy="default", rule="")
    assert progress_of(Plan(number=0, task=Task(), why=why)) == ""
    assert progress_of(Plan(number=1, task=Task(), why=why, slip=slip, candidates=(a_candidate("large"),))) == (
        "ask    p.1.0        large, try 2")
    assert progress_of(Plan(number=0, task=Task(), why=why, cancels=("p.1", "p.2"))) == "cut    p.1, p.2"
    ended = Completion(plan_id="x", plan_number=0, task=Task(), slip=slip, answer=an_answer("secret"), cost_microusd=12)
    assert progress_of(ended) == "end    p.1.0        small, 7 micro-USD"
