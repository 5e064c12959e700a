"""Who has shown knowledge: Proof of Knowledge as weighted medians of scores, in exact integers.

A scorer tests models on data of its own. One liar, or all that weigh less than half, cannot move a median out of the
range of what the others say. Gains (a score less the same scorer's score of the base model) are compared, not scores:
who has harder data scores everything lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from flchain.base.types import BasisPoints

KNOWLEDGE_MIN = 1

Weighted: TypeAlias = tuple[int, int]
"""(value, weight > 0)."""


def compute_weighted_median(values: Sequence[Weighted]) -> int:
    """The lower weighted median: the least value with half the weight at or below it.

    Less than half of the weight cannot move it outside the range of the other values. ValueError for no pairs.
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
    """A miner's knowledge after a round: the median of what others scored its devices' aggregate with.

    `scores` are the other scorers', in basis points, with their weights. Those who kept silent, `silent_weight` of the
    other validators' power, count for its present standing: else a coalition below 1/3 could be the majority of the few
    who spoke. So it never leaves the range of the honest scores and the standing.
    """
    silent = [(int(standing), silent_weight)] if silent_weight else []
    said = [*scores, *silent]
    return BasisPoints(max(KNOWLEDGE_MIN, compute_weighted_median(said))) if said else standing


def compute_idle_knowledge(standing: BasisPoints) -> BasisPoints:
    """That of a miner whose devices contributed nothing to the round: halved, so that none is heard on old merit."""
    return BasisPoints(max(KNOWLEDGE_MIN, standing // 2))


def find_outliers(gains: Sequence[Sequence[int | None]], weights: Sequence[int], distance_max: int) -> frozenset[int]:
    """The indices of scorers whose gains are on average more than `distance_max` basis points off the medians.

    `gains` has one row per scorer, all of one length, one column per model that was scored. None is no word on a model:
    it is left out of that column's median and of that row's average.
    """
    medians = []
    for column in zip(*gains, strict=True):
        said = [(gain, weight) for gain, weight in zip(column, weights, strict=True) if gain is not None]
        medians.append(compute_weighted_median(said) if said else 0)

    def is_outlier(row: Sequence[int | None]) -> bool:
        distances = [abs(gain - median) for gain, median in zip(row, medians, strict=True) if gain is not None]
        return sum(distances) > distance_max * len(distances)

    return frozenset(index for index, row in enumerate(gains) if is_outlier(row))
