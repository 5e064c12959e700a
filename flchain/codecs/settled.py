"""What a round comes to, compressed for those who download it: the values that `downstream` and codecs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from flchain.types import ModelVector

Carried: TypeAlias = tuple[ModelVector, ...]
"""What every node that aggregates keeps from round to round. Part of the chain's state: it belongs under the state
root, in snapshots of the state (`flchain.snapshot`), and nowhere on a light device."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A payload, the change of the global model that it decodes to, (P,), and what is carried into the next round."""

    payload: bytes
    delta: ModelVector
    carried: Carried
