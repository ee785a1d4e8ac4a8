"""Streams in all three dialects: whatever happens to their bytes, an answer is whole or none."""

import itertools
import time

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.ledger import FailureClass, Usage
from services.executor.adapters import ADAPTERS, Stream
from services.executor.adapters.sse import Events
from services.executor.reply import Reply
from tests.support.streams import (
    EVENTS,
    TEXT,
    TOKENS_IN,
    TOKENS_OUT,
    WORDS,
    anthropic_end,
    anthropic_start,
    anthropic_text,
    event,
    gemini_piece,
    openai_chunk,
    openai_usage,
    typed,
)

DIALECTS = tuple(EVENTS)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS)
dialects = st.sampled_from(DIALECTS)


def reader(dialect: str) -> Stream:
    return ADAPTERS[dialect].stream({"x-request-id": "req_1", "request-id": "req_1"})


def read(dialect: str, *pieces: bytes, broken: FailureClass | None = None) -> Reply:
    stream = reader(dialect)
    for piece in pieces:
        stream.feed(piece)
    return stream.result(broken)


def text_of(reply: Reply) -> str | None:
    return None if reply.answer is None else reply.answer.text


# Events ------------------------------------------------------------------------------------------------------------


def split(body: bytes, *cuts: int) -> list[bytes]:
    places = [0, *sorted(cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


def data_of(*pieces: bytes) -> list[bytes]:
    events = Events()
    return [data for piece in pieces for data in events.feed(piece)] + events.end()


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"data: 1\n\ndata:2\n\n", [b"1", b"2"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
        (b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
        (b": keep-alive\n\ndata: 1\n\n:\n\n", [b"1"]),
        (b"event: x\nid: 7\nretry: 9\ndata: 1\n\n", [b"1"]),
        (b"data: {\ndata: }\n\n", [b"{\n}"]),
        (b"data: 1\n\n\n\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\n\ndata: 2", [b"1", b"2"]),   # the blank line at the end is often forgotten
        (b"data: 1\n\ndata: 2\r\n", [b"1", b"2"]),
        (b"data:  1\n\n", [b" 1"]),
        (b"event: x\n\n", []),
        (b'data: 1\n\n{"error":2}\n', [b"1", b'{"error":2}']),   # bare, as some servers say their last word
        (b"", []),
    ],
)
def test_events_are_found(body: bytes, data: list[bytes]) -> None:
    assert data_of(body) == data
    assert data_of(*(bytes([byte]) for byte in body)) == data
    for at in range(len(body)):
        assert data_of(*split(body, at)) == data


def test_a_long_event_in_small_pieces_is_not_quadratic() -> None:
    events, piece = Events(), b"x" * 64
    began_s = time.process_time()
    events.feed(b"data: ")
    for _ in range(50_000):
        events.feed(piece)
    (data,) = events.feed(b"\n\n")
    assert len(data) == 3_200_000
    assert time.process_time() - began_s < 1


# Whole streams -----------------------------------------------------------------------------------------------------


@each_dialect
def test_a_whole_stream_is_an_answer(dialect: str) -> None:
    reply = read(dialect, *EVENTS[dialect]())
    assert reply.failure is None
    assert reply.answer is not None
    assert (reply.answer.text, reply.answer.finish) == (TEXT, "stop")
    assert reply.usage == reply.answer.usage == Usage(tokens_in=TOKENS_IN, tokens_out=TOKENS_OUT)
    assert reply.model_served == reply.answer.model_served == "m-1"
    assert reply.provider_request_id == reply.answer.provider_request_id == ("resp-1" if dialect == "gemini" else "req_1")
    assert reply.streamed


@given(dialects, st.lists(st.integers(0, 4000), max_size=12), st.booleans())
def test_a_stream_may_be_cut_into_any_pieces(dialect: str, cuts: list[int], with_crlf: bool) -> None:
    body = b"".join(EVENTS[dialect]())
    body = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if with_crlf else body
    assert text_of(read(dialect, *split(body, *(min(cut, len(body)) for cut in cuts)))) == TEXT


@each_dialect
def test_a_stream_that_ends_anywhere_is_whole_or_no_answer(dialect: str) -> None:
    """Every byte: ended by itself, and broken off. A part of the text is never an answer."""
    body = b"".join(EVENTS[dialect]())
    whole = 0
    for at in range(len(body) + 1):
        for broken in (None, FailureClass.TRUNCATED, FailureClass.STALLED, FailureClass.TIMEOUT):
            reply = read(dialect, body[:at], broken=broken)
            assert text_of(reply) in (None, TEXT)
            assert (reply.answer is None) == (reply.failure is not None)
            whole += reply.answer is not None
            if broken is not None and reply.answer is None:
                assert reply.failure is broken
    assert whole > 0


@given(dialects, st.integers(0, 17), st.integers(0, 400), st.binary(min_size=1, max_size=4))
@example("gemini", 0, 0, b"\n")
def test_a_stream_with_garbage_in_it_is_whole_or_no_answer(dialect: str, at: int, offset: int, garbage: bytes) -> None:
    """Bytes of one event overwritten: if it is no JSON any more, the text is whole all the same, or there is none."""
    events = EVENTS[dialect]()
    at = min(at, len(events) - 1)
    offset = 6 + offset % max(1, len(events[at]) - 10)
    events[at] = events[at][:offset] + garbage + events[at][offset + len(garbage) :]
    if not all(data == b"[DONE]" or is_json(data) for data in data_of(*events)):
        assert text_of(read(dialect, *events)) in (None, TEXT)


def is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


@each_dialect
def test_an_event_that_is_no_json_ends_the_call_at_once(dialect: str) -> None:
    events = EVENTS[dialect]()
    stream = reader(dialect)
    for one in (*events[:8], event(b'{"id": "chatc')):
        stream.feed(one)
    assert stream.over
    reply = stream.result()
    assert reply.failure is FailureClass.MALFORMED
    assert reply.tokens_seen > 0
    assert reply.usage is not None
    assert reply.usage.estimated


@pytest.mark.parametrize(
    "lost", [b"null", b"[]", b"5", b'"text"', b'{"choices": "x"}', b'{"choices": [{"delta": {"content": 5}}]}']
)
def test_an_event_of_another_shape_is_lost_text(lost: bytes) -> None:
    assert read("openai", *EVENTS["openai"]()[:5], event(lost)).failure is FailureClass.MALFORMED


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_behind_the_finish_reason_nothing_can_be_lost(dialect: str) -> None:
    events = EVENTS[dialect]()
    finish = next(at for at, one in enumerate(events) if b'"stop"' in one or b"end_turn" in one)
    reply = read(dialect, *events[: finish + 1], event(b'{"usa'), event({"error": {"message": "late"}, "type": "error"}))
    assert text_of(reply) == TEXT
    assert text_of(read(dialect, *events[: finish + 1], broken=FailureClass.TRUNCATED)) == TEXT


def test_a_gemini_stream_is_whole_only_when_its_body_ends() -> None:
    """Some models give a finish reason with every piece."""
    pieces = [event(gemini_piece({"text": word}, finish="STOP")) for word in WORDS]
    stream = reader("gemini")
    for piece in pieces:
        stream.feed(piece)
        assert not stream.finished
    assert read("gemini", *pieces[:5], broken=FailureClass.TRUNCATED).failure is FailureClass.TRUNCATED
    assert text_of(stream.result()) == TEXT


def test_a_stream_without_an_end_marker_is_whole() -> None:
    events = EVENTS["openai"]()
    assert text_of(read("openai", *events[:-1])) == TEXT
    assert text_of(read("openai", *events[:-2])) == TEXT
    no_usage = read("openai", *events[:-2], events[-1])
    assert no_usage.usage is not None
    assert no_usage.usage.estimated
    assert no_usage.usage.tokens_out >= len(WORDS)


def test_an_end_marker_alone_proves_nothing() -> None:
    reply = read("openai", *EVENTS["openai"]()[:8], event(b"[DONE]"))
    assert reply.failure is FailureClass.TRUNCATED
    assert read("openai", event(b"[DONE]")).failure is not None


@each_dialect
def test_a_body_without_events_is_malformed(dialect: str) -> None:
    assert read(dialect, b"<html>502 Bad Gateway</html>").failure is FailureClass.MALFORMED
    assert read(dialect).failure is FailureClass.MALFORMED


@each_dialect
def test_keep_alives_are_no_sign_of_an_answer(dialect: str) -> None:
    stream = reader(dialect)
    stream.feed(b": OPENROUTER PROCESSING\n\n")
    if dialect == "anthropic":
        stream.feed(typed("ping"))
    assert (stream.started, stream.alive) == (False, 0)
    for one in EVENTS[dialect]():
        stream.feed(one)
    assert (stream.started, stream.alive > 0) == (True, True)


@each_dialect
@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=20))
@example(["a", "a", "a", "a"])
def test_repeated_words_are_no_copies(dialect: str, words: list[str]) -> None:
    try:
        events = EVENTS[dialect](words)
    except TypeError:
        return   # a lone surrogate is no JSON
    assert text_of(read(dialect, *events)) == "".join(words)


