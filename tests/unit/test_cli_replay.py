"""`baton replay`: recorded tasks through two configs, by the router's own code, and the difference in lines to read."""

from typing import Any

import orjson
import pytest

from schemas.config import ConfigFile, Policy
from schemas.topology import TASKS, TOPICS, topic_spec
from services.cli.apply import apply_config, specs_of
from services.cli.replay import lines_of, moment_of
from services.router.replay import Comparison, Order, compared
from shared.broker import Output
from shared.codec import encode
from shared.local import LocalBroker
from tests.support.builders import NOW_MS, a_backend, a_failure, a_model, a_task, an_envelope


def a_config(**policy: Any) -> ConfigFile:
    return ConfigFile(
        models={"small": a_model(quality=0.5), "large": a_model(quality=0.9)},
        backends={"small-a": a_backend("small", "1", "1"), "large-a": a_backend("large", "10", "10")},
        tenants={},
        policies={"default": Policy(quality_min=0.0, **policy)},
    )


async def replayed(other: ConfigFile, *complexities: float, since_ms: int = 0, tasks_max: int = 100) -> Comparison:
    """Tasks under a config that wants little quality, compared with another one."""
    broker = LocalBroker()
    await broker.create_topics([topic_spec(topic) for topic in TOPICS])
    await apply_config(broker, a_config(quality_min_hard=0.4), now_ms=1_000)
    producer = await broker.producer()
    for number, complexity in enumerate(complexities):
        envelope = an_envelope(a_task(complexity=complexity), request_id=f"r{number}", key="k", deadline_ms=NOW_MS * 2)
        await (await producer.send(Output(TASKS.name, b"k", encode(TASKS, envelope))))
    failed = an_envelope(a_task().model_copy(update={"failure": a_failure()}), key="k")
    await (await producer.send(Output(TASKS.name, b"k", encode(TASKS, failed))))
    await (await producer.send(Output(TASKS.name, b"k", b"\xff")))
    before = {name: [len(log) for log in logs] for name, logs in broker.logs.items()}
    found = await compared(broker, Order(since_ms, tasks_max, orjson.loads(orjson.dumps(specs_of(other)))))
    assert {name: [len(log) for log in logs] for name, logs in broker.logs.items()} == before, "it must only read"
    await broker.close()
    return found


async def test_the_same_config_changes_nothing() -> None:
    found = await replayed(a_config(quality_min_hard=0.4), 0.1, 0.9)
    assert (found.tasks, found.unreadable, found.changed) == (2, 1, 0)
    assert found.now == found.other


async def test_a_policy_that_wants_more_quality_costs_more_where_tasks_are_hard() -> None:
    found = await replayed(a_config(quality_min_hard=0.9), 0.1, 0.9, 1.0)
    assert (found.now.models, found.other.models) == ({"small": 3}, {"small": 1, "large": 2})
    assert found.changed == 2
    assert found.different == [("r1", "small", "large"), ("r2", "small", "large")]
    assert found.now.cost_microusd < found.other.cost_microusd
    assert (found.now.quality_sum, found.other.quality_sum) == (pytest.approx(1.5), pytest.approx(2.3))


async def test_no_more_tasks_are_read_than_wanted_and_none_of_before() -> None:
    assert (await replayed(a_config(), 0.1, 0.2, 0.3, tasks_max=2)).tasks == 2
    assert (await replayed(a_config(), 0.1, since_ms=NOW_MS * 3)).tasks == 0


async def test_the_comparison_reads_as_a_table_with_the_difference() -> None:
    found = await replayed(a_config(quality_min_hard=0.9), 0.1, 1.0)
    lines = lines_of(orjson.loads(orjson.dumps(found)))
    assert lines[0] == "2 tasks; 1 of them would be asked of another model; 1 records could not be read"
    rows = {line.split("  ")[0].strip(): line.split()[-3:] for line in lines[2:-1]}
    assert rows["expected quality"] == ["0.5000", "0.7000", "+0.2000"]
    assert rows["p95 latency, ms"] == ["unknown", "unknown", "unknown"]
    assert rows["small"] == ["2", "1", "-1"]
    assert lines[-1] == "    r1  small -> large"


def test_nothing_recorded_is_said() -> None:
    assert lines_of(orjson.loads(orjson.dumps(Comparison()))) == ["no task was recorded since then"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90m", NOW_MS - 5_400_000), ("7d", NOW_MS - 604_800_000), ("2026-11-26", 1_795_651_200_000),
     ("2026-11-26T14:00+02:00", 1_795_694_400_000)],
)  # fmt: skip
def test_a_moment_is_so_long_ago_or_a_time(text: str, ms: int) -> None:
    assert moment_of(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["yesterday", "5", "-1h", "1w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        moment_of(text, NOW_MS)
