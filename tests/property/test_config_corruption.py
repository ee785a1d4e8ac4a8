"""Whatever single thing is wrong in baton.yaml, the error names its line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.config_file import load, parse
from shared.errors import ConfigError

BATON_YAML = Path(__file__).resolve().parents[2] / "baton.yaml"
TEXT = BATON_YAML.read_text(encoding="utf-8")

REQUIRED = re.compile(
    r"models|backends|tenants|models\.[^.]+\.(quality|context_tokens)"
    r"|backends\.[^.]+\.(model|provider|base_url|prices)|backends\.[^.]+\.prices\.(input|output)"
)


@dataclass(frozen=True)
class Entry:
    """One `name: value` of the file. Lines count from 1; the object is what the entry stands in."""

    path: str
    line: int
    object_line: int
    key: yaml.Node
    value: yaml.Node
    next_key: yaml.Node | None
    in_braces: bool


def entries(node: yaml.Node | None, path: str = "", object_line: int = 1) -> Iterator[Entry]:
    if not isinstance(node, yaml.MappingNode):
        return
    for (key, value), following in zip(node.value, [*node.value[1:], None], strict=False):
        line = key.start_mark.line + 1
        here = f"{path}.{key.value}".lstrip(".")
        yield Entry(here, line, object_line, key, value, following and following[0], bool(node.flow_style))
        yield from entries(value, here, line)


ENTRIES = list(entries(yaml.compose(TEXT, yaml.SafeLoader)))


def without(entry: Entry) -> str:
    """The file without the entry, every other line where it was."""
    start, end = entry.key.start_mark.index, value_end(entry)
    if entry.in_braces and entry.next_key:
        end = entry.next_key.start_mark.index
    return TEXT[:start] + "\n" * TEXT[start:end].count("\n") + TEXT[end:]


def retyped(entry: Entry, value: str) -> str:
    start, end = entry.key.end_mark.index, value_end(entry)
    return f"{TEXT[:start]}: {value}" + "\n" * TEXT[start:end].count("\n") + TEXT[end:]


def value_end(entry: Entry) -> int:
    """Where the value ends; a block reaches to the next token in YAML's eyes, the indent of which is not its own."""
    start, end = entry.value.start_mark.index, entry.value.end_mark.index
    return start + len(TEXT[start:end].rstrip())


def wrong_value(entry: Entry) -> str:
    """A value of a type that cannot stand there."""
    if isinstance(entry.value, yaml.ScalarNode):
        is_text = entry.value.tag == "tag:yaml.org,2002:str"
        return "12" if is_text else "cheap"
    return "7"


def errors_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def test_the_default_config_is_right() -> None:
    config = load(BATON_YAML)
    assert {"sim-nano", "sim-small", "sim-large", "sim-reason"} <= config.models.keys()
    assert all(backend.requires for backend in config.backends.values())


@settings(max_examples=30)
@given(st.sampled_from([entry for entry in ENTRIES if REQUIRED.fullmatch(entry.path)]))
def test_a_required_field_that_is_missing_is_named_with_the_line_of_its_object(entry: Entry) -> None:
    assert any(
        error.startswith(f"baton.yaml:{entry.object_line}: {entry.path}: missing") for error in errors_of(without(entry))
    )


@settings(max_examples=60)
@given(st.sampled_from(ENTRIES), st.booleans())
def test_a_value_of_another_type_is_named_with_its_line(entry: Entry, nested: bool) -> None:
    value = '[{"no": "such thing"}]' if nested else wrong_value(entry)
    found = errors_of(retyped(entry, value))
    assert all(error.startswith(f"baton.yaml:{entry.line}: {entry.path}") for error in found if "no model" not in error)
    assert any(error.startswith(f"baton.yaml:{entry.line}: {entry.path}") for error in found)


@settings(max_examples=30)
@given(st.sampled_from(ENTRIES), st.text("abcdefghij_", min_size=12, max_size=16))
def test_a_field_or_object_of_another_name_never_passes_unseen(entry: Entry, name: str) -> None:
    start, end = entry.key.start_mark.index, entry.key.end_mark.index
    parts = entry.path.split(".")
    if len(parts) == 2 and parts[0] in ("tenants", "policies", "backends", "pipelines"):
        return  # renaming an object that nothing refers to is no mistake
    found = errors_of(TEXT[:start] + name + TEXT[end:])
    renamed = [error for error in found if error.startswith(f"baton.yaml:{entry.line}: ")]
    assert renamed or all(": no model" in error for error in found)
