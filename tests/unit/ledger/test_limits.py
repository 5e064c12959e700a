"""What one node can make another keep is bounded by what it can honestly have to say on this chain."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from flchain.base.errors import MalformedUpdate, OversizedMessage
from flchain.base.types import Address, BasisPoints, Hash, Millis, Power, Stake, UnixMillis, View
from flchain.codecs import CODECS, DOWNSTREAM_RULES, encode_carried
from flchain.ledger.block import Block
from flchain.ledger.limits import (
    CARRIED_MODELS_MAX,
    SCORE_ENTRY_BYTES,
    STATE_TABLES_BYTES_MAX,
    compute_body_bytes_max,
    compute_device_packet_bytes_max,
    compute_light_body_bytes_max,
    compute_miner_packet_bytes_max,
    compute_packet_bytes_max,
    compute_state_bytes_max,
)
from flchain.ledger.params import DEVICES_MAX
from flchain.ledger.snapshot import PROOF_BYTES_MAX, decode_state, encode_state
from flchain.ledger.state import (
    Account,
    ChainState,
    Delegation,
    Device,
    RevealedScores,
    RevealedUpdate,
    Unbonding,
    Validator,
)
from flchain.ledger.state_tree import compute_state_root, get_leaves
from flchain.light.body import LightBody
from flchain.light.follow import build_light_state, process_body
from flchain.light.trust import CertifiedHeader, encode_sets
from flchain.rules.blocks import build_block, get_proposer
from flchain.rules.orders import ACCOUNTS_MAX, CANDIDATES_MAX, DELEGATIONS_MAX, UNBONDINGS_PER_ACCOUNT_MAX
from flchain.wire.chunks import DEVICE_CHUNK_BYTES
from flchain.wire.envelope import (
    CERTIFICATE_BYTES_MAX,
    SETS_BYTES_MAX,
    SETTLEMENT_BYTES_MAX,
    decode_struct,
    encode_struct,
    open_envelope,
    seal,
    seal_verified,
)
from flchain.wire.fields import SMALL_BYTES_MAX
from flchain.wire.messages import (
    Ask,
    Body,
    Certificate,
    Commit,
    Phase,
    Proposal,
    Reveal,
    ScoreReveal,
    Settlement,
    Vote,
    Want,
)
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core import agreement
from miner.core.consensus_intake import EARLY_MAX
from miner.core.machine import build_miner_state, step
from miner.core.pools import mempool
from miner.core.state import MinerState
from miner.core.tip import LedgerSummary, Standing, Tip
from miner.core.values import MinerConfig, PacketReceived, Publish, Refuse
from tests.support.builders.chain import NO_CLOCK, SALT, BuiltChain, Driver, build_chain, make_reveal, seal_commit

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
PARAMS = CHAIN.genesis.params
LEVELS_DOWN = {name: codec.level_default for name, codec in CODECS.items()} | {"delta-entropy": 1, "count-sketch": 1}


def build_miner(state: ChainState = CHAIN.state) -> MinerState:
    return build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(state))


def hear(state: MinerState, topic: str, packet: bytes) -> tuple[MinerState, list[str]]:
    state, effects = step(state, PacketReceived(topic, packet), Millis(0), NO_CLOCK)
    return state, [effect.code for effect in effects if isinstance(effect, Refuse)]


@pytest.mark.parametrize("codec", CODECS)
def test_honest_packets_fit(codec: str) -> None:
    """The longest update, a block of everybody's longest updates, and a model are within the chain's limits."""
    chain = build_chain(codec=codec, devices=5, codec_level=2_016)
    params = chain.genesis.params
    count = params.parameters_count
    dense = np.linspace(1, 2**30, count).astype(np.int32)
    payload = CODECS[codec].encode(dense, np.zeros(count, np.int32), params.codec_level, b"seed").payload
    raws = [seal(Reveal(2**53, SALT, 1, payload), chain.id, device) for device in chain.devices]
    of_device = encode_packet(PacketType.MESSAGE, raws[0])
    of_miner = encode_packet(PacketType.BLOCK, b"h" * 1_024, b"c" * 8_192, b"".join(raws) + b"frame" * len(raws))
    assert len(of_device) <= compute_device_packet_bytes_max(params)
    assert len(b"".join(raws)) <= compute_body_bytes_max(params, 5, 4)
    assert len(of_miner) <= compute_packet_bytes_max(params, 5, 4)


@pytest.mark.parametrize("downstream", DOWNSTREAM_RULES)
def test_what_devices_download_fits(downstream: str) -> None:
    """The longest light body, a model with what is carried, and a state are within the chain's limits, however little
    the codec of updates writes: otherwise devices refuse what honest miners send."""
    codec, level = ("count-sketch", 1) if downstream == "count-sketch" else ("sparse-ternary", 100)
    changes: dict[str, object] = {"parameters_count": 500_000, "codec": codec, "codec_level": level}
    changes |= {"downstream_codec": downstream, "downstream_level": LEVELS_DOWN[downstream]}
    params = msgspec.structs.replace(PARAMS, **changes)
    rule, count = DOWNSTREAM_RULES[downstream], params.parameters_count
    model, carried = bytes(4 * count), encode_carried(rule.start(count, params.downstream_level))
    longest = bytes(rule.payload_bytes_max(count, params.downstream_level))
    body = encode_struct(LightBody(bytes(32), bytes(32), Settlement(tuple(d.address for d in CHAIN.devices)), longest))
    head = b"h" * 1_024, b"c" * 8_192, b"s" * 9_216
    of_miner = compute_packet_bytes_max(params, len(CHAIN.devices), 4)
    assert len(body) <= compute_light_body_bytes_max(params)
    assert len(encode_packet(PacketType.LIGHT_BODY, 9, body)) <= of_miner
    assert len(encode_packet(PacketType.MODEL, *head, model, carried + bytes(PROOF_BYTES_MAX))) <= of_miner
    updates = len(CHAIN.devices) * bytes(CODECS[codec].payload_bytes_max(count, level))
    tables = bytes(STATE_TABLES_BYTES_MAX)
    assert len(model + carried + updates + tables) <= compute_state_bytes_max(params, len(CHAIN.devices))


def test_chunks_of_what_nobody_has_to_say_are_refused() -> None:
    """The first chunk of a packet longer than any honest one is refused: a device's update is short, a state longer."""
    piece = bytes(DEVICE_CHUNK_BYTES)
    of_device = compute_device_packet_bytes_max(PARAMS) // DEVICE_CHUNK_BYTES + 1
    longest = compute_miner_packet_bytes_max(PARAMS, len(CHAIN.devices), len(CHAIN.miners)) // DEVICE_CHUNK_BYTES + 1
    assert of_device < longest
    senders = (TOPICS.device_up(CHAIN.devices[0].address), TOPICS.miner_bft(CHAIN.miners[1].address))
    for topic, most in zip(senders, (of_device, longest), strict=True):
        assert hear(build_miner(), topic, encode_packet(PacketType.CHUNK, b"d" * 32, 0, most, piece))[1] == []
        kept, codes = hear(build_miner(), topic, encode_packet(PacketType.CHUNK, b"d" * 32, 0, most + 1, piece))
        assert codes == ["oversized"] and not kept.uploads.assemblies


