"""Answers that came back lately: what they take stays under its limit, whatever their size."""

import tracemalloc

import pytest

from schemas.topology import REPLIES
from services.intake.replies import Replies
from shared.broker import Record


@pytest.mark.parametrize("answer_bytes", [250, 2_000, 100_000])
def test_what_is_remembered_of_answers_takes_no_more_than_its_limit(answer_bytes: int) -> None:
    limit = 1_000_000
    replies = Replies(limit)
    tracemalloc.start()
    try:
        for n in range(2 * limit // answer_bytes):
            replies.note(Record(REPLIES.name, 0, n, 0, f"{n:032x}".encode(), bytes(answer_bytes)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * limit < taken < 1.1 * limit
