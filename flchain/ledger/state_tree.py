"""The state as the leaves of a Merkle tree: its root is in every header, and a leaf can be proved with a short path.

Each kind of leaf has its writer and its reader side by side: what the one forgets, the other cannot restore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from flchain.base import merkle
from flchain.base.crypto import hash_tagged
from flchain.base.errors import MalformedMessage
from flchain.base.types import Hash, Round
from flchain.ledger.limits import ROUND_ITEMS_MAX
from flchain.ledger.state import (
    Account,
    Candidate,
    ChainState,
    Delegation,
    Device,
    RevealedScores,
    RevealedUpdate,
    RoundState,
    Unbonding,
)
from flchain.wire.envelope import convert, decode, encode
from flchain.wire.fields import Bytes20, Bytes32, CommissionShare, Score
from flchain.wire.messages import Phase

LEAVES_CACHED_MAX = 16_384
"""Most leaves are the same in the next block, so their bytes are cached."""

_Whole = Annotated[int, msgspec.Meta(ge=0)]
_Standing = tuple[_Whole, CommissionShare, Score, Score, int, _Whole]
_Commitments = tuple[tuple[Bytes20, Bytes32], ...]
_Updates = tuple[tuple[Bytes20, _Whole, Bytes32], ...]
_Scores = tuple[tuple[Bytes20, Score, tuple[Score, ...], tuple[Score, ...]], ...]
_Senders = tuple[Bytes20, ...]
_LEAF_TYPES: dict[str, type[tuple[Any, ...]]] = {
    "account": tuple[Bytes20, Bytes32, _Whole, _Whole],
    "device": tuple[Bytes20, Bytes32, Bytes20, Score, _Whole, _Whole],
    "candidate": tuple[Bytes20, Bytes32, _Standing, tuple[_Whole, _Whole, _Whole]],
    "delegation": tuple[Bytes20, Bytes20, _Whole],
    "unbonding": tuple[Bytes20, Bytes20, _Whole, _Whole | None],
    "round": tuple[tuple[_Whole, Phase, _Whole], _Commitments, _Updates, _Commitments, _Scores, _Senders],
    "totals": tuple[Bytes32, Bytes32, _Whole, _Whole],
}
"""The fields of each leaf after its name, as the writers below write them."""


@dataclass(frozen=True)
class Tables:
    """The content of the leaves, in the names of `ChainState`."""

    accounts: tuple[Account, ...]
    devices: tuple[Device, ...]
    candidates: tuple[Candidate, ...]
    delegations: tuple[Delegation, ...]
    unbondings: tuple[Unbonding, ...]
    round: RoundState
    model_hash: Hash
    carried_hash: Hash
    minted: int
    burned: int


def get_leaves(state: ChainState) -> list[bytes]:
    """Return a leaf for each account, device, candidate, delegation, unbonding, for the round, and for the totals."""
    leaves = [_encode_account(account) for account in state.accounts]
    leaves += [_encode_device(device) for device in state.devices]
    leaves += [_encode_candidate(candidate) for candidate in state.candidates]
    leaves += [_encode_delegation(delegation) for delegation in state.delegations]
    leaves += [_encode_unbonding(unbonding) for unbonding in state.unbondings]
    leaves.append(_encode_round(state.round))
    leaves.append(encode(["totals", state.model_hash, state.carried_hash, state.minted, state.burned]))
    return leaves


def get_totals_hashes(leaf: bytes) -> tuple[Hash, Hash]:
    """Return the hashes of the model and of what is carried, from the leaf of totals.

    Raises MalformedMessage for another leaf.
    """
    name, fields = _read_leaf(leaf)
    if name != "totals":
        raise MalformedMessage("not the leaf of the totals")
    return fields[0], fields[1]


def _read_leaf(leaf: bytes) -> tuple[str, tuple[Any, ...]]:
    value = decode(leaf, len(leaf), ROUND_ITEMS_MAX)
    if not isinstance(value, list) or not value or not isinstance(value[0], str) or value[0] not in _LEAF_TYPES:
        raise MalformedMessage("a leaf of no table")
    return value[0], convert(value[1:], _LEAF_TYPES[value[0]])


def compute_state_root(state: ChainState) -> Hash:
    """Return the RFC 6962 root of the leaves."""
    return merkle.compute_root(get_leaves(state))


def read_leaves(leaves: Sequence[bytes], updates: Sequence[bytes]) -> Tables:
    """Return the content of certified leaves; of the round's `updates` they hold only the hashes.

    The caller has checked that the leaves have the root of a final header. Raises MalformedMessage for other updates,
    and for leaves that no chain has: in that case more than two thirds of the power lies, and still nothing may break
    here.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _LEAF_TYPES}
    for leaf in leaves:
        name, fields = _read_leaf(leaf)
        rows[name].append(fields)
    if len(rows["round"]) != 1 or len(rows["totals"]) != 1:
        raise MalformedMessage("a state has one open round and its totals once")
    model_hash, carried_hash, minted, burned = rows["totals"][0]
    return Tables(
        accounts=tuple(Account(*fields) for fields in rows["account"]),
        devices=tuple(Device(*fields) for fields in rows["device"]),
        candidates=tuple(_read_candidate(*fields) for fields in rows["candidate"]),
        delegations=tuple(Delegation(*fields) for fields in rows["delegation"]),
        unbondings=tuple(Unbonding(*fields) for fields in rows["unbonding"]),
        round=_read_round(rows["round"][0], updates),
        model_hash=model_hash,
        carried_hash=carried_hash,
        minted=minted,
        burned=burned,
    )


