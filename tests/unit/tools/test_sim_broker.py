"""The simulator's broker alone, with nodes that only write down what arrives."""

from __future__ import annotations

import random
from collections import Counter

from flchain.base.crypto import Identity
from flchain.base.types import Hash
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from tools.sim.broker import Broker, Heard
from tools.sim.timeline import Timeline
from tools.sim.world import Disk, Links, Node, OwnMessage

KEYS = [Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3)]
PACKET = encode_packet(PacketType.MESSAGE, b"a vote")


class FakeReceivers:
    """Miners m0, m1 and m2, all connected."""

    def __init__(self) -> None:
        self.nodes = {f"m{i}": Node(f"m{i}", i, key, is_up=True, is_online=True) for i, key in enumerate(KEYS)}
        self.arrived: list[tuple[str, bytes]] = []
        self.recorded: list[tuple[object, ...]] = []

    def step(self, node: Node, event: Heard, description: str | None = None) -> None:
        self.arrived.append((node.name, event.payload))

    def record(self, *what: object) -> None:
        self.recorded.append(what)


class FakeWatcher:
    """Lets everything pass and remembers the names that were checked."""

    def __init__(self) -> None:
        self.checked: list[str] = []

    def hear(self, packet: bytes) -> None:
        pass

    def check_word(self, name: str, address: bytes, packet: bytes, own: list[OwnMessage]) -> None:
        self.checked.append(name)

    def check_scores(self, name: str, packet: bytes, disk: Disk) -> None:
        self.checked.append(name)


class Scene:
    """A broker with its fakes."""

    def __init__(self, links: Links | None = None) -> None:
        self.timeline, self.receivers, self.watcher = Timeline(), FakeReceivers(), FakeWatcher()
        self.topics = Topics.of_chain(Hash(bytes(32)))
        self.broker = Broker(self.timeline, self.receivers, self.watcher, self.topics, random.Random(1), links=links)
        self.me = self.receivers.nodes["m0"]

    def publish(self, topic: str, retain: bool = False) -> Counter[str]:
        """Publish as m0; how often it has arrived at each node."""
        self.receivers.arrived.clear()
        self.broker.publish(self.me, topic, PACKET, retain)
        return self.arrive()

    def arrive(self) -> Counter[str]:
        self.timeline.run(lambda: False, end_ms=10**6, events_max=10**6)
        return Counter(name for name, _ in self.receivers.arrived)


def test_a_vote_reaches_every_other_miner_once_and_is_checked_before() -> None:
    """The sender hears nothing of itself; the watcher sees what an honest miner publishes."""
    scene = Scene()
    assert scene.publish(scene.topics.miner_bft(KEYS[0].address)) == {"m1": 1, "m2": 1}
    assert scene.watcher.checked == ["m0"]


def test_an_offline_sender_or_listener_is_left_out() -> None:
    """Nothing leaves a node whose link is down, and nothing reaches one."""
    scene = Scene()
    scene.receivers.nodes["m1"].is_online = False
    topic = scene.topics.miner_bft(KEYS[0].address)
    assert scene.publish(topic) == {"m2": 1}
    scene.me.is_online = False
    assert scene.publish(topic) == {}


def test_what_is_under_way_when_a_link_breaks_is_lost() -> None:
    """A payload belongs to the connection that it was sent to: after a reconnect it does not arrive."""
    scene = Scene()
    scene.broker.publish(scene.me, scene.topics.miner_bft(KEYS[0].address), PACKET)
    scene.receivers.nodes["m1"].session += 1
    assert scene.arrive() == {"m2": 1}


def test_only_qos_0_is_lost_by_a_lossy_link() -> None:
    """With every QoS 0 payload lost a vote reaches nobody, and an answer to one miner (QoS 1) arrives."""
    scene = Scene(Links(lost_share=1.0))
    assert scene.publish(scene.topics.miner_bft(KEYS[0].address)) == {}
    assert scene.publish(scene.topics.miner_to(KEYS[0].address, KEYS[2].address)) == {"m2": 1}
    assert scene.broker.counts["lost"] == 2


def test_a_partition_holds_qos_1_until_it_heals() -> None:
    """Across a cut a vote is gone for good; an answer waits, and comes when the last cut has ended."""
    scene = Scene()
    scene.broker.cut({("m0", "m2")})
    assert scene.publish(scene.topics.miner_bft(KEYS[0].address)) == {"m1": 1}
    assert scene.publish(scene.topics.miner_to(KEYS[0].address, KEYS[2].address)) == {}
    scene.broker.uncut({("m0", "m2")})
    assert scene.arrive() == {"m2": 1}
    assert scene.receivers.recorded == [("cut", [("m0", "m2")]), ("heal",)]
    assert scene.broker.counts["cut off"] == 2


def test_a_retained_head_is_sent_to_a_later_subscriber() -> None:
    """A miner that connects later gets the newest retained packet; of a topic without one it gets nothing."""
    scene = Scene()
    scene.receivers.nodes["m1"].is_online = False
    head = scene.topics.miner_head(KEYS[0].address)
    assert scene.publish(head, retain=True) == {"m2": 1}
    late = scene.receivers.nodes["m1"]
    late.is_online = True
    scene.broker.send_retained(late, scene.topics.miner_head(KEYS[2].address))
    scene.broker.send_retained(late, head)
    assert scene.arrive() == {"m1": 1, "m2": 1}


def test_ordered_links_let_nothing_overtake() -> None:
    """Of one sender's packets the later never arrives before the earlier, whatever delays are drawn."""
    scene = Scene(Links(is_ordered=True))
    topic = scene.topics.miner_to(KEYS[0].address, KEYS[1].address)
    packets = [encode_packet(PacketType.MESSAGE, bytes([number])) for number in range(30)]
    for packet in packets:
        scene.broker.publish(scene.me, topic, packet)
    scene.arrive()
    assert [payload for _, payload in scene.receivers.arrived] == packets


def test_the_timeline_stops_at_its_bounds() -> None:
    """Calls of one instant run in the order they were planned; a run that exceeds its time or count has stalled."""
    timeline, made = Timeline(), list[int]()
    for number in (1, 2, 3):
        timeline.at(5, made.append, number)
    assert timeline.run(lambda: False, end_ms=5, events_max=3)
    assert (made, timeline.now_ms) == ([1, 2, 3], 5)
    timeline.at(10, made.append, 4)
    assert not timeline.run(lambda: False, end_ms=14, events_max=9)
    timeline.at(0, made.append, 5)
    assert not timeline.run(lambda: False, end_ms=99, events_max=4)
    assert made == [1, 2, 3]
