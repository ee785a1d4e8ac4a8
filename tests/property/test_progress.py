"""The low-water mark and its note, against a naive model."""

from hypothesis import given
from hypothesis import strategies as st

from shared.broker import Commit
from shared.progress import SPAN_LIMIT, Progress, finished_of

NOTE_CHARS_MAX = 4096   # the broker's offset.metadata.max.bytes


@given(st.integers(0, 5), st.lists(st.booleans(), max_size=80), st.lists(st.booleans(), max_size=80))
def test_two_lives_handle_every_offset_once_unless_it_was_open_at_the_crash(
    start: int, first: list[bool], second: list[bool]
) -> None:
    progress = Progress(Commit(start))
    handled = []
    for index, finishes in enumerate(first):
        assert progress.take(start + index)
        if finishes:
            progress.finish(start + index)
            handled.append(start + index)
    again = Progress(progress.commit())
    assert again.low == progress.low
    for offset in range(again.next, start + len(first)):
        if again.take(offset):
            again.finish(offset)
            handled.append(offset)
    assert sorted(handled) == list(range(start, start + len(first)))
    assert again.commit() == Commit(start + len(first))


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 60))
def test_a_second_crash_before_everything_was_read_again_forgets_nothing(finished: list[bool], read_again: int) -> None:
    progress = Progress(None)
    for offset, finishes in enumerate(finished):
        progress.take(offset)
        if finishes:
            progress.finish(offset)
    second = Progress(progress.commit())
    for offset in range(second.next, min(second.next + read_again, len(finished))):
        second.take(offset)
    third = Progress(second.commit())
    taken = [offset for offset in range(third.next, len(finished)) if third.take(offset)]
    assert taken == [offset for offset, finishes in enumerate(finished) if not finishes]


def test_the_widest_span_fits_into_the_broker_s_metadata() -> None:
    progress = Progress(None)
    for offset in range(SPAN_LIMIT):
        progress.take(offset)
    for offset in range(1, SPAN_LIMIT, 2):
        progress.finish(offset)
    commit = progress.commit()
    assert commit.offset == 0
    assert len(commit.note) < NOTE_CHARS_MAX
    assert finished_of(commit) == set(range(1, SPAN_LIMIT, 2))


def test_gaps_left_by_compaction_and_markers_do_not_hold_the_mark_back() -> None:
    progress = Progress(Commit(10))
    for offset in (10, 15, 17):
        progress.take(offset)
    progress.finish(15)
    assert progress.low == 10
    progress.finish(10)
    progress.finish(17)
    assert progress.commit() == Commit(18)


def test_a_note_of_another_origin_costs_a_replay_and_no_error() -> None:
    assert finished_of(Commit(5, "{json of some other client}")) == set()
    assert finished_of(Commit(5, "1***not base64***")) == set()


def test_a_transaction_commits_as_if_its_own_records_were_finished() -> None:
    progress = Progress(None)
    for offset in range(4):
        progress.take(offset)
    assert progress.commit(frozenset({0, 1})) == Commit(2)
    assert progress.low == 0
