"""Who may sign next: through elections one by one or by skipping, never to validators that no longer have power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import AgentConfig, PacketReceived, Publish
from flchain.base.errors import (
    BadCertificate,
    InvalidMessage,
    MalformedMessage,
    TrustExpired,
    UnknownValidators,
    UntrustedValidators,
)
from flchain.base.types import Millis, UnixMillis, View
from flchain.ledger.block import hash_header
from flchain.ledger.certificate import PRECOMMIT, build_certificate
from flchain.ledger.state import Validator
from flchain.light.follow import build_light_state, process_head
from flchain.light.trust import CertifiedHeader, Trust, build_trust, encode_sets, verify_final
from flchain.wire.envelope import get_signature, open_envelope, seal
from flchain.wire.messages import Ask, Vote, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core import machine as miner_machine
from miner.core import values as mv
from miner.core.state import MinerState
from miner.core.tip import Standing, extend
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, BuiltChain, replace_header
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain, register

HOUR_MS = 3_600_000


def build_turnover() -> StakeDriver:
    """Four seats; in each of five rounds a holder bonds more than any miner and takes a miner's seat."""
    made = StakeDriver(build_stake_chain(holders=5, seats=4, epoch_rounds=1))
    made.open()
    for holder in made.chain.holders:
        made.extend(orders=[register(made.state, holder, 900)])
        made.run_round()
    return made


DRIVER = build_turnover()
TOP = len(DRIVER.blocks)
CHANGES = [b.header.height for b in DRIVER.blocks if b.header.validators_hash != b.header.next_validators_hash]


def trust_at(height: int) -> Trust:
    return build_trust(DRIVER.states[height])


def follow(trust: Trust, *heights: int) -> Trust:
    for height in heights:
        trust = verify_final(trust, DRIVER.get_head(height), NO_CLOCK)[1]
    return trust


def get_addresses(validators: tuple[Validator, ...]) -> set[bytes]:
    return {bytes(validator.address) for validator in validators}


def test_the_chain_turns_over() -> None:
    """What the tests below are about: after five elections none of the first validators has a seat."""
    assert len(CHANGES) >= 4
    assert not get_addresses(DRIVER.state.validators) & get_addresses(DRIVER.states[0].validators)


def test_every_header_after_the_other() -> None:
    """Header by header a device knows the validators of each next block."""
    trust = trust_at(0)
    for height in range(1, TOP + 1):
        trust = follow(trust, height)
        expected = DRIVER.states[height]
        assert (trust.height, trust.head) == (expected.height, expected.head)
        assert [(v.address, v.power) for v in trust.validators] == [(v.address, v.power) for v in expected.validators]


def test_a_third_of_the_trusted_power_is_enough_to_skip_to() -> None:
    """As long as more than a third of what it trusts signs, a device skips; then it needs headers in between."""
    for height in range(2, TOP + 1):
        head, trusted = DRIVER.get_head(height), trust_at(0)
        signers = get_addresses(DRIVER.states[height - 1].validators)
        power = sum(v.power for v in trusted.validators if v.address in signers)
        if 3 * power > sum(v.power for v in trusted.validators):
            assert verify_final(trusted, head, NO_CLOCK)[1].height == height
        else:
            with pytest.raises(UntrustedValidators):
                verify_final(trusted, head, NO_CLOCK)
    assert follow(trust_at(0), *CHANGES, TOP).head == DRIVER.state.head


def test_new_validators_must_come_with_the_header() -> None:
    """Without them, or with others than the header names, nothing is believed."""
    head, trusted = DRIVER.get_head(CHANGES[0]), trust_at(CHANGES[0] - 1)
    with pytest.raises(UnknownValidators):
        verify_final(trusted, replace(head, sets=b""), NO_CLOCK)
    same, other = DRIVER.states[0].validators, DRIVER.state.validators
    for sets in (encode_sets(same, same), encode_sets(other, other), encode_sets(other[::-1], same), b"x"):
        with pytest.raises(MalformedMessage):
            verify_final(trusted, replace(head, sets=sets), NO_CLOCK)


@pytest.mark.parametrize("after", [CHANGES[-1], CHANGES[-1] + 1, TOP])
def test_validators_without_power_sign_nothing(after: int) -> None:
    """A header of the first validators, certified by all of them, is refused by who has seen them go."""
    old = DRIVER.states[0].validators
    sets = encode_sets(old, old)
    header = DRIVER.blocks[1].header
    for height in (after + 1, after + 2, TOP + 50):
        changes = {"height": height, "time_ms": height * 10, "validators_hash": header.validators_hash}
        changes |= {"next_validators_hash": header.validators_hash, "model_hash": b"x" * 32}
        forged = replace_header(DRIVER.blocks[1], **changes)
        head = CertifiedHeader(forged, certify_by(DRIVER.chain, forged, height), sets)
        with pytest.raises(BadCertificate):
            verify_final(trust_at(after), head, NO_CLOCK)


def certify_by(chain: BuiltChain, header_bytes: bytes, height: int) -> bytes:
    """Precommits of the four miners of the genesis."""

    vote = Vote(height, 0, PRECOMMIT, hash_header(header_bytes))
    known = {v.address for v in DRIVER.states[0].validators}
    signers = [key for key in chain.miners if key.address in known]
    votes = [(key.address, get_signature(seal(vote, chain.id, key))) for key in signers]
    return build_certificate(DRIVER.states[0].validators, View(0), votes)


