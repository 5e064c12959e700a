"""Consensus: who leads and how a block becomes final, by the name that ChainParams holds."""

from __future__ import annotations

from dataclasses import dataclass

from flchain.consensus.proposer import WeightRule, compute_pok_weight, compute_poq_weight, compute_pos_weight

PROPOSER_RULES: dict[str, WeightRule] = {
    "pok": compute_pok_weight,
    "poq": compute_poq_weight,
    "pos": compute_pos_weight,
}
"""By name: the weight of a validator's turns to propose."""


@dataclass(frozen=True)
class ConsensusRule:
    """How one way of agreement differs from another for the chain; header, body and `apply_block` are the same."""

    is_final_at_once: bool
    """True: a block with its proof is final. False: a branch of more work may undo it, less likely with each block."""


CONSENSUS_RULES: dict[str, ConsensusRule] = {
    "bft": ConsensusRule(is_final_at_once=True),
    "pow": ConsensusRule(is_final_at_once=False),
}
"""By name: what the proof that travels with a block proves, a certificate under "bft" and a seal under "pow"."""
