"""What a header, a body, the state's root and a genesis must be, and what each wrong field gets."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from flchain.base.errors import ConfigError, InvalidBlock, MalformedMessage, WrongHeight
from flchain.ledger.block import decode_block
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain.ledger.state import find_device, find_validator
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.blocks import apply_block
from flchain.wire.envelope import encode_struct
from flchain.wire.messages import Body, DeviceEntry, Header, Phase, Settlement
from tests.support.builders.chain import (
    BuiltChain,
    Driver,
    build_chain,
    build_identity,
    make_reveal,
    make_scores,
    replace_header,
    seal_score_reveal,
)
from tests.support.chain_checks import forge_block, open_chain


@pytest.fixture
def driver() -> Driver:
    """A chain that waits for the commitments of its first round."""
    return open_chain()


# ---------------------------------------------------------------------------------------------- headers


def other_headers(header: Header, chain: BuiltChain) -> dict[str, tuple[object, ...]]:
    other = b"x" * 32
    return {
        "chain": (other,),
        "height": (header.height + 1, header.height - 1, 2**53),
        "time_ms": (header.time_ms - 1, 0),
        "round": (header.round + 1, 0),
        "phase": tuple(set(Phase) - {header.phase}),
        "next_round": (header.next_round + 1, 0),
        "next_phase": tuple(set(Phase) - {header.next_phase}),
        "previous": (other, chain.id),
        "proposer": (chain.devices[0].address, b"p" * 20),
        "body_root": (other,),
        "state_root": (other,),
        "model_hash": (other,),
        "validators_hash": (other,),
        "next_validators_hash": (other,),
    }


def test_every_header_field_is_checked() -> None:
    """In each phase a header with any one field changed is refused."""
    driver = Driver(build_chain())
    driver.run_round()
    for before, block in zip(driver.states[1:-1], driver.blocks[1:], strict=True):
        others = other_headers(block.header, driver.chain)
        assert set(others) == set(block.header.__struct_fields__) - {"version"}
        for name, values in others.items():
            for value in values:
                with pytest.raises(WrongHeight if name == "height" else InvalidBlock):
                    apply_block(before, replace_header(block, **{name: value}), block.body_bytes)
    with pytest.raises(MalformedMessage):
        apply_block(driver.states[0], replace_header(driver.blocks[0], version=2), driver.blocks[0].body_bytes)


def test_a_block_fits_one_place() -> None:
    """A block applied again, too early, or to another chain is refused."""
    driver = Driver(build_chain())
    driver.run_round()
    for place, block in enumerate(driver.blocks):
        for at, state in enumerate(driver.states):
            if at != place:
                with pytest.raises(WrongHeight):
                    apply_block(state, block.header_bytes, block.body_bytes)
    twin = build_chain(reward_per_update=7)
    with pytest.raises(InvalidBlock):
        apply_block(twin.state, driver.blocks[0].header_bytes, driver.blocks[0].body_bytes)


def test_another_body_is_refused(driver: Driver) -> None:
    """A header with another block's body is refused, and so is a body with a settlement of its own making."""
    block = driver.commit({0: make_reveal(driver.chain, 0)})
    for body in (driver.blocks[0].body_bytes, encode_struct(Body((), (), Settlement(())))):
        with pytest.raises(InvalidBlock):
            decode_block(block.header_bytes, body)
    for settlement in (Settlement(()), Settlement((driver.chain.devices[0].address,))):
        with pytest.raises(InvalidBlock, match="settlement"):
            apply_block(driver.state, *forge_block(driver.state, (), settlement))


def test_no_other_settlement_than_the_scores_give() -> None:
    """The block that ends a round is refused without a settlement, and with one update more or less accepted."""
    driver = Driver(build_chain())
    driver.go_to(Phase.SETTLE)
    words = tuple(seal_score_reveal(driver.chain, i, make_scores(driver.state)) for i in range(4))
    addresses = tuple(device.address for device in driver.chain.devices)
    for settlement in (None, Settlement(()), Settlement(addresses[:2]), Settlement(addresses[::-1])):
        with pytest.raises(InvalidBlock, match="settlement"):
            apply_block(driver.state, *forge_block(driver.state, words, settlement))
    driver.extend(words)
    assert driver.state.round.number == 2


