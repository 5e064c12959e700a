"""Proof of Knowledge: how good the contributions of a miner's devices were, as weighted medians of scores.

A scorer tests models on data of its own. One liar, or several with less than half the weight, cannot move a median
out of the range of the other scores. What is compared is gains (a score less the same scorer's score of the base
model), not scores: a scorer with harder data scores everything lower. All in exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from flchain.base.types import BasisPoints

KNOWLEDGE_MIN = 1

Weighted: TypeAlias = tuple[int, int]
"""(value, weight > 0)."""


def compute_weighted_median(values: Sequence[Weighted]) -> int:
    """Return the lower weighted median: the least value with half the weight at or below it.

    Less than half of the weight cannot move it outside the range of the other values. Raises ValueError for no pairs.

    >>> compute_weighted_median([(10, 1), (20, 1), (9_999, 1)])
    20
    >>> compute_weighted_median([(10, 1), (20, 1)])
    10
    """
    if not values:
        raise ValueError("the median of nothing")
    total = sum(weight for _, weight in values)
    below = 0
    for value, weight in sorted(values):
        below += weight
        if 2 * below >= total:
            return value
    raise ValueError("weights must be positive")


def compute_knowledge(standing: BasisPoints, scores: Sequence[Weighted], silent_weight: int) -> BasisPoints:
    """Return a miner's knowledge after a round: the median of the others' scores for its devices' aggregate.

    `scores` are the other scorers', in basis points, with their weights. `silent_weight`, the power of the other
    validators that did not score, counts for the miner's present standing: otherwise a coalition below 1/3 could be the
    majority of the few that spoke. So the result never leaves the range of the honest scores and the standing.

    >>> compute_knowledge(BasisPoints(5_000), [(8_000, 2), (9_000, 1)], silent_weight=0)
    8000
    >>> compute_knowledge(BasisPoints(5_000), [(8_000, 1)], silent_weight=3)
    5000
    """
    silent = [(int(standing), silent_weight)] if silent_weight else []
    said = [*scores, *silent]
    return BasisPoints(max(KNOWLEDGE_MIN, compute_weighted_median(said))) if said else standing


def compute_idle_knowledge(standing: BasisPoints) -> BasisPoints:
    """Return the knowledge of a miner whose devices contributed nothing to the round: half of it, as old merit fades.

    >>> compute_idle_knowledge(BasisPoints(5_000))
    2500
    """
    return BasisPoints(max(KNOWLEDGE_MIN, standing // 2))


def find_outliers(gains: Sequence[Sequence[int | None]], weights: Sequence[int], distance_max: int) -> frozenset[int]:
    """Return the indices of scorers whose gains are on average more than `distance_max` basis points off the medians.

    `gains` has one row per scorer, all of one length, and one column per model that was scored. None means that the
    scorer did not score a model: it is left out of that column's median and of that row's average.

    >>> find_outliers([[100, 200], [110, 190], [900, -500]], weights=[1, 1, 1], distance_max=300)
    frozenset({2})
    """
    medians = []
    for column in zip(*gains, strict=True):
        said = [(gain, weight) for gain, weight in zip(column, weights, strict=True) if gain is not None]
        medians.append(compute_weighted_median(said) if said else 0)

    def is_outlier(row: Sequence[int | None]) -> bool:
        distances = [abs(gain - median) for gain, median in zip(row, medians, strict=True) if gain is not None]
        return sum(distances) > distance_max * len(distances)

    return frozenset(index for index, row in enumerate(gains) if is_outlier(row))
