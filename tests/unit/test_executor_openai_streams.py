"""OpenAI's dialect, streamed: tool calls in fragments, refusals, thoughts, log-probabilities, other servers' ways."""

import pytest

from schemas.ledger import FailureClass, Usage
from services.executor.adapters import openai
from services.executor.reply import Reply
from tests.support.streams import TEXT, TOKENS_IN, TOKENS_OUT, event, openai_chunk, openai_events, openai_usage


def read(*pieces: bytes) -> Reply:
    stream = openai.stream({})
    for piece in pieces:
        stream.feed(piece)
    return stream.result()


def text_of(reply: Reply) -> str | None:
    return None if reply.answer is None else reply.answer.text


def test_an_empty_finish_reason_does_not_end_an_answer() -> None:
    stream = openai.stream({})
    stream.feed(event(openai_chunk({"role": "assistant", "content": "4"}, "")))
    assert not stream.finished
    stream.feed(event(openai_chunk({"content": "2"}, "")) + event(openai_chunk({}, "stop")))
    assert stream.finished
    assert text_of(stream.result()) == "42"
    assert read(event(openai_chunk({"content": "4"}, ""))).failure is FailureClass.TRUNCATED


def fragment(index: int | None, arguments: str, id: str = "", name: str = "") -> bytes:
    call: dict[str, object] = {"function": {"arguments": arguments} | ({"name": name} if name else {})}
    call |= ({} if index is None else {"index": index}) | ({"id": id, "type": "function"} if id else {})
    return event(openai_chunk({"tool_calls": [call]}))


def calls_of(*events: bytes) -> list[tuple[str, str, str]]:
    reply = read(*events, event(openai_chunk({}, "tool_calls")), event(b"[DONE]"))
    assert reply.answer is not None
    assert (reply.answer.finish, reply.answer.text) == ("tool_calls", "")
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in reply.answer.tool_calls]


def test_tool_calls_are_put_together_by_index() -> None:
    events = [
        event(openai_chunk({"role": "assistant", "content": None})),
        fragment(0, "", "call_a", "weather"),
        fragment(0, '{"pla'),
        fragment(1, "", "call_b", "now"),
        fragment(0, 'ce":1}'),
        fragment(1, "{}"),
    ]
    assert calls_of(*events) == [("call_a", "weather", '{"place":1}'), ("call_b", "now", "{}")]
    assert calls_of(events[0], events[1], events[1], *events[2:]) == calls_of(*events)   # a head that comes twice is one


@pytest.mark.parametrize("index", [0, None])
def test_whole_tool_calls_that_share_an_index_are_two(index: int | None) -> None:
    found = calls_of(fragment(index, '{"a":1}', "x", "f"), fragment(index, '{"b":2}', "y", "f"))
    assert found == [("x", "f", '{"a":1}'), ("y", "f", '{"b":2}')]


def test_a_tool_call_without_an_id_gets_one() -> None:
    assert calls_of(fragment(0, "{}", "", "f"), fragment(1, "{}", "", "g")) == [("call_0", "f", "{}"), ("call_1", "g", "{}")]


def test_thoughts_start_a_stream_and_are_no_text() -> None:
    stream = openai.stream({})
    stream.feed(event(openai_chunk({"reasoning_content": "Hm, let me think"})))
    assert stream.started
    for one in openai_events(["42"]):
        stream.feed(one)
    assert text_of(stream.result()) == "42"


def test_a_streamed_refusal_is_an_answer() -> None:
    events = [event(openai_chunk({"refusal": part})) for part in ("I'm ", "sorry")]
    assert text_of(read(*events, event(openai_chunk({}, "stop")))) == "I'm sorry"


def test_a_streamed_filter_is_no_answer() -> None:
    end = [event(openai_chunk({}, "content_filter")), event(openai_chunk(usage=openai_usage()))]
    reply = read(*openai_events()[:6], *end)
    assert reply.failure is FailureClass.CONTENT_FILTERED
    assert reply.usage == Usage(tokens_in=TOKENS_IN, tokens_out=TOKENS_OUT)


def test_streamed_log_probabilities_are_put_together() -> None:
    def chunk(token: str) -> bytes:
        content = [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}]
        choice = {"index": 0, "delta": {"content": token}, "logprobs": {"content": content}, "finish_reason": None}
        return event(openai_chunk(choices=[choice]))

    reply = read(chunk("4"), chunk("2"), event(openai_chunk({}, "stop")))
    assert reply.answer is not None
    assert [token["token"] for token in reply.answer.logprobs] == ["4", "2"]


def test_azures_first_chunk_without_choices_and_its_late_annotations_are_no_text() -> None:
    first = event({"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    late = event(openai_chunk(choices=[{"index": 0, "finish_reason": None, "content_filter_results": {}}]))
    events = openai_events()
    assert text_of(read(first, *events[:5], late, *events[5:])) == TEXT


def test_groqs_usage_is_found_where_it_is() -> None:
    last = event(openai_chunk({}, "stop", x_groq={"id": "req_1", "usage": openai_usage()}))
    assert read(*openai_events()[:-3], last, event(b"[DONE]")).usage == Usage(tokens_in=25, tokens_out=40)


def test_running_counts_of_a_stream_that_broke_off_are_nobodys_bill() -> None:
    stream = openai.stream({})
    for counted in (1, 2):
        usage = {"prompt_tokens": 10, "completion_tokens": counted, "total_tokens": 10 + counted}
        stream.feed(event(openai_chunk({"content": "x"}) | {"usage": usage}))
    reply = stream.result(FailureClass.STALLED)
    assert reply.usage is not None
    assert reply.usage.estimated
