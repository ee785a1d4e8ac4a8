"""What a dialect makes of one answer: its shape, its usage, its finish, its events."""

from types import ModuleType
from typing import Any

import orjson
import pytest

from services.simulator import dialect_anthropic, dialect_azure, dialect_gemini, dialect_openai
from services.simulator.call import Answer, Call, Usage

HELLO = [{"role": "user", "content": "Hello"}]
DIALECTS = {"openai": dialect_openai, "azure": dialect_azure, "anthropic": dialect_anthropic, "gemini": dialect_gemini}


def a_call(**fields: Any) -> Call:
    return dialect_openai.parse(orjson.dumps({"model": "sim-scenario-fallback", "messages": HELLO, **fields}))


CALL = a_call()
USAGE = Usage(tokens_in=2000, tokens_out=50, cached_tokens=1024, reasoning_tokens=20, cache_write_tokens=0)
SAID = Answer("Hello you there", reasoning_tokens=0)
TOOL = Answer('{"city":"Bonn"}', "tool_calls", "get_weather")


def body_of(dialect: ModuleType, said: Answer, usage: Usage = USAGE, call: Call = CALL) -> Any:
    return orjson.loads(dialect.completion(call, said, usage, "0123456789abcdef01234567", 1_700_000_000))


def events_of(dialect: ModuleType, said: Answer, usage: Usage = USAGE, call: Call = CALL) -> list[Any]:
    chunks = dialect.chunks(call, said, usage, "0123456789abcdef01234567", 1_700_000_000)
    raw = chunks.first() + b"".join(event for _, event in chunks.pieces()) + chunks.last(usage)
    lines = [line.removeprefix("data: ") for line in raw.decode().splitlines()]
    return [orjson.loads(line) for line in lines if line.startswith("{")]


def test_usage_is_counted_as_each_provider_counts_it() -> None:
    counted = body_of(dialect_openai, SAID)["usage"]
    assert (counted["prompt_tokens"], counted["completion_tokens"], counted["total_tokens"]) == (2000, 50, 2050)
    assert counted["prompt_tokens_details"] == {"cached_tokens": 1024}
    assert counted["completion_tokens_details"] == {"reasoning_tokens": 20}
    written = Usage(2000, 50, cached_tokens=256, cache_write_tokens=512)
    assert body_of(dialect_anthropic, SAID, written)["usage"] == {
        "input_tokens": 1232,
        "cache_creation_input_tokens": 512,
        "cache_read_input_tokens": 256,
        "output_tokens": 50,
        "service_tier": "standard",
    }
    assert body_of(dialect_gemini, SAID)["usageMetadata"] == {
        "promptTokenCount": 2000,
        "candidatesTokenCount": 30,
        "totalTokenCount": 2050,
        "cachedContentTokenCount": 1024,
        "thoughtsTokenCount": 20,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2000}],
    }


