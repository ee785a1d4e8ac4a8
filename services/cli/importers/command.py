"""`baton import`: reads a file, prints a config. What was not understood goes to stderr, and nothing is written elsewhere."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from services.cli.config_file import load
from services.cli.importers.imported import Imported
from services.cli.importers.litellm import import_litellm
from services.cli.importers.modelsdev import import_modelsdev
from services.cli.importers.reading import read_json, read_yaml
from services.cli.importers.text import differences, written
from shared.errors import BatonError, ConfigError

QUALITY = 0.6

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@click.group("import")
def import_() -> None:
    """Turn another tool's models and prices into a baton.yaml, on stdout."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    options: tuple[Decorator, ...] = (
        click.argument("file", type=click.Path(path_type=Path)),
        click.option("--quality", type=click.FloatRange(0, 1), default=QUALITY, show_default=True,
                     help="Stands in every model, as a placeholder."),
        click.option("-o", "--output", type=click.Path(path_type=Path), help="A new file to write to, instead of stdout."),
        click.option("--diff", type=click.Path(path_type=Path), metavar="CONFIG",
                     help="Print what would change in this baton.yaml, instead of the import."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@import_.command("litellm")
@_options
@click.option("--prices", type=click.Path(path_type=Path), help="LiteLLM's model_prices_and_context_window.json.")
def litellm(file: Path, quality: float, output: Path | None, diff: Path | None, prices: Path | None) -> None:
    """A LiteLLM proxy's config: its models, deployments, limits, timeouts and fallbacks.

    Prices and context sizes stand in its price map more often than in the config: give that, too.
    """
    _import("litellm", file, output, diff, lambda: import_litellm(read_yaml(file), _price_map(prices), quality))


@import_.command("models.dev")
@_options
@click.option("--provider", "providers", multiple=True, metavar="ID", help="Only this one; may be repeated.")
def models_dev(file: Path, quality: float, output: Path | None, diff: Path | None, providers: tuple[str, ...]) -> None:
    """The api.json of models.dev: providers, models, limits and prices."""
    _import("models.dev", file, output, diff, lambda: import_modelsdev(read_json(file), providers, quality))


def _price_map(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must be an object of models")
    return found


def _import(command: str, file: Path, output: Path | None, diff: Path | None, made: Callable[[], Imported]) -> None:
    try:
        if output is not None and output.exists():
            raise ConfigError(f"{output}: exists; an import never overwrites, so name a new file")
        click.echo(f"reading {file}", err=True)
        imported = made()
        config = imported.config()
        for line in imported.report():
            click.echo(line, err=True)
        if not imported.backends:
            raise ConfigError(f"{file}: nothing in it could be imported; see above what each part lacks")
        if diff is not None:
            text = "".join(f"{line}\n" for line in differences(load(diff), config)) or f"nothing differs from {diff}\n"
        else:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            text = written(config, command, file.name, digest, imported.quality)
    except BatonError as error:
        raise click.ClickException(str(error)) from None
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    click.echo(imported.summary(), err=True)