def test_trust_grows_old() -> None:
    """One millisecond too late nothing is believed but a checkpoint; a clock that is behind proves no age."""
    trusted = trust_at(4)
    last_ms = UnixMillis(trusted.time_ms + trusted.trusting_s * 1_000)
    head = DRIVER.get_head(5)
    for clock_ms in (UnixMillis(0), UnixMillis(trusted.time_ms - 1), last_ms):
        assert verify_final(trusted, head, clock_ms)[1].height == 5
    late = UnixMillis(last_ms + 1)
    with pytest.raises(TrustExpired):
        verify_final(trusted, head, late)
    vouched = replace(trusted, checkpoint=DRIVER.states[TOP].head)
    with pytest.raises(TrustExpired):
        verify_final(vouched, head, late)
    assert verify_final(vouched, DRIVER.get_head(TOP), late)[1].head == DRIVER.state.head


def test_a_jailed_validator_is_gone_with_the_next_block() -> None:
    """The header that carries the evidence names the others, and the next one needs none of its signatures."""
    made = StakeDriver(build_stake_chain())
    made.open()
    guilty = made.chain.miners[0]
    made.extend(orders=[accuse(made.state, made.chain.miners[1], guilty)])
    light = build_light_state(made.chain.genesis, made.chain.model)
    light = process_head(light, made.get_head(1), NO_CLOCK)
    light = process_head(light, made.get_head(2), NO_CLOCK)
    assert bytes(guilty.address) not in get_addresses(light.validators)
    made.run_round()
    for height in range(3, len(made.blocks) + 1):
        light = process_head(light, made.get_head(height), NO_CLOCK)
    assert light.trust.head == made.state.head


def test_any_changed_byte_of_the_sets_is_refused() -> None:
    """The two sets are those whose hashes the header holds, byte for byte."""
    head, trusted = DRIVER.get_head(CHANGES[0]), trust_at(CHANGES[0] - 1)
    for place in range(len(head.sets)):
        sets = head.sets[:place] + bytes((head.sets[place] ^ 1,)) + head.sets[place + 1 :]
        with pytest.raises(InvalidMessage):
            verify_final(trusted, replace(head, sets=sets), NO_CLOCK)


# ------------------------------------------------------------------------------------ the two machines together


def build_agent() -> AgentState:
    chain = DRIVER.chain
    first = {v.address for v in DRIVER.states[0].validators}
    miners = tuple((key.address, key.public_key) for key in chain.miners if key.address in first)
    light = build_light_state(chain.genesis, chain.model)
    config = AgentConfig(chain.devices[0], miners)
    return build_agent_state(config, light, np.zeros(PARAMETERS_COUNT, np.int32))


def build_miner() -> MinerState:
    standing = Standing(DRIVER.states[0])
    for index in range(TOP):
        standing = extend(standing, DRIVER.blocks[index], DRIVER.certificates[index], DRIVER.states[index + 1])
    return miner_machine.build_miner_state(mv.MinerConfig(DRIVER.chain.miners[0]), standing)


def test_a_device_that_missed_every_election_comes_back_by_itself() -> None:
    """It asks for the headers at which validators changed, follows them, and knows the newest; nobody helps it."""
    chain, topics = DRIVER.chain, Topics.of_chain(DRIVER.chain.id)
    agent, miner = build_agent(), build_miner()
    me, home = chain.devices[0].address, chain.miners[0].address
    newest = DRIVER.get_head(TOP)
    tip = encode_packet(PacketType.HEAD, newest.header, newest.certificate, b"")
    waiting: list[object] = [PacketReceived(topics.miner_head(home), tip)]
    wanted: list[Want] = []
    while waiting and agent.light.height < TOP:
        agent, effects = step(agent, waiting.pop(0), Millis(0), NO_CLOCK)  # type: ignore[arg-type]
        for effect in effects:
            if not isinstance(effect, Publish):
                continue
            envelope = open_envelope(decode_packet(effect.packet).fields[0], chain.id)
            if envelope.kind is Ask.kind:
                wanted.append(Want(envelope.fields[2]))
                asked = mv.PacketReceived(topics.device_up(me), effect.packet)
                now_ms = Millis(10_000 * len(wanted))
                miner, answers = miner_machine.step(miner, asked, now_ms, NO_CLOCK)
                waiting += [PacketReceived(a.topic, a.packet) for a in answers if isinstance(a, mv.Publish)]
    assert agent.light.height == TOP
    assert wanted[:2] == [Want.HEAD, Want.CHANGES]
    assert get_addresses(agent.light.validators) == get_addresses(DRIVER.state.validators)
    powerful = get_addresses(DRIVER.state.validators)
    assert agent.next_miner(agent.following.miner) in powerful, "fail-over goes to those that have power"
    assert powerful <= set(agent.miners)


def test_a_device_turns_away_from_a_miner_that_is_gone() -> None:
    """A followed miner that is not of the genesis and has lost its seat is forgotten; the others have their turns."""
    agent = build_agent()
    agent = replace(agent, following=replace(agent.following, miner=DRIVER.chain.holders[0].address))
    assert agent.following.miner not in agent.miners
    turns = {agent.next_miner(agent.following.miner, steps) for steps in range(1, len(agent.miners) + 1)}
    assert turns == set(agent.miners)
