"""What an agent refuses: every fault under its own code, the state as it was."""

from __future__ import annotations

import numpy as np
import pytest

from agent.machine import build_agent_state, step
from agent.values import AgentConfig, AgentState, PacketReceived, Refuse
from flchain.light import build_light_state
from flchain.messages import Phase, Receipt, Status
from flchain.packets import PacketType, Topics, encode_packet
from flchain.snapshot import encode_carried
from flchain.types import Millis
from flchain.wire import HEADER_BYTES_MAX, encode, seal
from tests.support.chain_builder import (
    NO_CLOCK,
    PARAMETERS_COUNT,
    BuiltChain,
    Driver,
    build_chain,
    build_identity,
    certify,
)

CHAIN, OTHER = build_chain(seed=1), build_chain(seed=2)
TOPICS = Topics.of_chain(CHAIN.id)
ME = CHAIN.devices[0]
HEAD, BODY = TOPICS.miner_head(CHAIN.miners[0].address), TOPICS.miner_body(CHAIN.miners[0].address)
TO_ME = TOPICS.miner_to(CHAIN.miners[0].address, ME.address)
STRANGER = build_identity(9, 9)


def build_agent(chain: BuiltChain = CHAIN) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in chain.miners)
    light = build_light_state(chain.genesis, chain.model)
    return build_agent_state(AgentConfig(chain.devices[0], miners), light, np.zeros(PARAMETERS_COUNT, np.int32))


def make_head(chain: BuiltChain, signers: tuple[int, ...] | None = None) -> tuple[bytes, bytes]:
    driver = Driver(chain)
    block = driver.extend()
    return block.header_bytes, certify(chain, driver.states[0], block, signers)


def flip_last_byte(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


HEADER, CERTIFICATE = make_head(CHAIN)
RECEIPT = seal(Receipt(1, b"d" * 32, "ok"), CHAIN.id, CHAIN.miners[0])
MODEL_BYTES = CHAIN.model.tobytes()
OPENED = Driver(CHAIN)
OPENED.extend()
CARRIED = encode_carried(OPENED.state)

CASES: dict[str, tuple[str, bytes, str]] = {
    "not signed": (TO_ME, encode_packet(PacketType.MESSAGE, encode([1, 2, 3])), "unsigned"),
    "mis-signed": (TO_ME, encode_packet(PacketType.MESSAGE, flip_last_byte(RECEIPT)), "bad-signature"),
    "oversized": (
        HEAD,
        encode_packet(PacketType.HEAD, HEADER + b"x" * HEADER_BYTES_MAX, CERTIFICATE, b""),
        "oversized",
    ),
    "truncated packet": (HEAD, encode_packet(PacketType.HEAD, HEADER, CERTIFICATE, b"")[:-1], "truncated"),
    "truncated header": (HEAD, encode_packet(PacketType.HEAD, HEADER[:-1], CERTIFICATE, b""), "truncated"),
    "a receipt of another chain": (
        TO_ME,
        encode_packet(PacketType.MESSAGE, seal(Receipt(1, b"d" * 32, "ok"), OTHER.id, CHAIN.miners[0])),
        "wrong-chain",
    ),
    "a header of another chain": (HEAD, encode_packet(PacketType.HEAD, *make_head(OTHER), b""), "invalid-block"),
    "a certificate of two of four": (
        HEAD,
        encode_packet(PacketType.HEAD, *make_head(CHAIN, (0, 1)), b""),
        "bad-certificate",
    ),
    "a certificate with a wrong signature": (
        HEAD,
        encode_packet(PacketType.HEAD, HEADER, flip_last_byte(CERTIFICATE), b""),
        "bad-certificate",
    ),
    "a stranger's topic": (
        TOPICS.miner_head(STRANGER.address),
        encode_packet(PacketType.HEAD, HEADER, CERTIFICATE, b""),
        "unknown-sender",
    ),
    "a receipt under another's topic": (
        TOPICS.miner_to(CHAIN.miners[1].address, ME.address),
        encode_packet(PacketType.MESSAGE, RECEIPT),
        "unknown-sender",
    ),
    "no receipt": (
        TO_ME,
        encode_packet(PacketType.MESSAGE, seal(Status(1, b"m" * 32, False, 0, 0, 0), CHAIN.id, CHAIN.miners[0])),
        "malformed",
    ),
    "a snapshot of another model": (
        TO_ME,
        encode_packet(PacketType.MODEL, HEADER, CERTIFICATE, b"", bytes(len(MODEL_BYTES)), CARRIED),
        "malformed",
    ),
    "a snapshot of the wrong length": (
        TO_ME,
        encode_packet(PacketType.MODEL, HEADER, CERTIFICATE, b"", MODEL_BYTES[:-1], CARRIED),
        "malformed-update",
    ),
    "a body on the head's channel": (HEAD, encode_packet(PacketType.BODY, 1, b""), "malformed"),
    "a topic of nobody": ("flchain/v1/x/y", encode_packet(PacketType.HEAD, HEADER, CERTIFICATE, b""), "malformed"),
}


@pytest.mark.parametrize("name", CASES)
def test_fault_is_refused_under_its_own_code(name: str) -> None:
    """Each fault is counted once under its code and the state is the very same."""
    topic, payload, code = CASES[name]
    before = build_agent()
    after, effects = step(before, PacketReceived(topic, payload), Millis(0), NO_CLOCK)
    assert [effect.code for effect in effects if isinstance(effect, Refuse)] == [code]
    assert after is before


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
