"""The two machines as entry points of the table of bad input: what a step says of one packet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from agent.core import values as av
from agent.core.machine import build_agent_state
from agent.core.machine import step as agent_step
from agent.core.state import AgentState
from flchain.base.crypto import Identity
from flchain.base.types import Millis
from flchain.light.follow import build_light_state
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import AnyMessage, Phase, Receipt, ScoreCommit, Vote, compute_score_commitment
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core import values as mv
from miner.core.machine import build_miner_state
from miner.core.machine import step as miner_step
from miner.core.state import MinerState
from miner.core.tip import Standing, extend
from tests.support.bad_fields.table import Effect, Outcome
from tests.support.builders.chain import (
    NO_CLOCK,
    PARAMETERS_COUNT,
    BuiltChain,
    build_identity,
    make_scores,
    seal_score_commit,
)
from tests.support.builders.stake import StakeDriver, build_stake_chain
from tests.support.light.driver import as_value

CHAIN = build_stake_chain(bond_min=50, stake_min=10, order_fee=3, powers=[100] * 4)
TOPICS = Topics.of_chain(CHAIN.id)
DEVICE, MINER, HOLDER = CHAIN.devices[0], CHAIN.miners[1], CHAIN.holders[0]
OPERATOR = build_identity(8, 8)
NOW = Millis(0)


@lru_cache
def drive(phase: Phase, rounds: int = 0) -> StakeDriver:
    """A chain at a phase of its newest round; in SETTLE device 0 has committed to scores too."""
    driver = StakeDriver(CHAIN)
    for _ in range(rounds):
        driver.run_round()
    if phase is Phase.OPEN:
        return driver
    driver.go_to(Phase.SCORE if phase is Phase.SETTLE else phase)
    if phase is Phase.SETTLE:
        word = make_scores(driver.state)
        commits = [seal_score_commit(CHAIN, number, word) for number in range(4)]
        driver.extend([*commits, seal_device_commit(CHAIN, driver)])
    return driver


def seal_device_commit(chain: BuiltChain, driver: StakeDriver) -> bytes:
    """What device 0, which mines, commits to."""
    word = make_scores(driver.state)
    return seal(ScoreCommit(word.round, compute_score_commitment(chain.id, DEVICE.address, word)), chain.id, DEVICE)


@lru_cache
def build_miner(phase: Phase, *, is_begun: bool = False, number: int = 0, rounds: int = 0) -> MinerState:
    """Miner 0, which is device 0's home and leads no view here, with the blocks up to a phase."""
    driver = drive(phase, rounds)
    standing = Standing(driver.states[0])
    for block, certificate, after in zip(driver.blocks, driver.certificates, driver.states[1:], strict=True):
        standing = extend(standing, block, certificate, after)
    state = build_miner_state(mv.MinerConfig(CHAIN.miners[number]), standing)
    if is_begun:
        state, _ = miner_step(state, mv.Connected(), NOW, NO_CLOCK)
        state, _ = miner_step(state, mv.TimerFired(mv.Timer.PATIENCE), NOW, NO_CLOCK)
        assert state.bft.is_started
    return state


def ask_miner(before: MinerState, topic: str, payload: bytes) -> Outcome:
    """Return how a miner handles a payload. A refusal leaves the very same state, whatever the code."""
    after, effects = miner_step(before, mv.PacketReceived(topic, payload), before.now_ms, before.clock_ms)
    refused = [effect for effect in effects if isinstance(effect, mv.Refuse)]
    assert len(refused) <= 1, refused
    if refused:
        assert after is before
        receipts = [code for effect in effects if (code := _read_receipt(before, effect)) is not None]
        assert receipts in ([], [refused[0].code]) and len(effects) == 1 + len(receipts), effects
        effect = Effect.RECEIPT if receipts else Effect.DROPPED
        return Outcome(refused[0].code, effect, refused[0].detail)
    if any(_is_nil_prevote(effect, before) for effect in effects):
        assert after.chain is before.chain
        return Outcome("", Effect.NIL)
    if after is before and not effects:
        return Outcome("", Effect.IGNORED)
    return Outcome("", Effect.TAKEN)


def _read_receipt(state: MinerState, effect: mv.Effect) -> str | None:
    if not isinstance(effect, mv.Publish) or "/to/" not in effect.topic:
        return None
    packet = decode_packet(effect.packet)
    envelope = open_envelope(packet.fields[0], state.chain.chain)
    return str(envelope.fields[2]) if envelope.kind is Receipt.kind else None


def _is_nil_prevote(effect: mv.Effect, state: MinerState) -> bool:
    if not isinstance(effect, mv.SaveVote):
        return False
    envelope = open_envelope(effect.raw, state.chain.chain)
    return envelope.kind is Vote.kind and envelope.fields[2:] == [1, None]


@lru_cache
def build_agent(height: int = 0, rounds: int = 1, *, is_full: bool = True) -> AgentState:
    """Device 0 with the headers and bodies up to a height of a chain of whole rounds."""
    driver = drive(Phase.COMMIT, rounds)
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    light = build_light_state(CHAIN.genesis, CHAIN.model, is_full=is_full)
    config = av.AgentConfig(DEVICE, miners, operators=((OPERATOR.address, OPERATOR.public_key),))
    state = build_agent_state(config, light, np.zeros(PARAMETERS_COUNT, np.int32))
    home = CHAIN.miners[0].address
    for number in range(1, height + 1):
        head = driver.get_head(number)
        packet = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
        state, _ = agent_step(state, av.PacketReceived(TOPICS.miner_head(home), packet), NOW, NO_CLOCK)
        packet = encode_packet(PacketType.BODY, number, driver.blocks[number - 1].body_bytes)
        state, _ = agent_step(state, av.PacketReceived(TOPICS.miner_body(home), packet), NOW, NO_CLOCK)
    assert state.light.height == height
    return state


def ask_agent(before: AgentState, topic: str, payload: bytes) -> Outcome:
    """What a device makes of a payload."""
    old = freeze(before)
    after, effects = agent_step(before, av.PacketReceived(topic, payload), NOW, before.clock.time_ms)
    assert freeze(before) == old
    refused = [effect for effect in effects if isinstance(effect, av.Refuse)]
    if refused:
        assert after is before and len(effects) == 1
        return Outcome(refused[0].code, Effect.DROPPED, refused[0].detail)
    return Outcome("", Effect.IGNORED if not effects and freeze(after) == old else Effect.TAKEN)


def freeze(state: AgentState) -> tuple[object, ...]:
    """All of an agent's state, to compare."""
    values = {item.name: getattr(state, item.name) for item in fields(state)}
    values["light"] = as_value(state.light)
    return tuple(repr(value) for value in values.values())


def say(message: AnyMessage, sender: Identity, chain: bytes = CHAIN.id) -> bytes:
    """A signed message in its packet."""
    return encode_packet(PacketType.MESSAGE, seal(message, chain, sender))


def to_miner(get_state: Callable[[], MinerState], topic: str, sender: Identity) -> Callable[[Any], Outcome]:
    """How a message is signed and sent to a miner."""
    return lambda message: ask_miner(get_state(), topic, say(message, sender))


KIND_PHASES = {
    Kind.COMMIT: Phase.COMMIT,
    Kind.REVEAL: Phase.REVEAL,
    Kind.SCORE_COMMIT: Phase.SCORE,
    Kind.SCORE_REVEAL: Phase.SETTLE,
}
