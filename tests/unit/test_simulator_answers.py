"""The simulator's text engine: deterministic, computed from the prompt, right as often as the model's quality says."""

from typing import Any

import jsonschema_rs
import orjson
import pytest

from services.simulator.arithmetic import evaluate, find_arithmetic
from services.simulator.call import Answer, Call, answer_tokens, count_tokens, first_tokens
from services.simulator.decide import is_right
from services.simulator.dialect_openai import BadRequest, parse
from services.simulator.draws import seed_of
from services.simulator.facts import Facts
from services.simulator.languages import LANGUAGES, language_of, words_of
from services.simulator.profiles import MODELS
from services.simulator.text import answer
from services.simulator.text_json import conforming

QUESTIONS = [f"Explain how part {i} of a water clock keeps time in city {i * 7}" for i in range(400)]


def a_call(prompt: str, model: str = "sim-large", **fields: Any) -> Call:
    return parse(orjson.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], **fields}))


def a_right_answer(prompt: str, **fields: Any) -> Answer:
    """The answer under the first `seed` at which the model gets the prompt right, as a caller would find one."""
    for seed in range(50):
        call = a_call(prompt, seed=seed + 1, **fields)
        prompt_seed = seed_of(call.prefix, call.prompt, call.seed)
        if is_right(call.model.quality, prompt_seed, seed_of(call.model.name, prompt_seed)):
            return answer(call)
    raise AssertionError("fifty wrong answers in a row")


def test_the_same_call_gets_the_same_answer_and_another_seed_another_draw() -> None:
    assert answer(a_call("Why is the sky blue?")) == answer(a_call("Why is the sky blue?"))
    answers = {answer(a_call("Why is the sky blue?", model="sim-small", seed=seed)).text for seed in range(1, 30)}
    assert len(answers) > 1


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("What is 12 * (3 + 4)?", "84"),
        ("what is 17 times 23", "391"),
        ("Compute 2^10 - 24", "1000"),
        ("Was ist 7 mal 8?", "56"),
        ("Combien font 9 fois 9 ? calcule", "81"),
        ("What is 10/4?", "2.5"),
        ("0.1 + 0.2 =", "0.3"),
        ("How much is 15% of 80?", "12"),
    ],
)
def test_arithmetic_in_the_prompt_is_really_computed(prompt: str, value: str) -> None:
    assert a_right_answer(prompt).text.endswith(f"= {value}")


@pytest.mark.parametrize("text", ["the meeting is on 2024-05-01, what is it about?", "call +49 151 2345678", "24/7 help"])
def test_dates_and_phone_numbers_are_not_arithmetic(text: str) -> None:
    assert find_arithmetic(text) is None


@pytest.mark.parametrize("text", ["9**9**9", "1/0", "2^64^64", "(" * 90 + "1" + ")" * 90 + "+x", "__import__('os')", "10**41"])
def test_an_expression_that_is_too_large_or_no_arithmetic_has_no_value(text: str) -> None:
    assert evaluate(text) is None


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("Please explain how the heat pump in the house works", "en"),
        ("Erkläre bitte, wie eine Wärmepumpe im Winter funktioniert", "de"),
        ("Explica cómo funciona la fotosíntesis en las plantas", "es"),
        ("Explique comment fonctionne le moteur d'une voiture", "fr"),
    ],
)
def test_the_answer_is_in_the_language_of_the_prompt(prompt: str, code: str) -> None:
    assert language_of(words_of(prompt)).code == code
    assert language_of(words_of(a_right_answer(prompt).text)).code == code


def test_an_answer_speaks_of_what_the_prompt_speaks_of() -> None:
    text = a_right_answer("Explain how Kafka rebalances partitions between consumers").text
    assert "Kafka" in text
    assert "partitions" in text


def test_a_summary_is_the_leading_sentences() -> None:
    story = "The cat sat on the mat. It was warm there. Then the dog came in. They became friends."
    assert a_right_answer(f"Summarise: {story}").text == "The cat sat on the mat. It was warm there."


def test_a_label_is_one_of_the_options_and_follows_the_text() -> None:
    text = "Classify the review as positive, negative or neutral: the screen is broken, terrible."
    assert a_right_answer(text).text == "negative"


def test_a_question_with_a_context_is_answered_from_the_context() -> None:
    context = "The tower was finished in 1889 in Paris. The museum opened later."
    assert "1889" in a_right_answer(f"{context} When was the tower finished?").text


