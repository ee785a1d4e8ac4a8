"""Preprocessing: bodies in every form become one chat with features; what is wrong names its field and its fix."""

import time
from typing import Any

import pytest

from schemas.config import Policy
from schemas.envelope import Envelope
from schemas.messages import Failure, Reason, Request, Task
from schemas.topology import TASKS
from services.preprocessing.decide import decide
from services.preprocessing.features import features
from services.preprocessing.main import Preprocessing
from shared.codec import decode, encode
from shared.outcome import Out
from shared.tokens import tokens_of
from tests.support.builders import REQUEST_ID, a_catalogue, a_chat, a_context, a_failure, a_request, an_envelope

SCHEMA = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def task_of(**body: Any) -> Task:
    return decide(body, a_catalogue().models, Policy().prompt_bytes_max)


def failure_of(**body: Any) -> Failure:
    failure = task_of(**body).failure
    assert failure is not None, "this body should have been refused"
    return failure


def handled(request: Request, **policy: Any) -> Out:
    stage = Preprocessing(lambda: a_catalogue(**policy))
    (out,) = stage.handle(an_envelope(request), a_context()).outputs
    return out


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_request_becomes_a_task_and_keeps_its_request_id() -> None:
    out = handled(a_request(prompt="Say hello.", system="Be brief."))
    assert out.topic is TASKS
    assert isinstance(out.value, Envelope)
    assert (out.value.request_id, out.value.id) == (REQUEST_ID, f"{REQUEST_ID}/task")
    read = decode(TASKS, encode(TASKS, out.value)).payload
    assert read.chat.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."})
    assert read.failure is None


def test_an_openai_body_keeps_what_every_provider_has() -> None:
    task = task_of(
        messages=[{"role": "developer", "content": "Be brief.", "x": 1}, user([{"type": "text", "text": "Hi"}])],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "offer", "schema": SCHEMA, "strict": True}},
        max_tokens=5,
        max_completion_tokens=90,
        temperature=1,
        top_p=0.5,
        stop="END",
        seed=3,
        model="auto",
        stream=True,
        logit_bias={"1": 2},
    )
    chat = task.chat
    assert chat is not None
    assert chat.messages[0] == {"role": "system", "content": "Be brief."}
    assert (chat.max_tokens, chat.temperature, chat.top_p, chat.stop, chat.seed) == (90, 1, 0.5, ("END",), 3)
    assert chat.model is None
    assert chat.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "offer", "schema": SCHEMA, "strict": True},
    }
    assert task.features is not None
    assert task.features.needs == ("json_schema", "tools")
    assert task.features.tokens_out_max == 90


def test_a_conversation_with_tools_and_images_is_kept_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}
    task = task_of(
        messages=[
            user([{"type": "text", "text": "What is this?"}, image]),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        ]
    )
    assert task.chat is not None
    assert task.features is not None
    assert task.chat.messages[1] == {"role": "assistant", "tool_calls": [call]}
    assert task.features.needs == ("tools", "vision")
    assert task.features.tokens_in > 800


def test_nothing_of_what_the_openai_client_usually_sends_is_lost() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}
    refused = {"type": "refusal", "refusal": "I will not."}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief.", "name": "house"},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image], "name": "ann"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "content": [{"type": "text", "text": "sunny"}], "tool_call_id": "c1"},
        {"role": "assistant", "refusal": "I cannot say."},
        {"role": "assistant", "content": [refused]},
    ]
    tool = {"type": "function", "function": {"name": "weather", "description": "now", "parameters": {}, "strict": True}}
    schema = {"name": "offer", "description": "what is offered", "schema": SCHEMA, "strict": False}
    same: dict[str, Any] = {
        "messages": messages,
        "tools": [tool],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "temperature": 0.3,
        "top_p": 0.9,
        "presence_penalty": -2,
        "frequency_penalty": 1.5,
        "stop": ["a", "b"],
        "seed": 1,
        "reasoning_effort": "low",
    }
    chat = task_of(**same, max_completion_tokens=9, logprobs=True, top_logprobs=3, prompt_cache_key="s").chat
    assert chat is not None
    assert chat.model_dump(mode="json", exclude_none=True) == same | {
            "max_tokens": 9,
            "logprobs": 3,
            "session": "s",
            "models": [],
            "deny": [],
        }


