"""The books on a broker in memory: what is on the ledger is on `spend`, what was judged on `quality`, whoever keeps them."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from schemas.config import Tenant
from schemas.ledger import Attempt, AttemptPhase, Usage
from schemas.messages import Status, Task, Tried, Verdict
from schemas.quality import Feedback, Judge, QualityEntry
from schemas.spend import SpendEntry
from schemas.topology import (
    ALERTS,
    ATTEMPTS,
    DEAD_LETTERS,
    FEEDBACK,
    QUALITY,
    SPEND,
    TASKS,
    TOPICS,
    VERDICTS,
    topic_spec,
)
from services.monitor.accounts import TOTAL, Place
from services.monitor.books import Books
from services.monitor.lessons import Lessons
from services.monitor.monitor import STAGE
from shared.broker import Output
from shared.cascade import answer_sketch
from shared.codec import decode, encode, headers_for
from shared.local import LocalBroker
from shared.quality import KEEP
from shared.table import Table
from shared.words import Words, sketch
from shared.writer import Writer
from tests.support.builders import a_catalogue, a_chat, a_task, a_why, an_answer, an_envelope
from tests.support.virtual import LoopClock, VirtualLoop

CATALOGUE = a_catalogue(tenant=Tenant(budget_usd_per_day=Decimal("0.001")))


def run(main):
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def a_broker():
    broker = LocalBroker(LoopClock())
    await broker.create_topics([topic_spec(topic) for topic in TOPICS])
    return broker


@asynccontextmanager
async def kept(broker, leads=lambda: True, catalogue=CATALOGUE, **options):
    ended = asyncio.Event()
    keeper = Books(broker, Writer(STAGE, await broker.producer()), LoopClock(), lambda: catalogue, leads, **options)
    keeping = asyncio.create_task(keeper.keep(ended))
    yield
    ended.set()
    await asyncio.wait_for(keeping, 10)


async def call(broker, number, cost=100, tenant="acme"):
    producer = await broker.producer()
    started = Attempt(
        attempt_id=f"a{number}", plan_id="p", request_id=f"r{number}", tenant=tenant, phase=AttemptPhase.STARTED,
        model="small", backend="small-a", started_ms=1, cost_max_microusd=9_999,
    )  # fmt: skip
    finished = started.model_copy(
        update={"phase": AttemptPhase.FINISHED, "cost_microusd": cost, "usage": Usage(tokens_in=3, tokens_out=2)}
    )
    for line in (started, finished):
        await (await producer.send(Output(ATTEMPTS.name, line.request_id.encode(), encode(ATTEMPTS, line))))
    verdict = an_envelope(Verdict(status=Status.DELIVERED, cost_microusd=cost, decided_ms=1), tenant=tenant)
    await (await producer.send(Output(VERDICTS.name, line.request_id.encode(), encode(VERDICTS, verdict))))


async def put(broker, topic, value, key):
    producer = await broker.producer()
    headers = headers_for(topic, "test", value if topic is not FEEDBACK else None)
    await (await producer.send(Output(topic.name, key.encode(), encode(topic, value), headers)))


async def answered(broker, request_id, model="large", tried=(), domain="code", text="Sort a list."):
    """The task and the verdict of a request that a model answered, after others whose answers did not pass."""
    fields = {"request_id": request_id, "key": request_id, "accepted_ms": LoopClock().now_ms()}
    task: Task = a_task(a_chat(text), domain=domain)
    await put(broker, TASKS, an_envelope(task, f"{request_id}/task", **fields), request_id)
    verdict = Verdict(
        status=Status.DELIVERED, answer=an_answer(model=model), decided_ms=1, why=a_why(domain=domain, complexity=0.3),
        tried=tuple(Tried(model=name, backend="b", failed_checks=("not_empty",)) for name in tried),
    )  # fmt: skip
    await put(broker, VERDICTS, an_envelope(verdict, f"{request_id}/verdict", **fields), request_id)


async def say(broker, request_id, score, **fields):
    await put(broker, FEEDBACK, Feedback(request_id=request_id, score=score, **({"tenant": "acme"} | fields)), request_id)


async def learned(broker):
    table: Table[QualityEntry] = Table(broker, QUALITY)
    await table.start()
    await table.close()
    return table.values


def seen(entries, key):
    """Count and sum of scores of one entry, over its cells."""
    cells = entries[key].cells if key in entries else ()
    return round(sum(cell.count for cell in cells), 3), round(sum(cell.score_sum for cell in cells), 3)


async def entry(broker, name="acme"):
    table: Table[SpendEntry] = Table(broker, SPEND)
    await table.start()
    await table.close()
    return table.values.get(name)


async def values(broker, topic):
    reader = await broker.reader(topic.name)
    return [record.value for record in await reader.poll(1)]


def test_calls_and_verdicts_show_in_the_account_within_half_a_second():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await call(broker, 2, cost=40, tenant="beta")
            await asyncio.sleep(0.5)
            acme, total = await entry(broker), await entry(broker, TOTAL)
        assert (acme.day.microusd, acme.day.calls, acme.request_microusd) == (100, 1, 100)
        assert (total.day.microusd, total.day.tokens_in) == (140, 6)

    run(main)


def test_whoever_takes_over_goes_on_where_the_entries_say():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
        await call(broker, 2)                 # while nobody looks
        async with kept(broker):
            await asyncio.sleep(0.5)
            await call(broker, 3)
            await asyncio.sleep(0.5)
        async with kept(broker):
            await asyncio.sleep(2)
        assert (await entry(broker)).day.calls == 3
        assert (await entry(broker, TOTAL)).day.microusd == 300

    run(main)


def test_a_replica_that_does_not_lead_writes_nothing_and_begins_when_it_does():
    async def main():
        broker = await a_broker()
        leads = False
        async with kept(broker, lambda: leads):
            await call(broker, 1)
            await asyncio.sleep(3)
            assert await entry(broker) is None
            leads = True
            await asyncio.sleep(2)
            assert (await entry(broker)).day.calls == 1

    run(main)


def test_a_line_that_cannot_be_read_becomes_a_dead_letter_and_the_others_count():
    async def main():
        broker = await a_broker()
        producer = await broker.producer()
        line = '{"phase":"finished","attempt_id":"a","tenant":"acme","cost_microusd":%s,"usage":{"tokens_in":%s}}'
        numbers = [(line % found).encode() for found in ((0.5, 1), (1, 0.5), (1e308, 1))]
        for poison in (b"\xff{ not json", b'{"phase":"finished"}', b"[1]", *numbers):
            await (await producer.send(Output(ATTEMPTS.name, b"k", poison)))
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
            assert (await entry(broker)).day.calls == 1
        assert len(await values(broker, DEAD_LETTERS)) == 6

    run(main)


def test_a_broker_that_goes_away_costs_nothing_but_time():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1)
            await asyncio.sleep(0.5)
            broker.unavailable = True
            await asyncio.sleep(3)
            broker.unavailable = False
            await call(broker, 2)
            await asyncio.sleep(3)
            assert (await entry(broker)).day.calls == 2

    run(main)


def test_operators_hear_of_a_budget_that_is_spent():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await call(broker, 1, cost=850)
            await asyncio.sleep(0.5)
            await call(broker, 2, cost=200)
            await asyncio.sleep(0.5)
        told = [decode(ALERTS, value) for value in await values(broker, ALERTS)]
        assert [alert.alert_id.rpartition("/")[2] for alert in told] == ["80", "100"]

    run(main)


def test_a_verdict_judges_every_model_that_answered_at_the_domain_and_tier_of_the_request():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1", "large", tried=("small",))
            await asyncio.sleep(0.5)
            entries = await learned(broker)
        assert set(entries) == {"large/code", "large/*", "small/code", "small/*"}
        assert seen(entries, "large/code") == (0.25, 0.225)      # the catalogue says 0.9 of it
        assert seen(entries, "small/code") == (0.25, 0)
        assert [(cell.tier, cell.tenant) for cell in entries["large/code"].cells] == [(1, "acme")]
        assert entries["large/code"].tokens_out == 20

    run(main)


def test_passing_its_checks_makes_no_model_better_than_the_catalogue_says_and_failing_them_makes_it_worse():
    lessons = Lessons(lambda model: 0.6)

    def judged(count, **verdict):
        for _ in range(count):
            payload = {"status": Status.DELIVERED, "answer": {"model": "small"}} | verdict
            offset = len(lessons._answered)
            envelope = {"request_id": f"r{offset}", "tenant": "acme", "accepted_ms": 1, "payload": payload}
            lessons.verdict(Place("verdicts/0", offset, offset * 1000), envelope)
        return lessons.knowledge.quality("small", "chat", 0, "acme", 0.6)

    assert judged(500) == pytest.approx(0.6)
    assert judged(500, status=Status.FAILED, tried=[{"model": "small"}]) < 0.35
    assert judged(3_000) == pytest.approx(0.6, abs=0.1), "it recovers with its answers"


def test_a_shadows_lesson_is_about_its_own_model_and_teaches_no_words():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1", "large")
            await asyncio.sleep(0.5)
            await say(broker, "r1", 0.0, judge=Judge.GATE, model="small")
            await asyncio.sleep(1)
            entries = await learned(broker)
        assert (seen(entries, "small/code"), seen(entries, "large/code")) == ((0.25, 0.0), (0.25, 0.225))
        assert not {"small/#", "large/#"} & entries.keys()

    run(main)


def test_no_other_judge_says_which_model_it_was():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1", "large")
            await asyncio.sleep(0.5)
            await say(broker, "r1", 1.0, judge=Judge.PERSON, model="small")
            await asyncio.sleep(1)
            assert "small/code" not in await learned(broker)

    run(main)


def test_feedback_is_joined_with_its_request_and_teaches_the_words_of_what_was_asked():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1")
            await asyncio.sleep(0.5)
            await say(broker, "r1", 0.0)
            await asyncio.sleep(1)
            entries = await learned(broker)
        assert seen(entries, "large/code") == (1.25, 0.225)      # what was judged before counts less, in the fourth digit
        assert Words.from_text(entries["large/#"].words).logit(sketch("Sort a list.")) < 0

    run(main)


@pytest.mark.parametrize("cascade", [None, {}], ids=("no cascade", "a cascade"))
def test_the_words_of_the_answer_are_learned_where_a_policy_has_a_cascade(cascade):
    async def main():
        broker = await a_broker()
        async with kept(broker, catalogue=a_catalogue(cascade=cascade)):
            await answered(broker, "r1")
            await asyncio.sleep(0.5)
            await say(broker, "r1", 0.0)
            await asyncio.sleep(1)
            entries = await learned(broker)
        assert ("large/?" in entries) is (cascade is not None)
        if cascade is not None:
            assert Words.from_text(entries["large/?"].words).logit(answer_sketch(an_answer().text)) < 0

    run(main)


def test_feedback_counts_once_per_judge_for_its_own_tenant_and_only_of_a_request_that_there_is():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1")
            await asyncio.sleep(0.5)
            await say(broker, "r1", 1.0)
            for score in (0.0, 0.0):
                await say(broker, "r1", score)
            await say(broker, "r1", 0.0, tenant="globex")
            await say(broker, "never", 0.0)
            await asyncio.sleep(2)
            assert seen(await learned(broker), "large/code")[0] == 1.25
            await say(broker, "r1", 0.0, judge=Judge.PROGRAM)
            await asyncio.sleep(2)
            assert seen(await learned(broker), "large/code")[0] > 3.2

    run(main)


def test_feedback_on_an_answer_of_long_ago_is_found_by_its_time_and_not_without():
    async def main():
        broker = await a_broker()
        accepted_ms = LoopClock().now_ms()
        await answered(broker, "old")
        await asyncio.sleep(1)
        async with kept(broker):
            await answered(broker, "new")
            await asyncio.sleep(1)
        async with kept(broker, remembered_before=0):      # as after many other verdicts
            await asyncio.sleep(1)
            await say(broker, "old", 0.5)
            await asyncio.sleep(2)
            assert seen(await learned(broker), "large/code")[0] == 0.5
            await say(broker, "old", 0.5, accepted_ms=accepted_ms)
            await asyncio.sleep(2)
            assert seen(await learned(broker), "large/code")[0] > 1.4

    run(main)


def test_a_new_keeper_remembers_the_requests_of_the_last_while_and_learns_nothing_of_them_twice():
    async def main():
        broker = await a_broker()
        async with kept(broker):
            await answered(broker, "r1")
            await asyncio.sleep(0.5)
        async with kept(broker):
            await asyncio.sleep(1)
            assert seen(await learned(broker), "large/code") == (0.25, 0.225)
            await say(broker, "r1", 1.0)
            await asyncio.sleep(1)
            assert seen(await learned(broker), "large/code") == (1.25, 1.225)

    run(main)


def test_a_doubted_answer_of_a_cascade_is_no_judgement():
    lessons = Lessons(lambda model: 0.5)
    tried = [{"model": "small", "confidence": 0.3}, {"model": "medium", "failed_checks": ["not_empty"]}]
    payload = {"status": "delivered", "answer": {"model": "large"}, "tried": tried}
    envelope = {"request_id": "r", "tenant": "acme", "accepted_ms": 1, "payload": payload}
    lessons.verdict(Place("verdicts/0", 0, 1_000), envelope)
    assert {entry.model for entry in lessons.due(1)} == {"medium", "large"}


def test_an_answer_that_several_models_gave_together_teaches_nothing_about_any():
    lessons = Lessons(lambda model: 0.5)
    payload = {"status": "delivered", "answer": {"model": "small+large"}}
    envelope = {"request_id": "r", "tenant": "acme", "accepted_ms": 1, "payload": payload}
    place = Place("verdicts/0", 0, 1_000)
    lessons.verdict(place, envelope)
    said = Feedback(request_id="r", tenant="acme", score=1.0)
    assert lessons.feedback(place, said, lessons.recall("r")) == "no_single_model"
    assert lessons.feedback(place, said, None) == "unknown_request"
    assert lessons.due(1) == []


def test_under_load_passed_answers_are_sampled_and_count_for_those_left_out_while_failed_ones_all_count():
    lessons = Lessons(lambda model: 0.5)
    envelope = {
        "request_id": "r", "tenant": "acme", "accepted_ms": 1,
        "payload": {"status": "delivered", "answer": {"model": "large"}, "tried": [{"model": "small"}]},
    }  # fmt: skip
    for offset in range(900):
        lessons.verdict(Place("verdicts/0", offset, 1_000), envelope | {"request_id": f"r{offset}"})
    cells = {entry.model: entry.cells[0] for entry in lessons.due(1) if entry.domain == "*"}
    forgotten = sum(0.25 * KEEP**age for age in range(900))
    assert cells["small"].count == pytest.approx(forgotten)
    assert cells["large"].count == pytest.approx(sum(0.25 * (8 if age < 100 else 1) * KEEP**age for age in range(200)), rel=0.01)
