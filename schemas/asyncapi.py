"""The table of topics and stages as an AsyncAPI 3.0 document: channels, senders, receivers, keys, partitions, headers.

Payloads are references to the JSON Schemas beside it. It says nothing that `schemas/topology.py` does not say.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.envelope import SCHEMA_MAJOR, DeadHeader, Header
from schemas.topology import (
    DEAD_LETTERS,
    OPERATORS_WRITE,
    REQUEST_PARTITIONS_DEFAULT,
    STAGES,
    TOPICS,
    USERS_READ,
    USERS_WRITE,
    Stage,
    Topic,
    is_enveloped,
    topic_spec,
)

BINDING = {"bindingVersion": "0.5.0"}
BY_STAGES = {topic for stage in STAGES for topic in stage.writes} | {DEAD_LETTERS}


def asyncapi(schema_files: Mapping[str, Path | None]) -> dict[str, Any]:
    """The document; `schema_files` maps topic names to the file of their JSON Schema, None where values are bytes."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Baton",
            "version": f"{SCHEMA_MAJOR}.0.0",
            "description": "Requests in, one result each out, over Kafka. Generated from schemas/topology.py.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {topic.name: _message(topic, schema_files[topic.name]) for topic in TOPICS},
            "schemas": {
                "headers": _headers(Header, (Header.SPEC_VERSION, Header.CONTENT_TYPE, Header.TYPE, Header.SOURCE)),
                "deadLetterHeaders": _headers(DeadHeader, (DeadHeader.TOPIC, DeadHeader.STAGE, DeadHeader.REASON)),
            },
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    spec = topic_spec(topic)
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup.value], "max.message.bytes": topic.bytes_max}
    if "retention.ms" in spec.configs:
        configuration["retention.ms"] = topic.retention_ms
    return {
        "address": topic.name,
        "description": _partitions_text(topic),
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        "bindings": {"kafka": {"partitions": spec.partitions, "topicConfiguration": configuration} | BINDING},
    }


def _partitions_text(topic: Topic) -> str:
    if topic.partitions is not None:
        return topic.holds
    return f"{topic.holds}; as many partitions as all request-keyed topics ({REQUEST_PARTITIONS_DEFAULT} by default)"


def _message(topic: Topic, schema_file: Path | None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": f"baton.{topic.schema_name}.v{SCHEMA_MAJOR}",
        "title": topic.payload.__name__,
        "summary": topic.holds,
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key.value}} | BINDING},
    }
    if schema_file is None:
        message["contentType"] = "application/octet-stream"
    else:
        reference = PurePosixPath(schema_file).relative_to("schemas")
        schema_format = "application/schema+json;version=draft-2020-12"
        message["payload"] = {"schemaFormat": schema_format, "schema": {"$ref": f"./{reference}"}}
    if topic in BY_STAGES:
        name = "deadLetterHeaders" if topic is DEAD_LETTERS else "headers"
        message["headers"] = {"$ref": f"#/components/schemas/{name}"}
    if is_enveloped(topic):
        message["correlationId"] = {"location": f"$message.header#/{Header.SUBJECT}"}
    return message


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for stage in STAGES:
        for topic in stage.reads:
            yield f"{stage.name}.receive.{topic.name}", _operation("receive", topic, stage)
        for topic in stage.tables:
            yield f"{stage.name}.table.{topic.name}", _operation("receive", topic)
        for topic in (*stage.writes, DEAD_LETTERS):
            yield f"{stage.name}.send.{topic.name}", _operation("send", topic)
    for who, action, topics in (
        ("users", "send", USERS_WRITE),
        ("users", "receive", USERS_READ),
        ("operators", "send", OPERATORS_WRITE),
    ):
        for topic in topics:
            yield f"{who}.{action}.{topic.name}", _operation(action, topic)


def _operation(action: str, topic: Topic, group_of: Stage | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{topic.name}"}],
    }
    if group_of is not None:
        operation["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group_of.group]}} | BINDING}
    return operation


def _headers(names: type, required: tuple[str, ...]) -> dict[str, Any]:
    """A JSON Schema of the headers that a class of constants names."""
    texts = [value for name, value in vars(names).items() if name.isupper()]
    return {"type": "object", "properties": {text: {"type": "string"} for text in texts}, "required": list(required)}
