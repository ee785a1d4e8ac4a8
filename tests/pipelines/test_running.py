"""What a running pipeline promises: time, money, failures, order, and what is left after a crash."""

import asyncio
from collections import Counter
from random import Random

import orjson
import pytest

from schemas.ledger import AttemptPhase, FailureClass
from schemas.messages import Reason, Result, Status
from schemas.topology import COMPLETIONS, ESCALATIONS, PLANS, VERDICTS
from shared.slips import SLIP_BYTES_MAX
from tests.pipelines.orchestra import Call, Orchestra, Says, catalogue, in_virtual_time, playing
from tests.pipelines.test_patterns import NEST, nest_says, run, text_of

THREE = "branches: [{step: {prompt: a}}, {step: {prompt: b}}, {step: {prompt: c}}]"


def taking(**seconds: float) -> Says:
    async def says(call: Call) -> str:
        await asyncio.sleep(seconds.get(call.prompt, 0.1))
        return call.prompt

    return says


def took_ms(result: Result) -> int:
    return result.decided_ms - result.accepted_ms


def test_three_branches_take_little_longer_than_one() -> None:
    alone, _ = run("p: {step: {prompt: a}}", taking(a=0.4))
    three, _ = run(f"p: {{parallel: {{merge: all, {THREE}}}}}", taking(a=0.4, b=0.4, c=0.4))
    assert text_of(three) == '["a","b","c"]'
    assert took_ms(three) <= 1.25 * took_ms(alone)


def test_the_first_answer_wins_and_the_losers_are_cut_and_stay_on_the_books() -> None:
    result, orchestra = run(f"p: {{parallel: {{merge: first, {THREE}}}}}", taking(a=30, b=0.2, c=30))
    assert text_of(result) == "b"
    assert took_ms(result) < 400
    assert sorted(call.prompt for call in orchestra.cut) == ["a", "c"]
    lines = {line.attempt_id: line for line in orchestra.ledger()}
    assert Counter(line.failure for line in lines.values()) == {None: 1, FailureClass.CANCELLED: 2}
    assert all(line.phase is AttemptPhase.FINISHED for line in lines.values())
    assert max(line.finished_ms or 0 for line in lines.values()) - result.decided_ms < 200


def test_a_step_that_waits_for_its_turn_is_not_begun_once_it_is_cancelled() -> None:
    result, orchestra = run("""
p:
  sequence:
    - parallel:
        merge: first
        branches: [{step: {prompt: a}}, {sequence: [{name: b, step: {prompt: b}}, {step: {prompt: "{{ b }} again"}}]}]
    - {step: {prompt: c}}
""", taking(a=0.35, b=0.3, c=5))
    assert text_of(result) == "c"
    assert [call.prompt for call in orchestra.cut] == ["b again"]


def test_a_branch_that_hangs_ends_at_its_limit_and_the_merge_goes_on_with_the_quorum() -> None:
    spec = f"merge: concatenate, quorum: 2, limit_ms: 1000, {THREE}"
    result, orchestra = run(f"p: {{parallel: {{{spec}}}}}", taking(a=0.2, b=59, c=0.4))
    assert text_of(result) == "a\n\nc"
    assert 1_000 <= took_ms(result) < 1_400
    assert {call.prompt for call in orchestra.cut} == {"b"}


def test_where_every_branch_hangs_the_limit_ends_them_all() -> None:
    result, _ = run(f"p: {{parallel: {{merge: vote, quorum: 1, limit_ms: 1000, {THREE}}}}}", taking(a=50, b=50, c=50))
    assert result.status is not Status.DELIVERED
    assert took_ms(result) < 1_500


