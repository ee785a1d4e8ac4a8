"""Each pattern of the language, and a nest of them, through real stages on the broker in memory."""

import asyncio
from typing import Any

import orjson
import pytest

from schemas.messages import Reason, Result, Status
from tests.pipelines.orchestra import Call, Orchestra, Says, catalogue, echo, in_virtual_time, playing


def run(
    pipelines: str, says: Says, prompt: str = "Q", policy: dict[str, Any] | None = None, **fields: Any
) -> tuple[Result, Orchestra]:
    """One request through pipeline `p`: its result, and what happened."""

    async def main() -> tuple[Result, Orchestra]:
        async with playing(catalogue(pipelines, **(policy or {})), says) as orchestra:
            await orchestra.ask("p", prompt, **fields)
            return await orchestra.result(), orchestra

    result, orchestra = in_virtual_time(main)
    known = sum(line.cost_microusd for line in orchestra.ledger() if line.finished_ms and line.cost_known)
    if not orchestra.cut:
        assert result.cost_microusd == known, "what the result says it cost is what stands on the ledger"
    return result, orchestra


def text_of(result: Result) -> str:
    assert result.status is Status.DELIVERED, result
    assert result.answer is not None
    return result.answer.text


def test_a_sequence_hands_each_output_on() -> None:
    result, orchestra = run("""
p:
  sequence:
    - {name: a, step: {prompt: "1 {{ request.text }}"}}
    - {name: b, step: {prompt: "2 {{ a }}"}}
    - {step: {prompt: "3 {{ a }} {{ b }}", system: "be brief", model: large, temperature: 0.25, max_tokens: 77}}
""", echo)
    assert text_of(result) == "<3 <1 Q> <2 <1 Q>>>"
    assert result.attempts == 3
    last = orchestra.calls[-1]
    assert (last.model, last.body["temperature"]) == ("large", 0.25)
    assert last.body["messages"][0] == {"role": "system", "content": "be brief"}
    assert result.answer is not None
    assert (result.answer.usage.tokens_in, result.answer.usage.tokens_out) == (300, 30)
    assert {line.plan_id for line in orchestra.ledger()} == {f"r1/p.{n}/plan/0" for n in range(3)}


def test_a_step_without_a_prompt_passes_the_request_on() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"}]
    result, orchestra = run("p: {step: {}}", echo, body={"prompt": None, "messages": messages})
    assert text_of(result) == "<three>"
    assert orchestra.calls[0].body["messages"] == messages


def test_every_merge_makes_one_of_its_branches() -> None:
    async def says(call: Call) -> str:
        await asyncio.sleep({"a": 0.3, "b": 0.1, "c": 0.2}.get(call.prompt, 0.1))
        return {"a": "Yes.", "b": "no", "c": "yes"}.get(call.prompt, f"read {call.prompt}")

    branches = "branches: [{step: {prompt: a}}, {step: {prompt: b}}, {step: {prompt: c}}]"
    expected = {
        "first": "no", "all": '["Yes.","no","yes"]', "vote": "Yes.", "best": "Yes.", "concatenate": "Yes.\n\nno\n\nyes",
        'model, reader: {prompt: "{{ branches | join(\'+\') }}"}': "read Yes.+no+yes",
    }
    for merge, text in expected.items():
        result, _ = run(f"p: {{parallel: {{merge: {merge}, {branches}}}}}", says)
        assert text_of(result) == text


def test_a_branch_goes_where_its_condition_leads() -> None:
    pipeline = """
p:
  sequence:
    - {name: kind, step: {prompt: "classify {{ request.text }}", output: {type: object, required: [kind]}}}
    - branch:
        cases:
          - {when: {value: kind.json.kind, equals: billing}, then: {step: {prompt: pay}}}
          - {when: {value: features.language, equals: de}, then: {step: {prompt: deutsch}}}
          - {when: {value: request.text, matches: "[0-9]{4}"}, then: {step: {prompt: number}}}
        default: {step: {prompt: other}}
"""
    for prompt, kind, expected in (
        ("Q", "Billing", "pay"), ("Was ist das und wie ist es mit dem Wetter?", "x", "deutsch"), ("It is 1984", "x", "number"),
        ("Q", "x", "other"),
    ):
        async def says(call: Call, kind: str = kind) -> str:
            return orjson.dumps({"kind": kind}).decode() if call.prompt.startswith("classify") else call.prompt

        assert text_of(run(pipeline, says, prompt)[0]) == expected


