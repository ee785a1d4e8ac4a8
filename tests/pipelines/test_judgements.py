"""How long the gate knows what it thought of a step's answer: while the record is open, and no longer."""

import asyncio
import gc

from schemas.messages import Result, Verdict
from tests.pipelines.orchestra import Call, Orchestra, catalogue, in_virtual_time, playing
from tests.pipelines.test_patterns import text_of

TWO = "p: {parallel: {merge: all, branches: [{step: {prompt: quick}}, {step: {prompt: slow}}]}}"


async def says(call: Call) -> str:
    await asyncio.sleep(10 if call.prompt == "slow" else 0.1)
    return call.prompt


def judgements_kept() -> int:
    gc.collect()
    return sum(type(each) is Verdict for each in gc.get_objects())


async def ask_many(orchestra: Orchestra, count: int) -> list[str]:
    ids = [f"r{number}" for number in range(count)]
    for id in ids:
        await orchestra.ask("p", id=id)
    return ids


def test_nothing_is_kept_of_the_answers_to_requests_that_have_ended() -> None:
    async def main() -> int:
        before = judgements_kept()
        async with playing(catalogue("p: {step: {prompt: quick}}"), says) as orchestra:
            await orchestra.results(await ask_many(orchestra, 30))
            await orchestra.kill("output")   # it has the last verdicts, too
            return judgements_kept() - before

    assert in_virtual_time(main) == 0


def test_a_judgement_is_kept_while_its_record_waits_for_its_siblings_and_goes_with_it() -> None:
    async def main() -> tuple[int, int]:
        before = judgements_kept()
        async with playing(catalogue(TWO), says) as orchestra:
            ids = await ask_many(orchestra, 30)
            await asyncio.sleep(5)
            open_ones = judgements_kept() - before
            await orchestra.results(ids)
            await orchestra.kill("output")
            return open_ones, judgements_kept() - before

    assert in_virtual_time(main) == (30, 0)


def test_when_another_replica_takes_over_some_partitions_each_open_record_is_judged_by_one_of_the_two() -> None:
    async def main() -> tuple[int, int]:
        before = judgements_kept()
        async with playing(catalogue(TWO), says) as orchestra:
            ids = await ask_many(orchestra, 30)
            await asyncio.sleep(5)
            first = orchestra._running.pop("quality-gate")
            orchestra.start("quality-gate")
            await asyncio.sleep(3)
            open_ones = judgements_kept() - before
            await orchestra.results(ids)
            await orchestra.kill("output")
            orchestra._running["the first quality-gate"] = first
            return open_ones, judgements_kept() - before

    assert in_virtual_time(main) == (30, 0)


def test_an_answer_that_passed_is_not_judged_again_by_a_config_that_came_while_it_waited() -> None:
    async def main() -> Result:
        async with playing(catalogue(TWO), says) as orchestra:
            await orchestra.ask("p")
            await asyncio.sleep(5)
            orchestra.catalogue = catalogue(TWO, checks=({"check": "format", "choices": ["slow"]},))
            return await orchestra.result()

    assert text_of(in_virtual_time(main)) == '["quick","slow"]'