# Errors in streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"message": "boom", "type": "InternalServerError", "param": None, "code": 500}, "stream_error"),
        ({"message": "overloaded", "code": "server_is_overloaded"}, "stream_error"),
        ({"message": "Provider disconnected", "code": 502}, "stream_error"),
        ({"message": "Rate limit reached. Try again in 2s.", "code": "rate_limit_exceeded"}, "rate_limited"),
        ({"message": "Token rate limit exceeded. Please retry after 2 seconds.", "code": "429"}, "rate_limited"),
        ({"message": "maximum context length is 1024 tokens", "param": "input_tokens", "code": 400}, "context_length"),
        ("model 'x' not found, try pulling it first", "not_found"),
    ],
)
def test_an_error_chunk_before_the_end_marker_is_an_error(error: object, failure: str) -> None:
    reply = read("openai", *EVENTS["openai"]()[:9], event({"error": error}), event(b"[DONE]"))
    assert reply.failure == failure
    assert reply.tokens_seen > 0
    assert reply.wait_ms == (2000 if failure == "rate_limited" else None)


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("overloaded_error", "stream_error"),
        ("api_error", "stream_error"),
        ("rate_limit_error", "rate_limited"),
        ("new_error", "stream_error"),
    ],
)
def test_an_error_event_of_anthropics_is_an_error(kind: str, failure: str) -> None:
    error = typed("error", error={"type": kind, "message": "no"})
    reply = read("anthropic", *EVENTS["anthropic"]()[:9], error)
    assert reply.failure == failure
    assert reply.usage is not None
    assert (reply.usage.tokens_in, reply.usage.estimated) == (TOKENS_IN, True)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}, "stream_error"),
        ({"code": 500, "message": "Internal", "status": "INTERNAL"}, "stream_error"),
        ({"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}, "rate_limited"),
    ],
)
def test_an_error_of_geminis_in_a_stream_is_an_error(error: object, failure: str) -> None:
    assert read("gemini", *EVENTS["gemini"]()[:4], event({"error": error})).failure == failure
    assert read("gemini", event([{"error": error}])).failure == failure


