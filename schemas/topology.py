"""The one table of topics and stages. Nothing else names a topic: consumer groups, topic creation, the AsyncAPI
document, the README picture and the contract tests derive from it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from schemas.config import ConfigRecord
from schemas.envelope import Envelope
from schemas.fleet import Alert, FleetEntry, Observation
from schemas.ledger import Attempt
from schemas.messages import (
    Claim,
    Completion,
    DeadLetter,
    Escalation,
    IntakeRecord,
    Lane,
    Plan,
    Request,
    Result,
    Task,
    Verdict,
)
from schemas.quality import Feedback, QualityEntry
from schemas.review import Review, ReviewDecision
from schemas.spend import SpendEntry

REQUEST_PARTITIONS_DEFAULT = 6
"""Partitions of every request-keyed topic: the most replicas a stage can use. `BATON_PARTITIONS` changes it at creation."""

DAY_MS = 86_400_000


class Key(StrEnum):
    """What a topic's record key identifies."""

    ANYTHING = "anything"
    REQUEST = "request"          # the ordering key when the caller gave one, else the request id
    BACKEND = "backend"
    ACCOUNT = "account"
    MODEL = "model and domain"
    REPLICA = "replica"
    OBJECT = "object"
    SUBJECT = "subject"
    IDEMPOTENCY = "idempotency key"


class Cleanup(StrEnum):
    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, eq=False)   # there is one of each: compared and hashed by identity, on every record's way
class Topic:
    """One topic. `partitions=None` means: as many as every request-keyed topic, so that a request stays on one number.

    `broker_time` stamps records with the broker's clock: read-backs by time then never depend on a replica's clock.
    """

    name: str
    key: Key
    payload: type[BaseModel]
    holds: str
    partitions: int | None = None
    cleanup: Cleanup = Cleanup.DELETE
    retention_ms: int = 7 * DAY_MS
    broker_time: bool = True
    bytes_max: int = 4_194_304            # a record grows on its way: task and answer travel with it

    @property
    def schema_name(self) -> str:
        """`task` for Envelope[Task]; the name in `schemas/json/` and in the `ce_type` header."""
        return payload_class(self).__name__.lower()


@dataclass(frozen=True)
class Stage:
    """One deployable. `outside` says who else feeds or drains it, for the picture only."""

    name: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    tables: tuple[Topic, ...] = ()        # tailed whole, outside the consumer group, by every replica or by one for all
    dead_letter_share_max: float = 0.5    # of what stages wrote

    @property
    def module(self) -> str:
        """The Python package of the stage, runnable with `python -m`."""
        return "services." + self.name.replace("-", "_")

    @property
    def group(self) -> str:
        """Its consumer group."""
        return f"baton.{self.name}"


def payload_class(topic: Topic) -> type[BaseModel]:
    """The payload inside the envelope, or the value's own class where a topic has no envelope."""
    args = topic.payload.__pydantic_generic_metadata__.get("args", ())
    return args[0] if args else topic.payload


def is_enveloped(topic: Topic) -> bool:
    """Whether values are `Envelope[...]`: true for everything that travels request → verdict."""
    return issubclass(topic.payload, Envelope)


# fmt: off
INTAKE        = Topic("intake",        Key.ANYTHING, IntakeRecord,         "what users ask: lenient JSON, a prompt or a chat body, plus options", bytes_max=1_048_588)
REQUESTS      = Topic("requests",      Key.REQUEST,  Envelope[Request],    "an accepted request: identity, tenant, lane, deadline, budget")
TASKS         = Topic("tasks",         Key.REQUEST,  Envelope[Task],       "the request, normalised and validated, with its features")
PLANS         = {lane: Topic(f"plans.{lane}", Key.REQUEST, Envelope[Plan], f"ordered candidates with limits, lane {lane}") for lane in Lane}
ATTEMPTS      = Topic("attempts",      Key.REQUEST,  Attempt,              "the ledger: started before a call, finished after it", retention_ms=30 * DAY_MS)
OBSERVATIONS  = Topic("observations",  Key.BACKEND,  Observation,          "small pre-aggregated deltas per backend, several a second", partitions=3, retention_ms=DAY_MS)
COMPLETIONS   = Topic("completions",   Key.REQUEST,  Envelope[Completion], "what executing a plan yielded: an answer or a typed failure")
ESCALATIONS   = Topic("escalations",   Key.REQUEST,  Envelope[Escalation], "ask for more: a stronger model")
VERDICTS      = Topic("verdicts",      Key.REQUEST,  Envelope[Verdict],    "the final judgement on a request")
REVIEWS       = Topic("reviews",       Key.REQUEST,  Envelope[Review],     "answers that wait for a person, and what the person said", retention_ms=30 * DAY_MS)
REVIEW_DECISIONS = Topic("review-decisions", Key.REQUEST, ReviewDecision,  "what people decide about answers under review", retention_ms=30 * DAY_MS, bytes_max=1_048_588)
RESULTS       = Topic("results",       Key.REQUEST,  Result,               "the one final answer of a request", retention_ms=30 * DAY_MS)
REPLIES       = Topic("replies",       Key.REPLICA,  Result,               "answers an HTTP caller waits for, on its intake replica's partition", partitions=16, retention_ms=3_600_000)
IDEMPOTENCY   = Topic("idempotency",   Key.IDEMPOTENCY, Claim,             "which body first used an idempotency key", partitions=1, retention_ms=2 * DAY_MS)
FLEET         = Topic("fleet",         Key.BACKEND,  FleetEntry,           "windows and circuit state per backend", partitions=1, cleanup=Cleanup.COMPACT)
SPEND         = Topic("spend",         Key.ACCOUNT,  SpendEntry,           "money and tokens so far, per account and period", partitions=1, cleanup=Cleanup.COMPACT)
QUALITY       = Topic("quality",       Key.MODEL,    QualityEntry,         "how well each model does at what, learned from verdicts and feedback", partitions=1, cleanup=Cleanup.COMPACT)
FEEDBACK      = Topic("feedback",      Key.REQUEST,  Feedback,             "how good an answer was, said by people or programs", retention_ms=30 * DAY_MS, bytes_max=1_048_588)
ALERTS        = Topic("alerts",        Key.SUBJECT,  Alert,                "circuits, gates and budgets that changed, and why", partitions=1, retention_ms=30 * DAY_MS)
CONFIG        = Topic("config",        Key.OBJECT,   ConfigRecord,         "catalogue, tenants, policies: versioned, hot", partitions=1, cleanup=Cleanup.COMPACT)
DEAD_LETTERS  = Topic("dead-letters",  Key.ANYTHING, DeadLetter,           "what could not be processed, byte-identical, cause in headers", retention_ms=30 * DAY_MS, bytes_max=4_718_592)

