"""The fail-over evidence of `make failover`, inside the suite: one outage, and a circuit that is quicker still."""

import click

from tests.failover.__main__ import QUICK, run
from tests.support.system import evidence


def test_a_failing_backend_is_left_probed_and_returned_to_and_nobody_loses_an_answer() -> None:
    found = evidence(run(click.echo, QUICK, outages=1))
    broken = [finding for findings in found.values() for finding in findings if not finding.holds]
    assert not broken, broken
