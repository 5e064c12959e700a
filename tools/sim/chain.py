"""A small chain for simulations, with real keys and signatures and a model of 200 parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from flchain.base.crypto import Identity
from flchain.base.fixedpoint import to_fixed
from flchain.base.types import Hash, ModelVector
from flchain.codecs import CODECS
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain.ledger.params import PRESETS, ChainParams
from flchain.ledger.state import ChainState, build_genesis_state, hash_model
from flchain.wire.fields import VALIDATORS_MAX
from flchain.wire.messages import DeviceEntry, HolderEntry, ValidatorEntry

PARAMETERS_COUNT = 200
CODEC_LEVEL = 10
HOLDER_BALANCE = 1_000


@dataclass(frozen=True)
class BuiltChain:
    """A genesis and the keys in it; each role is in order of address, as in the state."""

    genesis: Genesis
    id: Hash
    miners: tuple[Identity, ...]
    devices: tuple[Identity, ...]
    holders: tuple[Identity, ...]
    model: ModelVector
    state: ChainState


def build_identity(seed: int, number: int) -> Identity:
    """Return key pair `number` (0 to 255) of the family `seed`."""
    return Identity.from_seed(bytes((seed, number)) * 16)


def build_chain(
    miners: int = 4,
    devices: int = 3,
    codec: str = "sparse-ternary",
    seed: int = 1,
    *,
    powers: Sequence[int] | None = None,
    holders: int = 0,
    **changes: object,
) -> BuiltChain:
    """Return a chain in which device i has miner i (modulo their number) as its home.

    `powers` are the miners' bonds, without a cap; `changes` are fields of ChainParams.
    """
    miner_keys = _build_identities(seed, 0, miners)
    device_keys = _build_identities(seed, 100, devices)
    holder_keys = _build_identities(seed, 220, holders)
    model = to_fixed(np.linspace(-1, 1, PARAMETERS_COUNT).astype(np.float32))
    rules: dict[str, object] = {"codec": codec, "codec_level": CODEC_LEVEL} | changes
    if CODECS[codec].decode_summary is not None:  # such a codec is used both ways
        rules = {"downstream_codec": codec, "downstream_level": rules["codec_level"]} | rules
    params = build_small_params(model, **rules)
    validators = tuple(
        ValidatorEntry(key.public_key, bond, 1_000)
        for key, bond in zip(miner_keys, powers or [10] * miners, strict=True)
    )
    entries = tuple(DeviceEntry(key.public_key, miner_keys[i % miners].address) for i, key in enumerate(device_keys))
    owners = tuple(HolderEntry(key.public_key, HOLDER_BALANCE) for key in holder_keys)
    genesis = Genesis(1, f"test-{seed}", 0, params, validators, entries, owners)
    genesis = decode_genesis(encode_genesis(genesis))
    state = build_genesis_state(genesis, model)
    return BuiltChain(genesis, state.chain, miner_keys, device_keys, holder_keys, model, state)


def build_small_params(model: ModelVector, **changes: object) -> ChainParams:
    """Return parameters for a chain with this initial model and no model file; `changes` replace fields."""
    params = ChainParams(
        codec="sparse-ternary",
        codec_level=1,
        downstream_codec="sparse-ternary",
        downstream_level=CODEC_LEVEL,
        aggregation="weighted-sum",
        privacy="none",
        clip_norm_thousandths=10_000,
        noise_multiplier_thousandths=0,
        consensus="bft",
        proposer_rule="pok",
        model_digest=b"m" * 32,
        parameters_count=len(model),
        initial_model_hash=hash_model(model),
        local_epochs=1,
        batch_size=32,
        learning_rate_millionths=10_000,
        samples_cap=1_000,
        score_margin_bp=500,
        reward_rule="per-update",
        reward_per_update=100,
        reward_for_scores=0,
        score_outlier_bp=2_000,
        mining_weight_bp=1_000,
        seats=VALIDATORS_MAX,
        power_cap_bp=10_000,
        bond_min=1,
        stake_min=1,
        order_fee=0,
        evidence_heights_max=1_000,
        slash_bp=500,
        jail_rounds=4,
        **PRESETS["minimal"],
    )
    return msgspec.structs.replace(params, **changes)


def _build_identities(seed: int, first: int, count: int) -> tuple[Identity, ...]:
    keys = (build_identity(seed, first + i) for i in range(count))
    return tuple(sorted(keys, key=lambda key: key.address))