@pytest.mark.parametrize(
    ("test", "said", "holds"),
    [("value: a.text, equals: 5", " 5\n", True), ("value: a.text, equals: 5", "5.0", True),
     ("value: a.text, equals: 5", "6", False),
     ("value: a.text, equals: 5", "five", False), ("value: a.json.n, equals: 5", '{"n": "5"}', True),
     ("value: a.json.n, equals: 5", '{"n": 5}', True), ("value: a.json.n, equals: yes", '{"n": true}', True),
     ("value: a.json.n, equals: yes", '{"n": "1"}', False), ("value: a.text, equals: 'yes'", "Yes", True)],
)
def test_a_number_equals_the_text_that_says_it_and_a_truth_only_a_truth(test: str, said: str, holds: bool) -> None:
    async def says(call: Call) -> str:
        return said if call.prompt == "ask" else call.prompt

    result, _ = run(f"""
p:
  sequence:
    - {{name: a, step: {{prompt: ask}}}}
    - branch: {{cases: [{{when: {{{test}}}, then: {{step: {{prompt: holds}}}}}}], default: {{step: {{prompt: not}}}}}}
""", says)
    assert text_of(result) == ("holds" if holds else "not")


def test_a_loop_takes_the_turns_the_config_says_until_the_gate_passes() -> None:
    async def says(call: Call) -> str:
        return "the end" if len(asked) == 3 or asked.append(call) or len(asked) == 3 else ""

    asked: list[Call] = []
    result, orchestra = run("""
p:
  loop:
    at_most: 5
    criticism: true
    turns: [{model: small}, {model: medium, temperature: 0.5}, {model: large, temperature: 1.0}]
    body: {step: {prompt: "{{ request.text }}"}}
""", says)
    assert text_of(result) == "the end"
    calls = orchestra.calls
    assert [(call.model, call.body.get("temperature")) for call in calls] == [("small", None), ("medium", 0.5), ("large", 1.0)]
    assert len(calls[0].body["messages"]) == 1
    assert "not_empty" in calls[1].prompt


def test_a_loop_that_never_passes_fails_with_its_best_attempt_inside_its_budget() -> None:
    async def says(call: Call) -> str:
        return {"small": "", "medium": "I cannot help with that.", "large": ""}[call.model]

    result, orchestra = run("""
p: {loop: {at_most: 3, turns: [{model: small}, {model: medium}, {model: large}], body: {step: {prompt: x, max_tokens: 10}}}}
""", says, budget_microusd=100_000)
    assert (result.status, result.reason) == (Status.FAILED, Reason.QUALITY_NOT_MET)
    assert result.answer is not None
    assert result.answer.text == "I cannot help with that."
    assert len(orchestra.calls) == 3
    assert 0 < result.cost_microusd <= 100_000


def test_a_loop_stops_when_the_condition_on_its_output_holds() -> None:
    async def says(call: Call) -> str:
        return orjson.dumps({"done": call.prompt.endswith("3")}).decode()

    result, orchestra = run("""
p:
  loop:
    at_most: 9
    until: {value: output.json.done, equals: true}
    body: {step: {prompt: "turn {{ turn.number }}"}}
""", says)
    assert text_of(result) == '{"done":true}'
    assert len(orchestra.calls) == 3


@pytest.mark.parametrize(
    ("gate", "policy"), [("", {"checks": ["not_empty"]}), ("gate: {checks: [not_refused]},", {}), ("gate: {checks: []},", {})]
)
def test_an_output_schema_is_held_whichever_checks_are_listed(gate: str, policy: dict[str, Any]) -> None:
    async def says(call: Call) -> str:
        return '{"name": "Ada"}' if call.model == "large" else "no JSON at all"

    result, orchestra = run(f"""
p:
  loop:
    at_most: 2
    turns: [{{model: small}}, {{model: large}}]
    body: {{step: {{prompt: x, {gate} output: {{type: object, required: [name]}}}}}}
""", says, policy=policy)
    assert text_of(result) == '{"name": "Ada"}'
    assert [call.model for call in orchestra.calls] == ["small", "large"]


def test_an_output_that_the_config_does_not_want_mended_is_not_mended() -> None:
    async def says(call: Call) -> str:
        return '```json\n{"name": "Ada"}\n```'

    spec = "prompt: x, output: {type: object, required: [name]}"
    mended, _ = run(f"p: {{step: {{{spec}, gate: {{checks: [not_empty]}}}}}}", says)
    assert text_of(mended) == '{"name":"Ada"}'
    strict = "gate: {checks: [{check: matches_schema, repair: false}], escalations_max: 0}"
    refused, _ = run(f"p: {{step: {{{spec}, {strict}}}}}", says)
    assert refused.reason is Reason.QUALITY_NOT_MET


NESTED_LOOPS = """
p:
  loop:
    at_most: 2
    criticism: true
    turns: [{model: small, temperature: 0.5}, {model: large}]
    until: {value: output.text, contains: [never]}
    body:
      loop:
        at_most: 2
        until: {value: output, contains: [done]}
        INNER
        body: {step: {prompt: "Q{{ turn.number }}"}}
"""


