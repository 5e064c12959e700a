"""A whole state in bytes that prove themselves by a final header: how a miner that is far behind catches up at once."""

from __future__ import annotations

import msgspec

from flchain import merkle
from flchain.chain import hash_header
from flchain.errors import MalformedMessage
from flchain.fixedpoint import vector_bytes, vector_from_bytes
from flchain.messages import Header
from flchain.params import ChainParams
from flchain.state import ChainState, hash_model
from flchain.state_tree import get_leaves, read_leaves
from flchain.types import Hash, Height, UnixMillis
from flchain.wire import HEADER_BYTES_MAX, decode_struct, encode_struct


class _Parts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The leaves of the state's tree, the updates of the open round in order of device, the model's canonical bytes."""

    leaves: tuple[bytes, ...]
    updates: tuple[bytes, ...]
    vector: bytes


def encode_state(state: ChainState) -> bytes:
    """The canonical bytes of a state: what its tree holds, and what the tree only holds the hashes of."""
    updates = tuple(reveal.update for reveal in state.round.reveals)
    return encode_struct(_Parts(tuple(get_leaves(state)), updates, vector_bytes(state.model)))


def decode_state(data: bytes, header_bytes: bytes, params: ChainParams, bytes_max: int) -> ChainState:
    """The state after the block of a header that the caller has found final, from at most `bytes_max` bytes.

    Nothing in `data` is trusted: its leaves must have the header's state root. Raises InvalidMessage's subclasses.
    """
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    parts = decode_struct(data, _Parts, bytes_max)
    if merkle.compute_root(parts.leaves) != header.state_root:
        raise MalformedMessage("not the state that the header names")
    tables = read_leaves(parts.leaves, parts.updates)
    model = vector_from_bytes(parts.vector, params.parameters_count)
    if hash_model(model) != tables.model_hash:
        raise MalformedMessage("not the model that the state names")
    return ChainState(
        chain=Hash(header.chain),
        params=params,
        height=Height(header.height),
        head=hash_header(header_bytes),
        time_ms=UnixMillis(header.time_ms),
        accounts=tables.accounts,
        devices=tables.devices,
        candidates=tables.candidates,
        delegations=tables.delegations,
        unbondings=tables.unbondings,
        round=tables.round,
        model=model,
        model_hash=tables.model_hash,
        minted=tables.minted,
        burned=tables.burned,
    )
