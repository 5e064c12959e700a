"""The change that a round makes, compressed for the download, by name (Sattler et al. 2019, arXiv 1903.02891, Alg. 2).

Every node that aggregates (validators, full nodes) runs `compress` on the round's aggregate; all encoders are in
integers, so they get the same payload. The global model changes by what the payload decodes to, and what was cut off
is carried into the next round (error feedback at the aggregator). A device one round behind takes the payload, adds
its vector and compares the model's hash with the header's; nobody has to trust the payload.

    carried = rule.start(parameters_count, level)            # at genesis
    compressed = rule.compress(aggregate, carried, parameters_count, level)
    model = add(model, compressed.delta)

An aggregation rule makes the aggregate from decoded updates, or, under `count-sketch`, from their tables
(`Codec.decode_summary`): there the rule must be linear, and codec and level the same in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flchain.base.types import ModelVector
from flchain.codecs import adaptive, count_sketch, delta_entropy, identity, sparse_ternary, top_k
from flchain.codecs.codec import Codec
from flchain.codecs.compressed import Carried, Compressed


@dataclass(frozen=True)
class Downstream:
    """One way of compressing the change of a round. `level` as for the codec of this name."""

    start: Callable[[int, int], Carried]
    """(parameters_count, level) -> what is carried into round 1."""
    compress: Callable[[ModelVector, Carried, int, int], Compressed]
    """(aggregate, carried, parameters_count, level) -> the compressed change, and what is carried on."""
    decode: Callable[[bytes, int, int], ModelVector]
    """(payload, parameters_count, level) -> the change of the model, (P,). Raises MalformedUpdate."""
    payload_bytes_max: Callable[[int, int], int]
    """(parameters_count, level) -> the longest payload that decode accepts."""


def _carry_error(codec: Codec) -> Downstream:
    """Return the rule that a codec makes with error feedback at the aggregator."""

    def start(parameters_count: int, level: int) -> Carried:
        return (np.zeros(parameters_count, dtype=np.int32),)

    def compress(aggregate: ModelVector, carried: Carried, parameters_count: int, level: int) -> Compressed:
        encoded = codec.encode(aggregate, carried[0], level)
        return Compressed(encoded.payload, codec.decode(encoded.payload, parameters_count, level), (encoded.residual,))

    return Downstream(start, compress, codec.decode, codec.payload_bytes_max)


def _decode_sketch_payload(payload: bytes, parameters_count: int, level: int) -> ModelVector:
    return top_k.decode(payload, parameters_count, count_sketch.compute_payload_level(parameters_count, level))


def _compute_sketch_bytes_max(parameters_count: int, level: int) -> int:
    return top_k.payload_bytes_max(parameters_count, count_sketch.compute_payload_level(parameters_count, level))


DOWNSTREAM_RULES: dict[str, Downstream] = {
    "identity": _carry_error(identity.IDENTITY),
    "sparse-ternary": _carry_error(sparse_ternary.SPARSE_TERNARY),
    "top-k": _carry_error(top_k.TOP_K),
    "delta-entropy": _carry_error(delta_entropy.DELTA_ENTROPY),
    "adaptive": _carry_error(adaptive.ADAPTIVE),
    "count-sketch": Downstream(
        count_sketch.start, count_sketch.compress, _decode_sketch_payload, _compute_sketch_bytes_max
    ),
}
