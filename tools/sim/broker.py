"""The broker of a simulated network: who hears what, when, how often, and what gets lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import agent.core.values as av
import miner.core.values as mv
from flchain.wire.chunks import split_packet
from flchain.wire.topics import CHANNEL_RULES, Channel, Listener, Role, Topics, read_topic_channel
from tools.sim.checks import Checker
from tools.sim.world import Links, Node


class Broker:
    """The part of `Network` that carries packets."""

    now: int
    rng: random.Random
    links: Links
    topics: Topics
    nodes: dict[str, Node]
    checker: Checker
    counts: Counter[str]
    retained: dict[str, bytes]
    cuts: set[tuple[str, str]]
    on_publish: list[Callable[[Node, str, bytes], None]]
    _held: list[tuple[str, str, str, bytes]]
    _arrivals: dict[tuple[str, str], int]

    def at(self, delay_ms: int, do: Callable[..., None], *arguments: object) -> None:
        """Do something later."""
        raise NotImplementedError

    def step(self, node: Node, event: Any) -> None:
        """One event through a machine."""
        raise NotImplementedError

    def record(self, *what: object) -> None:
        """Put an event into the trace's hash."""
        raise NotImplementedError

    def cut(self, pairs: set[tuple[str, str]]) -> None:
        """A partition, one way for each pair."""
        self.record("cut", sorted(pairs))
        self.counts["partitions"] += 1
        self.cuts |= pairs

    def uncut(self, pairs: set[tuple[str, str]]) -> None:
        """One partition ends."""
        self.cuts -= pairs
        if not self.cuts:
            self.heal()

    def heal(self) -> None:
        """All partitions end; what a broker held back for a listener comes now."""
        self.record("heal")
        self.cuts.clear()
        held, self._held = self._held, []
        for _, listener, topic, payload in held:
            if self.nodes[listener].is_online:
                self._deliver(self.nodes[listener], topic, payload)

    def publish(self, node: Node, topic: str, packet: bytes, retain: bool = False) -> None:
        """To everyone who listens; nothing if the sender is away."""
        if not node.is_online:
            return
        if node.behaviour is not None:
            for out, targets in node.behaviour.route(topic, packet):
                self.inject(topic, out, targets, node.name)
            return
        if node.is_miner and topic.endswith("/bft"):
            self.checker.check_word(node.name, node.identity.address, packet, node.disk.own)
        elif topic.endswith("/up"):
            self.checker.check_scores(node.name, packet, node.disk)
        if retain:
            self.retained[topic] = packet
        for listener in self.on_publish:
            listener(node, topic, packet)
        self.inject(topic, packet, {other.name for other in self.nodes.values() if other is not node}, node.name)

    def inject(self, topic: str, packet: bytes, targets: set[str] | None = None, sender: str = "") -> None:
        """A packet as if `sender` had published it, to those of `targets` who listen."""
        self.checker.hear(packet)
        for other in self.nodes.values():
            if (targets is None or other.name in targets) and other.is_online and self._listens(other, topic):
                for payload in split_packet(packet):
                    self._carry(sender, other, topic, payload)
                    if self.rng.random() < self.links.twice_share:
                        self._carry(sender, other, topic, payload)

    def _carry(self, sender: str, node: Node, topic: str, payload: bytes) -> None:
        """One payload to one listener: at QoS 0 it may get lost, at QoS 1 it waits for the end of a partition."""
        is_qos0 = node.is_miner and CHANNEL_RULES[Channel(read_topic_channel(topic))].heard[Listener.MINER] == 0
        if (sender, node.name) in self.cuts:
            self.counts["cut off"] += 1
            if not is_qos0:
                self._held.append((sender, node.name, topic, payload))
        elif is_qos0 and self.links.lost_share and self.rng.random() < self.links.lost_share:
            self.counts["lost"] += 1
        else:
            self._deliver(node, topic, payload)

    def _deliver(self, node: Node, topic: str, payload: bytes) -> None:
        links, session = self.links, node.session
        self.counts["messages"] += 1
        is_slow = self.rng.random() < links.slow_share
        event = mv.PacketReceived(topic, payload) if node.is_miner else av.PacketReceived(topic, payload)
        delay_ms = self.rng.randint(*(links.slow_ms if is_slow else links.delay_ms))
        if node.slow_ms:
            delay_ms += self.rng.randint(0, node.slow_ms)
        if links.is_ordered:
            link = (topic.split("/")[4], node.name)
            delay_ms = max(delay_ms, self._arrivals.get(link, 0) - self.now)
            self._arrivals[link] = self.now + delay_ms
        self.at(delay_ms, lambda: self.step(node, event) if node.session == session else None)

    def _send_retained(self, node: Node, topic: str) -> None:
        if node.is_online and topic in self.retained and self._listens(node, topic):
            self._deliver(node, topic, self.retained[topic])

    def _listens(self, node: Node, topic: str) -> bool:
        owner, channel, *rest = topic.split("/")[4:]
        rule = CHANNEL_RULES[Channel(channel)]
        if rule.is_addressed:
            return rest == [node.identity.address.hex()]
        if not node.is_miner:
            return node.followed is not None and topic in self.topics.news_of(node.followed, node.state.light.is_full)
        is_own = rule.role is Role.MINER and owner == node.identity.address.hex()
        return Listener.MINER in rule.heard and not is_own


def describe_event(event: Any) -> str:
    """What tells this event from any other, the same in every process."""
    match event:
        case mv.PacketReceived(topic, payload) | av.PacketReceived(topic, payload):
            return f"{topic} {sha256(payload).hexdigest()}"
        case mv.TimerFired(timer) | av.TimerFired(timer):
            return str(timer)
        case av.TrainingDone():
            return f"trained {event.round} {sha256(event.delta.tobytes()).hexdigest()}"
    return repr(event)
