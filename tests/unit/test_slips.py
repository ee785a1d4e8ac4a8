"""What slips refer to is read back from the log, and remembered while there is room."""

import tracemalloc

from schemas.messages import Task
from schemas.slips import Reference, Slip
from schemas.tasks import Chat
from schemas.topology import TASKS, topic_spec
from shared.broker import Output
from shared.codec import encode
from shared.local import LocalBroker
from shared.slips import Slips
from tests.support.builders import NOW_MS, a_task, an_envelope

MB = 1_000_000


async def a_log(*prompts: str) -> tuple[LocalBroker, list[Slip]]:
    """A task per prompt, and a slip that refers to it."""
    broker = LocalBroker()
    await broker.create_topics([topic_spec(TASKS, 1)])
    slips = []
    for prompt in prompts:
        task = a_task(Chat(messages=({"role": "user", "content": prompt},)))
        record = broker.append(Output(TASKS.name, b"k", encode(TASKS, an_envelope(task)), (), 0))
        at = Reference(topic=TASKS.name, partition=0, offset=record.offset, timestamp_ms=record.timestamp_ms)
        slips.append(Slip(pipeline="p@1", tree="{}", asked_at=at, deadline_ms=NOW_MS))
    return broker, slips


def prompt_of(slip: Slip) -> str:
    assert isinstance(slip.asked, Task)
    assert slip.asked.chat is not None
    return str(slip.asked.chat.messages[0]["content"])


async def test_what_is_remembered_of_the_log_is_bounded_by_its_bytes_and_all_of_it_can_be_read_again() -> None:
    broker, slips = await a_log(*(f"{number:02}" + "x" * MB for number in range(40)))
    reading = Slips(broker)
    tracemalloc.start()
    try:
        for slip in slips:
            await reading.whole(slip)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 20 * MB
    assert [prompt_of(await reading.whole(slips[number]))[:2] for number in (0, 39)] == ["00", "39"]


async def test_the_last_records_are_not_read_twice() -> None:
    broker, slips = await a_log("one", "two", "three")
    reading = Slips(broker)
    before = [await reading.whole(slip) for slip in slips]
    broker.unavailable = True
    assert [await reading.whole(slip) for slip in slips] == before
