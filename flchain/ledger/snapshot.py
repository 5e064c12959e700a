"""Values that a final header proves: a whole state, and what the downstream rule carries.

By a state a miner that is far behind catches up at once. What is carried is what a device needs beside the model to
compute the next one itself.
"""

from __future__ import annotations

import msgspec

from flchain.base import merkle
from flchain.base.errors import MalformedMessage
from flchain.base.fixedpoint import decode_vector, encode_vector
from flchain.base.types import Hash, Height, UnixMillis
from flchain.codecs import Carried, decode_carried, encode_carried
from flchain.ledger.block import hash_header
from flchain.ledger.limits import STATE_ROWS_MAX, compute_carried_bytes
from flchain.ledger.params import ChainParams
from flchain.ledger.state import ChainState, hash_carried, hash_model, start_carried
from flchain.ledger.state_tree import get_leaves, get_totals_hashes, read_leaves
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, encode_struct
from flchain.wire.messages import Header

PROOF_BYTES_MAX = 4_096
"""The last leaf and its audit path."""


class _Parts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The leaves of the state's tree, and what the leaves hold only the hashes of.

    These are the updates of the open round in order of device, and the canonical bytes of the model and of what the
    downstream rule carries (empty for zeros).
    """

    leaves: tuple[bytes, ...]
    updates: tuple[bytes, ...]
    vector: bytes
    carried: bytes


def encode_state(state: ChainState) -> bytes:
    """Return the canonical bytes of a state: its leaves, and what the leaves hold only the hashes of."""
    updates = tuple(reveal.update for reveal in state.round.reveals)
    parts = _Parts(tuple(get_leaves(state)), updates, encode_vector(state.model), _encode_if_any(state.carried))
    return encode_struct(parts)


def decode_state(data: bytes, header_bytes: bytes, params: ChainParams, bytes_max: int) -> ChainState:
    """Return the state after the block of a header that the caller has found final, from at most `bytes_max` bytes.

    Nothing in `data` is trusted: its leaves must have the header's state root. Raises InvalidMessage's subclasses.
    """
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    parts = decode_struct(data, _Parts, bytes_max, STATE_ROWS_MAX)
    if merkle.compute_root(parts.leaves) != header.state_root:
        raise MalformedMessage("not the state that the header names")
    tables = read_leaves(parts.leaves, parts.updates)
    model = decode_vector(parts.vector, params.parameters_count)
    if hash_model(model) != tables.model_hash:
        raise MalformedMessage("not the model that the state names")
    carried = _decode_if_any(parts.carried, params)
    if hash_carried(carried) != tables.carried_hash:
        raise MalformedMessage("not what the state says is carried")
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
        carried=carried,
        carried_hash=tables.carried_hash,
        minted=tables.minted,
        burned=tables.burned,
    )


class CarriedProof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The bytes of what is carried (empty for zeros), the last leaf of the state, and its audit path."""

    carried: bytes
    totals: bytes
    leaves_count: int
    path: tuple[bytes, ...]


def build_carried_proof(state: ChainState) -> bytes:
    """Return what the state carries, with its proof."""
    leaves = get_leaves(state)
    last = len(leaves) - 1
    path = merkle.build_proof(leaves, last)
    return encode_struct(CarriedProof(_encode_if_any(state.carried), leaves[last], len(leaves), path))


def verify_carried_proof(data: bytes, header: Header, params: ChainParams) -> Carried:
    """Return what is carried after the block of a header that the caller has found final.

    Raises InvalidMessage's subclasses if the header does not prove it.
    """
    parts = decode_struct(data, CarriedProof, compute_carried_bytes(params) + PROOF_BYTES_MAX)
    last = parts.leaves_count - 1
    if not merkle.verify_proof(header.state_root, parts.totals, last, parts.leaves_count, parts.path):
        raise MalformedMessage("not a leaf of the state that the header names")
    carried = _decode_if_any(parts.carried, params)
    if hash_carried(carried) != get_totals_hashes(parts.totals)[1]:
        raise MalformedMessage("not what the state says is carried")
    return carried


def _encode_if_any(carried: Carried) -> bytes:
    return encode_carried(carried) if any(part.any() for part in carried) else b""


def _decode_if_any(data: bytes, params: ChainParams) -> Carried:
    return decode_carried(data, start_carried(params)) if data else start_carried(params)
