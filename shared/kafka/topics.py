"""Makes topics what their specs say: creates, grows, sets what differs. It never deletes, never shrinks, and leaves alone
what an operator has set on a topic and no spec speaks of.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topology import TopicSpec
from shared.errors import TopicRefusedError
from shared.kafka.errors import guard
from shared.kafka.options import KafkaOptions

T = TypeVar("T")

SET_ON_THE_TOPIC = 1
"""A setting's source in Kafka's answer (KIP-226): this topic's own, neither the cluster's nor a default."""


class TopicShape(NamedTuple):
    """Partitions of a topic, and the copies that each of them has at least."""

    partitions: int
    copies: int


async def with_admin(options: KafkaOptions, work: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, T]]) -> T:
    admin = AIOKafkaAdminClient(**options.client())
    try:
        await guard(admin.start())
        return await guard(work(admin))
    finally:
        await admin.close()


async def topic_shapes(admin: AIOKafkaAdminClient) -> dict[str, TopicShape]:
    """Of every topic there is."""
    described = [topic for topic in await admin.describe_topics() if not topic["error_code"]]
    return {topic["topic"]: _shape(topic["partitions"]) for topic in described}


def _shape(partitions: Sequence[Mapping[str, Any]]) -> TopicShape:
    return TopicShape(len(partitions), min((len(each["replicas"]) for each in partitions), default=0))


async def apply_specs(specs: Sequence[TopicSpec], copies: int, admin: AIOKafkaAdminClient) -> Sequence[str]:
    """Returns the names it created. Raises TopicRefusedError, which names the topic and has the broker's words."""
    existing = await topic_shapes(admin)
    missing = [spec for spec in specs if spec.name not in existing]
    kept = [spec for spec in specs if spec.name in existing]
    try:
        await _create(missing, copies, admin)
        await _grow([spec for spec in kept if existing[spec.name].partitions < spec.partitions], admin)
        await _alter([spec for spec in kept if spec.configs], admin)
    except errors.BrokerResponseError as error:
        if error.retriable:
            raise
        raise TopicRefusedError(str(error)) from error
    await _until_known(admin, [spec.name for spec in missing])
    return [spec.name for spec in missing]


async def _create(specs: Sequence[TopicSpec], copies: int, admin: AIOKafkaAdminClient) -> None:
    if not specs:
        return
    safe = {"min.insync.replicas": str(in_sync_min(copies))}
    new = [NewTopic(spec.name, spec.partitions, copies, topic_configs=safe | spec.configs) for spec in specs]
    for name, code, *said in (await admin.create_topics(new)).topic_errors:
        if code != errors.TopicAlreadyExistsError.errno:   # somebody else was faster
            _check(name, code, *said)


def in_sync_min(copies: int) -> int:
    """Copies that must have a record before it is acknowledged: as many as are left when one broker is lost."""
    return max(1, copies - 1)


async def _grow(specs: Sequence[TopicSpec], admin: AIOKafkaAdminClient) -> None:
    if specs:
        await admin.create_partitions({spec.name: NewPartitions(spec.partitions) for spec in specs})


async def _alter(specs: Sequence[TopicSpec], admin: AIOKafkaAdminClient) -> None:
    """The client knows only the old AlterConfigs, which replaces all settings of a topic: what is not sent is unset."""
    if not specs:
        return
    wanted = differing(specs, await overrides([spec.name for spec in specs], admin))
    if not wanted:
        return
    for response in await admin.alter_configs([_resource(name, configs) for name, configs in wanted.items()]):
        for code, said, _, name in response.resources:
            _check(name, code, said)


def differing(specs: Sequence[TopicSpec], current: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """All that must be set on the topics that are not yet as their spec says."""
    wanted = {spec.name: {**current[spec.name], **spec.configs} for spec in specs}
    return {name: configs for name, configs in wanted.items() if configs != current[name]}


async def overrides(names: Sequence[str], admin: AIOKafkaAdminClient) -> dict[str, dict[str, str]]:
    """What is set on each topic itself. A change takes up to a second to show."""
    found = {}
    for response in await admin.describe_configs([_resource(name) for name in names]):
        for code, said, _, name, entries in response.resources:
            _check(name, code, said)
            found[name] = {key: value for key, value, _, source, *_ in entries if source == SET_ON_THE_TOPIC}
    return found


def _resource(name: str, configs: Mapping[str, str] | None = None) -> ConfigResource:
    return ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)


def _check(topic: str, code: int, said: str | None = None) -> None:
    """Raises the client's error of this code. Kafka answers for each topic by itself, and the client looks at none of it."""
    if code:
        raise errors.for_code(code)(f"topic {topic}" + (f": {said}" if said else ""))


async def _until_known(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """A new topic takes a moment to reach the brokers' metadata; a client that asks too early waits far longer."""
    async with asyncio.timeout(15):
        while not set(names) <= (await topic_shapes(admin)).keys():
            await asyncio.sleep(0.02)
