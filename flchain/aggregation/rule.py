"""What an aggregation rule is, and the checks that all of them begin with.

All in integers and in order of sender, so every node gets the same bits. No rule overflows int64: a fixed-point value
is below 2**31 in magnitude, a weight below 2**20, and there are at most 2**10 updates, so that no sum of products
exceeds 2**61.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flchain.base.types import Address, ModelVector

WEIGHT_LIMIT = 1 << 20
"""Weights are below this."""
UPDATES_MAX = 1 << 10
"""Most updates of one round."""
assert UPDATES_MAX * WEIGHT_LIMIT << 31 <= 1 << 61, "a sum of products stays far inside int64"

# Values sorted at a time: 4 MiB of int32 at most, whatever the number of updates and the size of the model.
_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True, eq=False)
class WeightedUpdate:
    """One device's decoded update. The weight is its claim, already capped by the caller: 1 to 2**20 - 1."""

    sender: Address
    weight: int
    delta: ModelVector


class Aggregate(Protocol):
    """Combine the updates of a round, in any order, into one change of the global model, (P,).

    Raises ValueError for no update, more than UPDATES_MAX, two of one sender, a weight out of range or shapes that
    differ: the caller has checked all of these on the way in.
    """

    def __call__(self, updates: tuple[WeightedUpdate, ...]) -> ModelVector:
        """Return the change."""


@dataclass(frozen=True)
class AggregationRule:
    """One way of combining updates."""

    aggregate: Aggregate
    is_linear: bool
    """True if the aggregate of sketches is the sketch of the aggregate. Only then can sketches be aggregated."""


def order_updates(updates: tuple[WeightedUpdate, ...]) -> list[WeightedUpdate]:
    """Return the updates in order of sender. Raises ValueError unless they are fit for every rule (see `Aggregate`)."""
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


def iterate_blocks(updates: list[WeightedUpdate]) -> Iterator[tuple[slice, npt.NDArray[np.int32]]]:
    """Yield runs of coordinates with their values, (coordinates, updates): all at once might not fit a board."""
    length = max(1, _BLOCK_VALUES // len(updates))
    for start in range(0, updates[0].delta.size, length):
        part = slice(start, start + length)
        yield part, np.stack([update.delta[part] for update in updates], axis=1)