def test_an_anthropic_message_has_its_shape() -> None:
    message = body_of(dialect_anthropic, SAID, Usage(10, 4))
    assert message == {
        "id": "msg_0123456789abcdef01234567",
        "type": "message",
        "role": "assistant",
        "model": "sim-scenario-fallback",
        "content": [{"type": "text", "text": "Hello you there"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": message["usage"],
    }
    assert body_of(dialect_anthropic, Answer(""))["content"] == []
    tool = {"type": "tool_use", "id": "toolu_0123456789abcdef01234567", "name": "get_weather", "input": {"city": "Bonn"}}
    assert (body_of(dialect_anthropic, TOOL)["content"], body_of(dialect_anthropic, TOOL)["stop_reason"]) == ([tool], "tool_use")


def test_a_gemini_response_has_its_shape() -> None:
    response = body_of(dialect_gemini, SAID, Usage(10, 4))
    content = {"parts": [{"text": "Hello you there"}], "role": "model"}
    assert response == {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": response["usageMetadata"],
        "modelVersion": "sim-scenario-fallback",
        "responseId": "0123456789abcdef01234567",
    }
    assert body_of(dialect_gemini, Answer(""))["candidates"][0]["content"] == {"role": "model"}
    (part,) = body_of(dialect_gemini, TOOL)["candidates"][0]["content"]["parts"]
    assert part == {"functionCall": {"name": "get_weather", "args": {"city": "Bonn"}}}


def test_an_azure_answer_is_openais_with_the_filters_results() -> None:
    plain, filtered = body_of(dialect_openai, SAID), body_of(dialect_azure, SAID)
    assert filtered.pop("prompt_filter_results")[0]["content_filter_results"]["jailbreak"] == {
        "filtered": False,
        "detected": False,
    }
    assert filtered["choices"][0].pop("content_filter_results")["hate"] == {"filtered": False, "severity": "safe"}
    assert filtered == plain
    first, *others = events_of(dialect_azure, SAID)
    assert (first["choices"], first["prompt_filter_results"][0]["prompt_index"]) == ([], 0)
    assert all("content_filter_results" in one["choices"][0] for one in others if one["choices"])


@pytest.mark.parametrize(
    ("said", "openai_finish", "anthropic_finish", "gemini_finish"),
    [
        (SAID, "stop", "end_turn", "STOP"),
        (Answer("Hel", "length"), "length", "max_tokens", "MAX_TOKENS"),
        (TOOL, "tool_calls", "tool_use", "STOP"),
        (Answer("Hello ", stop_text="you"), "stop", "stop_sequence", "STOP"),
        (Answer('{"ci', "tool_calls", "get_weather"), "tool_calls", "tool_use", "MALFORMED_FUNCTION_CALL"),
        (Answer('{"ci', "length", "get_weather"), "length", "max_tokens", "MAX_TOKENS"),
    ],
)
def test_an_answer_finishes_as_each_provider_says_it(
    said: Answer, openai_finish: str, anthropic_finish: str, gemini_finish: str
) -> None:
    assert body_of(dialect_openai, said)["choices"][0]["finish_reason"] == openai_finish
    message = body_of(dialect_anthropic, said)
    assert (message["stop_reason"], message["stop_sequence"] or "") == (anthropic_finish, said.stop_text)
    assert body_of(dialect_gemini, said)["candidates"][0]["finishReason"] == gemini_finish
    *_, delta = events_of(dialect_anthropic, said)
    assert delta["delta"]["stop_reason"] == anthropic_finish
    *_, last = events_of(dialect_gemini, said)
    assert last["candidates"][0]["finishReason"] == gemini_finish


def test_an_anthropic_stream_has_its_events_in_order() -> None:
    events = events_of(dialect_anthropic, SAID, Usage(10, 4))
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "ping", "content_block_delta", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta",
    ]  # fmt: skip
    assert events[0]["message"]["usage"]["input_tokens"] == 10
    assert "".join(event["delta"]["text"] for event in events[3:6]) == SAID.text
    assert events[-1]["usage"]["output_tokens"] == 4


def test_an_anthropic_stream_thinks_aloud_in_a_block_of_its_own() -> None:
    events = events_of(dialect_anthropic, Answer("Hello", reasoning_tokens=9))
    blocks = [(event["index"], event["content_block"]["type"]) for event in events if event["type"] == "content_block_start"]
    assert blocks == [(0, "thinking"), (1, "text")]
    deltas = [(event["index"], event["delta"]) for event in events if event["type"] == "content_block_delta"]
    assert len("".join(delta.get("thinking", "") for _, delta in deltas)) == 9 * 4
    assert [(index, delta["type"]) for index, delta in deltas[-2:]] == [(0, "signature_delta"), (1, "text_delta")]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1]
    plain = body_of(dialect_anthropic, Answer("Hello", reasoning_tokens=9))
    assert [block["type"] for block in plain["content"]] == ["thinking", "text"]


def test_an_anthropic_stream_without_an_answer_has_no_block_for_it() -> None:
    assert [event["type"] for event in events_of(dialect_anthropic, Answer(""))] == ["message_start", "ping", "message_delta"]
    types = [event["type"] for event in events_of(dialect_anthropic, Answer("", reasoning_tokens=1))]
    assert (types.count("content_block_start"), types.count("content_block_stop")) == (1, 1)


def test_a_streamed_tool_call_comes_in_fragments_from_anthropic_and_whole_from_gemini() -> None:
    events = events_of(dialect_anthropic, Answer('{"city": "Bonn am Rhein"}', "tool_calls", "get_weather"))
    block = next(event["content_block"] for event in events if event["type"] == "content_block_start")
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", {})
    fragments = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert len(fragments) > 1
    assert orjson.loads("".join(fragments)) == {"city": "Bonn am Rhein"}
    first, _ = events_of(dialect_gemini, TOOL)
    assert first["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {"city": "Bonn"}


def test_log_probabilities_are_negative_seeded_and_as_many_as_tokens_plain_and_streamed() -> None:
    call = a_call(logprobs=True, top_logprobs=2)
    plain = body_of(dialect_openai, SAID, call=call)["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in plain) == SAID.text
    assert bytes(plain[0]["bytes"]) == b"Hello"
    assert len({token["logprob"] for token in plain}) == len(plain)
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 2 for token in plain)
    assert plain[0]["top_logprobs"][0]["logprob"] == plain[0]["logprob"] >= plain[0]["top_logprobs"][1]["logprob"]
    streamed = [event["choices"][0]["logprobs"] for event in events_of(dialect_openai, SAID, call=call) if event["choices"]]
    assert [token for found in streamed if found for token in found["content"]] == plain
    assert body_of(dialect_openai, SAID, call=call) == body_of(dialect_openai, SAID, call=call)

    candidate = body_of(dialect_gemini, SAID, call=call)["candidates"][0]
    chosen = candidate["logprobsResult"]["chosenCandidates"]
    assert [token["logProbability"] for token in chosen] == [token["logprob"] for token in plain]
    assert candidate["avgLogprobs"] == pytest.approx(sum(token["logprob"] for token in plain) / len(plain))
    assert len(candidate["logprobsResult"]["topCandidates"][0]["candidates"]) == 2


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_an_odd_text_is_still_json(dialect: ModuleType) -> None:
    said = Answer('quote " newline \n emoji 🙂 end')
    raw = dialect.completion(CALL, said, USAGE, "r", 1)
    assert "🙂" in raw.decode()
    assert events_of(dialect, said)
