"""The values that `downstream` and the codecs share: what a round changes, compressed for those who download it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from flchain.base.fixedpoint import VALUE_BYTES, decode_vector, encode_vector
from flchain.base.types import ModelVector

Carried: TypeAlias = tuple[ModelVector, ...]
"""What every node that aggregates keeps from round to round. It is part of the chain's state: under the state root,
in snapshots of the state (`flchain.ledger.snapshot`), and nowhere on a light device."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """A payload, the change of the global model that it decodes to, (P,), and what is carried into the next round."""

    payload: bytes
    delta: ModelVector
    carried: Carried


def encode_carried(carried: Carried) -> bytes:
    """Return the canonical bytes: one vector after the other. This is what gets hashed."""
    return b"".join(encode_vector(part) for part in carried)


def decode_carried(data: bytes, start: Carried) -> Carried:
    """Return what `encode_carried` wrote, in the shapes of `start`.

    Raises MalformedUpdate for another length or a value out of range.
    """
    whole = decode_vector(data, sum(part.size for part in start))
    return tuple(np.split(whole, np.cumsum([part.size for part in start])[:-1]))


def count_carried_bytes(start: Carried) -> int:
    """Return the length of `encode_carried`."""
    return VALUE_BYTES * sum(part.size for part in start)
