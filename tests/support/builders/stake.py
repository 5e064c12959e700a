"""Chains whose validators change: a driver that signs and scores with whoever has a seat, and signed orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import Hash, UnixMillis, View
from flchain.ledger.block import Block
from flchain.ledger.state import ChainState, find_account, find_validator
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.blocks import apply_block, build_block, get_proposer
from flchain.wire.envelope import seal
from flchain.wire.messages import (
    AnyMessage,
    Delegate,
    Evidence,
    Register,
    ScoreReveal,
    Transfer,
    Undelegate,
    Unjail,
    Vote,
)
from tests.support.builders.chain import (
    BuiltChain,
    Driver,
    build_chain,
    certify,
    make_scores,
    open_all,
    seal_score_commit,
    seal_score_reveal,
)

STRANGER_HASH = Hash(b"s" * 32)


def build_stake_chain(miners: int = 4, devices: int = 3, holders: int = 2, **changes: Any) -> BuiltChain:
    """Return a chain with holders, which are also the last of `miners`: they may register and be elected."""
    chain = build_chain(miners, devices, holders=holders, **changes)
    return replace(chain, miners=(*chain.miners, *chain.holders))


class StakeDriver(Driver):
    """A Driver for chains whose validators change: only miners with a seat propose, score and sign."""

    @property
    def seated(self) -> list[int]:
        """The numbers of the chain's miners that have a seat now."""
        return [i for i, key in enumerate(self.chain.miners) if find_validator(self.state, key.address) is not None]

    def extend(self, transactions: Iterable[bytes] = (), orders: Iterable[bytes] = (), clock_ms: int = 0) -> Block:
        """Make, check and append a block; its leader is the chain's own choice."""
        state = self.state
        proposer = get_proposer(state, View(0))
        letters = open_all(transactions, self.chain.id), open_all(orders, self.chain.id)
        block, built = build_block(state, proposer, *letters, UnixMillis(clock_ms))
        checked, after = apply_block(state, block.header_bytes, block.body_bytes)
        assert checked == block
        assert compute_state_root(after) == compute_state_root(built) == block.header.state_root
        self.certificates.append(certify(self.chain, state, block, self.seated))
        self.states.append(after)
        self.blocks.append(block)
        return block

    def score_commit(self, scores: Mapping[int, ScoreReveal]) -> Block:
        """Of these, those of miners with a seat."""
        seated = self.seated
        return self.extend([seal_score_commit(self.chain, i, word) for i, word in scores.items() if i in seated])

    def score_reveal(self, scores: Mapping[int, ScoreReveal]) -> Block:
        """Of these, those of miners with a seat."""
        seated = self.seated
        return self.extend([seal_score_reveal(self.chain, i, word) for i, word in scores.items() if i in seated])

    def finish_round(self) -> None:
        """From SETTLE on: the scores that `go_to` has committed to."""
        self.score_reveal({i: make_scores(self.state) for i in self.seated})

    def order(self, sender: Identity, kind: type[AnyMessage], *fields: Any, clock_ms: int = 0) -> Block:
        """A block with one order of this sender, under its next sequence number."""
        return self.extend(orders=[seal_order(self.state, sender, kind, *fields)], clock_ms=clock_ms)


def get_sequence(state: ChainState, sender: Identity) -> int:
    """The number of this sender's next order; 0 for one without an account."""
    account = find_account(state, sender.address)
    return account.sequence if account is not None else 0


def seal_order(state: ChainState, sender: Identity, kind: type[AnyMessage], *fields: Any, ahead: int = 0) -> bytes:
    """A signed order under the sender's next sequence number, or one `ahead` of it."""
    return seal(kind(get_sequence(state, sender) + ahead, *fields), state.chain, sender)


def transfer(state: ChainState, sender: Identity, to: Identity, amount: int, ahead: int = 0) -> bytes:
    """A signed payment."""
    return seal_order(state, sender, Transfer, to.public_key, amount, ahead=ahead)


def register(state: ChainState, sender: Identity, amount: int, commission_bp: int = 1_000) -> bytes:
    """A signed registration."""
    return seal_order(state, sender, Register, commission_bp, amount)


def delegate(state: ChainState, sender: Identity, candidate: Identity, amount: int) -> bytes:
    """A signed delegation."""
    return seal_order(state, sender, Delegate, candidate.address, amount)


def undelegate(state: ChainState, sender: Identity, candidate: Identity, amount: int) -> bytes:
    """A signed undelegation."""
    return seal_order(state, sender, Undelegate, candidate.address, amount)


def unjail(state: ChainState, sender: Identity) -> bytes:
    """A signed request to leave jail."""
    return seal_order(state, sender, Unjail)


def seal_vote(state: ChainState, signer: Identity, block_hash: Hash | None, height: int = 0, step: int = 2) -> bytes:
    """A vote at a height, or at that of the next block."""
    return seal(Vote(height or state.height + 1, 0, step, block_hash), state.chain, signer)


def accuse(state: ChainState, accuser: Identity, guilty: Identity, height: int = 0) -> bytes:
    """Evidence that `guilty` signed two precommits at a height, by default at that of the next block."""
    height = height or state.height + 1
    words = sorted((seal_vote(state, guilty, None, height), seal_vote(state, guilty, STRANGER_HASH, height)))
    return seal(Evidence(height, *words), state.chain, accuser)
