"""What a miner refuses: every fault under its own code, the state as it was."""

from __future__ import annotations

import pytest

from flchain.messages import Commit, Phase, Proposal, Vote
from flchain.packets import PacketType, Topics, encode_packet
from flchain.types import Millis
from flchain.wire import encode, seal
from miner.machine import build_miner_state, step
from miner.tip import Standing
from miner.values import MinerConfig, MinerState, PacketReceived, Refuse
from tests.support.chain_builder import (
    NO_CLOCK,
    BuiltChain,
    Driver,
    build_chain,
    build_identity,
    make_reveal,
    seal_commit,
)

CHAIN, OTHER = build_chain(seed=1), build_chain(seed=2)
TOPICS = Topics.of_chain(CHAIN.id)
DEVICE = CHAIN.devices[0]
UP = TOPICS.device_up(DEVICE.address)
BFT = TOPICS.miner_bft(CHAIN.miners[1].address)
COMMIT = seal_commit(CHAIN, 0, make_reveal(CHAIN, 0))
STRANGER = build_identity(9, 9)


def build_miner(chain: BuiltChain = CHAIN, phase: Phase = Phase.COMMIT) -> MinerState:
    driver = Driver(chain)
    driver.go_to(phase)
    return build_miner_state(MinerConfig(chain.miners[0]), Standing(driver.state))


def message(raw: bytes) -> bytes:
    return encode_packet(PacketType.MESSAGE, raw)


def commit_of(round_number: int) -> bytes:
    return seal(Commit(round_number, b"c" * 32), CHAIN.id, DEVICE)


def flip_last_byte(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


CASES: dict[str, tuple[str, bytes, str]] = {
    "not signed": (UP, message(encode([1, 2, 3])), "unsigned"),
    "mis-signed": (UP, message(flip_last_byte(COMMIT)), "bad-signature"),
    "oversized": (UP, message(seal(Commit(1, b"c" * 600), CHAIN.id, DEVICE)), "oversized"),
    "truncated packet": (UP, message(COMMIT)[:-1], "truncated"),
    "truncated message": (UP, message(COMMIT[:-1]), "truncated"),
    "of another chain": (UP, message(seal(Commit(1, b"c" * 32), OTHER.id, DEVICE)), "wrong-chain"),
    "of a later round": (UP, message(commit_of(3)), "wrong-round"),
    "of no round": (UP, message(commit_of(0)), "wrong-round"),
    "by a stranger": (
        TOPICS.device_up(STRANGER.address),
        message(seal(Commit(1, b"c" * 32), CHAIN.id, STRANGER)),
        "unknown-sender",
    ),
    "under another's topic": (TOPICS.device_up(CHAIN.devices[1].address), message(COMMIT), "unknown-sender"),
    "a vote by a device": (BFT, message(seal(Vote(2, 0, 1, None), CHAIN.id, DEVICE)), "unknown-sender"),
    "a vote far ahead": (BFT, message(seal(Vote(9, 0, 1, None), CHAIN.id, CHAIN.miners[1])), "wrong-round"),
    "a mis-signed vote": (
        BFT,
        message(flip_last_byte(seal(Vote(2, 0, 1, None), CHAIN.id, CHAIN.miners[1]))),
        "bad-signature",
    ),
    "a vote of a device's channel": (UP, message(seal(Vote(2, 0, 1, None), CHAIN.id, DEVICE)), "malformed"),
    "a commitment of 31 bytes": (UP, message(seal(Commit(1, b"c" * 31), CHAIN.id, DEVICE)), "malformed"),
    "a proposal of a device's words": (BFT, encode_packet(PacketType.PROPOSAL, COMMIT, b"", b""), "wrong-round"),
    "a proposal without its block": (
        BFT,
        encode_packet(PacketType.PROPOSAL, seal(Proposal(2, 0, -1, b"h" * 32), CHAIN.id, CHAIN.miners[1]), b"", b""),
        "truncated",
    ),
    "a topic of nobody": ("flchain/v1/x/y", message(COMMIT), "malformed"),
    "a second encoding": (UP, b"\x82\x18\x00" + message(COMMIT)[2:], "not-canonical"),
    "chunks of a stranger": (
        TOPICS.device_up(STRANGER.address),
        encode_packet(PacketType.CHUNK, b"d" * 32, 0, 2, b"piece"),
        "unknown-sender",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fault_is_refused_under_its_own_code(name: str) -> None:
    """Each fault is counted once under its code and the state is the very same."""
    topic, payload, code = CASES[name]
    before = build_miner()
    after, effects = step(before, PacketReceived(topic, payload), Millis(0), NO_CLOCK)
    assert [effect.code for effect in effects if isinstance(effect, Refuse)] == [code]
    assert after is before


def play(state: MinerState, *payloads: bytes) -> tuple[MinerState, list[str]]:
    codes: list[str] = []
    for payload in payloads:
        state, effects = step(state, PacketReceived(UP, payload), Millis(0), NO_CLOCK)
        codes += [effect.code for effect in effects if isinstance(effect, Refuse)]
    return state, codes


def test_contradiction_is_a_duplicate_and_a_repeat_is_not() -> None:
    """The same bytes again are QoS 1; other bytes in the same place are refused, and the first ones stay."""
    state, codes = play(build_miner(), message(COMMIT), message(COMMIT))
    assert codes == []
    again, codes = play(state, message(commit_of(1)))
    assert codes == ["duplicate"]
    assert again is state


@pytest.mark.parametrize("number", [1, 2])
def test_replay_of_a_past_phase_is_of_the_wrong_round(number: int) -> None:
    """A commitment that comes in REVEAL, or a round later, is refused, unless it is the one in the chain."""
    driver = Driver(CHAIN)
    if number == 2:
        driver.run_round()
    else:
        driver.go_to(Phase.REVEAL)
    state = build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state))
    assert play(state, message(commit_of(1)))[1] == ["wrong-round"]
    if number == 1:
        assert play(state, message(COMMIT))[1] == [], "that one is final: a receipt was lost, no fault"