def test_null_fields_as_clients_send_them_are_as_if_they_were_not_there() -> None:
    nothing = ("refusal", "tool_calls", "function_call", "audio", "name")
    plain = {"role": "assistant", "content": "Hi"}
    fields = ("tools", "stop", "logprobs", "top_logprobs", "session", "prompt_cache_key", "reasoning_effort", "presence_penalty")
    task = task_of(messages=[plain | dict.fromkeys(nothing), user("Hello")], **dict.fromkeys(fields))
    assert task == task_of(messages=[plain, user("Hello")])
    assert task.failure is None


@pytest.mark.parametrize(
    ("body", "logprobs"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_log_probabilities_are_one_number_and_need_a_model_that_has_them(body: dict[str, Any], logprobs: int | None) -> None:
    task = task_of(prompt="a", **body)
    assert task.chat is not None
    assert task.features is not None
    assert task.chat.logprobs == logprobs
    assert task.features.needs == (() if logprobs is None else ("logprobs",))


@pytest.mark.parametrize(("effort", "needs"), [("none", ()), ("minimal", ("reasoning",)), ("max", ("reasoning",))])
def test_reasoning_that_is_asked_for_is_needed(effort: str, needs: tuple[str, ...]) -> None:
    task = task_of(prompt="a", reasoning_effort=effort)
    assert task.features is not None
    assert task.features.needs == needs


@pytest.mark.parametrize(
    ("body", "session"),
    [({"session": "a"}, "a"), ({"prompt_cache_key": "b"}, "b"), ({"session": "a", "prompt_cache_key": "b"}, "a")],
)
def test_a_session_may_be_named_in_batons_way_or_in_openais_and_batons_wins(body: dict[str, Any], session: str) -> None:
    chat = task_of(prompt="x", **body).chat
    assert chat is not None
    assert chat.session == session


def test_what_a_provider_wants_back_with_its_tool_call_is_kept() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    signed = call | {"extra_content": {"google": {"thought_signature": "c2lnbmVk"}}}
    chat = task_of(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [signed]}]).chat
    assert chat is not None
    assert chat.messages[1]["tool_calls"] == [signed]


