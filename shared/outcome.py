"""What a handler decides about a record. Outcomes are values: a handler never raises for something expected.

- `Emit`: write these records, then the input is finished.
- `Hold`: write these records now, but leave the input open until a later record of the same request releases it (a join,
  or an ordered request that went back for a stronger model). After a crash the open ones are read again. At `until_ms` the
  record is handled once more, beside those that are still open.
- `Drop`: finished, nothing follows (a duplicate of what is already done).
- `Reject`: to `dead-letters`, byte-identical, with the cause in headers; `Emit` the request's failure beside it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from schemas.envelope import Envelope, Fact
from schemas.messages import Reason
from schemas.topology import Topic


class Out(NamedTuple):
    """One record to write: an envelope, or a plain fact with its key. `partition` is for addressed topics (replies)."""

    topic: Topic
    value: Envelope[Any] | Fact | BaseModel   # any payload; the codec checks it against the topic
    key: str = ""                        # envelopes carry their own
    partition: int | None = None


class Emit(NamedTuple):
    outputs: tuple[Out, ...]
    releases: frozenset[int] | None = None   # offsets of open records of the request that finish with it; None: all of them


@dataclass(frozen=True, slots=True)
class Hold:
    outputs: tuple[Out, ...]
    until_ms: int | None = None              # None: released as failed some time after its deadline


@dataclass(frozen=True, slots=True)
class Drop:
    reason: str
    releases: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    reason: Reason
    error: str = ""                      # an exception's class or a field path, never content
    outputs: tuple[Out, ...] = ()


Outcome = Emit | Hold | Drop | Reject
