"""From the accepted updates of a round to one change of the global model, by the name that ChainParams holds.

All in integers and in order of sender, so every node gets the same bits. No rule overflows int64: a fixed-point value
is below 2**31 in magnitude, a weight below 2**20, and there are at most 2**10 updates, so that no sum of products
exceeds 2**61.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flchain.base import fixedpoint
from flchain.base.types import Address, ModelVector

WEIGHT_LIMIT = 1 << 20
"""Weights are below this."""
UPDATES_MAX = 1 << 10
assert UPDATES_MAX * WEIGHT_LIMIT << 31 <= 1 << 61, "a sum of products stays far inside int64"
TRIM_DIVISOR = 5
"""The trimmed mean drops n // 5 of n values at each end: up to a fifth of the senders may lie."""

# Values sorted at a time: 4 MiB of int32 at most, whatever the number of updates and the size of the model.
_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True, eq=False)
class WeightedUpdate:
    """One device's decoded update. The weight is its claim, already capped by the caller: 1 to 2**20 - 1."""

    sender: Address
    weight: int
    delta: ModelVector


AggregationRule: TypeAlias = Callable[[tuple[WeightedUpdate, ...]], ModelVector]
"""(updates) -> (P,) change of the global model, whatever the order of the updates.

Raises ValueError for no update, more than UPDATES_MAX, two of one sender, a weight out of range or shapes that differ:
the caller has checked all of these on the way in.
"""


def aggregate_weighted_sum(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """sum(w_i d_i) / sum(w_i), rounded once at the end (FedAvg: McMahan et al. 2017, arXiv 1602.05629, Alg. 1)."""
    ordered = _order(updates)
    total = np.zeros(ordered[0].delta.shape, dtype=np.int64)
    weighted = np.empty_like(total)
    for update in ordered:
        np.multiply(update.delta, np.int64(update.weight), out=weighted, dtype=np.int64)
        total += weighted
    return fixedpoint.saturate(fixedpoint.divide_rounded(total, sum(update.weight for update in ordered)))


def aggregate_median(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """Median of each coordinate (Yin et al. 2018, arXiv 1803.01498, Option I).

    Of an even number: the middle two's mean, halves away from zero. Weights, being claims, count for nothing.
    """
    ordered = _order(updates)
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    result = np.empty_like(ordered[0].delta)
    for part, values in _iterate_blocks(ordered):
        values.partition((low, high), axis=1)
        middle = np.add(values[:, low], values[:, high], dtype=np.int64)
        result[part] = fixedpoint.saturate(fixedpoint.divide_rounded(middle, 2))
    return result


def aggregate_trimmed_mean(updates: tuple[WeightedUpdate, ...]) -> ModelVector:
    """Mean of each coordinate without its n // 5 lowest and n // 5 highest (Yin et al. 2018, Option II); no weights.

    With fewer than five updates nothing is dropped.
    """
    ordered = _order(updates)
    trimmed = len(ordered) // TRIM_DIVISOR
    kept = len(ordered) - 2 * trimmed
    result = np.empty_like(ordered[0].delta)
    for part, values in _iterate_blocks(ordered):
        values.sort(axis=1)
        total = values[:, trimmed : trimmed + kept].sum(axis=1, dtype=np.int64)
        result[part] = fixedpoint.saturate(fixedpoint.divide_rounded(total, kept))
    return result


def _order(updates: tuple[WeightedUpdate, ...]) -> list[WeightedUpdate]:
    """The updates by sender, once they are known to be fit for every rule."""
    if not 1 <= len(updates) <= UPDATES_MAX:
        raise ValueError(f"{len(updates)} updates, not 1 to {UPDATES_MAX}")
    if len({update.sender for update in updates}) != len(updates):
        raise ValueError("two updates of one sender")
    for update in updates:
        if not 1 <= update.weight < WEIGHT_LIMIT:
            raise ValueError(f"weight {update.weight}, not 1 to {WEIGHT_LIMIT - 1}")
        if update.delta.shape != updates[0].delta.shape or update.delta.ndim != 1:
            raise ValueError(f"an update of shape {update.delta.shape} among {updates[0].delta.shape}")
    return sorted(updates, key=attrgetter("sender"))


def _iterate_blocks(updates: list[WeightedUpdate]) -> Iterator[tuple[slice, npt.NDArray[np.int32]]]:
    """Runs of coordinates with their values by update, (coordinates, updates): all at once might not fit a board."""
    length = max(1, _BLOCK_VALUES // len(updates))
    for start in range(0, updates[0].delta.size, length):
        part = slice(start, start + length)
        yield part, np.stack([update.delta[part] for update in updates], axis=1)


AGGREGATION_RULES: dict[str, AggregationRule] = {
    "weighted-sum": aggregate_weighted_sum,
    "median": aggregate_median,
    "trimmed-mean": aggregate_trimmed_mean,
}
