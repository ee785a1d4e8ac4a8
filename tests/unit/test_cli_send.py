import asyncio

from click.testing import CliRunner

from schemas.messages import Answer, Reason, Result, Status
from schemas.topology import INTAKE, RESULTS, TASKS, topic_spec
from services.cli.send import Correspondence, correspondence, record_of, send, text_of
from services.cli.trace import PATH, steps_of
from shared.broker import Output
from shared.codec import encode, headers_for
from shared.ids import request_id_of_record
from shared.local import LocalBroker


async def with_topics() -> LocalBroker:
    broker = LocalBroker()
    await broker.create_topics([topic_spec(topic) for topic in PATH])
    return broker


def result(request_id: str, **fields: object) -> Result:
    return Result.model_validate(
        {"request_id": request_id, "tenant": "demo", "status": "delivered", "accepted_ms": 100, "decided_ms": 200} | fields
    )


async def deliver(line: Correspondence, *results: Result) -> None:
    for each in results:
        await line.producer.send(Output(RESULTS.name, b"", encode(RESULTS, each), headers_for(RESULTS, "output", None)))


async def test_a_request_is_known_by_its_place_in_the_topic() -> None:
    broker = await with_topics()
    async with correspondence(broker) as line:
        ids = await line.send([record_of(b'{"prompt": "a"}'), record_of(b"not json"), record_of(b'{"prompt": "a"}')])
    places = [
        request_id_of_record(record.partition, record.offset, record.timestamp_ms)
        for partition in broker.logs[INTAKE.name]
        for record in partition
    ]
    assert sorted(ids) == sorted(places)
    assert len(set(ids)) == 3


async def test_records_of_others_do_not_confuse_it() -> None:
    broker = await with_topics()
    async with correspondence(broker) as mine, correspondence(broker) as other:
        theirs, ours = await asyncio.gather(other.send([record_of(b"b")]), mine.send([record_of(b"a"), record_of(b"c")]))
    assert not set(theirs) & set(ours)


async def test_what_was_there_before_is_not_heard() -> None:
    broker = await with_topics()
    async with correspondence(broker) as early:
        await deliver(early, result("old"))
    async with correspondence(broker) as line:
        await deliver(line, result("new"))
        async for heard, at_ms in line.answers(timeout_s=5):
            assert heard.request_id == "new"
            assert at_ms > 0
            break


async def test_waiting_for_answers_ends() -> None:
    broker = await with_topics()
    async with correspondence(broker) as line:
        assert [heard async for heard in line.answers(timeout_s=0.01)] == []


def test_requests_that_share_an_ordering_key_share_a_partition() -> None:
    assert record_of(b"1", "letter").key == record_of(b"2", "letter").key == b"letter"
    assert record_of(b"1").key is None


def test_a_prompt_or_a_file_but_not_both() -> None:
    assert "give a prompt" in CliRunner().invoke(send, []).output
    assert "give a prompt" in CliRunner().invoke(send, ["Hello", "--file", "-"], input="{}").output


def test_an_answer_is_printed_with_what_it_took() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    delivered = result("r", cost_microusd=12, answer=Answer(text="Dry.", tool_calls=(call,), model="sim-small"))
    assert text_of(delivered, 350).splitlines()[0].startswith("Dry.")
    assert "get_weather" in text_of(delivered, 350)
    assert "delivered · sim-small · 250 ms · 0.000012 USD · r" in text_of(delivered, 350)
    failed = result("r", status=Status.FAILED, reason=Reason.PROVIDERS_FAILED, message="alpha is down")
    assert "failed (providers_failed: alpha is down)" in text_of(failed, 350)


async def test_a_trace_finds_every_record_of_a_request_and_no_other() -> None:
    broker = await with_topics()
    async with correspondence(broker) as line:
        mine, other = await line.send([record_of(b"a"), record_of(b"b")])
        for topic in (RESULTS, TASKS):
            for id in (mine, other):
                await line.producer.send(Output(topic.name, b"k", b"{}", (("ce_subject", id.encode()), ("accepted-ms", b"5"))))
    steps = await steps_of(broker, mine)
    assert {step.topic.name for step in steps} == {"intake", "tasks", "results"}
    assert [step.record.timestamp_ms for step in steps] == sorted(step.record.timestamp_ms for step in steps)
    assert len(steps) == 3
