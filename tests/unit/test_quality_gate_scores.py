"""Scores without a model: what they know, what they do not, and how well they rank labelled answers."""

import pytest

from schemas.checks import CheckSpec, Sampling
from schemas.config import Policy
from schemas.messages import Answer, Chat, Task
from services.quality_gate.checks import judge
from services.quality_gate.sampling import is_sampled
from services.quality_gate.scores import SCORERS, score, scores
from services.quality_gate.scores.given import given
from tests.gate.labelled_set import labelled
from tests.gate.ranking import AUC_MIN, rankings
from tests.support.builders import a_chat, a_task, an_answer

CONTEXT = "The bridge was opened on 19 March 1932. It carries 160,000 vehicles a day. The designer was Dorman Long."
ASKED = a_task(a_chat(f"Context:\n{CONTEXT}\n\nQuestion: When was the bridge opened?"))


def value(name: str, text: str, task: Task = ASKED) -> float | None:
    return score(name, an_answer(text), task).value


@pytest.mark.parametrize("held_out", [False, True], ids=["tuned by", "held out"])
def test_factuality_ranks_supported_answers_above_those_with_planted_errors(held_out: bool) -> None:
    cases = [case for case in labelled() if case.check == "factuality" and case.is_held_out == held_out]
    overall, *by_flaw = rankings("factuality", cases)
    assert len(overall.good) >= 20
    assert len(overall.bad) >= 20
    assert overall.auc >= AUC_MIN["factuality"]
    assert {ranking.flaw for ranking in by_flaw} == {"number", "name", "negation", "invented", "irrelevant"}


def test_without_a_context_factuality_is_unknown_and_not_a_number() -> None:
    found = score("factuality", an_answer("The bridge was opened in 1932."), a_task(a_chat("When was it opened?")))
    assert (found.value, found.detail) == (None, "no context was given")


def test_one_false_claim_makes_a_long_answer_false() -> None:
    true = "The bridge was opened on 19 March 1932. It carries 160,000 vehicles a day."
    good, bad = value("factuality", true), value("factuality", f"{true} The designer was Ralph Freeman.")
    assert good is not None
    assert bad is not None
    assert bad < 0.6 < good


def test_a_short_right_answer_is_not_called_irrelevant() -> None:
    assert value("relevance", "Lima.", a_task(a_chat("What is the capital of Peru?"))) is None
    assert value("relevance", "Bread rises because yeast makes gas.", a_task(a_chat("What is the capital of Peru?"))) == 0


def test_an_answer_without_text_has_no_score() -> None:
    assert [found.value for found in scores(Answer(text=" "), ASKED)] == [None] * len(SCORERS)


@pytest.mark.parametrize(
    ("messages", "question", "context"),
    [
        (({"role": "user", "content": "Why?"},), "Why?", ""),
        (({"role": "user", "content": "Context: A b.\nQuestion: Why?"},), "Why?", "A b."),
        (({"role": "user", "content": "<context>\nA b.\n</context>\nWhy?"},), "Why?", "A b."),
        (({"role": "system", "content": "Be brief.\n[1] A b."}, {"role": "user", "content": "Why?"}), "Why?", "[1] A b."),
        (({"role": "tool", "content": "A b."}, {"role": "user", "content": "Why?"}), "Why?", "A b."),
        (({"role": "user", "content": f"{'Long text. ' * 40}\n\nWhy?"},), "Why?", ("Long text. " * 40).strip()),
        (({"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "image_url"}]},), "Why?", ""),
    ],
)
def test_question_and_context_are_told_apart(messages: tuple[dict[str, object], ...], question: str, context: str) -> None:
    assert given(Task(chat=Chat(messages=messages))) == (question, context)


def test_a_least_score_is_a_check_and_what_is_unknown_passes_with_a_note() -> None:
    specs = (CheckSpec(check="factuality", min=0.5),)
    wrong = judge(an_answer("The bridge was opened in 1999 by Ralph Freeman."), ASKED, specs)
    assert not wrong.checks[0].passed
    assert [found.name for found in wrong.scores] == ["factuality"]
    unknown = judge(an_answer("The bridge was opened in 1999."), a_task(), specs)
    assert (unknown.checks[0].passed, unknown.checks[0].detail) == (True, "unknown: no context was given")


def test_a_sampled_answer_has_every_score_and_others_have_none() -> None:
    answer = an_answer("The bridge was opened in 1932.")
    assert [found.name for found in judge(answer, ASKED, Policy().checks, is_sampled=True).scores] == list(SCORERS)
    assert judge(answer, ASKED, Policy().checks).scores == ()


IDS = [f"{number:032x}" for number in range(20_000)]


def test_a_sample_is_a_share_the_same_in_a_replay_and_within_a_larger_one() -> None:
    small, large = Sampling(share=0.05), Sampling(share=0.2)
    picked = [id for id in IDS if is_sampled(id, "m", small, "scores")]
    assert 0.04 < len(picked) / len(IDS) < 0.06
    assert picked == [id for id in IDS if is_sampled(id, "m", small, "scores")]
    assert all(is_sampled(id, "m", large, "scores") for id in picked)


def test_a_rare_model_may_have_a_larger_share_and_none_is_none() -> None:
    sampling = Sampling(share=0.0, models={"rare": 1.0})
    assert all(is_sampled(id, "rare", sampling, "scores") for id in IDS[:100])
    assert not any(is_sampled(id, "busy", sampling, "scores") for id in IDS)


def test_purposes_draw_apart() -> None:
    both = [id for id in IDS if all(is_sampled(id, "m", Sampling(share=0.1), purpose) for purpose in ("scores", "judge"))]
    assert 0.005 < len(both) / len(IDS) < 0.015
