"""A part of `make fleet` on a real broker, inside the suite: what waits for a gate, and nobody who calls before it opens."""

import click

from tests.fleet import gates


def test_nobody_calls_before_a_retry_after_is_over_and_what_waits_for_it_is_sent_in_order() -> None:
    broken = [finding for finding in gates.run(click.echo, gates.QUICK) if not finding.holds]
    assert not broken, broken
