"""What a vector can ask of a node that keeps what it has verified and decoded before: it must find what others find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flchain.ledger import certificate
from flchain.ledger.state import ChainState
from flchain.rules import blocks, transactions
from flchain.wire import envelope, messages
from flchain.wire.envelope import Verified
from flchain.wire.messages import Phase
from tests.vectors.transitions import state_form
from tests.vectors.transitions.operations import Given, Outcome, describe_state


def apply_block_kept(before: ChainState, given: Given) -> Outcome:
    """Apply a block of which the node has verified these messages before, each for some chain and under some key.

    Those with commitments beside them were looked at in a round that held these: their updates are decoded already.
    """
    kept = {}
    for raw, chain, public_key, commits in given["kept"]:
        said = envelope.verify_envelope(envelope.open_envelope(raw, chain), chain, public_key)
        kept[raw] = _open_update(before, said, commits) if commits else said
    block, after = blocks.apply_block(before, given["header"], given["body"], kept.get)
    return describe_state(after, hash=block.hash)


def _open_update(before: ChainState, said: Verified, commits: Any) -> Verified:
    round_ = replace(before.round, phase=Phase.REVEAL, commits=commits, reveals=())
    opened = transactions.check_transaction(replace(before, round=round_), said)
    assert opened.opened is not None
    return opened


def apply_blocks(before: ChainState, given: Given) -> Outcome:
    """Apply blocks one after another; a node that forgets has only a state's fields from one block to the next."""
    state, hashes = before, []
    for header, body in given["blocks"]:
        block, state = blocks.apply_block(state, header, body)
        hashes.append(block.hash)
        if given["is_forgetful"]:
            state = state_form.unflatten(state_form.flatten(state))
    return describe_state(state, hashes=hashes)


def verify_certificate_heard(before: ChainState, given: Given) -> Outcome:
    """Verify a certificate at a node that has checked these votes before: each with its sender and signature."""
    heard = {(messages.Vote(*vote), sender, signature) for vote, sender, signature in given["heard"]}
    parts = given["height"], given["block"], given["certificate"]

    def is_heard(*asked: Any) -> bool:
        return asked in heard

    found = certificate.verify_certificate(before.chain, before.validators, *parts, known=is_heard)
    return {"view": found.view, "signers": [index for index, _ in found.signatures]}


OPERATIONS: dict[str, Callable[[ChainState, Given], Outcome]] = {
    "apply_block_kept": apply_block_kept,
    "apply_blocks": apply_blocks,
    "verify_certificate_heard": verify_certificate_heard,
}