# Copies ------------------------------------------------------------------------------------------------------------


def test_padded_chunks_that_are_equal_are_one() -> None:
    padded = [event(openai_chunk({"content": word}, obfuscation=f"{place:x}")) for place, word in enumerate(WORDS)]
    events = [*padded[:4], padded[3], *padded[4:], event(openai_chunk({}, "stop"))]
    assert text_of(read("openai", *events)) == TEXT


def test_more_chunks_than_tokens_are_copies() -> None:
    words = [event(openai_chunk({"content": word})) for word in WORDS]
    end = [event(openai_chunk({}, "stop")), event(openai_chunk(usage=openai_usage(len(WORDS))))]
    assert text_of(read("openai", *words, *end)) == TEXT
    assert read("openai", *words[:4], words[3], *words[4:], *end).failure is FailureClass.MALFORMED


def test_a_gemini_piece_that_counts_no_more_is_a_copy() -> None:
    events = EVENTS["gemini"]()
    assert text_of(read("gemini", *events[:4], events[3], *events[4:])) == TEXT


def test_a_block_that_is_opened_twice_is_one() -> None:
    events = [anthropic_start(), anthropic_start(), *anthropic_text(0), *anthropic_end()]
    assert text_of(read("anthropic", *events[:3], events[2], *events[3:])) == TEXT


@pytest.mark.parametrize("missing", [2, -3])
def test_a_block_without_its_beginning_or_end_is_malformed(missing: int) -> None:
    events = [anthropic_start(), *anthropic_text(0), *anthropic_text(1), *anthropic_end()]
    del events[1 if missing == 2 else missing]
    assert read("anthropic", *events).failure is FailureClass.MALFORMED


# What came of a broken stream --------------------------------------------------------------------------------------


@each_dialect
def test_a_broken_stream_says_how_much_was_seen(dialect: str) -> None:
    events = EVENTS[dialect]()
    few, many = (read(dialect, *events[:at], broken=FailureClass.TRUNCATED) for at in (8, 14))
    assert 0 < few.tokens_seen < many.tokens_seen <= TOKENS_OUT
    assert few.usage is not None
    assert (few.usage.tokens_out, few.usage.estimated) == (few.tokens_seen, True)
    assert few.usage.tokens_in == (0 if dialect == "openai" else TOKENS_IN)


def test_what_was_seen_is_counted_by_events_or_by_letters_whichever_is_more() -> None:
    chunks = {words: [event(openai_chunk({"content": word})) for word in words] for words in (("a", "b", "c"), ("x" * 40,))}
    seen = [read("openai", *events, broken=FailureClass.STALLED).tokens_seen for events in chunks.values()]
    assert seen == [3, 10]


@each_dialect
def test_a_body_that_ends_within_an_event_is_truncated(dialect: str) -> None:
    events = EVENTS[dialect]()
    assert read(dialect, *events[:8], events[8][:-20]).failure is FailureClass.TRUNCATED
