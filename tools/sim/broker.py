"""The broker of a simulated network: which node hears what, when, how often, and what is lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import agent.core.values as av
import miner.core.values as mv
from flchain.wire.chunks import split_packet
from flchain.wire.topics import CHANNEL_RULES, Channel, Listener, Role, Topics, read_topic_channel
from tools.sim.timeline import Timeline
from tools.sim.trace import describe_event
from tools.sim.world import Disk, Links, Node, OwnMessage

Heard = mv.PacketReceived | av.PacketReceived


class Watcher(Protocol):
    """What looks at every packet before it is carried; `tools.sim.checks.Checker` is the real one."""

    def hear(self, packet: bytes) -> None:
        """Take note of a packet that anyone, honest or not, has published."""
        ...

    def check_word(self, name: str, address: bytes, packet: bytes, own: list[OwnMessage]) -> None:
        """Check a packet that an honest miner publishes for the other miners."""
        ...

    def check_scores(self, name: str, packet: bytes, disk: Disk) -> None:
        """Check a packet that an honest device publishes."""
        ...


class Receivers(Protocol):
    """Where packets arrive, and where what the broker does is written down; `tools.sim.network.Network` is the real
    one."""

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Every node by its name."""
        ...

    def step(self, node: Node, event: Heard, description: str | None = None) -> None:
        """Give an event to a node; `description` is that of `trace.describe_event`."""
        ...

    def record(self, *what: object) -> None:
        """Put something that happened into the hash of the run."""
        ...


@dataclass(frozen=True)
class Payload:
    """What is published on a topic, as each kind of node hears it. Made once for all listeners: there are many."""

    for_miner: mv.PacketReceived
    for_agent: av.PacketReceived
    description: str
    owner: str
    """The address in the topic, in hex digits."""
    is_qos0_for_miners: bool


def build_payloads(topic: str, packet: bytes) -> tuple[Payload, ...]:
    """Return the packet on this topic in as many payloads as it takes."""
    owner, rule = topic.split("/")[4], CHANNEL_RULES[Channel(read_topic_channel(topic))]
    is_qos0 = rule.heard.get(Listener.MINER) == 0
    heard = ((mv.PacketReceived(topic, part), av.PacketReceived(topic, part)) for part in split_packet(packet))
    return tuple(Payload(miner, agent, describe_event(miner), owner, is_qos0) for miner, agent in heard)


