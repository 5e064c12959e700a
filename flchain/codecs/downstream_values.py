"""The values that `downstream` and the codecs share: what a round changes, compressed for those who download it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from flchain.base.fixedpoint import VALUE_BYTES, vector_bytes, vector_from_bytes
from flchain.base.types import ModelVector

Carried: TypeAlias = tuple[ModelVector, ...]
"""What every node that aggregates keeps from round to round. It is part of the chain's state: under the state root,
in snapshots of the state (`flchain.ledger.snapshot`), and nowhere on a light device."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A payload, the change of the global model that it decodes to, (P,), and what is carried into the next round."""

    payload: bytes
    delta: ModelVector
    carried: Carried


def carried_bytes(carried: Carried) -> bytes:
    """Return the canonical bytes: one vector after the other. This is what gets hashed."""
    return b"".join(vector_bytes(part) for part in carried)


def carried_from_bytes(data: bytes, start: Carried) -> Carried:
    """Return what `carried_bytes` wrote, in the shapes of `start`.

    Raises MalformedUpdate for another length or a value out of range.
    """
    whole = vector_from_bytes(data, sum(part.size for part in start))
    return tuple(np.split(whole, np.cumsum([part.size for part in start])[:-1]))


def count_carried_bytes(start: Carried) -> int:
    """Return the length of `carried_bytes`."""
    return VALUE_BYTES * sum(part.size for part in start)