def test_a_code_request_gets_a_function_that_works() -> None:
    text = a_right_answer("Write a python function that reverses a string").text
    source = text.removeprefix("```python\n").removesuffix("\n```")
    scope: dict[str, Any] = {}
    exec(source, scope)
    assert scope["reverses_string"]("abc") == "cba"


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"email": {"type": "string", "format": "email"},
                                      "on": {"type": "string", "format": "date"},
                                      "id": {"type": "string", "format": "uuid"},
                                      "at": {"type": "string", "format": "date-time"}}, "required": ["email", "on"]},
    {"type": "object", "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1},
                                      "rank": {"type": "integer", "minimum": 1, "maximum": 5},
                                      "step": {"type": "number", "multipleOf": 5, "exclusiveMinimum": 0}}},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 3, "uniqueItems": True},
    {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string", "maxLength": 8}},
                                      "about": {"type": "string", "minLength": 40, "maxLength": 60}}},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["value"], "properties": {
        "value": {"type": ["number", "null"]}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}}},
    {"allOf": [{"type": "object", "properties": {"a": {"const": 3}}, "required": ["a"]},
               {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]},
    {"type": "object", "properties": {"low": {"type": "number", "maximum": -1},
                                      "high": {"type": "integer", "minimum": 1000},
                                      "none": {"type": "null"}}, "required": ["low", "high", "none"]},
]  # fmt: skip
PROMPTS = [
    "Extract the person as JSON: Ada Lovelace, age 36, ada@math.org, wrote on May 3, 2026 for 19.90 EUR",
    "Compute 6 * 7 as JSON",
    "",
    "x",
    "Erkläre die Lage am 31.02.2026 und am 1.3.2026 in Köln: -5 Grad, green, 0 Wind",
]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_json_conforms_to_the_schema(schema: dict[str, Any], prompt: str) -> None:
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    for seed in range(20):
        value = conforming(schema, Facts(prompt), seed)
        assert validator.is_valid(value), value


def test_json_takes_its_values_from_the_prompt() -> None:
    schema = {"type": "object", "properties": {
        "name": {"type": "string"}, "email": {"type": "string"}, "age": {"type": "integer"}, "date": {"type": "string"},
        "zip": {"type": "string", "pattern": r"^\d{5}$"}, "mood": {"enum": ["sad", "happy"]}}}  # fmt: skip
    prompt = "Ada Lovelace, age 36, ada@math.org, 10115 Berlin, was happy on 3 May 2026"
    assert conforming(schema, Facts(prompt), 1) == {
        "name": "Ada Lovelace",
        "email": "ada@math.org",
        "age": 36,
        "date": "2026-05-03",
        "zip": "10115",
        "mood": "happy",
    }


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Current weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip


def test_a_prompt_that_touches_a_tool_gets_a_call_of_it() -> None:
    said = a_right_answer("How is the weather in Berlin?", tools=[WEATHER])
    assert (said.finish, said.tool_name, orjson.loads(said.text)) == ("tool_calls", "get_weather", {"city": "Berlin"})


def test_a_prompt_that_touches_no_tool_gets_text_unless_a_tool_is_forced() -> None:
    assert a_right_answer("Tell a joke on penguins", tools=[WEATHER]).tool_name == ""
    assert a_right_answer("Tell a joke on penguins", tools=[WEATHER], tool_choice="required").tool_name == "get_weather"


@pytest.mark.parametrize("model", ["sim-nano", "sim-small", "sim-large", "sim-reason"])
def test_a_model_is_right_as_often_as_its_quality_says(model: str) -> None:
    quality = MODELS[model].quality
    seeds = [seed_of(question) for question in QUESTIONS * 5 for question in (f"{question}", f"{question}?")]
    right = sum(is_right(quality, seed_of(at, seed), seed_of(model, at, seed)) for at, seed in enumerate(seeds))
    assert right / len(seeds) == pytest.approx(quality, abs=0.03)


def test_a_stronger_model_does_better_on_the_same_sums() -> None:
    def right(model: str) -> int:
        return sum(answer(a_call(f"What is {i} + 5?", model=model)).text == f"{i} + 5 = {i + 5}" for i in range(300))

    assert right("sim-nano") + 40 < right("sim-small") + 20 < right("sim-large")


