"""A genesis says at once what could never work."""

from __future__ import annotations

import msgspec
import pytest

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError
from flchain.ledger.genesis import decode_genesis, encode_genesis
from tests.support.builders.chain import build_chain

CHAIN = build_chain(codec="identity")


def test_chain_whose_updates_no_message_carries_is_refused() -> None:
    """Ten million parameters as they are would open a chain that then stands still."""
    params = msgspec.structs.replace(CHAIN.genesis.params, parameters_count=10_000_000)
    with pytest.raises(ConfigError) as caught:
        decode_genesis(encode_genesis(msgspec.structs.replace(CHAIN.genesis, params=params)))
    assert len(caught.value.problems) == 2
    assert "messages carry" in str(caught.value)


def test_chain_whose_updates_do_not_fit_into_the_blocks_of_a_phase_is_refused() -> None:
    """Else the devices that come last would lose their updates in every round, and nobody would hear why."""
    chain = build_chain(devices=4, codec="identity")
    params = msgspec.structs.replace(chain.genesis.params, parameters_count=3_999_000, phase_heights_max=1)
    genesis = msgspec.structs.replace(chain.genesis, params=params, devices=chain.genesis.devices[:3])
    assert decode_genesis(encode_genesis(genesis)) == genesis
    with pytest.raises(ConfigError, match="take up to 2 blocks, a phase has 1"):
        decode_genesis(encode_genesis(msgspec.structs.replace(genesis, devices=chain.genesis.devices)))


def test_a_chain_of_more_devices_than_a_round_can_score_is_refused() -> None:
    """1,400 devices would stand still in SCORE, for no message carries their scores; 1,024 are taken."""

    def build(devices: int) -> bytes:
        keys = (Identity.from_seed(number.to_bytes(32, "big")).public_key for number in range(devices))
        entries = tuple(msgspec.structs.replace(CHAIN.genesis.devices[0], public_key=key) for key in keys)
        return encode_genesis(msgspec.structs.replace(CHAIN.genesis, devices=entries))

    assert len(decode_genesis(build(1_024)).devices) == 1_024
    for count in (1_025, 1_400):
        with pytest.raises(ConfigError, match=f"{count} devices, one chain has at most 1024: no message carries"):
            decode_genesis(build(count))


def test_all_problems_are_told_at_once() -> None:
    """Unknown names of every plug-in, each with the known ones."""
    params = msgspec.structs.replace(CHAIN.genesis.params, codec="zip", aggregation="max", privacy="hope")
    with pytest.raises(ConfigError) as caught:
        decode_genesis(encode_genesis(msgspec.structs.replace(CHAIN.genesis, params=params)))
    assert len(caught.value.problems) == 3
    assert "sparse-ternary" in caught.value.problems[0]


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean"])
def test_sketches_are_refused_by_a_rule_that_does_more_than_add_up(aggregation: str) -> None:
    """The median of two sketches is the sketch of nothing: such a chain could only learn noise."""
    sketches = {"codec": "count-sketch", "codec_level": 2, "downstream_codec": "count-sketch", "downstream_level": 2}
    params = msgspec.structs.replace(CHAIN.genesis.params, **sketches)
    assert decode_genesis(encode_genesis(msgspec.structs.replace(CHAIN.genesis, params=params))).params == params
    params = msgspec.structs.replace(params, aggregation=aggregation)
    with pytest.raises(ConfigError, match="sketches need a linear rule"):
        decode_genesis(encode_genesis(msgspec.structs.replace(CHAIN.genesis, params=params)))


def test_a_key_twice_or_no_key_or_a_home_that_is_no_miner_is_refused() -> None:
    """Each with the key or the device that is meant."""
    device = CHAIN.genesis.devices[0]
    wrong = (
        msgspec.structs.replace(device, home=b"x" * 20),
        msgspec.structs.replace(device, public_key=b"\x01" + bytes(31)),
        CHAIN.genesis.devices[1],
        CHAIN.genesis.devices[1],
    )
    with pytest.raises(ConfigError) as caught:
        decode_genesis(encode_genesis(msgspec.structs.replace(CHAIN.genesis, devices=wrong)))
    text = str(caught.value)
    assert "not a validator" in text and "not an Ed25519 public key" in text and "twice" in text
