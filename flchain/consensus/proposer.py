"""The turns to propose: weighted round-robin in exact integers, after CometBFT's "Proposer Selection Procedure".

At every step each validator's priority grows by its weight; the highest leads and pays the total weight. So over any
number of steps each validator leads its share of the turns, and the turns of a heavy validator are spread out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from flchain.base.types import Address, Power, View

Priorities: TypeAlias = tuple[tuple[Address, int], ...]
"""(address, priority) ascending by address; part of the chain state, signed integers."""
Weights: TypeAlias = tuple[tuple[Address, int], ...]
"""(address, weight > 0), at least one, in any order."""
WeightRule: TypeAlias = Callable[[Power, int], int]
"""(power, knowledge in basis points 0 to 10,000) -> weight > 0."""

KNOWLEDGE_FLOOR_BP = 1_000
"""Knowledge counts as at least this much. Without a floor a miner with all the knowledge leads nearly every view, and
if it crashes, thousands of views time out before another may lead."""


def compute_pok_weight(power: Power, knowledge_bp: int) -> int:
    """Proof of Knowledge: voting power times the quality of what the miner's devices contributed.

    >>> compute_pok_weight(Power(10), knowledge_bp=8_000), compute_pok_weight(Power(10), knowledge_bp=0)
    (80000, 10000)
    """
    return power * max(knowledge_bp, KNOWLEDGE_FLOOR_BP)


def compute_pos_weight(power: Power, _knowledge_bp: int) -> int:
    """Proof of Stake, for comparison: voting power alone."""
    return int(power)


def compute_poq_weight(_power: Power, knowledge_bp: int) -> int:
    """Proof of training quality, for comparison: quality alone; stake makes a validator and then plays no part.

    From Lu et al. 2020, "Blockchain and Federated Learning for Privacy-Preserved Data Sharing in Industrial IoT". There
    the member whose model has the least error leads. Here the median of scores stands for that error, as in `pok`, and
    turns follow it in proportion, above the same floor: if the best always led, its crash would stop the chain.
    """
    return max(knowledge_bp, KNOWLEDGE_FLOOR_BP)


def advance(priorities: Priorities, weights: Weights, steps: int) -> tuple[Priorities, Address]:
    """Take `steps` >= 1 turns and return the new priorities and the proposer of the last turn.

    Only members of `weights` keep a priority. A newcomer starts 1.125 times the total weight behind, so that leaving
    and coming back never gains a turn; at the very first call all are equal. Priorities stay within 3 times the total
    weight of zero, whatever came in. A tie goes to the lowest address.

    >>> a, b = Address(b"a" * 20), Address(b"b" * 20)
    >>> turns, priorities = [], ()
    >>> for _ in range(4):
    ...     priorities, proposer = advance(priorities, ((a, 3), (b, 1)), steps=1)
    ...     turns.append(proposer[:1])
    >>> turns
    [b'a', b'a', b'b', b'a']
    """
    assert steps >= 1, "view 0 is the first step"
    assert weights, "some validator must be able to lead"
    assert all(weight > 0 for _, weight in weights), "every validator leads in the end"
    total = sum(weight for _, weight in weights)
    known = dict(priorities)
    newcomer = -(total + total // 8) if known else 0
    standing = _centre(_clamp({a: known.get(a, newcomer) for a, _ in sorted(weights)}, 2 * total))
    proposer = min(standing)
    for _ in range(steps):
        for address, weight in weights:
            standing[address] += weight
        proposer = min(standing, key=lambda address: (-standing[address], address))
        standing[proposer] -= total
    return tuple(standing.items()), proposer


def compute_proposer(priorities: Priorities, weights: Weights, view: View) -> Address:
    """Return the proposer of a view (from 0) at the height whose parent state holds `priorities`.

    Takes view + 1 steps.
    """
    return advance(priorities, weights, view + 1)[1]


def _clamp(standing: dict[Address, int], spread_max: int) -> dict[Address, int]:
    """Shrink all alike, towards zero, until highest and lowest are at most `spread_max` apart, as when weights fall."""
    spread = max(standing.values()) - min(standing.values())
    if spread <= spread_max:
        return standing
    ratio = -(-spread // spread_max)
    return {a: priority // ratio if priority >= 0 else -(-priority // ratio) for a, priority in standing.items()}


def _centre(standing: dict[Address, int]) -> dict[Address, int]:
    """Shift all alike so that their rounded average is zero: nobody drifts without bound."""
    average = sum(standing.values()) // len(standing)
    return {address: priority - average for address, priority in standing.items()}
