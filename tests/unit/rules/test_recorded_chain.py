"""Chains that were recorded before the rooms were moved: every block of them must come to the same bytes for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flchain.aggregation import AGGREGATION_RULES
from flchain.base.fixedpoint import decode_vector, encode_vector
from flchain.base.types import Address, UnixMillis
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.consensus import PROPOSER_RULES
from flchain.incentives import REWARD_RULES
from flchain.ledger.block import is_body_for_devices, is_settling
from flchain.ledger.genesis import Genesis, decode_genesis
from flchain.ledger.snapshot import decode_state, encode_state
from flchain.ledger.state import ChainState, build_genesis_state
from flchain.ledger.state_tree import compute_state_root
from flchain.light.follow import LightState, build_light_state, process_body, process_head
from flchain.light.trust import CertifiedHeader
from flchain.rules.blocks import apply_block, build_block
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, open_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Body, Header
from tests.support.builders.chain import open_all
from tests.support.recorded_chain import (
    FOLDER,
    RecordedBlock,
    RecordedChain,
    digest_state,
    dump_recorded,
    load_recorded,
)
from tests.vectors.make_recorded import build_all

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
STATE_BYTES_MAX = 1_000_000


@pytest.fixture(params=NAMES)
def recorded(request) -> RecordedChain:
    return load_recorded(request.param)


def read_genesis(recorded: RecordedChain) -> tuple[Genesis, ChainState]:
    genesis = decode_genesis(recorded.genesis)
    return genesis, build_genesis_state(genesis, decode_vector(recorded.model, genesis.params.parameters_count))


def replay(recorded: RecordedChain) -> Iterator[tuple[ChainState, RecordedBlock, Body, ChainState]]:
    """Each block with the state before it and after, as a miner applies it."""
    _, state = read_genesis(recorded)
    for said in recorded.blocks:
        _, after = apply_block(state, said.header, said.body)
        yield state, said, decode_struct(said.body, Body, BODY_BYTES_MAX), after
        state = after


def follow(recorded: RecordedChain, is_full: bool) -> Iterator[tuple[RecordedBlock, Header, LightState]]:
    """Each block with what a device knows after it; its clock is the newest header's."""
    genesis, state = read_genesis(recorded)
    light = build_light_state(genesis, state.model, is_full=is_full)
    for said in recorded.blocks:
        header = decode_struct(said.header, Header, HEADER_BYTES_MAX)
        light = process_head(
            light, CertifiedHeader(said.header, said.certificate, said.sets), UnixMillis(header.time_ms)
        )
        if is_full and is_body_for_devices(header):
            light = process_body(light, header.height, said.body)
        elif is_settling(header):
            light = process_body(light, header.height, said.light_body)
        yield said, header, light


def test_a_miner_comes_to_the_recorded_hashes(recorded):
    """Hash, head, state root, model hash and every byte of the state are as they were at each height."""
    assert read_genesis(recorded)[1].chain == recorded.chain
    for before, said, _, after in replay(recorded):
        block, _ = apply_block(before, said.header, said.body)
        found = (block.hash, after.head, compute_state_root(after), after.model_hash, digest_state(after))
        expected = (said.hash, said.head, said.state_root, said.model_hash, said.state_digest)
        assert found == expected, block.header.height


def test_a_proposer_builds_the_recorded_blocks(recorded):
    """From the same messages, in whatever order they came, header and body come out byte by byte."""
    for before, said, body, _ in replay(recorded):
        header = decode_struct(said.header, Header, HEADER_BYTES_MAX)
        mixed = open_all(body.transactions[::-1], before.chain), open_all(body.orders[::-1], before.chain)
        built, _ = build_block(before, Address(header.proposer), *mixed, UnixMillis(header.time_ms))
        assert (built.header_bytes, built.body_bytes) == (said.header, said.body), header.height


def test_a_state_comes_back_from_its_bytes_at_every_height(recorded):
    """A miner that begins with the snapshot of any height holds the recorded state, and can go on."""
    for _, said, _, after in replay(recorded):
        restored = decode_state(encode_state(after), said.header, after.params, STATE_BYTES_MAX)
        assert compute_state_root(restored) == said.state_root
        assert encode_vector(restored.model) == encode_vector(after.model)


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "light"])
def test_a_device_comes_to_the_recorded_models(recorded, is_full):
    """By headers and certificates a device stands on each head, and by bodies holds the model of each round."""
    rounds = 0
    for said, header, light in follow(recorded, is_full):
        assert light.trust.head == said.head, header.height
        assert light.chain_model_hash == said.model_hash, header.height
        assert light.is_synced, header.height
        rounds += is_settling(header)
    assert rounds >= 3


def test_the_long_chain_tells_all_that_can_happen():
    """At least 60 blocks with every order, elections, slashing, jail and its end, abandoned rounds, absence, mining."""
    told = list(replay(load_recorded("long")))
    states = [after for *_, after in told]
    assert len(told) >= 60
    orders = {open_envelope(raw, states[0].chain).kind for _, _, body, _ in told for raw in body.orders}
    assert orders == {Kind.TRANSFER, Kind.REGISTER, Kind.DELEGATE, Kind.UNDELEGATE, Kind.UNJAIL, Kind.EVIDENCE}
    assert sum(bool(said.sets) for _, said, *_ in told) >= 5, "changes of the validators"
    jailed = [sum(candidate.is_jailed for candidate in state.candidates) for state in states]
    assert {0, 1, 2} <= set(jailed), "in jail and out again"
    accepted = [len(body.settlement.accepted) for *_, body, _ in told if body.settlement is not None]
    assert accepted.count(0) >= 2, "rounds that were given up"
    said = [open_envelope(raw, states[0].chain) for _, _, body, _ in told for raw in body.transactions]
    scorers = {envelope.sender for envelope in said if envelope.kind is Kind.SCORE_REVEAL}
    assert scorers & {device.address for device in states[0].devices}, "devices that mine"
    assert {0, 1, 2, 3} <= {device.absent for state in states for device in state.devices}
    assert any(device.unscored for state in states for device in state.devices)
    assert len({len(state.candidates) for state in states}) >= 3, "candidates come and go"
    assert not states[-1].unbondings and any(state.unbondings for state in states), "stake comes back"


def test_every_rule_by_name_is_in_a_chain():
    """Each codec, downstream, aggregation, reward and proposer rule has been recorded."""
    found = [decode_genesis(load_recorded(name).genesis).params for name in NAMES]
    assert {params.codec for params in found} == set(CODECS)
    assert {params.downstream_codec for params in found} == set(DOWNSTREAM_RULES)
    assert {params.aggregation for params in found} == set(AGGREGATION_RULES)
    assert {params.reward_rule for params in found} == set(REWARD_RULES)
    assert {params.proposer_rule for params in found} == set(PROPOSER_RULES)


def test_the_files_are_what_the_command_writes():
    """Made again, every chain is the recorded one byte by byte."""
    for name, made in build_all().items():
        assert json.loads(dump_recorded(made)) == json.loads((FOLDER / f"{name}.json").read_text()), name
