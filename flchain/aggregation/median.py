"""Median of each coordinate, without weights (Yin et al. 2018, arXiv 1803.01498, Option I)."""

from __future__ import annotations

import numpy as np

from flchain.aggregation.rule import AggregationRule, WeightedUpdate, iterate_blocks, order_updates
from flchain.base import fixedpoint
from flchain.base.types import ModelVector


def aggregate(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """Return the median of each coordinate; of an even number of values the middle two's mean, halves away from zero.

    Weights are claims, so they are ignored.
    """
    ordered = order_updates(updates)
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    result = np.empty_like(ordered[0].delta)
    for part, values in iterate_blocks(ordered):
        values.partition((low, high), axis=1)
        middle = np.add(values[:, low], values[:, high], dtype=np.int64)
        result[part] = fixedpoint.saturate(fixedpoint.divide_rounded(middle, 2))
    return result


MEDIAN = AggregationRule(aggregate, is_linear=False)
