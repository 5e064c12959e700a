"""Consensus: who leads and how a block becomes final. Rules by the name that ChainParams agrees on at genesis."""

from __future__ import annotations

from flchain.consensus.proposer import WeightRule, compute_pok_weight, compute_pos_weight

PROPOSER_RULES: dict[str, WeightRule] = {"pok": compute_pok_weight, "pos": compute_pos_weight}
"""By name: what a validator's turns to propose are weighted with."""
