"""Two brokers with a line between them, as two sites have: what the nodes of one say is repeated at the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flchain.base.types import Address
from flchain.wire.packets import decode_packet
from flchain.wire.topics import CHANNEL_RULES, Channel, Topics, read_topic_channel
from flchain_edge.mqtt.inbox import LinkEvent, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings


class BrokerBridge:
    """Repeats at QoS 0, so that a message is lost with the line; its sender has to repeat it.

    Each topic belongs to one node and each node to one site, so nothing goes round in circles.
    """

    def __init__(
        self, near: MqttSettings, far: MqttSettings, near_nodes: Iterable[str], far_nodes: Iterable[str]
    ) -> None:
        near, far = replace(near, client_id="bridge"), replace(far, client_id="bridge")
        self._near = MqttLink(near, lambda event: repeat(event, self._far))
        self._far = MqttLink(far, lambda event: repeat(event, self._near))
        self._near.subscribe(*near_nodes, qos=0)
        self._far.subscribe(*far_nodes, qos=0)

    @property
    def is_ready(self) -> bool:
        """True when both brokers have taken it and its subscriptions."""
        return self._near.is_subscribed and self._far.is_subscribed

    async def start(self) -> None:
        """Connect to both."""
        await self._near.start()
        await self._far.start()

    async def stop(self) -> None:
        """Leave both."""
        await self._near.stop()
        await self._far.stop()


def build_filter(topics: Topics, role: str, address: Address) -> str:
    """Everything that one node says."""
    return f"{topics.prefix}/{role}/{address.hex()}/#"


def repeat(event: LinkEvent, link: MqttLink) -> bool:
    """Say again what came; a broker does not tell a subscriber that a message is retained at it."""
    if isinstance(event, Received):
        link.publish(event.topic, event.payload, retain=is_retained(event.topic, event.payload), qos=0)
    return True


def is_retained(topic: str, payload: bytes) -> bool:
    """Return whether the node that published this asked the broker to retain it."""
    rule, type = CHANNEL_RULES[Channel(read_topic_channel(topic))], decode_packet(payload).type
    return any(carried.type is type and carried.is_retained for carried in rule.carries)
