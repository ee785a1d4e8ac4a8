"""Records to and from bytes: one JSON object per record, typed by the topic's row, straight from and to bytes."""

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.envelope import SCHEMA_MAJOR, Envelope, Header
from schemas.topology import Topic
from shared.broker import Headers
from shared.errors import UndecodableError

_JSON = (Header.CONTENT_TYPE, b"application/json")
_SPEC = (Header.SPEC_VERSION, b"1.0")


def decode(topic: Topic, value: bytes | None) -> Any:
    """The topic's payload class from bytes. Raises UndecodableError naming the fields, never their content."""
    if value is None:
        raise UndecodableError(f"{topic.name}: a tombstone where a record is due")
    try:
        return topic.payload.model_validate_json(value)
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'record'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False, include_context=False)[:5]
        )
        raise UndecodableError(f"{topic.name}: {fields}") from None


@cache
def _encoder(payload: type[BaseModel]) -> Callable[[BaseModel], bytes]:
    to_json = payload.__pydantic_serializer__.to_json
    return lambda value: to_json(value, exclude_defaults=True)


def encode(topic: Topic, value: BaseModel) -> bytes:
    """Bytes of a value of exactly the topic's class; defaults are left out, so an empty field costs nothing."""
    if type(value) is not topic.payload:
        raise TypeError(f"{topic.name} holds {topic.payload.__name__}, not {type(value).__name__}")
    return _encoder(topic.payload)(value)


@cache
def _static_headers(topic: Topic, stage: str) -> Headers:
    kind = f"baton.{topic.schema_name}.v{SCHEMA_MAJOR}".encode()
    return (_SPEC, _JSON, (Header.TYPE, kind), (Header.SOURCE, f"baton/{stage}".encode()))


def headers_for(topic: Topic, stage: str, envelope: Envelope[Any] | None, trace: Headers = ()) -> Headers:
    """CloudEvents headers, the identity that a reader needs without parsing, and the trace context as it came."""
    static = _static_headers(topic, stage)
    if envelope is None:
        return static + trace
    identity: Headers = (
        (Header.ID, envelope.id.encode()),
        (Header.SUBJECT, envelope.request_id.encode()),
        (Header.TENANT, envelope.tenant.encode()),
        (Header.ACCEPTED_MS, b"%d" % envelope.accepted_ms),
        (Header.DEADLINE_MS, b"%d" % envelope.deadline_ms),
    )
    if envelope.reply is not None:
        identity += ((Header.REPLY, envelope.reply.encode()),)
    return static + identity + trace
