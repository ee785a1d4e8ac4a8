"""Trace context: passed on when valid, begun otherwise."""

import pytest

from shared import trace

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RANDOM = bytes(range(1, 25))


@pytest.mark.parametrize(
    "text",
    [None, "", VALID.upper(), VALID + "-x", "ff" + VALID[2:], "00-" + "0" * 32 + VALID[35:], VALID[:36] + "0" * 16 + "-01",
     VALID + "\n", "é" * 55],
)  # fmt: skip
def test_a_traceparent_that_breaks_the_standard_is_replaced(text: str | None) -> None:
    assert not trace.valid(text)
    ((name, value),) = trace.taken_on(text, "vendor=1", RANDOM)
    assert (name, trace.valid(value.decode())) == ("traceparent", True)


def test_a_valid_one_is_passed_on_with_its_state() -> None:
    assert trace.taken_on(VALID, "a=1", RANDOM) == (("traceparent", VALID.encode()), ("tracestate", b"a=1"))
    assert trace.taken_on(VALID, "x" * 600, RANDOM) == (("traceparent", VALID.encode()),)
    assert trace.taken_on(VALID, "\udcff", RANDOM) == (("traceparent", VALID.encode()), ("tracestate", b"?"))
