"""The evidence of `make scenarios` in short: every fault but the minute's outage once, on the suite's broker."""

import logging

import click
import pytest

from services.cli.broker import Chosen
from tests.scenarios.__main__ import judged
from tests.scenarios.evidence import Score
from tests.scenarios.table import HASTY, mix


def test_every_fault_of_a_provider_ends_in_a_whole_answer_or_a_true_error(
    kafka: Chosen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "aiokafka")   # a topic's first second without a leader is normal
    judgements = judged(mix(without=("S15",)), HASTY, kafka.bootstrap, click.echo)
    assert len(judgements) == 15
    broken = [line for judgement in judgements if judgement.score is not Score.PASS for line in judgement.broken()]
    assert not broken, "\n".join(broken)