def test_an_overspent_branch_stops_the_request_with_what_was_spent() -> None:
    result, orchestra = run("""
p:
  parallel:
    merge: all
    branches:
      - {step: {prompt: a, max_tokens: 10, model: small}}
      - {step: {prompt: b, max_tokens: 4000, model: large}}
      - {step: {prompt: slow, max_tokens: 10, model: small}}
""", taking(a=0.1, slow=20), budget_microusd=30_000)
    assert (result.status, result.reason) == (Status.OVER_BUDGET, Reason.OVER_BUDGET)
    assert took_ms(result) < 1_000
    assert "b" not in {call.prompt for call in orchestra.calls}
    assert result.cost_microusd <= 30_000


@pytest.mark.parametrize(("merge", "answer"), [("merge: concatenate, quorum: 2", "a\n\nc"), ("merge: first", "c")])
def test_a_branch_that_its_share_cannot_pay_for_leaves_the_quorum_to_the_others(merge: str, answer: str) -> None:
    result, orchestra = run(f"""
p:
  parallel: {{{merge}, branches: [
    {{step: {{prompt: a, max_tokens: 10, model: small}}}},
    {{step: {{prompt: b, max_tokens: 4000, model: large}}}},
    {{step: {{prompt: c, max_tokens: 10, model: small}}}}]}}
""", taking(a=0.4, c=0.2), budget_microusd=30_000)
    assert text_of(result) == answer
    assert "b" not in {call.prompt for call in orchestra.calls}


def test_a_parallel_that_misses_its_quorum_for_want_of_money_ends_over_budget() -> None:
    dear = "{step: {prompt: b, max_tokens: 4000, model: large}}"
    cheap = "{step: {prompt: a, max_tokens: 10, model: small}}"
    spec = f"merge: vote, quorum: 2, branches: [{cheap}, {dear}, {dear}]"
    result, _ = run(f"p: {{parallel: {{{spec}}}}}", taking(), budget_microusd=30_000)
    assert (result.status, result.reason) == (Status.OVER_BUDGET, Reason.OVER_BUDGET)
    assert "of 2 branches succeeded" in result.message


def test_no_share_of_a_budget_is_spent_twice() -> None:
    async def says(call: Call) -> str:
        return "x" * 30

    for budget in (200, 400, 900, 2_000, 5_000):
        result, orchestra = run("""
p:
  sequence:
    - parallel:
        merge: all
        branches: [{step: {prompt: a, max_tokens: 20, model: small}}, {step: {prompt: b, max_tokens: 20, model: medium}}]
    - {loop: {at_most: 6, until: {value: output.text, equals: never}, body: {step: {prompt: c, max_tokens: 20, model: medium}}}}
""", says, budget_microusd=budget)
        spent = sum(line.cost_microusd for line in orchestra.ledger() if line.phase is AttemptPhase.FINISHED)
        assert spent <= budget, result


def test_time_that_runs_out_ends_the_request_and_not_only_a_step() -> None:
    result, _ = run(f"p: {{parallel: {{merge: all, {THREE}}}}}", taking(a=0.2, b=59, c=0.4), deadline_ms=1_800_001_002_000)
    assert (result.status, result.reason) == (Status.EXPIRED, Reason.DEADLINE_PASSED)


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ('sequence: [{name: a, step: {prompt: a}}, {step: {prompt: "{{ a.json.missing }}"}}]', "step p.1: the template"),
        ('sequence: [{name: a, step: {prompt: a}}, {map: {over: a.json.items, body: {step: {}}}}]', "there is no a.json.items"),
        ('sequence: [{name: a, step: {prompt: "[1]"}}, {map: {over: a.text, body: {step: {}}}}]', "a.text is not a list"),
        ('sequence: [{name: a, step: {prompt: "[1,2]"}}, {map: {over: a.json, items_max: 1, body: {step: {}}}}]', "items_max 1"),
    ],
)
def test_a_pipeline_that_is_broken_at_run_time_fails_its_own_request_only(pipeline: str, says: str) -> None:
    async def main() -> list[Result]:
        async with playing(catalogue(f"p:\n  {pipeline}\nsound: {{step: {{prompt: fine}}}}"), taking()) as orchestra:
            await orchestra.ask("p", id="broken")
            await orchestra.ask("sound", id="sound")
            return await orchestra.results(["broken", "sound"])

    broken, sound = in_virtual_time(main)
    assert (broken.status, broken.reason) == (Status.FAILED, Reason.PIPELINE_BROKEN)
    assert says in broken.message
    assert text_of(sound) == "fine"


