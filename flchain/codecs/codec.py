"""The interface of a codec: pure functions that agree on a payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flchain.base.crypto import hash_tagged
from flchain.base.types import Address, Hash, ModelVector, Round

NO_SEED = b""
"""For codecs that draw no random numbers. The others raise ValueError on it."""
LEVEL_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Encoded:
    """A payload for the wire, and the error that stays on the device for its next round."""

    payload: bytes
    residual: ModelVector
    """(P,) int32: (delta + old residual) - decode(payload). Never leaves the device. Zeros for a codec that keeps no
    error (`Codec.keeps_error`)."""


class Encode(Protocol):
    """Compress delta + residual, both (P,) in fixed point; in integers, so that every node gets the same bytes.

    `seed` is `compute_codec_seed` of the update. `bytes_wanted` is what the sender's link can carry before the
    deadline; only a codec that can choose looks at it. Raises ValueError on shapes that differ, P = 0, a level out of
    range, or a missing seed: all of these are our own fault.
    """

    def __call__(
        self,
        delta: ModelVector,
        residual: ModelVector,
        level: int,
        seed: bytes = NO_SEED,
        bytes_wanted: int | None = None,
    ) -> Encoded:
        """Return the payload, and the new residual."""


class Decode(Protocol):
    """Return the (P,) vector of a payload, the same bits on every machine: integers only.

    Raises MalformedUpdate and nothing else on any bytes (ValueError on our own faults, as Encode does). Checks sizes
    before it allocates.
    """

    def __call__(self, payload: bytes, parameters_count: int, level: int, seed: bytes = NO_SEED) -> ModelVector:
        """Return the vector."""


@dataclass(frozen=True)
class Codec:
    """One way of compressing an update. `level` is ChainParams' integer; each codec gives it its own meaning."""

    encode: Encode
    decode: Decode
    payload_bytes_max: Callable[[int, int], int]
    """(parameters_count, level) -> the longest payload that decode accepts. Raises ValueError for numbers that this
    codec cannot work with, before a chain is opened with them."""
    level_meaning: str
    """One line for operators."""
    level_default: int
    """A good level for a model of ten to a hundred thousand parameters."""
    keeps_error: bool = True
    """False if what is not sent is lost (unbiased codecs), or kept by the aggregator instead."""
    decode_summary: Callable[[bytes, int, int], ModelVector] | None = None
    """(payload, parameters_count, level) -> what is aggregated, if it is not the decoded vector: a sketch's table.
    The rule `downstream` of the same name makes a change of the model from the aggregate. Raises MalformedUpdate."""


def compute_codec_seed(chain: Hash, round_number: Round, sender: Address) -> bytes:
    """Return the 32 bytes from which a codec draws for one update: public, and nobody can choose them."""
    return hash_tagged("codec-seed", chain + round_number.to_bytes(8, "big") + sender)