def _nested_loops(inner: str) -> list[tuple[str, float | None, list[str]]]:
    """Of each call: its model, its temperature, and its messages. The inner loop passes in its second turn."""

    async def says(call: Call) -> str:
        return "done" if call.body["messages"][0]["content"] == "Q2" else "again"

    _, orchestra = run(NESTED_LOOPS.replace("INNER", inner), says)
    return [(call.model, call.body.get("temperature"), [message["content"] for message in call.body["messages"]])
            for call in orchestra.calls]


def test_a_loop_within_a_loop_keeps_the_turn_and_the_criticism_of_the_outer_one() -> None:
    calls = _nested_loops("")
    assert [(model, temperature) for model, temperature, _ in calls] == [("small", 0.5)] * 2 + [("large", None)] * 2
    assert [said[0] for *_, said in calls] == ["Q1", "Q2", "Q1", "Q2"]
    assert ["on output.text" in said[-1] for *_, said in calls] == [False, False, True, True]


def test_what_an_inner_loop_says_itself_goes_before_what_the_outer_one_says() -> None:
    calls = _nested_loops("turns: [{}, {temperature: 0.9}]\n        criticism: true")
    assert [(model, temperature) for model, temperature, _ in calls] == [
        ("small", 0.5), ("small", 0.9), ("large", None), ("large", 0.9)
    ]
    assert ["on output does not" in said[-1] for *_, said in calls] == [False, True, False, True]
    assert ["on output.text" in said[-1] for *_, said in calls] == [False, False, True, False]


def test_a_map_keeps_the_order_and_never_has_more_on_their_way_than_its_width() -> None:
    under_way: list[int] = [0, 0]

    async def says(call: Call) -> str:
        if call.prompt == "list":
            return orjson.dumps({"items": list(range(12))}).decode()
        under_way[0] += 1
        under_way[1] = max(under_way)
        await asyncio.sleep(0.1 * (7 * int(call.prompt) % 5 + 1))
        under_way[0] -= 1
        return f"item {call.prompt}"

    result, _ = run("""
p:
  sequence:
    - {name: todo, step: {prompt: list}}
    - {map: {over: todo.json.items, width: 3, body: {step: {prompt: "{{ item }}"}}}}
""", says)
    assert orjson.loads(text_of(result)) == [f"item {n}" for n in range(12)]
    assert under_way[1] == 3


NEST = """
p:
  sequence:
    - {name: kind, step: {prompt: "classify"}}
    - name: answer
      branch:
        cases:
          - when: {value: kind.text, equals: hard}
            then:
              parallel:
                merge: concatenate
                branches:
                  - loop:
                      at_most: 3
                      until: {value: output.text, contains: [good]}
                      body: {step: {prompt: "try {{ turn.number }}"}}
                  - sequence:
                      - {name: plan, step: {prompt: "list"}}
                      - map:
                          over: plan.json.items
                          width: 2
                          body: {sequence: [{name: d, step: {prompt: "draft {{ item }}"}}, {step: {prompt: "polish {{ d }}"}}]}
        default: {step: {prompt: easy}}
    - {step: {prompt: "sum up {{ answer }}"}}
"""


async def nest_says(call: Call) -> str:
    await asyncio.sleep(0.05)
    known = {"classify": "hard", "list": '{"items":["x","y","z"]}', "try 1": "bad", "try 2": "good"}
    return known.get(call.prompt, f"({call.prompt})")


def test_patterns_nest_in_each_other() -> None:
    result, orchestra = run(NEST, nest_says)
    parts = '["(polish (draft x))","(polish (draft y))","(polish (draft z))"]'
    assert text_of(result) == f"(sum up good\n\n{parts})"
    assert len(orchestra.calls) == 1 + 2 + 1 + 6 + 1 == result.attempts


def test_a_plain_request_is_planned_as_ever_and_carries_no_slip() -> None:
    async def main() -> Orchestra:
        async with playing(catalogue("p: {step: {}}"), echo) as orchestra:
            await orchestra.ask(None, "plain")
            assert text_of(await orchestra.result()) == "<plain>"
            return orchestra

    orchestra = in_virtual_time(main)
    assert [line.plan_id for line in orchestra.ledger()] == ["r1/plan/0"] * 2
    records = [record for logs in orchestra.broker.logs.values() for log in logs for record in log]
    assert not any(b'"slip"' in (record.value or b"") for record in records)


def test_a_tenants_policy_may_name_the_pipeline() -> None:
    async def main() -> str:
        async with playing(catalogue("p: {step: {prompt: 'by policy'}}", pipeline="p"), echo) as orchestra:
            await orchestra.ask(None, "plain")
            return text_of(await orchestra.result())

    assert in_virtual_time(main) == "<by policy>"


def test_a_pipeline_that_is_not_there_is_refused() -> None:
    async def main() -> Result:
        async with playing(catalogue("p: {step: {}}"), echo) as orchestra:
            await orchestra.ask("q")
            return await orchestra.result()

    result = in_virtual_time(main)
    assert (result.status, result.reason) == (Status.REJECTED, Reason.INVALID_REQUEST)
