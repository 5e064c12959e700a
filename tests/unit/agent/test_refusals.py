"""What an agent refuses because of what it has heard before. What each wrong field gets: test_refusals.py."""

from __future__ import annotations

import numpy as np

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import AgentConfig, PacketReceived, Refuse
from flchain.base.types import Millis
from flchain.light.follow import build_light_state
from flchain.wire.messages import Phase
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain, certify

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
HEAD, BODY = TOPICS.miner_head(CHAIN.miners[0].address), TOPICS.miner_body(CHAIN.miners[0].address)


def build_agent() -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    return build_agent_state(AgentConfig(CHAIN.devices[0], miners), light, np.zeros(PARAMETERS_COUNT, np.int32))


def make_head() -> tuple[bytes, bytes]:
    driver = Driver(CHAIN)
    block = driver.extend()
    return block.header_bytes, certify(CHAIN, driver.states[0], block)


HEADER, CERTIFICATE = make_head()


def test_replayed_header_is_no_news() -> None:
    """A header that is known already, or an older one, is a repeat: not counted, nothing changed but the ear."""
    state, _ = step(
        build_agent(),
        PacketReceived(HEAD, encode_packet(PacketType.HEAD, HEADER, CERTIFICATE, b"")),
        Millis(0),
        NO_CLOCK,
    )
    assert state.light.height == 1
    after, effects = step(
        state, PacketReceived(HEAD, encode_packet(PacketType.HEAD, HEADER, CERTIFICATE, b"")), Millis(0), NO_CLOCK
    )
    assert effects == ()
    assert after.light is state.light


def test_body_that_is_not_the_headers_is_refused() -> None:
    """A body for a wanted height must be the one that its certified header names."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.REVEAL)
    block = driver.reveal({})
    state = build_agent()
    for height, (made, certificate) in enumerate(zip(driver.blocks, driver.certificates, strict=True), start=1):
        packet = encode_packet(PacketType.HEAD, made.header_bytes, certificate, b"")
        state, _ = step(state, PacketReceived(HEAD, packet), Millis(height), NO_CLOCK)
    wrong = encode_packet(PacketType.BODY, block.header.height, driver.blocks[1].body_bytes)
    after, effects = step(state, PacketReceived(BODY, wrong), Millis(9), NO_CLOCK)
    assert [effect.code for effect in effects if isinstance(effect, Refuse)] == ["invalid-block"]
    assert after is state
