"""A miner that is far behind: when it asks for a state, what it takes, and what it refuses."""

from __future__ import annotations

import pytest

from flchain.base.types import Hash, Height, Millis, UnixMillis
from flchain.ledger.snapshot import encode_state
from flchain.ledger.state import compute_validators_hash
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import Ask, Phase, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from miner.core import state_sync
from miner.core.machine import build_miner_state, step
from miner.core.state import MinerState
from miner.core.tip import Standing, extend
from miner.core.values import (
    Effect,
    MinerConfig,
    Note,
    PacketReceived,
    Publish,
    Refuse,
    SaveState,
    Timer,
    TimerFired,
)
from tests.support.builders.chain import NO_CLOCK, replace_header
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain

DAY_MS = 86_400_000


@pytest.fixture
def driver() -> StakeDriver:
    """Three rounds; after the first a validator loses its seat."""
    made = StakeDriver(build_stake_chain())
    made.run_round()
    made.extend(orders=[accuse(made.state, made.chain.miners[1], made.chain.miners[0])])
    made.run_round()
    made.run_round()
    return made


def stand(driver: StakeDriver, height: int) -> Standing:
    """Where a miner stands that has the blocks up to a height."""
    standing = Standing(driver.states[0])
    for index in range(height):
        standing = extend(standing, driver.blocks[index], driver.certificates[index], driver.states[index + 1])
    return standing


def build(driver: StakeDriver, number: int, height: int) -> MinerState:
    return build_miner_state(MinerConfig(driver.chain.miners[number]), stand(driver, height))


def play(state: MinerState, *events: object, clock_ms: UnixMillis = NO_CLOCK) -> tuple[MinerState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(0), clock_ms)  # type: ignore[arg-type]
        done += effects
    return state, done


def answer(driver: StakeDriver, sender: int, to: int, packet: bytes) -> PacketReceived:
    topics, keys = Topics.of_chain(driver.chain.id), driver.chain.miners
    return PacketReceived(topics.miner_to(keys[sender].address, keys[to].address), packet)


def state_packet(driver: StakeDriver, height: int, data: bytes | None = None) -> bytes:
    head = driver.get_head(height)
    data = encode_state(driver.states[height]) if data is None else data
    return encode_packet(PacketType.STATE, head.header, head.certificate, head.sets, data)


def find_questions(chain: Hash, effects: tuple[Effect, ...]) -> list[tuple[int, int]]:
    """(height, want) of each question."""
    found = []
    for effect in effects:
        if isinstance(effect, Publish) and (packet := decode_packet(effect.packet)).type is PacketType.MESSAGE:
            envelope = open_envelope(packet.fields[0], chain)
            if envelope.kind is Ask.kind:
                found.append((envelope.fields[0], envelope.fields[2]))
    return found


