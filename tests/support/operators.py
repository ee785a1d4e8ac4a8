"""An operator's hand on a topic, on either broker: what a person does with Kafka's own tools, and what they then see."""

import asyncio
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.broker import Broker
from shared.kafka import KafkaBroker
from shared.kafka.topics import overrides, with_admin
from shared.local import LocalBroker


async def overrides_of(broker: Broker, topic: str) -> dict[str, str]:
    """What is set on the topic itself."""
    if isinstance(broker, LocalBroker):
        return broker.configs[topic]
    assert isinstance(broker, KafkaBroker)
    return (await with_admin(broker._options, partial(overrides, [topic])))[topic]


async def set_override(broker: Broker, topic: str, name: str, value: str) -> None:
    """Returns when everybody can see it: a Kafka needs a moment."""
    wanted = await overrides_of(broker, topic) | {name: value}
    if isinstance(broker, LocalBroker):
        broker.configs[topic] = wanted
        return
    assert isinstance(broker, KafkaBroker)
    await with_admin(broker._options, partial(_alter, ConfigResource(ConfigResourceType.TOPIC, topic, configs=wanted)))
    await until_seen(broker, topic, name, value)


async def until_seen(broker: Broker, topic: str, name: str, value: str) -> dict[str, str]:
    """All that is set on the topic, as soon as this is."""
    async with asyncio.timeout(15):
        while (found := await overrides_of(broker, topic)).get(name) != value:
            await asyncio.sleep(0.05)
    return found


async def _alter(resource: ConfigResource, admin: AIOKafkaAdminClient) -> None:
    (response,) = await admin.alter_configs([resource])
    assert not response.resources[0][0], response