def test_an_update_that_no_codec_wrote_takes_no_place() -> None:
    """An update longer than the codec's longest is refused even before its phase, when nothing else can be checked."""
    state, codes = hear(
        build_miner(),
        TOPICS.device_up(CHAIN.devices[0].address),
        encode_packet(PacketType.MESSAGE, seal(Reveal(1, SALT, 1, b"u" * 5_000), CHAIN.id, CHAIN.devices[0])),
    )
    assert codes == [MalformedUpdate.code] and not list(state.mempool.iterate())


def test_a_validator_cannot_take_the_others_places() -> None:
    """Of votes for the next height each validator has a few places of its own, however many it signs."""
    state = build_miner()
    for key in CHAIN.miners[1:]:
        for view in range(20):
            raw = seal(Vote(2, view, 1, None), CHAIN.id, key)
            state, codes = hear(state, TOPICS.miner_bft(key.address), encode_packet(PacketType.MESSAGE, raw))
            assert codes == []
    assert [early.said.sender for early in state.early] == [key.address for key in CHAIN.miners[1:] for _ in range(8)]
    assert len(state.early) == 3 * EARLY_MAX[open_envelope(raw, CHAIN.id).kind]


def build_next_proposal(chain: BuiltChain) -> tuple[bytes, Block]:
    """A proposal and its block for height 2, seen from height 0."""
    first = Driver(chain)
    first.extend([])
    proposer = next(key for key in chain.miners if key.address == get_proposer(first.state, View(0)))
    commit = open_envelope(seal_commit(chain, 0, make_reveal(chain, 0, 1)), chain.id)
    block, _ = build_block(first.state, proposer.address, [commit])
    return seal(Proposal(2, 0, -1, block.hash), chain.id, proposer), block