@pytest.mark.parametrize(("behind", "want"), [(3, Want.BLOCKS), (4, Want.STATE)])
def test_who_is_far_behind_asks_for_a_state(
    driver: StakeDriver, behind: int, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to BEHIND_HEIGHTS it asks for blocks, beyond for a state."""
    monkeypatch.setattr(state_sync, "BEHIND_HEIGHTS", 3)
    own = len(driver.blocks) - behind
    head = driver.get_head(len(driver.blocks))
    topic = Topics.of_chain(driver.chain.id).miner_head(driver.chain.miners[1].address)
    packet = encode_packet(PacketType.HEAD, head.header, head.certificate, b"")
    _, effects = play(build(driver, 2, own), PacketReceived(topic, packet), TimerFired(Timer.ASK))
    assert find_questions(driver.chain.id, effects) == [(own + 1, want)]


def test_the_word_of_one_candidate_brings_no_state(driver: StakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header under unknown validators may be invented: its sender is asked for proof, and peers only for blocks."""
    monkeypatch.setattr(state_sync, "BEHIND_HEIGHTS", 3)
    liar = driver.chain.miners[0]
    forged = replace_header(driver.blocks[-1], height=2**53, validators_hash=b"v" * 32)
    packet = encode_packet(PacketType.HEAD, forged, driver.certificates[-1], b"")
    topic = Topics.of_chain(driver.chain.id).miner_head(liar.address)
    top = len(driver.blocks)
    miner, effects = play(build(driver, 2, top), PacketReceived(topic, packet), *[TimerFired(Timer.ASK)] * 8)
    assert find_questions(driver.chain.id, effects) == [(top + 1, Want.CHANGES), *[(top + 1, Want.BLOCKS)] * 8]
    answered = answer(driver, 0, 2, encode_packet(PacketType.HEAD, forged, driver.certificates[-1], b""))
    after, effects = play(miner, answered)
    assert after.catch_up.trust is None and [type(effect) for effect in effects] == [Refuse]


def test_proof_across_a_change_of_validators_brings_a_state(
    driver: StakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far behind, with other validators since, a miner asks for headers that prove it and then for the state."""
    monkeypatch.setattr(state_sync, "BEHIND_HEIGHTS", 3)
    top = len(driver.blocks)
    head = driver.get_head(top)
    packet = encode_packet(PacketType.HEAD, head.header, head.certificate, b"")
    topic = Topics.of_chain(driver.chain.id).miner_head(driver.chain.miners[1].address)
    miner, effects = play(build(driver, 2, 1), PacketReceived(topic, packet))
    assert find_questions(driver.chain.id, effects) == [(2, Want.CHANGES)]
    proof = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
    _, effects = play(miner, answer(driver, 1, 2, proof), TimerFired(Timer.ASK))
    assert find_questions(driver.chain.id, effects) == [(2, Want.STATE)]


def test_a_state_is_asked_for_sent_taken_and_gone_on_from(driver: StakeDriver) -> None:
    """One miner's answer brings another from height 1 to its own, across a change of validators; the ledger is told."""
    top = len(driver.blocks)
    one, other = build(driver, 1, top), build(driver, 2, 1)
    ask = seal(Ask(2, driver.chain.miners[1].address, Want.STATE, 0), driver.chain.id, driver.chain.miners[2])
    topic = Topics.of_chain(driver.chain.id).miner_bft(driver.chain.miners[2].address)
    _, effects = play(one, PacketReceived(topic, encode_packet(PacketType.MESSAGE, ask)))
    sent = [effect for effect in effects if isinstance(effect, Publish)]
    assert [decode_packet(effect.packet).type for effect in sent] == [PacketType.STATE]
    after, effects = play(other, answer(driver, 1, 2, sent[0].packet))
    assert after.chain.height == after.ledger.base == top and after.chain.head == driver.state.head
    assert compute_validators_hash(after.chain.validators) == compute_validators_hash(driver.state.validators)
    assert after.bft.height == top + 1
    assert [effect.head for effect in effects if isinstance(effect, SaveState)] == [driver.get_head(top)]


def test_blocks_that_are_gone_are_answered_with_a_state(driver: StakeDriver) -> None:
    """A miner that began anew at a state has no older blocks to send."""
    top = len(driver.blocks)
    taken, _ = play(build(driver, 1, 1), answer(driver, 2, 1, state_packet(driver, top)))
    ask = seal(Ask(5, driver.chain.miners[1].address, Want.BLOCKS, 0), driver.chain.id, driver.chain.miners[2])
    topic = Topics.of_chain(driver.chain.id).miner_bft(driver.chain.miners[2].address)
    _, effects = play(taken, PacketReceived(topic, encode_packet(PacketType.MESSAGE, ask)))
    assert [decode_packet(e.packet).type for e in effects if isinstance(e, Publish)] == [PacketType.STATE]


def test_devices_are_sent_neither_blocks_nor_states(driver: StakeDriver) -> None:
    """They have no use for them, and would cost the miner's link much."""
    device = driver.chain.devices[0]
    for want in (Want.BLOCKS, Want.STATE):
        ask = seal(Ask(1, driver.chain.miners[1].address, want, 0), driver.chain.id, device)
        topic = Topics.of_chain(driver.chain.id).device_up(device.address)
        packet = PacketReceived(topic, encode_packet(PacketType.MESSAGE, ask))
        assert play(build(driver, 1, len(driver.blocks)), packet)[1] == ()


def test_a_forged_state_is_refused(driver: StakeDriver) -> None:
    """A state that is not the header's, or under a certificate of too few, changes nothing."""
    top, miner = len(driver.blocks), build(driver, 2, 1)
    other = encode_state(driver.states[top - 1])
    head = driver.get_head(top)
    few = encode_packet(
        PacketType.STATE, head.header, driver.certificates[1], head.sets, encode_state(driver.states[top])
    )
    for packet in (state_packet(driver, top, other), state_packet(driver, top, b""), few):
        after, effects = play(miner, answer(driver, 1, 2, packet))
        assert [type(effect) for effect in effects] == [Refuse] and after is miner


def test_an_older_state_is_ignored(driver: StakeDriver) -> None:
    """A miner never goes back."""
    miner = build(driver, 2, len(driver.blocks))
    for height in (3, len(driver.blocks)):
        assert play(miner, answer(driver, 1, 2, state_packet(driver, height))) == (miner, ())


def test_what_is_trusted_grows_old(driver: StakeDriver) -> None:
    """After the trusting period a state is refused and the operator is told once; a checkpoint heals it."""
    top = len(driver.blocks)
    late = UnixMillis(10 * DAY_MS)
    packet = answer(driver, 1, 2, state_packet(driver, top))
    after, effects = play(build(driver, 2, 1), packet, packet, clock_ms=late)
    assert after.chain.height == 1
    assert len([effect for effect in effects if isinstance(effect, Note)]) == 1
    config = MinerConfig(driver.chain.miners[2], checkpoint=driver.state.head)
    healed, _ = play(build_miner_state(config, stand(driver, 1)), packet, clock_ms=late)
    assert healed.chain.height == top
    assert healed.ledger.base == Height(top)


def list_changes(miner: MinerState) -> list[int]:
    return [height for height, _ in miner.ledger.changes]


def block_packet(driver: StakeDriver, height: int) -> bytes:
    block = driver.blocks[height - 1]
    return encode_packet(PacketType.BLOCK, block.header_bytes, driver.certificates[height - 1], block.body_bytes)


def test_changes_stay_in_order_for_who_proves_first_and_fetches_later() -> None:
    """A miner that has followed headers beyond its chain, and then takes the blocks or the states between, leads others
    as one does that was never late: each change once, in order of height."""
    driver = StakeDriver(build_stake_chain(miners=7))
    for accused in (0, 3):
        driver.run_round()
        driver.extend(orders=[accuse(driver.state, driver.chain.miners[1], driver.chain.miners[accused])])
    driver.run_round()
    driver.run_round()
    whole = build(driver, 2, len(driver.blocks))
    assert len(list_changes(whole)) >= 2, "otherwise nothing could be out of order"
    for first in list_changes(whole):
        head = driver.get_head(first)
        proof = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
        late, _ = play(build(driver, 2, 1), answer(driver, 1, 2, proof))
        assert late.catch_up.trust is not None and list_changes(late) == [first]
        blocks = [answer(driver, 1, 2, block_packet(driver, height)) for height in range(2, len(driver.blocks) + 1)]
        by_blocks, _ = play(late, *blocks)
        assert by_blocks.chain.height == whole.chain.height
        assert by_blocks.ledger.changes == whole.ledger.changes
        for height in [height for height in list_changes(whole) if height >= first]:
            by_state, _ = play(late, answer(driver, 1, 2, state_packet(driver, height)))
            assert list_changes(by_state) == sorted({first, height})


def test_a_state_that_no_packet_carries_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With long updates in the open round a state is longer than a packet may be: the peer gets none, which it would
    refuse chunk by chunk, and the state between two rounds when it asks again."""
    driver = StakeDriver(build_stake_chain())
    driver.run_round()
    between = len(driver.blocks)
    driver.go_to(Phase.SCORE)
    long, short = len(state_packet(driver, len(driver.blocks))), len(state_packet(driver, between))
    assert short < long
    ask = seal(Ask(2, driver.chain.miners[1].address, Want.STATE, 0), driver.chain.id, driver.chain.miners[2])
    topic = Topics.of_chain(driver.chain.id).miner_bft(driver.chain.miners[2].address)
    asked = PacketReceived(topic, encode_packet(PacketType.MESSAGE, ask))
    for packet_bytes_max, sent in ((long, (1, 1)), (long - 1, (0, 1)), (short, (0, 1)), (1, (0, 0))):
        monkeypatch.setattr(state_sync, "PACKET_BYTES_MAX", packet_bytes_max)
        answers = [play(build(driver, 1, height), asked)[1] for height in (len(driver.blocks), between)]
        assert tuple(len([e for e in effects if isinstance(e, Publish)]) for effects in answers) == sent
