"""Garbage into both machines: a step raises nothing, changes nothing that matters, and counts what it refuses once."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import assume, given
from hypothesis import strategies as st

import agent.core.values as av
import miner.core.values as mv
from agent.core import machine as agent_machine
from agent.core.state import AgentState
from flchain.base.errors import InvalidMessage
from flchain.base.types import Millis
from flchain.wire.packets import FIELD_TYPES, PacketType, encode_packet
from miner.core import machine as miner_machine
from miner.core.state import MinerState
from tests.support.builders.chain import NO_CLOCK
from tools.sim.network import Network

CODES = {cls.code for cls in InvalidMessage.__subclasses__()} | {
    sub.code for cls in InvalidMessage.__subclasses__() for sub in cls.__subclasses__()
}


class Recorded:
    """One calm round: every packet that was published, and the states of a miner and a device in its middle."""

    def __init__(self) -> None:
        network = Network(1, rounds=1)
        self.packets: list[tuple[str, bytes]] = []
        network.broker.on_publish.append(lambda sender, topic, packet: self.packets.append((topic, packet)))
        network.run(lambda n: n.nodes["m0"].is_up and n.nodes["m0"].state.chain.height == 2)
        self.miner: MinerState = network.nodes["m0"].state
        self.agent: AgentState = network.nodes["d0"].state
        network.run()
        self.topics = sorted({topic for topic, _ in self.packets})


@lru_cache(maxsize=1)
def get_recorded() -> Recorded:
    return Recorded()


def check_miner(topic: str, payload: bytes) -> MinerState:
    before = get_recorded().miner
    after, effects = miner_machine.step(before, mv.PacketReceived(topic, payload), Millis(0), NO_CLOCK)
    refused = [effect for effect in effects if isinstance(effect, mv.Refuse)]
    assert len(refused) <= 1
    for effect in refused:
        assert effect.code in CODES
        assert after is before, "a refusal changes nothing"
    return after


def check_agent(topic: str, payload: bytes) -> AgentState:
    before = get_recorded().agent
    after, effects = agent_machine.step(before, av.PacketReceived(topic, payload), Millis(0), NO_CLOCK)
    refused = [effect for effect in effects if isinstance(effect, av.Refuse)]
    assert len(refused) <= 1
    for effect in refused:
        assert effect.code in CODES
        assert after is before, "a refusal changes nothing"
    return after


@st.composite
def any_topic(draw: st.DrawFn) -> str:
    topic = draw(st.sampled_from(get_recorded().topics))
    if draw(st.booleans()):
        return topic
    position = draw(st.integers(0, len(topic) - 1))
    return draw(
        st.one_of(st.text(max_size=80), st.just(topic[:position] + draw(st.characters()) + topic[position + 1 :]))
    )


@st.composite
def mutated_packet(draw: st.DrawFn) -> tuple[str, bytes]:
    """A packet that was really sent, with a byte changed, cut, or grown, perhaps under another sender's topic."""
    topic, packet = draw(st.sampled_from(get_recorded().packets))
    data = bytearray(packet)
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(("flip", "cut", "insert"))):
            case "flip":
                data[position] ^= draw(st.integers(1, 255))
            case "cut":
                del data[position : position + draw(st.integers(1, 8))]
            case _:
                data[position:position] = draw(st.binary(min_size=1, max_size=4))
        if not data:
            break
    assume(bytes(data) != packet)  # two flips may be none
    return draw(st.one_of(st.just(topic), any_topic())), bytes(data)


@st.composite
def shaped_packet(draw: st.DrawFn) -> bytes:
    """Any packet type with fields of the right types and meaningless contents."""
    kind = draw(st.sampled_from(PacketType))
    fields = [draw(st.binary(max_size=64)) if t is bytes else draw(st.integers(-1, 2**63)) for t in FIELD_TYPES[kind]]
    return encode_packet(kind, *fields)


@given(any_topic(), st.one_of(st.binary(max_size=300), shaped_packet()))
def test_garbage_is_refused_once_and_changes_nothing(topic: str, payload: bytes) -> None:
    """Random bytes and meaningless packets on known and unknown topics."""
    assert check_miner(topic, payload).chain is get_recorded().miner.chain
    after, before = check_agent(topic, payload).light, get_recorded().agent.light
    assert after is before or set(after.waiting) > set(before.waiting), "a body may wait for its header"


@given(mutated_packet())
def test_mutated_packets_are_refused_once_and_change_nothing(item: tuple[str, bytes]) -> None:
    """What was really sent, damaged: no flipped byte gets past the signatures, certificates and hashes."""
    assert check_miner(*item).chain is get_recorded().miner.chain
    after, before = check_agent(*item).light, get_recorded().agent.light
    assert (after.height, after.model_hash) == (before.height, before.model_hash)


@given(st.integers(0, 10_000), any_topic())
def test_real_packets_under_any_topic_raise_nothing(choice: int, topic: str) -> None:
    """Valid packets of other rounds, heights and senders: replays and words under a foreign name."""
    packets = get_recorded().packets
    check_miner(topic, packets[choice % len(packets)][1])
    check_agent(topic, packets[choice % len(packets)][1])
