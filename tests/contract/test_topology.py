"""The table of topics and stages holds together, and every stage is built as the table says. A new row is covered at once."""

import ast
import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import DeadHeader, Envelope, Fact
from schemas.messages import Failure, Request, Task
from schemas.topology import (
    DEAD_LETTERS,
    LOOPS,
    OPERATORS_WRITE,
    STAGES,
    TASKS,
    TOPICS,
    USERS_READ,
    USERS_WRITE,
    Key,
    Stage,
    Topic,
    stage_named,
    topic_spec,
)
from shared.broker import Output, Record
from shared.codec import encode
from shared.handler import Context
from shared.local import LocalBroker
from shared.outcome import Out, Outcome
from shared.stage import Runner
from tests.support.virtual import LoopClock, VirtualLoop

CHECKOUT = Path(__file__).parents[2]

every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)

RUN_BY_FAUST = {"monitor"}
"""Stages that the shared runner does not run: each has to reject what it cannot read by itself."""

every_stage_of_the_runner = pytest.mark.parametrize(
    "stage", [stage for stage in STAGES if stage.name not in RUN_BY_FAUST], ids=lambda stage: stage.name
)


@every_topic
def test_a_topic_has_a_writer(topic: Topic) -> None:
    by_stages = {written for stage in STAGES for written in stage.writes}
    assert topic in by_stages | {*USERS_WRITE, *OPERATORS_WRITE, DEAD_LETTERS}


@every_topic
def test_a_topic_has_a_reader(topic: Topic) -> None:
    by_stages = {read for stage in STAGES for read in (*stage.reads, *stage.tables)}
    assert topic in by_stages | {*USERS_READ}


@every_stage
def test_a_stage_touches_only_topics_of_the_table(stage: Stage) -> None:
    assert {*stage.reads, *stage.writes, *stage.tables} <= set(TOPICS)


@every_stage
def test_a_stage_never_reads_what_it_writes_through_its_group(stage: Stage) -> None:
    assert {(stage.name, topic) for topic in {*stage.reads} & {*stage.writes}} <= LOOPS   # each says why


def test_names_of_topics_stages_and_consumer_groups_are_unique() -> None:
    for names in ([topic.name for topic in TOPICS], [stage.name for stage in STAGES], [s.group for s in STAGES]):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("request_partitions", [1, 6, 24])
def test_request_keyed_topics_have_as_many_partitions_as_each_other(request_partitions: int) -> None:
    counts = {topic.name: topic_spec(topic, request_partitions).partitions for topic in TOPICS if topic.key is Key.REQUEST}
    assert set(counts.values()) == {request_partitions}, counts


@every_stage
def test_a_stage_has_the_three_files_of_a_stage(stage: Stage) -> None:
    assert find_spec(stage.module), f"{stage.module} does not exist"
    missing = [part for part in ("__main__", "main", "decide") if find_spec(f"{stage.module}.{part}") is None]
    assert not missing, f"{stage.module} lacks {', '.join(missing)}"


@every_stage_of_the_runner
def test_a_stage_is_run_by_the_runner_under_its_own_name(stage: Stage) -> None:
    """It does dead letters, commits and drain for all of them: whoever goes through it has a dead-letter path."""
    calls = _calls(CHECKOUT.joinpath(*stage.module.split("."), "__main__.py"), "run_service")
    assert len(calls) == 1, f"{stage.module}.__main__ must call run_service once"
    assert ast.literal_eval(calls[0].args[0]) == stage.name


@pytest.mark.parametrize("name", RUN_BY_FAUST)
def test_a_stage_with_an_engine_of_its_own_writes_the_same_dead_letters(name: str) -> None:
    package = CHECKOUT.joinpath(*stage_named(name).module.split("."))
    assert any(_calls(path, "dead_letter") for path in package.glob("*.py"))


@every_stage_of_the_runner
def test_a_record_that_a_stage_cannot_read_becomes_a_dead_letter_byte_for_byte(stage: Stage) -> None:
    loop = VirtualLoop()
    try:
        dead = loop.run_until_complete(_dead_letter_of(stage, b"\xff{ not json"))
    finally:
        loop.close()
    assert dead.value == b"\xff{ not json"
    assert dead.header(DeadHeader.STAGE) == stage.name
    assert dead.header(DeadHeader.TOPIC) == stage.reads[0].name


async def _dead_letter_of(stage: Stage, poison: bytes) -> Record:
    clock = LoopClock()
    broker = LocalBroker(clock)
    await broker.create_topics([topic_spec(topic, request_partitions=1) for topic in TOPICS])
    producer = await broker.producer()
    await (await producer.send(Output(stage.reads[0].name, b"key", poison)))
    stop = asyncio.Event()
    running = asyncio.create_task(Runner(stage, _Idle(), broker, clock=clock).run(stop))
    reader = await broker.reader(DEAD_LETTERS.name)
    async with asyncio.timeout(30):
        while not (records := await reader.poll(timeout_ms=100)):
            continue
    stop.set()
    await running
    return records[0]


class _Idle:
    """A handler that is never reached."""

    def handle(self, envelope: object, context: Context) -> Outcome:
        raise AssertionError("a record that cannot be decoded reached the handler")

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        return ()

    async def assigned(self, partitions: frozenset[int]) -> None:
        return


def _calls(source: Path, function: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(source.read_text("utf-8")))
    return [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func).rsplit(".")[-1] == function]


def _fields() -> dict[str, object]:
    return {"id": "r/task", "request_id": "r", "key": "r", "tenant": "t", "accepted_ms": 1, "deadline_ms": 2}


def test_an_envelope_of_the_exact_class_is_written_with_its_payload() -> None:
    assert b'"payload":{"chat":{' in encode(TASKS, Envelope[Task].model_validate(_fields() | {"payload": _task()}))


def test_an_envelope_of_a_base_class_is_refused_because_its_payload_would_be_written_empty() -> None:
    loose = Envelope[Fact].model_validate(_fields() | {"payload": Task.model_validate(_task())})
    assert '"payload":{}' in loose.model_dump_json(), "the trap is gone: the codec need not guard against it"
    with pytest.raises(TypeError, match=r"tasks holds Envelope\[Task\]"):
        encode(TASKS, loose)


def test_an_envelope_of_another_payload_is_refused() -> None:
    with pytest.raises(TypeError, match=r"not Envelope\[Request\]"):
        encode(TASKS, Envelope[Request].model_validate(_fields() | {"payload": {"source": "http"}}))


def _task() -> dict[str, object]:
    return {"chat": {"messages": [{"role": "user", "content": "hello"}]}}