# ------------------------------------------------------------------------------------------------- state


def test_the_state_root_covers_everything(driver: Driver) -> None:
    """Any change to a device, validator, the round, the model's hash or what was minted changes the state root."""
    driver.go_to(Phase.SETTLE)
    state = driver.state
    device, validator = state.devices[0], state.validators[0]
    changed = [
        *(
            replace(state, devices=(replace(device, **change), *state.devices[1:]))
            for change in ({"reputation": 1}, {"absent": 9}, {"home": b"h" * 20}, {"public_key": b"k"})
        ),
        *(
            replace(state, candidates=(replace(validator, **change), *state.candidates[1:]))
            for change in ({"power": 1}, {"knowledge": 1}, {"absent": 9}, {"priority": 99}, {"public_key": b"k"})
        ),
        *(
            replace(state, round=replace(state.round, **change))
            for change in (
                {"number": 9},
                {"phase": Phase.SCORE},
                {"heights": 9},
                {"commits": ()},
                {"reveals": ()},
                {"score_commits": ()},
                {"reveals": (replace(state.round.reveals[0], samples=9), *state.round.reveals[1:])},
                {"reveals": (replace(state.round.reveals[0], update=b"u"), *state.round.reveals[1:])},
            )
        ),
        replace(state, minted=1),
        replace(state, model_hash=state.head),
    ]
    roots = {compute_state_root(other) for other in (state, *changed)}
    assert len(roots) == len(changed) + 1


def test_addresses_are_found_in_their_role(driver: Driver) -> None:
    """A device is found among devices only, a validator among validators only."""
    state = driver.state
    for device, validator in zip(state.devices, state.validators, strict=False):
        assert find_device(state, device.address) is device
        assert find_validator(state, validator.address) is validator
        assert find_device(state, validator.address) is None
        assert find_validator(state, device.address) is None


# ----------------------------------------------------------------------------------------------- genesis


def test_a_genesis_is_checked_as_a_whole() -> None:
    """Unknown plug-ins, keys that are none, keys twice and homes that are no validators are all named."""
    built = build_chain()
    genesis = built.genesis

    def problems(changed: Genesis) -> str:
        with pytest.raises(ConfigError) as caught:
            decode_genesis(encode_genesis(changed))
        return str(caught.value)

    def with_device(entry: DeviceEntry) -> Genesis:
        return msgspec.structs.replace(genesis, devices=(*genesis.devices, entry))

    params = msgspec.structs.replace(genesis.params, codec="magic", reward_rule="lottery")
    text = problems(msgspec.structs.replace(genesis, params=params))
    assert "magic" in text
    assert "sparse-ternary" in text
    assert "lottery" in text
    home = genesis.devices[0].home
    assert "not an Ed25519" in problems(with_device(DeviceEntry(b"\1" + bytes(31), home)))
    assert "twice" in problems(with_device(genesis.devices[0]))
    assert "twice" in problems(with_device(DeviceEntry(genesis.validators[0].public_key, home)))
    stranger = DeviceEntry(build_identity(77, 7).public_key, b"h" * 20)
    assert "not a validator" in problems(with_device(stranger))
    assert "not a genesis" in problems(msgspec.structs.replace(genesis, validators=()))
    assert "not a genesis" in problems(msgspec.structs.replace(genesis, name="a b"))
    for junk in (b"", b"junk", encode_genesis(genesis)[:-1], encode_genesis(genesis) + b"\0"):
        with pytest.raises(ConfigError):
            decode_genesis(junk)


def test_any_change_of_the_genesis_is_another_chain() -> None:
    """Two genesis files that differ in anything have two chain ids."""
    ids = {build_chain(**change).id for change in ({}, {"reward_per_update": 1}, {"devices": 2}, {"powers": [1] * 4})}
    assert len(ids) == 4
