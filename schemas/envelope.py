"""Identity, order, deadline, budget and return address around a payload, and the Kafka headers that repeat them.

Headers follow CloudEvents' Kafka binary mode, so that a reader can route, count and drop a record without parsing it.
"""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_MAJOR = 1


class Fact(BaseModel):
    """Base of everything on a topic: immutable; readers ignore fields they do not know, writers never retype one."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")

    def __eq__(self, other: object) -> bool:
        """As pydantic's, for values without extra or private fields: leaving defaults out of what is written asks it often."""
        return self is other or (type(self) is type(other) and self.__dict__ == other.__dict__)


P = TypeVar("P", bound=Fact)
Q = TypeVar("Q", bound=Fact)


class Envelope(Fact, Generic[P]):
    """A payload on its way. `id` follows from its input (`request/step/plan-number`), so a replay makes the same id.

    Times are epoch milliseconds, money is integer micro-USD. Serialise the exact `Envelope[Plan]`, never `Envelope`:
    pydantic would write an empty payload.
    """

    id: str
    request_id: str
    key: str = Field(description="ordering key: records that share it stay in order; the request id when none was given")
    tenant: str
    app: str = ""
    lane: str = "standard"
    accepted_ms: int
    deadline_ms: int
    budget_microusd: int | None = Field(None, description="the most this request may cost; null: no limit of its own")
    spent_microusd: int = Field(0, description="upper bound of what its attempts have cost so far")
    reply: str | None = Field(None, description="`partition` of the intake replica whose HTTP caller waits")
    ordered: bool = Field(False, description="whether the caller gave an ordering key")
    metadata: dict[str, Any] = Field(default_factory=dict, description="the caller's own labels, returned untouched")
    payload: P

    def forward(self, kind: "type[Envelope[Q]]", id: str, payload: Q, spent_microusd: int | None = None) -> "Envelope[Q]":
        """The same request one hop on."""
        return kind(
            id=id,
            request_id=self.request_id,
            key=self.key,
            tenant=self.tenant,
            app=self.app,
            lane=self.lane,
            accepted_ms=self.accepted_ms,
            deadline_ms=self.deadline_ms,
            budget_microusd=self.budget_microusd,
            spent_microusd=self.spent_microusd if spent_microusd is None else spent_microusd,
            reply=self.reply,
            ordered=self.ordered,
            metadata=self.metadata,
            payload=payload,
        )


class Header:
    """Names of the headers on every record that a stage writes; values are UTF-8."""

    ID = "ce_id"
    TYPE = "ce_type"
    SOURCE = "ce_source"
    SPEC_VERSION = "ce_specversion"
    SUBJECT = "ce_subject"           # the request id
    CONTENT_TYPE = "content-type"
    TRACEPARENT = "traceparent"
    TRACESTATE = "tracestate"
    ACCEPTED_MS = "accepted-ms"
    DEADLINE_MS = "deadline-ms"
    TENANT = "tenant"
    REPLY = "reply"


class DeadHeader:
    """Cause headers of a dead letter. Its value and key are the rejected record's, byte for byte."""

    TOPIC = "dead-letter-topic"
    PARTITION = "dead-letter-partition"
    OFFSET = "dead-letter-offset"
    TIMESTAMP_MS = "dead-letter-timestamp-ms"
    STAGE = "dead-letter-stage"
    REASON = "dead-letter-reason"
    ERROR = "dead-letter-error"      # the exception's class: its text may hold a prompt
    TRIES = "dead-letter-tries"
    SCHEMA = "dead-letter-schema"
