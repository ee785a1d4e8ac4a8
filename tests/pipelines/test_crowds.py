"""Bursts of wide pipelines: what is open for a join stalls nobody, and where there is no room a request ends with its costs."""

import asyncio
from dataclasses import replace

from schemas.ledger import AttemptPhase
from schemas.messages import Reason, Result, ReviewAction, Status
from shared.session import RunnerOptions
from tests.pipelines.orchestra import OPTIONS, Call, Orchestra, catalogue, in_virtual_time, playing
from tests.pipelines.test_escalations import learned
from tests.pipelines.test_patterns import text_of

WIDE = "p: {parallel: {merge: all, branches: [{step: {prompt: one}}, {step: {prompt: two}}, {step: {prompt: slow}}]}}"
REQUESTS = 60


async def says(call: Call) -> str:
    await asyncio.sleep(20 if call.prompt == "slow" else 0.1)
    return call.prompt


def burst(options: RunnerOptions) -> tuple[list[Result], list[Result], Orchestra]:
    """Many wide requests, and while they are open some plain ones: the results of both."""

    async def main() -> tuple[list[Result], list[Result], Orchestra]:
        async with playing(catalogue(WIDE), says, options=options) as orchestra:
            wide, plain = [f"w{number}" for number in range(REQUESTS)], [f"x{number}" for number in range(10)]
            for id in wide:
                await orchestra.ask("p", id=id)
            await asyncio.sleep(5)
            for id in plain:
                await orchestra.ask(None, "plain", id=id)
            return await orchestra.results(plain), await orchestra.results(wide), orchestra

    return in_virtual_time(main)


def test_plain_requests_pass_a_burst_of_open_joins_and_every_join_completes() -> None:
    plain, wide, _ = burst(replace(OPTIONS, parked_max=20))
    assert all(result.decided_ms - result.accepted_ms < 1_000 for result in plain)
    assert {text_of(result) for result in wide} == {'["one","two","slow"]'}


def test_without_room_a_request_ends_at_once_with_what_it_cost_and_its_other_branches_are_cut() -> None:
    plain, wide, orchestra = burst(replace(OPTIONS, held_max=60))
    assert {text_of(result) for result in plain} == {"plain"}
    shed = [result for result in wide if result.status is not Status.DELIVERED]
    assert {text_of(result) for result in wide if result not in shed} == {'["one","two","slow"]'}
    assert len(shed) < REQUESTS
    assert {result.reason for result in shed} == {Reason.TOO_MANY_OPEN}
    assert all(result.attempts > 0 and result.decided_ms - result.accepted_ms < 5_000 for result in shed)
    assert len(orchestra.cut) == len(shed)
    assert {line.phase for line in {line.attempt_id: line for line in orchestra.ledger()}.values()} == {AttemptPhase.FINISHED}


def test_reviews_without_room_end_by_the_policys_default() -> None:
    async def main() -> list[Result]:
        review = {"share": 1.0, "default": "accept"}
        async with playing(catalogue({}, review=review), says, options=replace(OPTIONS, held_max=20)) as orchestra:
            ids = [f"r{number}" for number in range(30)]
            for id in ids:
                await orchestra.ask(None, id=id)
            await asyncio.sleep(5)
            early = len(orchestra.log_of_results())
            assert 5 <= early <= 10, "those that had no room; some more were taken while others were on their way in"
            return await orchestra.results(ids)

    results = in_virtual_time(main)
    assert {(result.status, result.reviewed and result.reviewed.action) for result in results} == {
        (Status.DELIVERED, ReviewAction.ACCEPT)}


def test_conversations_that_wait_for_a_stronger_model_stall_nobody() -> None:
    """Ten of them, each a question that is asked again and five behind it: more wait than may be in flight."""

    async def answers(call: Call) -> str:
        await asyncio.sleep(0.05 if call.model == "small" else 5)
        return "" if call.model == "small" and call.prompt == "hard" else "yes."

    async def main() -> tuple[list[Result], list[Result]]:
        options = replace(OPTIONS, topic_in_flight_max=20)
        async with playing(catalogue({}), answers, learned(small=0.98, medium=0.4, large=0.6), options=options) as orchestra:
            ordered = [(f"k{key}n{number}", key, number) for key in range(10) for number in range(6)]
            for id, key, number in ordered:
                await orchestra.ask(None, "easy" if number else "hard", id=id, key=f"acme/{key}", ordered=True)
            await asyncio.sleep(3)
            await orchestra.ask(None, "easy", id="plain")
            return await orchestra.results(["plain"]), await orchestra.results([id for id, _, _ in ordered])

    (plain,), ordered = in_virtual_time(main)
    assert {result.status for result in (plain, *ordered)} == {Status.DELIVERED}
    assert plain.decided_ms - plain.accepted_ms < 1_000