def test_a_full_state_fits_into_its_limit() -> None:
    """A state whose tables are full of the longest rows can be sent: otherwise dust keeps out miners that come late."""
    address, key, much = Address(b"a" * 20), b"k" * 32, 2**60
    state = replace(
        CHAIN.state,
        accounts=(Account(address, key, Stake(much), 2**53),) * ACCOUNTS_MAX,
        devices=(Device(address, key, address, BasisPoints(10_000), 2**31),) * DEVICES_MAX,
        candidates=(CHAIN.state.candidates[0],) * CANDIDATES_MAX,
        delegations=(Delegation(address, address, Stake(much)),) * DELEGATIONS_MAX,
        unbondings=(Unbonding(address, address, Stake(much), UnixMillis(2**53)),)
        * (ACCOUNTS_MAX * UNBONDINGS_PER_ACCOUNT_MAX),
    )
    assert sum(map(len, get_leaves(state))) + 8 * len(get_leaves(state)) < STATE_TABLES_BYTES_MAX
    check_restored(state)


def test_a_state_with_everybodys_scores_can_be_read() -> None:
    """1,024 devices and 64 miners have scored 1,024 updates and 64 aggregates, and a late miner still takes the state.

    Otherwise it would be shut out in the last phase of every long round.
    """
    senders = tuple(Address(number.to_bytes(20, "big")) for number in range(DEVICES_MAX + 64))
    devices, commitment = senders[:DEVICES_MAX], Hash(bytes(32))
    full = replace(
        CHAIN.state.round,
        phase=Phase.SETTLE,
        commits=tuple((sender, commitment) for sender in devices),
        reveals=tuple(RevealedUpdate(sender, 1, b"update") for sender in devices),
        score_commits=tuple((sender, commitment) for sender in senders),
        score_reveals=tuple(RevealedScores(sender, 1, (10_000,) * DEVICES_MAX, (10_000,) * 64) for sender in senders),
        pledges=devices,
    )
    check_restored(replace(CHAIN.state, round=full))


def check_restored(state: ChainState) -> None:
    header = build_block(CHAIN.state, get_proposer(CHAIN.state, View(0)), [])[0].header
    header = msgspec.structs.replace(header, state_root=compute_state_root(state), model_hash=state.model_hash)
    devices_count = max(len(state.devices), len(state.round.reveals))
    bytes_max = compute_state_bytes_max(state.params, devices_count)
    restored = decode_state(encode_state(state), encode_struct(header), state.params, bytes_max)
    assert get_leaves(restored) == get_leaves(state)


def test_a_round_of_as_many_devices_as_there_may_be_fits_into_its_messages() -> None:
    """The longest scores, settlement, certificate and sets of validators are read again within their limits.

    1,024 devices with an update each and 64 miners; every number as long as it can be.
    """
    miner, chain, much = CHAIN.miners[0], CHAIN.id, 2**53
    scores, aggregates = ((((b"a" * 20, 10_000)),) * count for count in (1_024, 64))
    raw = seal(ScoreReveal(much, SALT, 10_000, scores, aggregates), chain, miner)
    assert len(open_envelope(raw, chain).fields[3]) == 1_024
    accepted = Body((), (), Settlement((b"a" * 20,) * 1_024))
    empty = Body((), (), Settlement(()))
    assert len(encode_struct(accepted)) - len(encode_struct(empty)) < SETTLEMENT_BYTES_MAX
    certificate = encode_struct(Certificate(much, tuple((index, b"s" * 64) for index in range(64))))
    assert len(decode_struct(certificate, Certificate, CERTIFICATE_BYTES_MAX).signatures) == 64
    validators = tuple(Validator(Address(b"a" * 20), b"k" * 32, Power(much)) for _ in range(64))
    assert len(encode_sets(validators, validators)) <= SETS_BYTES_MAX


@pytest.mark.parametrize("count", [0, 1, 1_088])
def test_a_score_takes_no_more_than_the_limits_reckon_with(count: int) -> None:
    """Each (address, score) adds at most SCORE_ENTRY_BYTES to a message, and what is around them is small."""
    scores = ((b"a" * 20, 10_000),) * count
    raw = seal(ScoreReveal(2**53, SALT, 10_000, scores, ()), CHAIN.id, CHAIN.miners[0])
    assert len(raw) <= count * SCORE_ENTRY_BYTES + SMALL_BYTES_MAX


def test_the_block_of_who_has_no_seat_is_not_kept() -> None:
    """There may be 256 candidates, and a block is long: only a validator may have one kept for the next height."""
    raw, block = build_next_proposal(CHAIN)
    proposer = open_envelope(raw, CHAIN.id).sender
    state = build_miner()
    seatless = tuple(replace(c, power=Power(0)) if c.address == proposer else c for c in state.chain.candidates)
    state = replace(state, chain=replace(state.chain, candidates=seatless))
    packet = encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes)
    state, codes = hear(state, TOPICS.miner_bft(proposer), packet)
    assert codes == [] and state.early == ()


