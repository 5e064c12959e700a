"""The state as the leaves of a Merkle tree: its root is in every header, and a leaf can be proved with a short path."""

from __future__ import annotations

from functools import lru_cache

from flchain import merkle
from flchain.crypto import hash_tagged
from flchain.state import Account, Candidate, ChainState, Delegation, Device, RoundState, Unbonding
from flchain.types import Hash
from flchain.wire import encode

LEAVES_CACHED_MAX = 16_384
"""Most leaves are the same in the next block: their bytes are kept."""


def get_leaves(state: ChainState) -> list[bytes]:
    """One leaf per account, device, candidate, delegation and unbonding, one for the round, one for the totals."""
    leaves = [_encode_account(account) for account in state.accounts]
    leaves += [_encode_device(device) for device in state.devices]
    leaves += [_encode_candidate(candidate) for candidate in state.candidates]
    leaves += [_encode_delegation(delegation) for delegation in state.delegations]
    leaves += [_encode_unbonding(unbonding) for unbonding in state.unbondings]
    leaves.append(_encode_round(state.round))
    leaves.append(encode(["totals", state.model_hash, state.minted, state.burned]))
    return leaves


def compute_state_root(state: ChainState) -> Hash:
    """RFC 6962 root over the leaves."""
    return merkle.compute_root(get_leaves(state))


@lru_cache(LEAVES_CACHED_MAX)
def _encode_account(a: Account) -> bytes:
    return encode(["account", a.address, a.public_key, a.balance, a.sequence])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_device(d: Device) -> bytes:
    return encode(["device", d.address, d.public_key, d.home, d.reputation, d.absent])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_candidate(c: Candidate) -> bytes:
    numbers = [c.power, c.commission_bp, c.knowledge, c.reputation, c.priority, c.absent]
    jail = [int(c.is_jailed), c.jailed_until, c.judged_height]
    return encode(["candidate", c.address, c.public_key, numbers, jail])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_delegation(d: Delegation) -> bytes:
    return encode(["delegation", d.delegator, d.candidate, d.amount])


@lru_cache(LEAVES_CACHED_MAX)
def _encode_unbonding(u: Unbonding) -> bytes:
    return encode(["unbonding", u.delegator, u.candidate, u.amount, u.due_ms])


def _encode_round(round_: RoundState) -> bytes:
    return encode(
        [
            "round",
            [round_.number, int(round_.phase), round_.heights],
            [list(item) for item in round_.commits],
            [[r.sender, r.samples, hash_tagged("update", r.update)] for r in round_.reveals],
            [list(item) for item in round_.score_commits],
            [[s.scorer, s.base_score, list(s.scores), list(s.aggregates)] for s in round_.score_reveals],
        ]
    )
