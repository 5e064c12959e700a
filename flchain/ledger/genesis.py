"""The genesis: what a chain starts from. Its hash is the chain's name in every message."""

from __future__ import annotations

from typing import Annotated

import msgspec

from flchain.base.crypto import compute_address, hash_tagged, is_public_key
from flchain.base.errors import ConfigError, InvalidMessage
from flchain.base.fixedpoint import VALUE_BYTES
from flchain.base.types import Hash
from flchain.ledger.limits import compute_reveal_bodies, compute_update_bytes_max
from flchain.ledger.params import DEVICES_MAX, ChainParams, check_params
from flchain.wire.cbor_form import ITEMS_MAX
from flchain.wire.envelope import decode_struct, encode_struct
from flchain.wire.fields import UPDATE_BYTES_MAX, VALIDATORS_MAX, Counter
from flchain.wire.messages import DeviceEntry, HolderEntry, ValidatorEntry

GENESIS_BYTES_MAX = 1_000_000
HOLDERS_MAX = 1_024
"""Accounts with money at genesis that are neither miner nor device."""
ENTRY_ITEMS = 4
"""CBOR items of an entry of the longest kind, a validator's, with the array around it."""
assert ENTRY_ITEMS * (VALIDATORS_MAX + DEVICES_MAX + HOLDERS_MAX) < ITEMS_MAX, "a genesis with all of them can be read"


class Genesis(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Version, a name for people, when it was made, the agreed numbers, and the participants."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    time_ms: Counter
    params: ChainParams
    validators: Annotated[tuple[ValidatorEntry, ...], msgspec.Meta(min_length=1, max_length=VALIDATORS_MAX)]
    devices: tuple[DeviceEntry, ...]
    """At most DEVICES_MAX."""
    holders: Annotated[tuple[HolderEntry, ...], msgspec.Meta(max_length=HOLDERS_MAX)]

    def compute_id(self) -> Hash:
        """Return the 32-byte name of the chain: the hash of the genesis."""
        return hash_tagged("genesis", encode_struct(self))

    def get_public_keys(self) -> list[bytes]:
        """Return the keys of all participants, in order of role: validators, devices, holders."""
        keys = [entry.public_key for entry in self.validators]
        return keys + [entry.public_key for entry in self.devices] + [entry.public_key for entry in self.holders]


def encode_genesis(genesis: Genesis) -> bytes:
    """Return the canonical bytes of a genesis file."""
    return encode_struct(genesis)


def decode_genesis(data: bytes) -> Genesis:
    """Read a genesis file. Raises ConfigError listing what is wrong: form, unknown plug-ins, keys, homes."""
    try:
        genesis = decode_struct(data, Genesis, GENESIS_BYTES_MAX)
    except InvalidMessage as error:
        raise ConfigError((f"genesis: not a genesis file: {error}",)) from error
    check_params(genesis.params)
    problems = _find_size_problems(genesis.params, len(genesis.devices))
    keys = genesis.get_public_keys()
    problems += [f"genesis: {key.hex()} is not an Ed25519 public key" for key in keys if not is_public_key(key)]
    if len(set(keys)) != len(keys):
        problems.append("genesis: the same public key appears twice")
    miners = {compute_address(entry.public_key) for entry in genesis.validators}
    problems += [
        f"genesis: device {compute_address(entry.public_key).hex()} has a home that is not a validator"
        for entry in genesis.devices
        if entry.home not in miners
    ]
    if all(entry.bond < genesis.params.bond_min for entry in genesis.validators):
        problems.append(f"genesis: no validator has bonded at least {genesis.params.bond_min} (bond_min)")
    if problems:
        raise ConfigError(tuple(problems))
    return genesis


def _find_size_problems(params: ChainParams, devices_count: int) -> list[str]:
    """Find updates, a model or a number of devices that messages and blocks cannot carry.

    A chain whose updates or model no message can carry would open and then stand still. One whose updates do not fit
    into the blocks of a phase would lose the rest of them in every round.
    """
    if devices_count > DEVICES_MAX:
        return [
            f"genesis: {devices_count} devices, one chain has at most {DEVICES_MAX}: no message carries the scores of "
            "more updates in a round; make a second chain"
        ]
    sizes = (("an update", compute_update_bytes_max(params)), ("the model", VALUE_BYTES * params.parameters_count))
    problems = [
        f"genesis: {what} of {params.parameters_count} parameters takes {size} bytes, messages carry {UPDATE_BYTES_MAX}"
        for what, size in sizes
        if size > UPDATE_BYTES_MAX
    ]
    bodies = compute_reveal_bodies(params, devices_count)
    if not problems and bodies > params.phase_heights_max:
        problems.append(
            f"genesis: the updates of {devices_count} devices take up to {bodies} blocks, a phase has "
            f"{params.phase_heights_max} (phase_heights_max): a codec that writes less, or fewer devices"
        )
    return problems
