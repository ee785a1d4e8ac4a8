"""Ids in little memory: what is remembered, what is given up for it, and how many bytes that takes."""

import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Header
from schemas.topology import RESULTS, topic_spec
from shared.broker import Output, Record
from shared.local import LocalBroker
from shared.logindex import SeenIds
from shared.recent import Recent

PARTITIONS = 6


def subject_of(record: Record) -> str | None:
    return record.header(Header.SUBJECT)


def filled(ids_max: int, ids: int) -> SeenIds:
    """By all partitions of a replica in turn."""
    seen = SeenIds(LocalBroker(), RESULTS, subject_of, ids_max)
    for number in range(ids):
        seen.add(number % PARTITIONS, f"{number:032x}", number)
    return seen


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 24)), max_size=200))
def test_an_id_is_found_unless_it_was_given_up_and_ids_that_never_came_are_not(added: list[tuple[int, int]]) -> None:
    recent, last, floor = Recent(), dict[int, int](), -1
    for at, (number, ids_max) in enumerate(added):
        last.setdefault(number, at)
        given_up = recent.add(f"id-{number}", last[number], ids_max)
        floor = floor if given_up is None else max(floor, given_up)
        assert f"id-{number}" in recent
        assert all(f"id-{known}" in recent for known, known_at in last.items() if known_at > floor)
    assert not any(f"other-{number}" in recent for number in range(100))


def test_the_newer_half_of_the_limit_is_always_remembered_and_never_more_than_all_of_it() -> None:
    recent = Recent()
    for number in range(200):
        recent.add(str(number), number, 30)
        kept = [known for known in range(number + 1) if str(known) in recent]
        assert all(after == before + 1 for before, after in pairwise(kept)), "the newest ones, without a gap"
        assert min(number + 1, 15) <= len(kept) <= 30


def test_the_limit_counts_all_partitions_of_a_replica_together() -> None:
    seen = filled(ids_max=600, ids=6_000)
    kept = [number for number in range(6_000) if seen.has(number % PARTITIONS, f"{number:032x}")]
    assert 300 <= len(kept) <= 600
    assert {number % PARTITIONS for number in kept[-PARTITIONS:]} == set(range(PARTITIONS))


def test_partitions_that_join_share_the_memory_of_those_that_were_there() -> None:
    seen = SeenIds(LocalBroker(), RESULTS, subject_of, 600)
    for number in range(1_000):
        seen.add(0, f"first-{number}", number)
    seen.forget(range(1, PARTITIONS))
    for number in range(6_000):
        seen.add(number % PARTITIONS, f"{number}", number)
    assert sum(seen.has(number % PARTITIONS, f"{number}") for number in range(6_000)) <= 600


def test_an_id_takes_at_most_24_bytes_whatever_it_looks_like() -> None:
    for ids_max in (8_000, 16_400):   # nearly the best and nearly the worst for tables that double
        tracemalloc.start()
        try:
            seen = filled(ids_max, 2 * ids_max)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        newest = 2 * ids_max - 1
        assert seen.has(newest % PARTITIONS, f"{newest:032x}")
        assert taken <= 24 * ids_max + 10_000


class CountedId(str):
    """Knows how many of its kind there are at once."""

    alive = most = 0

    def __new__(cls, text: str) -> "CountedId":
        CountedId.alive += 1
        CountedId.most = max(CountedId.most, CountedId.alive)
        return super().__new__(cls, text)

    def __del__(self) -> None:
        CountedId.alive -= 1


async def test_a_look_up_keeps_of_what_it_reads_only_what_it_was_asked_for() -> None:
    broker = LocalBroker()
    await broker.create_topics([topic_spec(RESULTS)])
    for number in range(500):
        broker.append(Output(RESULTS.name, b"k", b"{}", ((Header.SUBJECT, str(number).encode()),), 0))
    seen = SeenIds(broker, RESULTS, lambda record: CountedId(subject_of(record) or ""), 10)
    assert await seen.look_again(0, "250", 0)
    assert not await seen.look_again(0, "501", 0)
    assert CountedId.most <= 3


def test_memory_grows_with_what_is_remembered_not_with_the_limit() -> None:
    tracemalloc.start()
    recent = Recent()
    for number in range(5_000):
        recent.add(f"{number:032x}", number, 500_000)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 250_000
    assert all(f"{number:032x}" in recent for number in range(5_000))
