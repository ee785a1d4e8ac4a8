"""A gate alone at 500 completions a second: does its lag stay flat? Part of `make bench-pipelines`.

Only a broker and one replica of the gate run. Every answer has 2 KB and a context of its own; every check is on, and scores as a
policy has them that says nothing. With every score of every answer a process has no 500/s in it (the scores alone may take 2 ms):
what a completion then costs is measured at a rate that it can hold.
Lag is what stands in `completions` without its verdict, four times a second, as the broker counts it.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, median

import uvloop

from schemas.checks import Sampling
from schemas.config import ConfigFile, Policy
from schemas.envelope import Envelope
from schemas.messages import Completion
from schemas.topology import COMPLETIONS, REQUEST_PARTITIONS_DEFAULT, VERDICTS, stage_named
from services.cli.apply import apply_config
from services.cli.broker import KafkaProcess
from services.cli.topics import create_all
from shared.broker import Broker, Output, Reader
from shared.clock import SystemClock
from shared.codec import encode, headers_for
from shared.kafka import KafkaBroker, KafkaOptions
from tests.bench.cpu import Meter
from tests.bench.gate import ALL_CHECKS, material
from tests.bench.load import open_loop
from tests.bench.report import Target
from tests.bench.system import DEADLINE_MS, MODEL, TENANT, Say, config, supervised

RATE_S = 500
SECONDS = 30.0
WARM_S = 5.0
SAMPLE_S = 0.25
SCORED_RATE_S, SCORED_S = 100, 10.0
LAG_MAX = RATE_S // 2
"""Half a second's worth, at any moment."""

_COMPLETION = Envelope[Completion]


def measure(say: Say, rate_s: float = RATE_S, seconds: float = SECONDS) -> dict[str, float]:
    """Lag in records, how it grows in records per second, and the gate's CPU time per completion."""
    stage = stage_named("quality-gate")
    with supervised(say) as processes, KafkaProcess.start(say=say) as kafka:
        broker = KafkaBroker(KafkaOptions(kafka.bootstrap, client_id="bench"))
        uvloop.run(_prepare(broker))
        name = processes.start(stage.name, stage.module, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap)
        try:
            processes.wait_ready(name)
            uvloop.run(_loaded(broker, RATE_S, 2.0))      # warms both sides up
            meter = Meter({"gate": processes.pid(name)})
            lags = uvloop.run(_loaded(broker, rate_s, seconds))
            cpu_ms = meter.spent_ms()["gate"] / (rate_s * seconds)
            uvloop.run(apply_config(broker, _config(Sampling(share=1.0)), SystemClock().now_ms()))
            meter = Meter({"gate": processes.pid(name)})
            uvloop.run(_loaded(broker, SCORED_RATE_S, SCORED_S))
            scored_cpu_ms = meter.spent_ms()["gate"] / (SCORED_RATE_S * SCORED_S)
        finally:
            processes.stop(name)
    slope, error = trend(lags[int(WARM_S / SAMPLE_S):])
    return {
        "lag_p50": median(lags), "lag_max": max(lags), "lag_growth_s": slope / SAMPLE_S,
        "lag_growth_at_least_s": (slope - 2 * error) / SAMPLE_S, "cpu_ms": cpu_ms, "every_score_cpu_ms": scored_cpu_ms,
    }  # fmt: skip


def trend(samples: Sequence[float]) -> tuple[float, float]:
    """Slope per sample by least squares, and its standard error."""
    count, middle, mean = len(samples), (len(samples) - 1) / 2, fmean(samples)
    spread = sum((place - middle) ** 2 for place in range(count))
    slope = sum((place - middle) * (lag - mean) for place, lag in enumerate(samples)) / spread
    rest = sum((lag - mean - slope * (place - middle)) ** 2 for place, lag in enumerate(samples))
    return slope, sqrt(rest / (count - 2) / spread)


def targets_of(figures: Mapping[str, float]) -> list[Target]:
    return [
        Target(f"gate at {RATE_S}/s: its lag grows by, less two errors", figures["lag_growth_at_least_s"], 0, "records/s"),
        Target(f"gate at {RATE_S}/s: largest lag", figures["lag_max"], LAG_MAX, "records"),
    ]


def _config(scoring: Sampling | None = None) -> ConfigFile:
    policy = Policy(checks=ALL_CHECKS, escalations_max=0, **({"scoring": scoring} if scoring else {}))
    return config("http://127.0.0.1:9").model_copy(update={"policies": {"default": policy}})


async def _prepare(broker: Broker) -> None:
    await create_all(broker, REQUEST_PARTITIONS_DEFAULT)
    await apply_config(broker, _config(), SystemClock().now_ms())


def _record(run: str, number: int) -> Output:
    task, answer = material(f"Case {number} of the office's list.")
    id, now_ms = f"{run}-{number}", SystemClock().now_ms()
    completion = Completion(plan_id=f"{id}/plan/0", plan_number=0, task=task, answer=answer.model_copy(update={"model": MODEL}))
    envelope = _COMPLETION(
        id=f"{id}/plan/0/completion", request_id=id, key=id, tenant=TENANT, accepted_ms=now_ms, deadline_ms=now_ms + DEADLINE_MS,
        payload=completion,
    )  # fmt: skip
    return Output(COMPLETIONS.name, id.encode(), encode(COMPLETIONS, envelope), headers_for(COMPLETIONS, "executor", envelope))


async def _loaded(broker: Broker, rate_s: float, seconds: float) -> list[int]:
    """The lag at each sample of a load, and none at its end."""
    producer, numbers, run = await broker.producer(linger_ms=0), itertools.count(), f"bench{SystemClock().now_ms()}"
    readers = await asyncio.gather(broker.reader(COMPLETIONS.name, at_end=True), broker.reader(VERDICTS.name, at_end=True))

    async def fire(due_s: float) -> None:
        await producer.send(_record(run, next(numbers)))

    async def sampled() -> None:
        while True:
            lags.append(await _lag(*readers))
            await asyncio.sleep(SAMPLE_S)

    lags: list[int] = []
    sampling = asyncio.create_task(sampled())
    try:
        await open_loop(rate_s, seconds, fire)
        sampling.cancel()
        async with asyncio.timeout(seconds):
            while await _lag(*readers):
                await asyncio.sleep(SAMPLE_S)
    finally:
        sampling.cancel()
        await asyncio.gather(producer.close(), *(reader.close() for reader in readers))
    return lags


async def _lag(completions: Reader, verdicts: Reader) -> int:
    """Verdicts are counted first: what comes in between counts as lag, never against it."""
    judged = sum((await verdicts.ends()).values())
    return sum((await completions.ends()).values()) - judged
