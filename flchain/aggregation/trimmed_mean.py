"""Mean of each coordinate without its highest and lowest values (Yin et al. 2018, arXiv 1803.01498, Option II)."""

from __future__ import annotations

import numpy as np

from flchain.aggregation.rule import AggregationRule, WeightedUpdate, iterate_blocks, order_updates
from flchain.base import fixedpoint
from flchain.base.types import ModelVector

TRIM_DIVISOR = 5
"""The trimmed mean drops n // 5 of n values at each end: up to a fifth of the senders may lie."""


def aggregate(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """Return the mean of each coordinate without its n // 5 lowest and n // 5 highest values. Weights are ignored.

    With fewer than five updates nothing is dropped.
    """
    ordered = order_updates(updates)
    trimmed = len(ordered) // TRIM_DIVISOR
    kept = len(ordered) - 2 * trimmed
    result = np.empty_like(ordered[0].delta)
    for part, values in iterate_blocks(ordered):
        values.sort(axis=1)
        total = values[:, trimmed : trimmed + kept].sum(axis=1, dtype=np.int64)
        result[part] = fixedpoint.saturate(fixedpoint.divide_rounded(total, kept))
    return result


TRIMMED_MEAN = AggregationRule(aggregate, is_linear=False)