def test_degraded_answers_are_of_every_kind() -> None:
    said = [answer(a_call(question, model="sim-nano")) for question in QUESTIONS]
    assert any(one.text == "" for one in said)
    assert any(one.finish == "length" for one in said)
    assert any(one.text == LANGUAGES["en"].refusal for one in said)
    assert any("Kurz gesagt" in one.text for one in said)
    assert any("weather" in one.text for one in said)


def test_a_degraded_json_answer_lacks_a_required_field_or_is_no_json() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    texts = [answer(a_call(f"Extract: Ada {i}", model="sim-small", response_format=wanted)).text for i in range(200)]
    assert "{}" in texts
    assert any('"name"' in text for text in texts)


def test_max_tokens_cuts_the_answer_and_says_length() -> None:
    said = a_right_answer("Write 200 words about rivers", max_tokens=10)
    assert said.finish == "length"
    assert answer_tokens(said) == 10


def test_a_stop_sequence_ends_the_answer_before_it_and_is_named() -> None:
    whole = a_right_answer("Why is the sky blue?")
    cut = a_right_answer("Why is the sky blue?", stop=["nowhere", whole.text[-4:], whole.text[10:14]])
    assert (cut.text, cut.finish, cut.stop_text) == (whole.text[: whole.text.index(whole.text[10:14])], "stop", whole.text[10:14])
    short = a_right_answer("Why is the sky blue?", stop=[whole.text[-6:]], max_tokens=3)
    assert (short.finish, short.stop_text) == ("length", "")


def test_a_tools_arguments_are_never_cut_by_a_stop_sequence() -> None:
    said = a_right_answer("How is the weather in Berlin?", tools=[WEATHER], stop="city")
    assert orjson.loads(said.text) == {"city": "Berlin"}


def test_a_tools_result_is_answered_in_words_unless_a_call_is_forced() -> None:
    called = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "get_weather", "arguments": "{}"}}]}
    messages = [{"role": "user", "content": "Weather?"}, called, {"role": "tool", "tool_call_id": "1", "content": "12 degrees"}]
    body: dict[str, Any] = {"model": "sim-scenario-fallback", "messages": messages, "tools": [WEATHER]}
    assert answer(parse(orjson.dumps(body))).text.startswith("12 degrees")
    assert answer(parse(orjson.dumps({**body, "tool_choice": "required"}))).tool_name == "get_weather"
    assert answer(parse(orjson.dumps({**body, "messages": messages[:1], "tool_choice": "none"}))).tool_name == ""


def test_a_right_answer_sounds_surer_than_a_wrong_one_when_asked_for_log_probabilities() -> None:
    said = [answer(a_call(f"What is {i} + 5?", "sim-nano", logprobs=True)) for i in range(200)]
    right = [one.certainty for i, one in enumerate(said) if one.text == f"{i} + 5 = {i + 5}"]
    wrong = [one.certainty for i, one in enumerate(said) if one.text != f"{i} + 5 = {i + 5}"]
    assert min(right) > max(wrong) - 0.01
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 0.1


def test_a_scenarios_answer_is_followed_by_its_afterword() -> None:
    assert answer(a_call("What is 6 * 7?", "sim-s08")).text.startswith("6 * 7 = 42\n\nOnce a small boat")


def test_reasoning_leaves_room_for_an_answer_within_max_tokens() -> None:
    said = a_right_answer("Write 200 words about rivers", model="sim-reason", max_tokens=40)
    assert 0 < said.reasoning_tokens <= 20
    assert answer_tokens(said) == 40


def test_a_token_is_four_bytes_rounded_up_and_a_cut_never_splits_a_character() -> None:
    assert [count_tokens(text) for text in ("", "a", "abcd", "abcde", "ääää")] == [0, 1, 1, 2, 2]
    assert first_tokens("aääää", 1) == "aä"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "", "messages": []}, "model"),
        ({"model": "sim-nano", "messages": []}, "messages"),
        ({"model": "sim-nano", "messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"model": "sim-nano", "messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"model": "sim-nano", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        ({"model": "sim-nano", "messages": [{"role": "user", "content": "x"}], "tools": [WEATHER]}, "tools"),
        (
            {"model": "sim-nano", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
        ),
        (
            {
                "model": "sim-nano",
                "messages": [{"role": "user", "content": "x"}],
                "response_format": {"type": "json_schema"},
            },
            "response_format",
        ),
        ({"model": "sim-nano", "messages": [{"role": "user", "content": "x" * 70_000}]}, "messages"),
    ],
)
def test_a_wrong_request_is_refused_with_the_parameter_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(orjson.dumps(fields))
    assert caught.value.param == param
