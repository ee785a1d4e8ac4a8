"""Claims: whoever stands first in the log has won, on every replica, for a day."""

import asyncio
import gc
import hashlib
import tracemalloc

import pytest

from schemas.messages import Claim
from schemas.topology import DAY_MS, IDEMPOTENCY
from services.intake import idempotency
from services.intake.decide import claim_of
from services.intake.idempotency import Claims, digest_of
from shared.broker import Output, Record
from shared.codec import encode
from shared.errors import BrokerUnavailableError
from tests.support.builders_edge import NOW_MS, FixedClock, a_replica, requests_in


class Log:
    """The topic as a list: what is written is read by all replicas when `deliver` says so."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.records: list[Record] = []
        self.replicas: list[Claims] = []
        self.read = 0

    async def write(self, output: Output) -> None:
        record = Record(IDEMPOTENCY.name, 0, len(self.records), self.clock.ms, output.key, output.value)
        self.records.append(record)

    def deliver(self) -> None:
        for record in self.records[self.read :]:
            for replica in self.replicas:
                replica.note(record)
        self.read = len(self.records)

    def replica(self, claims_max: int = 100) -> Claims:
        claims = Claims(self.write, self.clock, claims_max)
        for record in self.records[: self.read]:
            claims.note(record)
        self.replicas.append(claims)
        return claims


@pytest.fixture
def log() -> Log:
    return Log(FixedClock())


def a_claim(request_id: str, fingerprint: str = "f") -> Claim:
    return Claim(request_id=request_id, fingerprint=fingerprint, claimed_ms=NOW_MS)


async def asked(claims: Claims, log: Log, digest: str, proposal: Claim) -> Claim:
    """Ask, let everything that is written be read, and say who won."""
    task = asyncio.create_task(claims.claim(digest, proposal))
    while not task.done():
        await asyncio.sleep(0)
        log.deliver()
    return task.result()


async def test_the_first_claim_in_the_log_wins_on_every_replica(log: Log) -> None:
    one, two = log.replica(), log.replica()
    first = asyncio.create_task(one.claim("d", a_claim("a", "f")))
    second = asyncio.create_task(two.claim("d", a_claim("b", "g")))
    while len(log.records) < 2:
        await asyncio.sleep(0)
    log.deliver()
    assert await first == await second == a_claim("a", "f")
    assert await log.replica().claim("d", a_claim("c")) == a_claim("a", "f")


async def test_a_known_key_is_not_written_again(log: Log) -> None:
    claims = log.replica()
    for name in ("a", "b", "c"):
        assert await asked(claims, log, "d", a_claim(name)) == a_claim("a")
    assert len(log.records) == 1


async def test_callers_that_ask_together_write_one_claim_and_share_its_winner(log: Log) -> None:
    claims = log.replica()
    tasks = [asyncio.create_task(claims.claim("d", a_claim(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()   # whoever asked first hangs up
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        log.deliver()
    assert {task.result().request_id for task in tasks[1:]} == {"0"}
    assert len(log.records) == 1


async def test_a_key_is_free_again_a_day_after_the_log_took_its_claim(log: Log) -> None:
    claims = log.replica()
    await asked(claims, log, "d", a_claim("a"))
    log.clock.ms += DAY_MS - 1
    assert (await asked(claims, log, "d", a_claim("b"))).request_id == "a"
    log.clock.ms += 1
    assert (await asked(claims, log, "d", a_claim("c"))).request_id == "c"
    log.clock.ms += DAY_MS - 1
    assert (await asked(claims, log, "d", a_claim("e"))).request_id == "c"


async def test_a_replica_whose_clock_runs_ahead_bows_to_the_log(log: Log) -> None:
    claims = log.replica()
    await asked(claims, log, "d", a_claim("a"))
    ahead = FixedClock(log.clock.ms + DAY_MS + 60_000)
    fast = Claims(log.write, ahead)
    log.replicas.append(fast)
    fast.note(log.records[0])
    assert (await asked(fast, log, "d", a_claim("b"))).request_id == "a"


async def test_the_oldest_claims_are_forgotten_when_there_are_too_many(log: Log) -> None:
    claims = log.replica(claims_max=3)
    for n in range(5):
        await asked(claims, log, f"d{n}", a_claim(f"r{n}"))
    assert (len(claims), claims.forgotten) == (3, 2)


async def test_claims_that_are_over_make_room_without_being_counted_as_forgotten(log: Log) -> None:
    claims = log.replica(claims_max=1)
    await asked(claims, log, "d", a_claim("a"))
    log.clock.ms += DAY_MS
    await asked(claims, log, "e", a_claim("b"))
    assert (len(claims), claims.forgotten) == (1, 0)


async def test_the_keys_that_are_forgotten_are_the_oldest_in_the_log_and_no_more_than_must_be(log: Log) -> None:
    claims = log.replica(claims_max=80)
    for n in range(1_000):
        await asked(claims, log, f"d{n}", a_claim(f"r{n}"))
        assert len(claims) <= 90
    written = len(log.records)
    for n in range(920, 1_000):
        assert (await asked(claims, log, f"d{n}", a_claim("late"))).request_id == f"r{n}"
    assert len(log.records) == written
    assert len(claims) + claims.forgotten == 1_000


def test_a_claim_takes_at_most_350_bytes(log: Log) -> None:
    def claimed(n: int) -> Record:
        claim = claim_of("acme", f"key-{n}", hashlib.sha256(str(n).encode()).hexdigest(), NOW_MS + n)
        return Record(IDEMPOTENCY.name, 0, n, NOW_MS + n, digest_of("acme", f"key-{n}").encode(), encode(IDEMPOTENCY, claim))

    claims = log.replica(claims_max=10_000)
    tracemalloc.start()
    try:
        for n in range(10_000):
            claims.note(claimed(n))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(claims) == 10_000
    assert taken <= 350 * 10_000


async def test_a_log_that_says_nothing_is_an_unavailable_broker_and_the_next_caller_tries_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "CLAIM_TIMEOUT_S", 0.01)
    claims = log.replica()
    with pytest.raises(BrokerUnavailableError):
        await claims.claim("d", a_claim("a"))
    assert (await asked(claims, log, "d", a_claim("b"))).request_id == "a"


async def test_an_unreadable_claim_is_skipped(log: Log) -> None:
    claims = log.replica()
    claims.note(Record(IDEMPOTENCY.name, 0, 0, NOW_MS, b"d", b"rubbish"))
    claims.note(Record(IDEMPOTENCY.name, 0, 1, NOW_MS, b"d", None))
    claims.note(Record(IDEMPOTENCY.name, 0, 2, NOW_MS, b"d", encode(IDEMPOTENCY, a_claim("a"))))
    assert await claims.claim("d", a_claim("b")) == a_claim("a")


async def test_of_a_request_that_is_in_the_log_only_its_id_is_kept_and_a_repeat_does_not_write_it_again() -> None:
    def writes_kept() -> int:
        gc.collect()
        tasks = (each for each in gc.get_objects() if type(each) is asyncio.Task)
        return sum(getattr(task.get_coro(), "__qualname__", "") == "HttpSource._put" for task in tasks)

    async with a_replica() as replica:
        for n in (*range(20), *range(20)):
            await replica.client.post("/v1/requests", json={"prompt": "a", "idempotency_key": str(n)})
        assert len(requests_in(replica.broker)) == 20
        assert writes_kept() == 0