def test_an_early_proposal_is_kept_with_its_own_block_only() -> None:
    """Other bytes under a true proposal of the next height are refused, and so do not keep the true ones out."""
    raw, block = build_next_proposal(CHAIN)
    topic = TOPICS.miner_bft(CHAIN.miners[1].address)
    state = build_miner()
    for body in (b"\x82\x80\xf6", b"x" * 70_000):
        state, codes = hear(state, topic, encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, body))
        assert len(codes) == 1 and state.early == ()
    state, codes = hear(state, topic, encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes))
    assert codes == [] and len(state.early) == 1
    assert hear(state, topic, encode_packet(PacketType.MESSAGE, raw))[1] == []


def test_a_proposal_without_its_block_is_not_kept() -> None:
    """A proposal that comes as a bare message is refused, early as well."""
    raw, _ = build_next_proposal(CHAIN)
    state, codes = hear(
        build_miner(), TOPICS.miner_bft(CHAIN.miners[1].address), encode_packet(PacketType.MESSAGE, raw)
    )
    assert codes == ["malformed"] and state.early == ()


def test_a_device_keeps_no_body_that_cannot_be_honest() -> None:
    """A body that comes before its header is kept only if the chain could hold it."""
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    most = compute_body_bytes_max(PARAMS, len(CHAIN.devices), len(CHAIN.miners))
    assert process_body(light, 5, b"b" * most).waiting
    with pytest.raises(OversizedMessage):
        process_body(light, 5, b"b" * (most + 1))
    light, most = build_light_state(CHAIN.genesis, CHAIN.model, is_full=False), compute_light_body_bytes_max(PARAMS)
    assert process_body(light, 5, b"b" * most).waiting
    with pytest.raises(OversizedMessage):
        process_body(light, 5, b"b" * (most + 1))


def test_a_pool_with_room_asks_nobodys_reputation() -> None:
    """Reputations are looked at when there is no room, and only then: a thousand devices' messages come quickly."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    pool = mempool.Mempool()
    for number in range(3):
        said = seal_verified(Commit(1, bytes(32), False), CHAIN.id, CHAIN.devices[number])
        pool, dropped = mempool.insert(pool, None, said)  # type: ignore[arg-type]  # the state must not be read
        assert dropped == ()
    assert len(list(pool.iterate())) == 3


def test_one_node_is_not_answered_without_end() -> None:
    """A node that asks for the model again and again gets one answer a while; others are answered meanwhile."""
    driver = Driver(CHAIN)
    block = driver.extend([])
    tip = Tip(CertifiedHeader(block.header_bytes, b"certificate"), None, None, is_change=False)
    state = build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state, LedgerSummary(tip)))
    answers = []
    for now_ms in (0, 1, 100, 249, 250, 300):
        for device in CHAIN.devices[:2]:
            raw = seal(Ask(2, CHAIN.miners[0].address, Want.MODEL, 0), CHAIN.id, device)
            packet = PacketReceived(TOPICS.device_up(device.address), encode_packet(PacketType.MESSAGE, raw))
            state, effects = step(state, packet, Millis(now_ms), NO_CLOCK)
            answers += [(now_ms, device) for effect in effects if isinstance(effect, Publish)]
    assert answers == [(now_ms, device) for now_ms in (0, 250) for device in CHAIN.devices[:2]]


def test_blocks_of_who_may_not_propose_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking a block is expensive: out of turn, or for a view far ahead, nobody can make others do it."""
    state = build_miner()
    block, _ = build_block(CHAIN.state, CHAIN.miners[1].address, [])
    monkeypatch.setattr(agreement, "check_block", lambda *_: pytest.fail("the block was checked"))
    turns = {view: get_proposer(CHAIN.state, View(view)) for view in range(4)}
    for key in CHAIN.miners[1:]:
        for view in (*(view for view, turn in turns.items() if turn != key.address), 1_000_000):
            raw = seal(Proposal(1, view, -1, block.hash), CHAIN.id, key)
            packet = encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes)
            after, codes = hear(state, TOPICS.miner_bft(key.address), packet)
            assert codes == ([] if view == 1_000_000 else ["unknown-sender"])
            assert block.hash not in after.proposed


@pytest.mark.parametrize("name", sorted(DOWNSTREAM_RULES))
@pytest.mark.parametrize("level", [1, 3, 20])
def test_what_is_carried_is_at_most_two_models(name: str, level: int) -> None:
    """So that a state between two rounds fits into one packet, whatever the chain has agreed on."""
    count = 1_000
    carried = encode_carried(DOWNSTREAM_RULES[name].start(count, level))
    assert len(carried) <= CARRIED_MODELS_MAX * 4 * count
