"""What a round comes to, compressed for those who download it: the values that `downstream` and codecs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from flchain.base.fixedpoint import VALUE_BYTES, vector_bytes, vector_from_bytes
from flchain.base.types import ModelVector

Carried: TypeAlias = tuple[ModelVector, ...]
"""What every node that aggregates keeps from round to round. Part of the chain's state: it belongs under the state
root, in snapshots of the state (`flchain.ledger.snapshot`), and nowhere on a light device."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A payload, the change of the global model that it decodes to, (P,), and what is carried into the next round."""

    payload: bytes
    delta: ModelVector
    carried: Carried


def carried_bytes(carried: Carried) -> bytes:
    """The canonical bytes: one vector after the other. This is what gets hashed."""
    return b"".join(vector_bytes(part) for part in carried)


def carried_from_bytes(data: bytes, start: Carried) -> Carried:
    """What `carried_bytes` wrote of something shaped as `start`. Raises MalformedUpdate for another length or value."""
    whole = vector_from_bytes(data, sum(part.size for part in start))
    return tuple(np.split(whole, np.cumsum([part.size for part in start])[:-1]))


def count_carried_bytes(start: Carried) -> int:
    """How long `carried_bytes` are."""
    return VALUE_BYTES * sum(part.size for part in start)
