"""`baton certify`: a capable model passes the suite, an incapable one does not, code is run where it can do no harm."""

from dataclasses import replace

import orjson
import pytest

from schemas.certificate import Certificate
from schemas.messages import Answer, Reason, Result, Status
from services.cli.certify.command import case_key, chosen_cases, judged, lines_of
from services.cli.certify.sandbox import problem_of
from services.cli.certify.suite import MAX_TOKENS, Case, cases
from services.simulator.dialect_openai import parse
from services.simulator.text import answer
from tests.support.builders import NOW_MS, a_model, an_answer

SUITE = cases(problem_of)
EVERYTHING = a_model(capabilities=("json_schema", "tools", "vision", "reasoning"))


def answered(case: Case, quality: float, model: str = "sim-large") -> Answer:
    """What a model of that quality says to a case, through the simulator's own text engine."""
    call = parse(orjson.dumps({"model": model, "max_tokens": case.max_tokens, **case.body}))
    said = answer(replace(call, model=replace(call.model, quality=quality, capabilities=call.model.capabilities | {"vision"})))
    calls = ({"function": {"name": said.tool_name, "arguments": said.text}},) if said.tool_name else ()
    return an_answer("" if calls else said.text, tool_calls=calls)


def a_result(case: Case, said: Answer | None, **fields: object) -> Result:
    defaults: dict[str, object] = {"status": Status.DELIVERED, "accepted_ms": NOW_MS, "decided_ms": NOW_MS}
    return Result(request_id=f"id-{case.name}", tenant="acme", answer=said, **(defaults | fields))


def results(quality: float) -> dict[str, Result]:
    return {case_key(case): a_result(case, answered(case, quality)) for case in SUITE}


def test_a_model_that_is_always_right_passes_every_case_and_is_certified_for_everything() -> None:
    tested = judged(SUITE, results(1.0))
    assert [outcome for each in tested.values() for outcome in each.evidence if not outcome.passed] == []
    assert all(each.certified for each in tested.values())
    assert {len(each.evidence) for each in tested.values()} == {4}


def test_a_model_that_is_always_wrong_is_certified_for_nothing() -> None:
    tested = judged(SUITE, results(0.0))
    assert [name for name, each in tested.items() if each.certified] == []


def test_no_case_has_an_answer_that_would_pass_another_of_its_capability() -> None:
    for case in SUITE:
        if case.capability in ("tools", "json_schema", "languages", "code"):
            continue
        others = [other for other in SUITE if other.capability == case.capability and other is not case]
        passing = [other.name for other in others if not other.judge(answered(case, 1.0))]
        assert len(passing) <= 1, "a constant answer must not pass"      # two pictures may share a colour


def test_three_of_four_make_a_certificate_and_two_do_not() -> None:
    maths = [case for case in SUITE if case.capability == "maths"]
    for wrong, is_certified in ((0, True), (1, True), (2, False)):
        found = {case_key(case): a_result(case, answered(case, float(at >= wrong))) for at, case in enumerate(maths)}
        tested = judged(maths, found)["maths"]
        assert (tested.certified, tested.score) == (is_certified, 1 - wrong / 4)


def test_evidence_names_the_request_and_the_problem_and_quotes_no_answer() -> None:
    case = next(case for case in SUITE if case.capability == "maths")
    tested = judged([case], {case_key(case): a_result(case, an_answer("A private remark, 17."))})["maths"]
    (outcome,) = tested.evidence
    assert (outcome.request_id, outcome.passed, outcome.problem) == (f"id-{case.name}", False, "the number is wrong")


def test_a_case_without_an_answer_or_a_result_has_failed_and_says_why() -> None:
    one, other = SUITE[:2]
    failed = a_result(one, None, status=Status.FAILED, reason=Reason.NO_ABLE_MODEL, message="no model has it")
    tested = judged([one, other], {case_key(one): failed})[one.capability]
    assert [outcome.problem for outcome in tested.evidence] == ["no_able_model: no model has it", "no result within 150 s"]


def test_only_what_a_model_claims_and_what_is_wanted_is_tested() -> None:
    assert {case.capability for case in chosen_cases(SUITE, a_model(), ())} == {"code", "maths", "languages", "long_context"}
    assert {case.capability for case in chosen_cases(SUITE, EVERYTHING, ("vision", "code"))} == {"vision", "code"}


def test_the_needle_lies_in_a_long_context_and_everything_fits_its_tokens() -> None:
    for case in SUITE:
        size = len(orjson.dumps(case.body)) / 4
        assert size > 6_000 if case.capability == "long_context" else size < 2_000
        assert case.max_tokens <= MAX_TOKENS


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def f(x): return x + 1", ""),
        ("def f(x): return x", "the code fails its test: AssertionError"),
        ("def f(x) return x", "the code fails its test: SyntaxError"),
        ("def g(x): return x", "the code fails its test: NameError"),
        ("import math\ndef f(x): return math.floor(x) + 1", ""),
        ("open('kept.txt', 'w').write('x')", "the code fails its test: PermissionError"),
        ("import socket; socket.socket().connect(('127.0.0.1', 9))", "the code fails its test: PermissionError"),
        ("import os; os.system('true')", "the code fails its test: PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "the code fails its test: PermissionError"),
        ("import os; os.listdir('.')", "the code fails its test: PermissionError"),
        ("f = lambda x: 'a' * (1 << 31)", "the code fails its test: MemoryError"),
    ],
)
def test_code_passes_its_test_or_the_class_of_its_error_is_the_problem(code: str, problem: str) -> None:
    assert problem_of(code, "assert f(1) == 2") == problem


def test_code_that_never_ends_is_ended() -> None:
    assert problem_of("while True: pass", "").startswith("the code was ended by signal")


def test_what_code_prints_and_what_its_errors_say_stays_inside() -> None:
    assert "secret" not in problem_of("print('secret')\nraise ValueError('secret: yes')", "")


def test_a_certificate_reads_as_one_line_per_capability_and_one_per_failed_case() -> None:
    tested = judged(SUITE, results(0.0) | {case_key(case): a_result(case, answered(case, 1.0)) for case in SUITE[:4]})
    lines = lines_of(Certificate(suite="1", tested_ms=NOW_MS, capabilities=tested))
    assert lines[0] == "✓ code          1.00"
    assert any(line.startswith("    weather: ") for line in lines)