def test_parallel_tool_calls_mean_nothing_without_tools() -> None:
    chat = task_of(prompt="a", parallel_tool_calls=True).chat
    assert chat is not None
    assert chat.parallel_tool_calls is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "prompt: missing"),
        ({"prompt": " "}, "prompt: must be a text that is not blank"),
        ({"prompt": 3}, "prompt: must be a text"),
        ({"prompt": "a", "system": 3}, "system: must be a text"),
        ({"prompt": "a", "messages": [user("b")]}, "prompt: not beside messages"),
        ({"system": "a", "messages": [user("b")]}, "system: not beside messages"),
        ({"messages": []}, "messages: must be a list of at least one message"),
        ({"messages": ["hi"]}, "messages[0]: must be an object"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role: must be one of system, developer, user"),
        ({"messages": [user("a"), user("b"), user(None)]}, "messages[2].content: must be a text, or a list"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0]: must be a part of type text or image_url"),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}])]},
            "image_url.url: must be",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id: must be a text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls[0]: needs id"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens: must be a whole number between 1 and"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens: must be a whole number"),
        ({"prompt": "a", "max_completion_tokens": 1.5}, "max_completion_tokens: must be a whole number"),
        ({"prompt": "a", "temperature": 2.1}, "temperature: must be a number between 0 and 2"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature: must be a number between 0 and 2"),
        ({"prompt": "a", "top_p": "x"}, "top_p: must be a number between 0 and 1"),
        ({"prompt": "a", "seed": 2**64}, "seed: must be a whole number"),
        ({"prompt": "a", "stop": ["a"] * 5}, "stop: must be a text, or a list of at most 4"),
        ({"prompt": "a", "n": 2}, "n: only 1"),
        ({"prompt": "a", "tools": {}}, "tools: must be a list"),
        ({"prompt": "a", "tools": [{"type": "function"}]}, "tools[0].function.name: missing"),
        (
            {"prompt": "a", "tools": [{"function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters: must be",
        ),
        ({"prompt": "a", "tools": [{"function": {"name": "f", "parameters": {"maximum": 2**70}}}]}, "tools: must be plain JSON"),
        ({"prompt": "a", "tool_choice": "required"}, "tool_choice: must be none, auto, required"),
        ({"prompt": "a", "tools": [TOOL], "tool_choice": {"function": {"name": "other"}}}, "tool_choice: must be"),
        ({"prompt": "a", "response_format": "json"}, "response_format.type: must be text, json_object or json_schema"),
        ({"prompt": "a", "model": 3}, "model: must be a text"),
        ({"prompt": "a", "presence_penalty": -2.1}, "presence_penalty: must be a number between -2 and 2"),
        ({"prompt": "a", "frequency_penalty": "1"}, "frequency_penalty: must be a number between -2 and 2"),
        ({"prompt": "a", "tools": [TOOL], "parallel_tool_calls": 1}, "parallel_tool_calls: must be true or false"),
        ({"prompt": "a", "reasoning_effort": "lots"}, "reasoning_effort: must be one of none, minimal, low"),
        ({"prompt": "a", "reasoning_effort": ["low"]}, "reasoning_effort: must be one of none, minimal, low"),
        ({"prompt": "a", "logprobs": 5}, "logprobs: must be true or false"),
        ({"prompt": "a", "logprobs": True, "top_logprobs": 21}, "top_logprobs: must be a whole number between 0 and 20"),
        ({"prompt": "a", "top_logprobs": 2}, "top_logprobs: only beside logprobs: true"),
        ({"prompt": "a", "session": ""}, "session: must be a text of 1 to 255 characters"),
        ({"prompt": "a", "prompt_cache_key": "k" * 256}, "prompt_cache_key: must be a text of 1 to 255 characters"),
        ({"messages": [{"role": "assistant", "refusal": 3}]}, "messages[0].refusal: must be a text"),
        ({"messages": [user([{"type": "refusal", "refusal": "no"}])]}, "messages[0].content[0]: must be a part of type text or"),
    ],
)
def test_a_wrong_body_is_told_its_field_and_its_fix(body: dict[str, Any], says: str) -> None:
    failure = failure_of(**body)
    assert failure.reason is Reason.INVALID_REQUEST
    assert says in failure.message


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ([], "must be an object"),
        ({"type": "objekt"}, "is not a valid JSON Schema at type"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "refer within the schema"),
        ({"$ref": "file:///etc/passwd"}, "refer within the schema"),
        ({"$schema": "http://127.0.0.1:9/meta"}, "is not a valid JSON Schema"),
        ({"$ref": "#/$defs/missing"}, "refer within the schema"),
        ({"enum": ["x" * 70_000]}, "must be at most 65536 bytes"),
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused_before_a_model_is_paid(schema: Any, says: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    message = failure_of(prompt="a", response_format=wanted).message
    assert message.startswith("response_format.json_schema.schema: ")
    assert says in message


def test_a_schema_whose_references_double_at_each_level_is_refused_at_once() -> None:
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(25)}
    schema = {"$ref": "#/$defs/l0", "$defs": levels | {"l25": {"type": "object"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert "must not expand" in failure_of(prompt="a", response_format=wanted).message


def test_a_recursive_schema_is_fine() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}, "items": {"items": {"$ref": "#/properties/next"}}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert task_of(prompt="a", response_format=wanted).failure is None


def test_every_problem_is_named_at_once_and_no_problem_quotes_the_caller() -> None:
    failure = failure_of(prompt=["s3cret"], temperature="s3cret", max_tokens=-1, stop=7, n=4, top_p=9, model=["s3cret"])
    assert failure.message.count(": ") >= 5
    assert "and 2 more" in failure.message
    assert "s3cret" not in failure.message


def test_an_unknown_pinned_model_is_refused_and_a_known_one_kept() -> None:
    assert failure_of(prompt="a", model="gpt-99").reason is Reason.UNKNOWN_MODEL
    chat = task_of(prompt="a", model="large").chat
    assert chat is not None
    assert chat.model == "large"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "ü" * 600},
        {"messages": [user([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}])]},
        {"prompt": "a", "tools": [{"function": {"name": "f", "description": "x" * 1000}}]},
        {"messages": [{"role": "assistant", "refusal": "x" * 1000}, user("a")]},
    ],
)
def test_a_prompt_over_the_policys_bytes_is_refused_whatever_makes_it_large(body: dict[str, Any]) -> None:
    failure = decide(body, {}, prompt_bytes_max=1000).failure
    assert failure is not None
    assert failure.reason is Reason.TOO_LARGE
    assert "allows 1000" in failure.message
    assert decide(body, {}, prompt_bytes_max=2000).failure is None


def test_a_failure_passes_on_untouched_and_identity_alone_makes_one() -> None:
    failure = a_failure()
    value = handled(Request(source="http", failure=failure)).value
    assert isinstance(value, Envelope)
    assert value.payload == Task(failure=failure)
    (out,) = Preprocessing(a_catalogue).failed(an_envelope(Task()), failure)
    assert out == handled(Request(source="http", failure=failure))


@pytest.mark.parametrize(
    ("text", "tokens", "within"),
    [  # counted with o200k_base
        ("Write a python function to copy a list from a singleton tuple.", 13, 0.4),
        ("The quick brown fox jumps over the lazy dog. " * 20, 201, 0.2),
        ("8472 9183.55 0x7ffe 2024-11-23T05:06:07Z 192.168.100.24 3.14159265358979 ", 43, 0.4),
        ("交通公司宣布明年票价将上涨百分之五。许多乘客对此感到不满,因为线路的服务质量最近并没有改善。", 31, 1.0),
    ],
)
def test_tokens_are_estimated_within_the_stated_error(text: str, tokens: int, within: float) -> None:
    assert tokens_of(text) == pytest.approx(tokens, rel=within)


def test_features_of_a_large_prompt_take_milliseconds_not_more() -> None:
    chat = a_chat("Größe und Maß. 交通公司 " * 5_000)
    started_s = time.process_time()
    assert features(chat).tokens_in > 20_000
    assert time.process_time() - started_s < 0.05


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France, and how do I get there?", "en"),
        ("Können Sie mir bitte erklären, wie das mit der Steuer funktioniert?", "de"),
        ("¿Cómo se puede llegar a la estación por la mañana?", "es"),
        ("Quelle est la différence entre les deux et pourquoi?", "fr"),
        ("交通公司宣布明年票价将上涨百分之五", "zh"),
        ("交通会社は来年、運賃を値上げすると発表しました", "ja"),
        ("Транспортная компания объявила", "ru"),
        ("7", "en"),
        ("", "en"),
    ],
)
def test_the_language_is_told_by_script_or_stop_words(text: str, language: str) -> None:
    assert features(a_chat(text)).language == language


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Write a Python function that reverses a list.", "code"),
        ("Fix this:\n```\nfor i in x\n```", "code"),
        ("What is 17 * 23?", "maths"),
        ("Ann has 3 apples and buys 4. How many has she?", "maths"),
        ("Extract name and price as JSON from: Ann paid 3 euros.", "extraction"),
        ("Translate this into German: good morning", "translation"),
        ("Bitte übersetze den Satz ins Englische.", "translation"),
        ("x " * 4_000 + "Please summarise the text above.", "summarisation"),
        ("Hello, how are you on this 2024-11-23?", "chat"),
        ("May the landlord sue the tenant for breach of the lease?", "law"),
        ("A patient has fever and abdominal pain. What is the diagnosis?", "medicine"),
        ("What happens to the wavelength of a photon in a gravitational field?", "physics"),
        ("How did the Roman empire treat its colonies after the war?", "history"),
        ("Translate this contract, which the court wants from the plaintiff, into German.", "translation"),
        ("Which enzyme copies the DNA of a cell before mitosis?", "biology"),
        ("Does a monopoly raise prices above the marginal cost of supply?", "economics"),
    ],
)
def test_the_domain_is_told_by_its_words_wherever_they_stand(text: str, domain: str) -> None:
    assert features(a_chat(text)).domain == domain


def test_complexity_rises_with_reasoning_and_stays_within_0_and_1() -> None:
    easy = features(a_chat("Say hello.")).complexity
    hard = features(a_chat("Prove the theorem, explain why it holds, and compare both proofs. " * 300)).complexity
    assert 0 <= easy < 0.3 < hard <= 1


@pytest.mark.parametrize(
    ("effort", "tokens_out_max"),
    [(None, 4096), ("none", 4096), ("low", 4096 + 1024), ("medium", 4096 + 8192), ("high", 4096 + 24_576)],
)
def test_an_effort_gets_room_for_thoughts_unless_the_caller_bounds_the_output(effort: str | None, tokens_out_max: int) -> None:
    assert features(a_chat("Say hello.", reasoning_effort=effort)).tokens_out_max == tokens_out_max
    assert features(a_chat("Say hello.", reasoning_effort=effort, max_tokens=500)).tokens_out_max == 500


def test_expected_output_never_exceeds_what_the_caller_allows() -> None:
    seen = features(a_chat("Write a Python function.", max_tokens=7))
    assert (seen.tokens_out, seen.tokens_out_max) == (7, 7)
