"""The fail-over evidence of `make failover`, inside the suite."""

import click
import uvloop

from tests.failover.__main__ import run


def test_a_failing_backend_is_left_probed_and_returned_to_and_nobody_loses_an_answer() -> None:
    broken = [finding for finding in uvloop.run(run(click.echo)) if not finding.holds]
    assert not broken, broken
