"""What the outside world reads is fresh, backward compatible, and true of every example message."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from schemas.compatibility import incompatibilities
from schemas.envelope import DeadHeader, Header
from schemas.generate import BASELINE, CHECKOUT, message_schemas, release, schema_file, stale_files
from schemas.messages import Reason
from schemas.topology import DEAD_LETTERS, STAGES, TOPICS, Topic, stage_named, topic_named
from shared.codec import decode, encode
from shared.errors import UndecodableError

EXAMPLES = CHECKOUT / "schemas/examples"
MESSAGES = sorted(path for path in EXAMPLES.glob("*/v1/*.json") if path.parts[-3] != DEAD_LETTERS.name)
REJECTED = sorted((EXAMPLES / DEAD_LETTERS.name / "v1").glob("*.bin"))

Json = dict[str, Any]
every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
every_example = pytest.mark.parametrize("path", MESSAGES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")


def topic_of(example: Path) -> Topic:
    return topic_named(example.parts[-3])


# --- generated files


def test_generated_files_and_the_picture_in_the_readme_are_fresh() -> None:
    assert not list(stale_files()), "run `make schemas` and commit what it writes"


def test_a_stale_schema_and_a_leftover_are_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "schemas/json/task.v1.json"
    copy.parent.mkdir(parents=True)
    copy.write_text("{}")
    copy.with_name("gone.v1.json").write_text("{}")
    (tmp_path / "README.md").write_text((CHECKOUT / "README.md").read_text("utf-8"), "utf-8")
    stale = {str(path): text for path, text in stale_files(tmp_path).items()}
    assert stale["schemas/json/task.v1.json"].startswith('{\n  "$schema"')
    assert stale["schemas/json/gone.v1.json"] == ""
    assert "README.md" not in stale


@pytest.mark.parametrize("path", message_schemas(), ids=lambda path: path.name)
def test_a_schema_is_a_valid_json_schema(path: Path) -> None:
    jsonschema_rs.meta.validate(_json(CHECKOUT / path))


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    file = CHECKOUT / "schemas/asyncapi.json"
    document = _json(file)
    for reference in _references(document):
        if reference.startswith("#/"):
            found = document
            for part in reference[2:].split("/"):
                found = found[part]
        else:
            assert (file.parent / reference).is_file(), reference


def test_the_asyncapi_document_has_one_operation_per_stage_and_topic_it_receives_or_sends() -> None:
    operations = _json(CHECKOUT / "schemas/asyncapi.json")["operations"]
    for stage in STAGES:
        named = {name for name in operations if name.startswith(f"{stage.name}.")}
        assert len(named) == len(stage.reads) + len(stage.tables) + len(stage.writes) + 1


# --- compatibility with the last release


@pytest.mark.parametrize("old", sorted((CHECKOUT / BASELINE).glob("*.json")), ids=lambda path: path.name)
def test_a_schema_is_compatible_with_the_last_release(old: Path) -> None:
    new = CHECKOUT / "schemas/json" / old.name
    assert new.exists(), f"{old.name}: topics of the last release must stay readable"
    assert incompatibilities(_json(old), _json(new)) == []


def test_a_release_moves_the_baseline(tmp_path: Path) -> None:
    (tmp_path / BASELINE).mkdir(parents=True)
    (tmp_path / BASELINE / "gone.v1.json").write_text("{}")
    release(tmp_path)
    assert {path.name for path in (tmp_path / BASELINE).iterdir()} == {path.name for path in message_schemas()}


def _remove(schema: Json) -> None:
    del schema["$defs"]["Task"]["properties"]["features"]


def _retype(schema: Json) -> None:
    schema["properties"]["deadline_ms"]["type"] = "string"


def _make_nullable(schema: Json) -> None:
    schema["properties"]["tenant"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def _require_a_new_one(schema: Json) -> None:
    schema["properties"]["region"] = {"type": "string"}
    schema["required"].append("region")


def _require_an_old_one(schema: Json) -> None:
    schema["required"].append("app")


def _no_longer_require(schema: Json) -> None:
    schema["required"].remove("tenant")


def _remove_an_enum_value(schema: Json) -> None:
    schema["$defs"]["Reason"]["enum"].remove("too_large")


def _narrow_to_an_enum(schema: Json) -> None:
    schema["properties"]["lane"]["enum"] = ["standard"]


def _narrow_a_bound(schema: Json) -> None:
    schema["$defs"]["Features"]["properties"]["tokens_in"]["minimum"] = 1


def _narrow_a_pattern(schema: Json) -> None:
    schema["properties"]["id"]["pattern"] = "^[a-z]+$"


def _close(schema: Json) -> None:
    schema["$defs"]["Chat"]["additionalProperties"] = False


def _retype_items(schema: Json) -> None:
    schema["$defs"]["Features"]["properties"]["needs"]["items"]["type"] = "integer"


def _change_a_default(schema: Json) -> None:
    schema["properties"]["lane"]["default"] = "batch"


def _add_optional(schema: Json) -> None:
    schema["properties"]["region"] = {"type": "string", "default": ""}
    schema["$defs"]["Chat"]["properties"]["logit_bias"] = {"anyOf": [{"type": "object"}, {"type": "null"}]}


def _describe(schema: Json) -> None:
    schema["description"] = schema["properties"]["tenant"]["title"] = "other words"


def _add_an_enum_value(schema: Json) -> None:
    schema["$defs"]["Reason"]["enum"].append("region_closed")


def _changed(change: Callable[[Json], None]) -> list[str]:
    old = _json(CHECKOUT / "schemas/json/task.v1.json")
    new = deepcopy(old)
    change(new)
    assert new != old
    return incompatibilities(old, new)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_remove, "record.payload.features: removed"),
        (_retype, "record.deadline_ms: retyped from integer to string"),
        (_make_nullable, "record.tenant: retyped from string to null | string"),
        (_require_a_new_one, "record.region: added as required, records in the log lack it"),
        (_require_an_old_one, "record.app: now required, records in the log lack it"),
        (_no_longer_require, "record.tenant: no longer always written, readers in the field require it"),
        (_remove_an_enum_value, "record.payload.failure.reason: enum value 'too_large' removed"),
        (_narrow_to_an_enum, "record.lane: narrowed to 'standard'"),
        (_narrow_a_bound, "record.payload.features.tokens_in: narrowed, minimum none became 1"),
        (_narrow_a_pattern, "record.id: narrowed, pattern none became ^[a-z]+$"),
        (_close, "record.payload.chat.*: narrowed, additionalProperties is no longer what it was"),
        (_retype_items, "record.payload.features.needs[]: retyped from string to integer"),
        (_change_a_default, "record.lane: default changed from 'standard' to 'batch'"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_an_incompatible_change_is_named(change: Callable[[Json], None], sentence: str) -> None:
    assert _changed(change) == [sentence]


@pytest.mark.parametrize("change", [_add_optional, _describe, _add_an_enum_value], ids=lambda f: f.__name__.strip("_"))
def test_a_compatible_change_passes(change: Callable[[Json], None]) -> None:
    assert _changed(change) == []


def test_classes_that_hold_themselves_can_be_compared() -> None:
    tree: Json = {
        "$ref": "#/$defs/Tree",
        "$defs": {"Tree": {"type": "object", "properties": {"child": {"$ref": "#/$defs/Tree"}}}},
    }
    assert incompatibilities(tree, tree) == []


# --- examples


@every_topic
def test_a_topic_has_an_ordinary_example_and_an_odd_one(topic: Topic) -> None:
    suffix = "bin" if schema_file(topic) is None else "json"
    assert len(list((EXAMPLES / topic.name / "v1").glob(f"*.{suffix}"))) >= 2


def test_every_example_folder_belongs_to_a_topic() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {topic.name for topic in TOPICS}


@every_example
def test_an_example_is_what_its_json_schema_promises(path: Path) -> None:
    schema = schema_file(topic_of(path))
    assert schema
    jsonschema_rs.validator_for(_json(CHECKOUT / schema)).validate(_json(path))


@every_example
def test_an_example_survives_reading_and_writing(path: Path) -> None:
    """What is written again is the example itself: no field of it is misspelt, for readers ignore unknown ones."""
    topic = topic_of(path)
    written = encode(topic, decode(topic, path.read_bytes()))
    assert json.loads(written) == _json(path)
    assert decode(topic, written) == decode(topic, path.read_bytes())


@every_example
def test_a_reader_ignores_a_field_that_a_newer_writer_added(path: Path) -> None:
    topic = topic_of(path)
    newer = json.dumps(_json(path) | {"added_later": {"deep": [1]}}).encode()
    known = topic.payload.model_fields
    assert {name: getattr(decode(topic, newer), name) for name in known} == {
        name: getattr(decode(topic, path.read_bytes()), name) for name in known
    }


def test_the_config_file_of_the_project_is_what_its_json_schema_promises() -> None:
    config = yaml.safe_load((CHECKOUT / "baton.yaml").read_text("utf-8"))
    validator = jsonschema_rs.validator_for(_json(CHECKOUT / "schemas/json/baton.yaml.schema.json"))
    validator.validate(config)
    assert not validator.is_valid(config | {"tenant": {}}), "an unknown section is a typo"


@pytest.mark.parametrize("path", REJECTED, ids=lambda path: path.stem)
def test_a_dead_letter_is_undecodable_for_the_stage_its_headers_name(path: Path) -> None:
    headers = _json(path.with_suffix(".headers.json"))
    cause, own = _constants(DeadHeader), _constants(Header)
    assert cause <= headers.keys() <= cause | own
    assert headers[DeadHeader.REASON] in set(Reason)
    source = topic_named(headers[DeadHeader.TOPIC])
    assert source in stage_named(headers[DeadHeader.STAGE]).reads
    with pytest.raises(UndecodableError):
        decode(source, path.read_bytes())


def _constants(names: type) -> set[str]:
    return {value for name, value in vars(names).items() if name.isupper()}


def _json(path: Path) -> Json:
    document: Json = json.loads(path.read_bytes())
    return document


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [reference for value in node.values() for reference in _references(value)]
    return [reference for value in node for reference in _references(value)] if isinstance(node, list) else []
