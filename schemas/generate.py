"""Turns the classes and the table of topics into what the outside world reads: `schemas/json/`, `schemas/asyncapi.json`
and the picture in the README. `--check` writes nothing and fails where a file differs from what would be written.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from schemas.asyncapi import asyncapi
from schemas.config import ConfigFile
from schemas.messages import DeadLetter
from schemas.picture import between_markers
from schemas.topology import TOPICS, Topic, payload_class

CHECKOUT = Path(__file__).resolve().parents[1]
JSON = Path("schemas/json")
BASELINE = JSON / "baseline"
README = Path("README.md")


def schema_file(topic: Topic) -> Path | None:
    """Where the JSON Schema of a topic's value is; None for dead letters, which hold any bytes."""
    return None if payload_class(topic) is DeadLetter else JSON / f"{topic.schema_name}.v1.json"


def message_schemas() -> Mapping[Path, dict[str, Any]]:
    """One JSON Schema per value class, as a reader sees it: fields with a default may be missing."""
    return {path: _json_schema(topic.payload) for topic in TOPICS if (path := schema_file(topic))}


def generated_files(readme: str) -> Mapping[Path, str]:
    """Every generated file, relative to the checkout, with the text it must have."""
    documents = {
        **message_schemas(),
        JSON / "baton.yaml.schema.json": _json_schema(ConfigFile),
        Path("schemas/asyncapi.json"): asyncapi({topic.name: schema_file(topic) for topic in TOPICS}),
    }
    return {path: _text(document) for path, document in documents.items()} | {README: between_markers(readme)}


def stale_files(checkout: Path = CHECKOUT) -> Mapping[Path, str]:
    """Generated files that are missing or differ, with the text they should have, and leftovers with an empty text."""
    wanted = generated_files((checkout / README).read_text("utf-8"))
    present = {path.relative_to(checkout) for path in (checkout / JSON).glob("*.json")}
    stale = {path: text for path, text in wanted.items() if not _has_text(checkout / path, text)}
    return stale | dict.fromkeys(present - wanted.keys(), "")


def release(checkout: Path = CHECKOUT) -> None:
    """Makes today's message schemas the ones that later changes are compared with."""
    for old in (checkout / BASELINE).glob("*.json"):
        old.unlink()
    for path, schema in message_schemas().items():
        _put(checkout / BASELINE / path.name, _text(schema))


def _json_schema(value_class: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | value_class.model_json_schema()


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _has_text(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


def _put(path: Path, text: str) -> None:
    """An empty text removes the file."""
    if text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    else:
        path.unlink()


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when a file is stale.")
@click.option("--release", "releasing", is_flag=True, help="Also make today's message schemas the baseline.")
def main(check: bool, releasing: bool) -> None:
    """Regenerate the JSON Schemas, the AsyncAPI document and the README's picture from the classes and the table."""
    stale = stale_files()
    for path in stale:
        click.echo(f"{'stale' if check else 'wrote' if stale[path] else 'removed'} {path}")
    if check:
        sys.exit("run `make schemas` and commit what it writes" if stale else 0)
    for path, text in stale.items():
        _put(CHECKOUT / path, text)
    if releasing:
        release()
        click.echo(f"{BASELINE} is now today's schemas")


if __name__ == "__main__":
    main()