TOPICS: tuple[Topic, ...] = (
    INTAKE, REQUESTS, TASKS, *PLANS.values(), ATTEMPTS, OBSERVATIONS, COMPLETIONS, ESCALATIONS,
    VERDICTS, REVIEWS, REVIEW_DECISIONS, RESULTS, REPLIES, IDEMPOTENCY, FLEET, SPEND, QUALITY, FEEDBACK, ALERTS, CONFIG, DEAD_LETTERS,
)

STAGES: tuple[Stage, ...] = (
    # stage               reads                          writes                                     tables
    Stage("intake",        (INTAKE,),                    (REQUESTS, VERDICTS, IDEMPOTENCY, FEEDBACK), (CONFIG, REPLIES, IDEMPOTENCY)),
    Stage("preprocessing", (REQUESTS,),                  (TASKS,),                                  (CONFIG,)),
    Stage("router",        (TASKS, ESCALATIONS),         tuple(PLANS.values()),                     (CONFIG, FLEET, SPEND, QUALITY)),
    Stage("executor",      tuple(PLANS.values()),        (ATTEMPTS, OBSERVATIONS, COMPLETIONS),     (CONFIG, FLEET)),
    Stage("quality-gate",  (COMPLETIONS, REVIEWS, REVIEW_DECISIONS), (VERDICTS, ESCALATIONS, REVIEWS, REQUESTS, FEEDBACK), (CONFIG, QUALITY)),
    Stage("output",        (VERDICTS,),                  (RESULTS, REPLIES),                        (CONFIG,)),
    Stage("monitor",       (OBSERVATIONS,),              (FLEET, SPEND, QUALITY, ALERTS),           (CONFIG, FLEET, SPEND, QUALITY, ATTEMPTS, VERDICTS, FEEDBACK)),
)
# fmt: on
# Every stage may also write DEAD_LETTERS; the runner does it. The executor, the gate and output read their own ATTEMPTS,
# COMPLETIONS, VERDICTS and RESULTS back when they take a partition over; that is no subscription and needs no group.

LOOPS = {("quality-gate", REVIEWS)}
"""Where a stage reads what it writes. An answer under review is held open on a topic of its own, so that one that waits for
a person for hours holds no completion up; what follows from a record there is a verdict, so nothing goes round twice."""

USERS_WRITE = (INTAKE, FEEDBACK)
USERS_READ = (RESULTS, ATTEMPTS, ALERTS, DEAD_LETTERS)
OPERATORS_WRITE = (CONFIG, REVIEW_DECISIONS)
WRITTEN_OUTSIDE = frozenset(topic.name for topic in (*USERS_WRITE, *OPERATORS_WRITE))
"""Neither the form nor the place of what stands there is ours to rely on."""


@dataclass(frozen=True)
class TopicSpec:
    """What a broker must be told to create a topic."""

    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)


def topic_spec(topic: Topic, request_partitions: int = REQUEST_PARTITIONS_DEFAULT) -> TopicSpec:
    """Creation parameters. Compacted topics roll early so that a restart reads little (kafka: dirty ratio 0.1)."""
    configs: dict[str, Any] = {
        "cleanup.policy": topic.cleanup.value,
        "max.message.bytes": topic.bytes_max,
        "message.timestamp.type": "LogAppendTime" if topic.broker_time else "CreateTime",
    }
    if topic.cleanup is Cleanup.COMPACT:
        configs |= {"min.cleanable.dirty.ratio": 0.1, "segment.ms": 600_000}
    else:
        configs["retention.ms"] = topic.retention_ms
    partitions = topic.partitions or request_partitions
    return TopicSpec(topic.name, partitions, {name: str(value) for name, value in configs.items()})


def stage_named(name: str) -> Stage:
    """The row of a stage. Raises KeyError with the known names."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise KeyError(f"no stage {name!r}; known: {', '.join(stage.name for stage in STAGES)}")


def topic_named(name: str) -> Topic:
    """The row of a topic. Raises KeyError with the known names."""
    for topic in TOPICS:
        if topic.name == name:
            return topic
    raise KeyError(f"no topic {name!r}; known: {', '.join(topic.name for topic in TOPICS)}")