def test_a_new_config_does_not_reach_a_request_on_its_way() -> None:
    async def main() -> tuple[str, str]:
        made = catalogue("p: {sequence: [{step: {prompt: a}}, {step: {prompt: old}}]}")
        async with playing(made, taking(a=0.5)) as orchestra:
            await orchestra.ask("p", id="before")
            await asyncio.sleep(0.2)
            orchestra.catalogue = catalogue("p: {step: {prompt: new}}")
            await orchestra.ask("p", id="after")
            before, after = await orchestra.results(["before", "after"])
            return text_of(before), text_of(after)

    assert in_virtual_time(main) == ("old", "new")


def test_requests_of_an_ordering_key_are_answered_in_order_though_the_first_takes_many_steps() -> None:
    async def main() -> list[str]:
        async with playing(catalogue(NEST + "\nq: {step: {prompt: quick}}"), nest_says) as orchestra:
            for number, pipeline in enumerate(["p", "q", "p", "q", "q"]):
                await orchestra.ask(pipeline, id=f"r{number}", key="acme/line", ordered=True)
            await orchestra.results([f"r{number}" for number in range(5)])
            return [envelope.request_id for envelope in orchestra.log(VERDICTS)]

    assert list(dict.fromkeys(in_virtual_time(main))) == [f"r{number}" for number in range(5)]


def test_large_outputs_travel_by_reference_and_no_envelope_passes_a_megabyte() -> None:
    async def says(call: Call) -> str:
        return "y" * 150_000 if call.prompt.startswith("write") else f"{len(call.prompt)}"

    result, orchestra = run("""
p:
  sequence:
    - {name: a, step: {prompt: "write"}}
    - {name: b, step: {prompt: "write"}}
    - {name: c, step: {prompt: "write"}}
    - {step: {prompt: "{{ a }}{{ b }}{{ c }}"}}
""", says, prompt="z" * 150_000)
    assert text_of(result) == "450000"
    sizes = {topic.name: max(len(record.value or b"") for log in orchestra.broker.logs[topic.name] for record in log)
             for topic in (PLANS["standard"], COMPLETIONS, ESCALATIONS)}
    assert max(sizes.values()) < 1_000_000, sizes
    slips = [envelope.payload.slip for envelope in orchestra.log(COMPLETIONS)]
    assert all(sum(len(each.text) for each in slip.yields) <= SLIP_BYTES_MAX for slip in slips)
    assert any(each.text_at is not None for slip in slips for each in slip.yields)


# Crashes: every stage is killed again and again while requests are on their way ------------------------------------


STAGES = ("router", "executor", "quality-gate")
FORKS = """
p:
  sequence:
    - {name: todo, step: {prompt: "list"}}
    - name: parts
      map:
        over: todo.json.items
        width: 2
        body: {sequence: [{name: d, step: {prompt: "draft {{ item }}"}}, {step: {prompt: "polish {{ d }}"}}]}
    - parallel:
        merge: model
        quorum: 2
        reader: {prompt: "read {{ branches | join('+') }}"}
        branches: [{step: {prompt: "one {{ parts }}"}}, {step: {prompt: "two"}}, {step: {prompt: "fail"}}]
"""


async def forks_say(call: Call) -> str | None:
    await asyncio.sleep(0.05 + len(call.prompt) % 7 / 50)
    if call.prompt == "list":
        return '{"items":["x","y","z"]}'
    return None if call.prompt == "fail" else f"({call.prompt})"