@lru_cache(LEAVES_CACHED_MAX)
def _encode_account(a: Account) -> bytes:
    return encode(["account", a.address, a.public_key, a.balance, a.sequence])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_device(d: Device) -> bytes:
    return encode(["device", d.address, d.public_key, d.home, d.reputation, d.absent, d.unscored])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_delegation(d: Delegation) -> bytes:
    return encode(["delegation", d.delegator, d.candidate, d.amount])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_unbonding(u: Unbonding) -> bytes:
    return encode(["unbonding", u.delegator, u.candidate, u.amount, u.due_ms])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_candidate(c: Candidate) -> bytes:
    numbers = [c.power, c.commission_bp, c.knowledge, c.reputation, c.priority, c.absent]
    jail = [int(c.is_jailed), c.jailed_until, c.judged_height]
    return encode(["candidate", c.address, c.public_key, numbers, jail])


def _read_candidate(address: Any, public_key: Any, numbers: Any, jail: Any) -> Candidate:
    power, commission_bp, knowledge, reputation, priority, absent = numbers
    standing = (commission_bp, knowledge, reputation, priority, absent)
    return Candidate(address, public_key, power, *standing, bool(jail[0]), *jail[1:])


def _encode_round(round_: RoundState) -> bytes:
    return encode(
        [
            "round",
            [round_.number, int(round_.phase), round_.heights],
            [list(item) for item in round_.commits],
            [[r.sender, r.samples, _hash_update(r.update)] for r in round_.reveals],
            [list(item) for item in round_.score_commits],
            [[s.scorer, s.base_score, list(s.scores), list(s.aggregates)] for s in round_.score_reveals],
            list(round_.pledges),
        ]
    )


def _read_round(fields: Any, updates: Sequence[bytes]) -> RoundState:
    (number, phase, heights), commits, reveals, score_commits, score_reveals, pledges = fields
    if [_hash_update(update) for update in updates] != [update_hash for _, _, update_hash in reveals]:
        raise MalformedMessage("not the updates of the open round")
    return RoundState(
        number=Round(number),
        phase=phase,
        heights=heights,
        commits=commits,
        reveals=tuple(
            RevealedUpdate(sender, samples, update)
            for (sender, samples, _), update in zip(reveals, updates, strict=True)
        ),
        score_commits=score_commits,
        score_reveals=tuple(RevealedScores(*said) for said in score_reveals),
        pledges=pledges,
    )


def _hash_update(update: bytes) -> Hash:
    return hash_tagged("update", update)
