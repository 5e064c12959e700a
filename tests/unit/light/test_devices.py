"""A light device and its miners: what it is told in a round, how long that is, how it becomes a full one and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import AgentConfig, Effect, PacketReceived, Publish, Report, SavePosition
from agent.settings import AgentSettings, MiningSettings
from flchain.base.errors import BadCertificate
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Height, Millis
from flchain.ledger.certificate import trim_certificate, verify_certificate
from flchain.ledger.snapshot import build_carried_proof
from flchain.light.follow import LightState, build_light_state, restore
from flchain.wire.envelope import CERTIFICATE_BYTES_MAX, decode_struct, encode_struct, open_envelope
from flchain.wire.messages import Certificate, Phase, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.settings.node import KeySettings
from miner.core import announce
from miner.core import values as mv
from miner.core.machine import build_miner_state
from miner.core.tip import Standing, extend
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain, certify

MINERS, DEVICES, ROUNDS = 7, 8, 3
CHAIN = build_chain(MINERS, DEVICES)
TOPICS = Topics.of_chain(CHAIN.id)
ME, HOME = CHAIN.devices[0], CHAIN.miners[0]
ROUND_BYTES_MAX = 2_500
"""Headers, certificates and who was accepted; the payload is the codec's affair."""


@pytest.fixture(scope="module")
def driver() -> Driver:
    made = Driver(CHAIN)
    for _ in range(ROUNDS):
        made.run_round()
    return made


def tell(driver: Driver, height: int, *, is_again: bool = False) -> list[mv.Publish]:
    """What a miner says of the block at a height, once it is final."""
    standing = Standing(driver.states[height - 1])
    block, certificate = driver.blocks[height - 1], driver.certificates[height - 1]
    state = build_miner_state(mv.MinerConfig(HOME), extend(standing, block, certificate, driver.states[height]))
    return [effect for effect in announce.publish_tip(state, is_again) if isinstance(effect, mv.Publish)]


def build_agent(light: LightState) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    return build_agent_state(AgentConfig(ME, miners), light, np.zeros(PARAMETERS_COUNT, np.int32))


def start(is_full: bool) -> LightState:
    return build_light_state(CHAIN.genesis, CHAIN.model, is_full=is_full)


def hear(state: AgentState, topic: str, packet: bytes) -> tuple[AgentState, tuple[Effect, ...]]:
    return step(state, PacketReceived(topic, packet), Millis(0), NO_CLOCK)


def follow(state: AgentState, driver: Driver, heights: range) -> tuple[AgentState, list[Effect]]:
    """The device hears what it listens to of these blocks."""
    topics = TOPICS.news_of(HOME.address, state.light.is_full)
    done: list[Effect] = []
    for height in heights:
        for said in tell(driver, height):
            if said.topic in topics:
                state, effects = hear(state, said.topic, said.packet)
                done += effects
    return state, done


def get_asked(effects: list[Effect]) -> list[Want]:
    envelopes = [open_envelope(decode_packet(e.packet).fields[0], CHAIN.id) for e in effects if isinstance(e, Publish)]
    return [Want(envelope.fields[2]) for envelope in envelopes]


# ------------------------------------------------------------------------------------------------- round by round


def test_what_a_light_device_needs_of_a_round_is_short(driver: Driver) -> None:
    """Seven miners, eight devices, everybody signs and everybody is accepted: at most 2.5 KB beside the payload, by the
    packets that miners really send; and from these alone it has the model of every round and asks for nothing."""
    state = build_agent(start(is_full=False))
    for number in range(1, ROUNDS + 1):
        blocks = [block for block in driver.blocks if block.header.round == number and block.header.phase != Phase.OPEN]
        heights = range(blocks[0].header.height, blocks[-1].header.height + 1)
        said = [p for height in heights for p in tell(driver, height) if p.topic == TOPICS.miner_light(HOME.address)]
        payload_bytes = len(driver.states[heights[-1]].payload)
        assert sum(len(each.packet) for each in said) - payload_bytes <= ROUND_BYTES_MAX
        state, effects = follow(state, driver, heights)
        assert not get_asked(effects)
        assert [e.model_hash for e in effects if isinstance(e, Report)] == [driver.states[heights[-1]].model_hash]
    assert state.light.model_round == ROUNDS


def test_a_light_device_hears_when_its_part_of_the_round_is_over(driver: Driver) -> None:
    """Each phase that a device takes part in is opened and ended for it; in which miners alone score it is not."""
    told = {
        Phase(driver.blocks[height - 1].header.next_phase)
        for height in range(1, len(driver.blocks) + 1)
        for said in tell(driver, height)
        if said.topic == TOPICS.miner_light(HOME.address)
    }
    assert told == {Phase.COMMIT, Phase.REVEAL, Phase.SCORE}