class Broker:
    """Carries packets between nodes. At QoS 0 a packet may be lost; at QoS 1 it is late, after a partition has healed.

    All chance comes from `rng`, and `counts` gets "messages", "lost", "cut off" and "partitions".
    """

    def __init__(
        self,
        timeline: Timeline,
        receivers: Receivers,
        watcher: Watcher,
        topics: Topics,
        rng: random.Random,
        *,
        links: Links | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        self._timeline, self._receivers, self._watcher = timeline, receivers, watcher
        self._topics, self._rng = topics, rng
        self.links = links or Links()
        self.counts = Counter() if counts is None else counts
        self.on_publish: list[Callable[[Node, str, bytes], None]] = []
        """Called with the sender, the topic and the packet of everything that an honest node publishes."""
        self._retained: dict[str, bytes] = {}
        self._cuts: set[tuple[str, str]] = set()
        """(from, to): what the first node publishes does not reach the second."""
        self._held: list[tuple[str, Payload]] = []
        self._arrivals: dict[tuple[str, str], int] = {}

    def cut(self, pairs: set[tuple[str, str]]) -> None:
        """Begin a partition: nothing passes from the first to the second of each pair."""
        self._receivers.record("cut", sorted(pairs))
        self.counts["partitions"] += 1
        self._cuts |= pairs

    def uncut(self, pairs: set[tuple[str, str]]) -> None:
        """End one partition."""
        self._cuts -= pairs
        if not self._cuts:
            self.heal()

    def heal(self) -> None:
        """End all partitions, and deliver what was held back for a listener that is connected."""
        self._receivers.record("heal")
        self._cuts.clear()
        held, self._held = self._held, []
        for listener, payload in held:
            if self._receivers.nodes[listener].is_online:
                self._deliver(self._receivers.nodes[listener], payload)

    def publish(self, node: Node, topic: str, packet: bytes, retain: bool = False) -> None:
        """Carry a node's packet to all that listen; a Byzantine node's as its behaviour decides.

        A node that is offline publishes nothing.
        """
        if not node.is_online:
            return
        if node.behaviour is not None:
            for out, targets in node.behaviour.route(topic, packet):
                self.inject(topic, out, targets, node.name)
            return
        if node.is_miner and topic.endswith("/bft"):
            self._watcher.check_word(node.name, node.identity.address, packet, node.disk.own)
        elif topic.endswith("/up"):
            self._watcher.check_scores(node.name, packet, node.disk)
        if retain:
            self._retained[topic] = packet
        for listener in self.on_publish:
            listener(node, topic, packet)
        others = {other.name for other in self._receivers.nodes.values() if other is not node}
        self.inject(topic, packet, others, node.name)

    def inject(self, topic: str, packet: bytes, targets: set[str] | None = None, sender: str = "") -> None:
        """Carry a packet as if `sender` had published it, to those of `targets` (default: all) that listen."""
        self._watcher.hear(packet)
        payloads = build_payloads(topic, packet)
        for other in self._find_listeners(topic):
            if targets is None or other.name in targets:
                for payload in payloads:
                    self._carry(sender, other, payload)
                    if self._rng.random() < self.links.twice_share:
                        self._carry(sender, other, payload)

    def send_retained(self, node: Node, topic: str) -> None:
        """Deliver what a topic retains to a node that has just subscribed to it."""
        if topic in self._retained and node in self._find_listeners(topic):
            for payload in build_payloads(topic, self._retained[topic]):
                self._deliver(node, payload)

    def _carry(self, sender: str, node: Node, payload: Payload) -> None:
        """Deliver one payload, lose it (QoS 0), or hold it until the partition ends (QoS 1)."""
        is_qos0 = node.is_miner and payload.is_qos0_for_miners
        if (sender, node.name) in self._cuts:
            self.counts["cut off"] += 1
            if not is_qos0:
                self._held.append((node.name, payload))
        elif is_qos0 and self.links.lost_share and self._rng.random() < self.links.lost_share:
            self.counts["lost"] += 1
        else:
            self._deliver(node, payload)

    def _deliver(self, node: Node, payload: Payload) -> None:
        links, session = self.links, node.session
        self.counts["messages"] += 1
        is_slow = self._rng.random() < links.slow_share
        event: Heard = payload.for_miner if node.is_miner else payload.for_agent
        delay_ms = self._rng.randint(*(links.slow_ms if is_slow else links.delay_ms))
        if node.slow_ms:
            delay_ms += self._rng.randint(0, node.slow_ms)
        if links.is_ordered:
            now_ms, link = self._timeline.now_ms, (payload.owner, node.name)
            delay_ms = max(delay_ms, self._arrivals.get(link, 0) - now_ms)
            self._arrivals[link] = now_ms + delay_ms
        description, step = payload.description, self._receivers.step
        self._timeline.at(delay_ms, lambda: step(node, event, description) if node.session == session else None)

    def _find_listeners(self, topic: str) -> list[Node]:
        """Return the nodes that are online and subscribe to a topic, in the order of the network."""
        owner, channel, *rest = topic.split("/")[4:]
        rule, nodes = CHANNEL_RULES[Channel(channel)], self._receivers.nodes.values()
        if rule.is_addressed:
            return [node for node in nodes if node.is_online and rest == [node.identity.address.hex()]]
        are_miners, own = Listener.MINER in rule.heard, owner if rule.role is Role.MINER else ""
        are_devices = not rule.heard.keys() <= {Listener.MINER}
        return [
            node
            for node in nodes
            if node.is_online
            and (
                (are_miners and node.identity.address.hex() != own)
                if node.is_miner
                else (are_devices and self._follows(node, topic))
            )
        ]

    def _follows(self, node: Node, topic: str) -> bool:
        return node.followed is not None and topic in self._topics.news_of(node.followed, node.state.light.is_full)
