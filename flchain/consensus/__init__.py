"""Consensus: who leads and how a block becomes final. Rules by the name that ChainParams agrees on at genesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from flchain.consensus.pow import verify_seal
from flchain.consensus.proposer import WeightRule, compute_pok_weight, compute_poq_weight, compute_pos_weight
from flchain.types import Hash, Height

if TYPE_CHECKING:
    from flchain.state import Validator

PROPOSER_RULES: dict[str, WeightRule] = {
    "pok": compute_pok_weight,
    "poq": compute_poq_weight,
    "pos": compute_pos_weight,
}
"""By name: what a validator's turns to propose are weighted with."""


@dataclass(frozen=True)
class ProofContext:
    """What a block's proof is checked against. The rule reads what it needs."""

    chain: Hash
    height: Height
    block_hash: Hash
    validators: tuple[Validator, ...] = ()
    """Who may sign the block: "bft"."""
    target: int = 0
    """What the seal's hash may be at most: "pow"; with 0 no seal is good."""


ProofRule: TypeAlias = Callable[[ProofContext, bytes], None]
"""Check the proof that travels with a block. Raises InvalidMessage's subclasses."""


@dataclass(frozen=True)
class ConsensusRule:
    """What sets one way of agreement apart from another for the chain; header, body and `apply_block` are the same."""

    verify_proof: ProofRule
    is_final_at_once: bool
    """True: a block with its proof is final. False: a branch of more work may undo it, less likely with each block."""


def _verify_certificate(context: ProofContext, proof: bytes) -> None:
    # Not at the top: certificates are signed messages, messages know ChainParams, and those know the names below.
    from flchain.certificate import verify_certificate

    verify_certificate(context.chain, context.validators, context.height, context.block_hash, proof)


def _verify_seal(context: ProofContext, proof: bytes) -> None:
    verify_seal(context.block_hash, context.target, proof)


CONSENSUS_RULES: dict[str, ConsensusRule] = {
    "bft": ConsensusRule(_verify_certificate, is_final_at_once=True),
    "pow": ConsensusRule(_verify_seal, is_final_at_once=False),
}
"""By name: how the proof that travels with a block is checked, and what it proves."""
