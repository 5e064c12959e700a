"""Decoded updates, kept so that none is decoded twice, within a bound on memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flchain.base.types import ModelVector

DECODED_BYTES_MAX = 256_000_000
"""Most memory for the decoded updates of one round: each device has an equal share of it. An update that takes more
than its share is not kept and is decoded again whenever it is needed."""
_SPARSE_BYTES = 8
"""A position and its value."""


@dataclass(frozen=True, eq=False)
class DecodedUpdate:
    """The vector of an update, shape (P,): its values that are not 0 with their positions, or all of it if most are."""

    values: ModelVector
    positions: npt.NDArray[np.int32] | None
    parameters_count: int

    def get_vector(self) -> ModelVector:
        """Return the vector, shape (P,). It must not be changed, as it may be the kept one."""
        if self.positions is None:
            return self.values
        vector = np.zeros(self.parameters_count, dtype=np.int32)
        vector[self.positions] = self.values
        return vector


def keep_decoded(vector: ModelVector, devices_count: int) -> DecodedUpdate | None:
    """Return what is kept of a decoded update, shape (P,), or None if it takes more than its share.

    `devices_count` devices share the memory equally.
    """
    positions: npt.NDArray[Any] = np.flatnonzero(vector)
    is_sparse = positions.size * _SPARSE_BYTES < vector.nbytes
    bytes_needed = positions.size * _SPARSE_BYTES if is_sparse else vector.nbytes
    if bytes_needed > DECODED_BYTES_MAX // max(1, devices_count):
        return None
    if not is_sparse:
        return DecodedUpdate(vector, None, vector.size)
    return DecodedUpdate(vector[positions], positions.astype(np.int32), vector.size)