async def _killed_at_random(seed: int, requests: int, says: Says, pipelines: str) -> Orchestra:
    random = Random(seed)
    ids = [f"r{number}" for number in range(requests)]
    async with playing(catalogue(pipelines, escalations_max=0), says) as orchestra:
        for id in ids:
            await orchestra.ask("p", id=id)
        for _ in range(15):
            await asyncio.sleep(random.random() * 0.15)
            victim = random.choice(STAGES)
            await orchestra.kill(victim)
            orchestra.start(victim)
        await orchestra.results(ids)
        return orchestra


def _audit(orchestra: Orchestra, expected: str, calls: int) -> None:
    """No step whose completion is in the log is called again; every call is on the ledger; one result each, as it should be."""
    for result in orchestra.log_of_results():
        assert text_of(result) == expected
    completed: dict[str, int] = {}
    for envelope in orchestra.log(COMPLETIONS):
        completed[envelope.payload.plan_id] = completed.get(envelope.payload.plan_id, 0) + 1
    started = Counter(line.attempt_id for line in orchestra.ledger() if line.phase is AttemptPhase.STARTED)
    assert len(orchestra.calls) <= len(started)
    assert max(started.values()) == 1
    finished = {line.attempt_id: line for line in orchestra.ledger() if line.phase is AttemptPhase.FINISHED}
    assert started.keys() == finished.keys()
    good = Counter(line.plan_id for line in finished.values() if line.failure is None)
    assert max(good.values()) == 1, "a step that had answered was paid again"


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_every_request_ends_once_as_it_should_and_no_answered_step_is_paid_again(seed: int) -> None:
    orchestra = in_virtual_time(lambda: _killed_at_random(seed, 8, forks_say, FORKS))
    items = orjson.dumps([f"(polish (draft {item}))" for item in "xyz"]).decode()
    _audit(orchestra, f"(read (one {items})+(two))", 10)


def test_a_join_holds_after_the_gate_was_killed_between_its_branches() -> None:
    async def main() -> tuple[str, int]:
        async with playing(catalogue(f"p: {{parallel: {{merge: all, {THREE}}}}}"), taking(a=0.2, b=0.6, c=1.0)) as orchestra:
            await orchestra.ask("p")
            for _ in range(4):
                await asyncio.sleep(0.3)
                await orchestra.kill("quality-gate")
                orchestra.start("quality-gate")
            return text_of(await orchestra.result()), len(orchestra.calls)

    assert in_virtual_time(main) == ('["a","b","c"]', 3)


def outgrown(pipelines: str, says: Says) -> Orchestra:
    """After a request that was refused for its size on its way."""

    async def main() -> Orchestra:
        async with playing(catalogue(pipelines, checks=("not_empty",)), says) as orchestra:
            await orchestra.ask("p")
            result = await orchestra.result()
            assert (result.status, result.reason) == (Status.REJECTED, Reason.TOO_LARGE)
            return orchestra

    return in_virtual_time(main)


def test_a_request_whose_answers_together_outgrow_a_record_ends() -> None:
    async def says(call: Call) -> str:
        return orjson.dumps(list(range(60))).decode() if call.prompt == "list" else "word " * 15_000

    orchestra = outgrown("""
p:
  sequence:
    - {name: list, step: {prompt: list}}
    - {name: parts, map: {over: list.json, items_max: 60, body: {step: {prompt: "write {{ item }}"}}}}
    - {step: {prompt: "how many? {{ request.text }}"}}
""", says)
    assert len(orchestra.calls) == 61


def test_a_call_whose_answer_outgrows_a_record_stays_on_the_books() -> None:
    async def says(call: Call) -> str:
        return "word " * 1_000_000

    orchestra = outgrown("p: {step: {prompt: long}}", says)
    assert [line.phase for line in orchestra.ledger()] == [AttemptPhase.STARTED, AttemptPhase.FINISHED]
