"""What goes wrong between two steps of a walk: crashes, removals, crowds, limits, probes that prove nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from schemas.fleet import Circuit, GateReason
from schemas.ledger import Attempt, AttemptKind, AttemptPhase, FailureClass
from schemas.messages import Lane
from schemas.topology import ATTEMPTS
from services.executor.decide import Call
from services.executor.hedging import CALLS_MIN
from services.executor.main import Executor
from services.executor.transport import AiohttpTransport
from services.executor.walk import Walk
from shared.catalogue import Catalogue
from shared.errors import FrozenError
from shared.outcome import Emit
from tests.support.builders_executor import (
    INSTANCE,
    SECRET,
    T0_MS,
    Bench,
    Script,
    a_backend,
    a_bench,
    a_candidate,
    a_catalogue,
    a_plan,
    an_entry,
    an_envelope,
    an_error,
    completed,
    ok,
    until,
)

TWO_MODELS = a_plan(a_candidate("small", ("a",)), a_candidate("large", ("c",)))
ONE = a_plan(a_candidate(backends=("a",)))


def one_backend(**fields: Any) -> Catalogue:
    return a_catalogue({"a": a_backend(base_url="http://a.test/v1", **fields)})


def knows_what_is_usual(bench: Bench, ms_per_unit: float = 0.001) -> None:
    hedging = bench.executor.backends.hedging
    for _ in range(CALLS_MIN):
        hedging.observe("small", ONE.task.features, False, ms_per_unit * 1000)
        hedging.primary()


def hangs(release: asyncio.Event, answer: httpx2.Response | None = None) -> Any:
    async def react(request: httpx2.Request) -> httpx2.Response:
        await release.wait()
        return answer or ok()

    return react


# Crowds and limits ---------------------------------------------------------------------------------------------------


async def test_plans_get_the_second_model_when_the_first_is_out_and_the_second_was_full() -> None:
    script = Script(ok("large"))
    bench = await a_bench(script)
    bench.fleet["a"] = an_entry("a", Circuit.OPEN)
    backends, taken = bench.executor.backends, 0
    while backends.local("c").has_room(Lane.STANDARD, bench.clock.now_ms()):
        backends.reserve("c", 10)
        taken += 1
    plans = [an_envelope(TWO_MODELS, request=f"r{n}", lane=Lane.STANDARD) for n in range(2)]
    walking = [asyncio.create_task(bench.complete(plan)) for plan in plans]
    await until(lambda: len(backends.room) == 2)
    for _ in range(taken):
        backends.give_back("c", 10)
    for completion, _ in await asyncio.wait_for(asyncio.gather(*walking), 5):
        assert completion.answer is not None
    assert set(script.hosts) == {"c"}


async def test_many_hedgeable_plans_at_once_keep_to_the_places() -> None:
    release = asyncio.Event()
    bench = await a_bench(Script(hangs(release)), one_backend(concurrency_max=4))
    knows_what_is_usual(bench, ms_per_unit=10)
    plans = [an_envelope(ONE, request=f"r{n}", lane=Lane.INTERACTIVE) for n in range(50)]
    walking = [asyncio.create_task(bench.complete(plan)) for plan in plans]
    local = bench.executor.backends.local("a")
    await until(lambda: local.in_flight)
    assert local.in_flight - local.writing <= local.gradient.limit
    assert local.writing <= local.gradient.limit
    assert len(bench.executor.backends.room) >= 50 - 2 * local.gradient.limit, "as many again may be being written down"
    release.set()
    await asyncio.wait_for(asyncio.gather(*walking), 10)
    assert (local.in_flight, local.promised) == (0, 0)


async def test_behind_a_rate_limit_every_lane_goes_on() -> None:
    bench = await a_bench(Script(ok()), one_backend(rpm=60))
    served = dict.fromkeys(Lane, 0)

    async def one(lane: Lane, number: int) -> None:
        await bench.complete(an_envelope(ONE, request=f"{lane}{number}", lane=lane, deadline_ms=T0_MS + 10_000_000))
        served[lane] += 1

    walking = [asyncio.create_task(one(lane, number)) for lane in Lane for number in range(60)]
    for _ in range(90):
        bench.clock.ms += 1_100
        before = sum(served.values())
        await until(lambda before=before: sum(served.values()) > before)
    assert served[Lane.INTERACTIVE] > served[Lane.STANDARD] > served[Lane.BATCH] > 0
    for walk in walking:
        walk.cancel()
    await asyncio.gather(*walking, return_exceptions=True)


# Crashes -------------------------------------------------------------------------------------------------------------


async def test_the_plan_of_a_process_that_stood_still_is_answered_by_its_successor() -> None:
    bench = await a_bench(Script(ok()))

    def stood_still_while_writing() -> None:
        if bench.ledger.lines:
            raise FrozenError("stood still")

    context = bench.context()
    with pytest.raises(FrozenError):
        await bench.executor.handle(an_envelope(), type(context)(context.record, (), bench.ledger, stood_still_while_writing))
    successor = await a_bench(Script(ok()), instance="0badcafe", broker=bench.broker)
    completion, _ = await successor.complete(an_envelope())
    assert completion.answer is not None


async def test_a_hedged_plan_whose_completion_was_lost_is_answered_by_the_successor() -> None:
    bench = await a_bench(Script(hangs(asyncio.Event()), ok()))
    knows_what_is_usual(bench)
    envelope = an_envelope(a_plan(a_candidate(backends=("a", "b"))), lane=Lane.INTERACTIVE)
    outcome = await bench.handle(envelope)
    assert isinstance(outcome, Emit)
    await bench.ledger.log(*(out for out in outcome.outputs if out.topic is ATTEMPTS))     # and then it dies
    successor = await a_bench(Script(ok()), instance="0badcafe", broker=bench.broker)
    completion, _ = await successor.complete(envelope)
    assert completion.answer is not None


async def test_when_one_of_two_calls_crashes_no_line_stays_open() -> None:
    release = asyncio.Event()

    async def crashes(request: httpx2.Request) -> httpx2.Response:
        await release.wait()
        raise RuntimeError("a bug")

    script = Script(crashes, an_error(500, "server_error"), ok())
    bench = await a_bench(script)
    knows_what_is_usual(bench)
    envelope = an_envelope(a_plan(a_candidate(backends=("a", "b"))), lane=Lane.INTERACTIVE)
    walking = asyncio.create_task(bench.handle(envelope))
    await until(lambda: len(script.requests) == 2 and bench.executor.backends.local("b").in_flight == 0)
    release.set()
    with pytest.raises(RuntimeError):
        await walking
    _, closed = await bench.complete(envelope)      # the runner tries again
    started = {line.attempt_id for line in bench.ledger.lines if line.phase is AttemptPhase.STARTED}
    assert started == {line.attempt_id for line in closed}


async def test_a_hedge_cut_before_its_first_step_leaves_nothing_behind() -> None:
    bench = await a_bench(Script(ok()))
    knows_what_is_usual(bench)
    walk = Walk(bench.executor._tools, an_envelope(ONE, lane=Lane.INTERACTIVE), bench.context(), [])
    task = walk._task(walk._begin(a_call()), "r1/plan/0/0-x", False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.executor.backends.local("a").in_flight == 0
    assert bench.ledger.lines == []


def a_call() -> Call:
    return Call(a_candidate(), "a", AttemptKind.PRIMARY, 1000, is_fair=True)


async def test_a_backend_that_leaves_during_the_ledgers_write_is_replaced() -> None:
    catalogue = a_catalogue()
    box = [catalogue]
    bench = await a_bench(Script(ok()))
    world = type(bench.world)(bench.broker, bench.clock, bench.world.settings, INSTANCE, lambda: box[0], lambda: bench.fleet)
    bench.executor = Executor(world, httpx2.MockTransport(Script(ok())), lambda reference: SECRET, draw=lambda: 0.0)

    def leaves(line: Any) -> None:
        box[0] = Catalogue(2, catalogue.models, {name: each for name, each in catalogue.backends.items() if name != "a"})

    bench.ledger.acknowledged = leaves
    completion, lines = await bench.complete(an_envelope())
    assert completion.answer is not None
    assert [line.failure for line in lines] == [FailureClass.CANCELLED, None]


# Probes --------------------------------------------------------------------------------------------------------------


async def test_a_probe_cut_short_by_its_callers_haste_proves_nothing() -> None:
    async def takes_200_ms(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.2)
        return ok()

    bench = await a_bench(takes_200_ms, one_backend())
    bench.fleet["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=1, probe_leases={INSTANCE: 1})
    await bench.complete(an_envelope(ONE, deadline_ms=T0_MS + 90))
    (seen,) = bench.executor.backends.take()
    assert (seen.probes_ok, seen.probes_failed, seen.failures) == (0, 0, {})
    assert bench.executor.backends.local("a").probes_left(bench.fleet["a"], INSTANCE) == 1


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_policy_violation", ""])
async def test_a_probe_with_a_bad_request_proves_nothing(code: str) -> None:
    bench = await a_bench(Script(an_error(400, code)), one_backend())
    bench.fleet["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=1, probe_leases={INSTANCE: 1})
    await bench.complete(an_envelope(ONE))
    (seen,) = bench.executor.backends.take()
    assert (seen.probes_ok, seen.probes_failed) == (0, 0)


async def test_a_probe_that_meets_a_rate_limit_is_made_again_a_little_later() -> None:
    bench = await a_bench(Script(an_error(429, "slow_down"), ok()), one_backend())
    bench.fleet["a"] = an_entry("a", Circuit.HALF_OPEN, probe_epoch=1, probe_leases={INSTANCE: 1})
    walking = asyncio.create_task(bench.complete(an_envelope(ONE)))
    await until(lambda: len(bench.executor.backends.room))
    bench.clock.ms += 1_000
    completion, _ = await walking
    assert completion.answer is not None


# What a socket may bring -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_server(head: bytes, body: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


async def answer_from(url: str, **fields: Any) -> Any:
    transport = AiohttpTransport(10)
    try:
        bench = await a_bench(transport, a_catalogue({"a": a_backend(base_url=url, **fields)}))
        completion, _ = await bench.complete(an_envelope(a_plan(a_candidate(backends=("a",)), attempts_max=1)))
    finally:
        await transport.aclose()
    return completion.answer


async def test_a_header_that_is_no_ascii_ends_no_call() -> None:
    body = httpx2.Response(200, json=completed()).content
    head = b"content-type: application/json\r\nx-note: caf\xe9\r\ncontent-length: %d\r\n" % len(body)
    async with a_server(head, body) as url:
        answer = await answer_from(url)
    assert answer.text == "42"


async def test_a_stream_that_may_go_on_behind_its_finish_and_has_no_framing_is_never_taken_for_whole() -> None:
    event = (
        b'data: {"candidates":[{"content":{"parts":[{"text":"first half, "}]},"finishReason":"STOP"}],'
        b'"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}\n\n'
    )
    async with a_server(b"content-type: text/event-stream\r\n", event) as url:
        assert await answer_from(url, dialect="gemini", stream="always") is None


# A gate that shuts while a call is written down ------------------------------------------------------------------------


def gates_the_first(bench: Bench) -> None:
    """The provider of the first call asks for two seconds after the call was decided and before it leaves."""
    def gate(line: Attempt) -> None:
        if len(bench.ledger.lines) == 1:
            bench.executor.backends.local(line.backend).gated(GateReason.RATE_LIMITED, 2_000, bench.clock.now_ms())

    bench.ledger.acknowledged = gate


async def test_a_call_does_not_leave_once_its_provider_asked_for_time_and_another_backend_is_asked() -> None:
    script = Script(ok())
    bench = await a_bench(script)
    gates_the_first(bench)
    completion, lines = await bench.complete(an_envelope(a_plan(a_candidate(backends=("a", "b")))))
    called_off, answered = lines
    assert (called_off.failure, called_off.cost_microusd, called_off.cost_known) == (FailureClass.CANCELLED, 0, True)
    assert (answered.failure, answered.kind) == (None, AttemptKind.PRIMARY)
    assert called_off.backend != answered.backend == completion.answer.backend
    assert len(script.requests) == 1
    assert not any(bench.executor.backends.local(name).in_flight for name in "ab")


async def test_where_there_is_no_other_backend_it_waits_for_the_gate_and_costs_no_retry() -> None:
    script = Script(ok())
    bench = await a_bench(script, one_backend())
    gates_the_first(bench)
    local, walking = bench.executor.backends.local("a"), asyncio.create_task(bench.complete(an_envelope(ONE)))
    await until(lambda: len(bench.executor.backends.room) == 1)
    assert not script.requests
    bench.clock.ms += 2_001
    completion, lines = await walking
    assert completion.answer is not None
    assert [line.kind for line in lines] == [AttemptKind.PRIMARY, AttemptKind.PRIMARY]
    assert local.tokens.tokens == local.tokens.tokens_max
