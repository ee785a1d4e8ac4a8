"""Make a member of a real group a zombie: the coordinator forgets it, it does not know yet."""

import asyncio
from typing import Any

from aiokafka.protocol.group import LeaveGroupRequest

from shared.broker import Consumer
from shared.kafka.consumer import KafkaConsumer


async def expel_from_kafka(consumer: Consumer, notice: asyncio.Event) -> None:
    """Leave the group in the member's name, and hold its heartbeats back until `notice`: as after a SIGSTOP that
    outlasted the session timeout."""
    assert isinstance(consumer, KafkaConsumer)
    coordinator = consumer._client._coordinator
    beat = coordinator._do_heartbeat

    async def held_back() -> Any:
        await notice.wait()
        return await beat()

    coordinator._do_heartbeat = held_back
    await asyncio.sleep(2 * coordinator._heartbeat_interval_ms / 1000)   # a heartbeat under way must not tell it
    await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))
