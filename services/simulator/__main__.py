"""Starts one simulator process: `python -m services.simulator --port 0 --invoice invoice.jsonl`."""

import errno
from pathlib import Path

import click
import uvloop

from services.simulator.control import Control, ControlError, read_control
from services.simulator.main import Settings, serve
from services.simulator.profiles import FLEETS


def _controls(_: click.Context, __: click.Parameter, bodies: tuple[str, ...]) -> tuple[Control, ...]:
    try:
        return tuple(map(read_control, bodies))
    except ControlError as bad:
        raise click.BadParameter(f"{bad.field}: {bad.message}") from None


@click.command()
@click.option("--name", default="alpha", show_default=True, help="Provider that answers paths without a provider.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--invoice", type=click.Path(dir_okay=False, path_type=Path), help="File of billed calls, appended to.")
@click.option("--profile", default="typical", show_default=True, type=click.Choice(list(FLEETS)))
@click.option("--seed", default=7, show_default=True, help="Of faults and latencies, not of answers.")
@click.option("--latency-scale", default=1.0, show_default=True, type=click.FloatRange(0), help="0 answers at once.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 inside a container.")
@click.option("--control", "controls", multiple=True, callback=_controls, help="JSON as POST /control takes it; repeatable.")
def main(
    name: str,
    port: int,
    invoice: Path | None,
    profile: str,
    seed: int,
    latency_scale: float,
    host: str,
    controls: tuple[Control, ...],
) -> None:
    """A stand-in for AI providers, in three wire formats, with faults, latencies and an invoice of its own."""
    settings = Settings(name, port, invoice, profile, seed, latency_scale, host, controls)
    try:
        uvloop.run(serve(settings, lambda address: click.echo(f"simulator ready on {address}")))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise click.ClickException(f"--port {port} is taken on {host}; use another, or 0 for a free one") from None
        raise click.ClickException(f"the simulator cannot run: {error}") from error


if __name__ == "__main__":
    main()
