"""The broker dies under a running stage, and comes back: nothing is lost, and the stage says what it waits for."""

import asyncio
import logging
from pathlib import Path

import pytest
import uvloop

from services.cli.broker import KafkaProcess
from shared.clock import SystemClock
from shared.kafka import KafkaBroker, KafkaOptions
from tests.conftest import expel_from_kafka
from tests.support.lab import Lab, LabHandler


@pytest.mark.parametrize("transactional", [False, True])
def test_a_stage_survives_a_broker_that_is_killed_and_restarted(
    transactional: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(kafka: KafkaProcess) -> None:
        options = KafkaOptions(kafka.bootstrap, heartbeat_interval_ms=200, session_timeout_ms=6_000, request_timeout_ms=10_000)
        lab = Lab("kafka", KafkaBroker(options), SystemClock(), expel_from_kafka)
        await lab.create()
        ids = [f"r{n:03}" for n in range(200)]
        async with lab.running(LabHandler(lab, transactional=transactional)):
            await lab.feed_requests(*ids[:100])
            await lab.until_sunk(100)
            await asyncio.to_thread(kafka.kill)
            await asyncio.sleep(2)
            await asyncio.to_thread(kafka.restart)
            await lab.feed_requests(*ids[100:])
            sunk = await lab.until_sunk(200, within_s=60)
        assert {envelope.request_id for envelope in sunk} == set(ids)
        if transactional:
            assert len(sunk) == 200

    with caplog.at_level(logging.WARNING), KafkaProcess.start(data_dir=tmp_path) as kafka:
        uvloop.run(main(kafka))