def test_after_a_loss_light_devices_are_told_the_newest_header_whatever_it_is(driver: Driver) -> None:
    """A broker that forgot what it retains has it again as soon as a miner connects, and later comers find it there."""
    height = next(b.header.height for b in driver.blocks if b.header.next_phase is Phase.SETTLE)
    topic = TOPICS.miner_light(HOME.address)
    assert not [said for said in tell(driver, height) if said.topic == topic]
    (said,) = [said for said in tell(driver, height, is_again=True) if said.topic == topic]
    assert said.retain
    assert hear(build_agent(start(is_full=False)), topic, said.packet)[0].light.height == height


# ----------------------------------------------------------------------------------------------- its certificates


@pytest.mark.parametrize("powers", [[10] * 7, [1, 1, 1, 1, 1, 1, 9], [3, 1, 2], [5], [1, 2, 3, 4, 5, 6, 7]])
def test_a_trimmed_certificate_is_valid_and_has_no_signature_too_many(powers: list[int]) -> None:
    """It makes the block final; with any one signature less it does not."""
    chain = build_chain(len(powers), 1, powers=powers, power_cap_bp=10_000)
    made = Driver(chain)
    block = made.extend()
    validators, height = chain.state.validators, Height(1)
    trimmed = trim_certificate(validators, certify(chain, chain.state, block))
    read = verify_certificate(chain.id, validators, height, block.hash, trimmed)
    for place in range(len(read.signatures)):
        fewer = (*read.signatures[:place], *read.signatures[place + 1 :])
        with pytest.raises(BadCertificate):
            verify_certificate(chain.id, validators, height, block.hash, encode_struct(Certificate(0, fewer)))
    assert trim_certificate(validators, trimmed) == trimmed
    assert decode_struct(trimmed, Certificate, CERTIFICATE_BYTES_MAX) == read


# --------------------------------------------------------------------------------------------- light, full and back


def restart(effects: list[Effect], is_full: bool) -> AgentState:
    """A device that begins from what it saved last, with another setting."""
    saved = [effect for effect in effects if isinstance(effect, SavePosition)][-1]
    proof = b"" if saved.light.carried is None else b"".join(encode_vector(part) for part in saved.light.carried)
    light = restore(start(is_full), saved.head, encode_vector(saved.light.model), proof)
    return replace(build_agent(light), head=saved.head)


def end_of_round(driver: Driver, number: int) -> int:
    return next(b.header.height for b in driver.blocks if b.header.round == number and b.header.next_round > number)


def test_a_light_device_that_becomes_full_asks_for_what_is_carried(driver: Driver) -> None:
    """It keeps its model and takes part; at the next settlement it asks for what it lacks, and then goes on alone."""
    _, effects = follow(build_agent(start(is_full=False)), driver, range(1, end_of_round(driver, 1) + 1))
    state = restart(effects, is_full=True)
    assert state.light.is_synced
    second = range(end_of_round(driver, 1) + 1, end_of_round(driver, 2) + 1)
    state, effects = follow(state, driver, second)
    assert get_asked(effects) == [Want.FULL_MODEL]
    assert not [effect for effect in effects if isinstance(effect, Report)]
    head, after = driver.get_head(second[-1]), driver.states[second[-1]]
    parts = (head.header, head.certificate, b"", encode_vector(after.model), build_carried_proof(after))
    topic = TOPICS.miner_to(HOME.address, ME.address)
    state, _ = hear(state, topic, encode_packet(PacketType.MODEL, *parts))
    state, effects = follow(state, driver, range(second[-1] + 1, end_of_round(driver, 3) + 1))
    assert not get_asked(effects)
    assert [e.model_hash for e in effects if isinstance(e, Report)] == [driver.state.model_hash]


def test_a_full_device_that_becomes_light_goes_on_at_once(driver: Driver) -> None:
    """It needs less than it has."""
    _, effects = follow(build_agent(start(is_full=True)), driver, range(1, end_of_round(driver, 1) + 1))
    state = restart(effects, is_full=False)
    assert state.light.is_synced and state.light.carried is None
    state, effects = follow(state, driver, range(end_of_round(driver, 1) + 1, end_of_round(driver, 3) + 1))
    assert not get_asked(effects)
    assert state.light.model_round == ROUNDS


def test_a_device_that_mines_must_be_a_full_one() -> None:
    """It scores everybody's updates, which a light device does not take: the configuration is refused."""
    given = {name: "x" for name in ("genesis", "model", "examples", "data_dir")}
    common = {**given, "key": KeySettings("key.pem")}  # type: ignore[arg-type]
    AgentSettings(**common, follow="full", mining=MiningSettings(enabled=True))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="follow: must be"):
        AgentSettings(**common, follow="light", mining=MiningSettings(enabled=True))  # type: ignore[arg-type]
