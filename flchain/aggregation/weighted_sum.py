"""Mean of the updates, weighted by samples (FedAvg: McMahan et al. 2017, arXiv 1602.05629, Alg. 1)."""

from __future__ import annotations

import numpy as np

from flchain.aggregation.rule import AggregationRule, WeightedUpdate, order_updates
from flchain.base import fixedpoint
from flchain.base.types import ModelVector


def aggregate(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """Return sum(w_i d_i) / sum(w_i), rounded once at the end."""
    ordered = order_updates(updates)
    if len(ordered) == 1:
        return ordered[0].delta.copy()  # w d / w is d: every scorer asks this of every update
    total = np.zeros(ordered[0].delta.shape, dtype=np.int64)
    weighted = np.empty_like(total)
    for update in ordered:
        np.multiply(update.delta, np.int64(update.weight), out=weighted, dtype=np.int64)
        total += weighted
    return fixedpoint.saturate(fixedpoint.divide_rounded(total, sum(update.weight for update in ordered)))


WEIGHTED_SUM = AggregationRule(aggregate, is_linear=True)
