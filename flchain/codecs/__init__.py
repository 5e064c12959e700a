"""Compression of updates (CODECS) and of what a round changes (DOWNSTREAM_RULES), by name in ChainParams."""

from __future__ import annotations

from flchain.codecs.adaptive import ADAPTIVE
from flchain.codecs.codec import NO_SEED, Codec, Encoded, compute_codec_seed
from flchain.codecs.compressed import Carried, Compressed, count_carried_bytes, decode_carried, encode_carried
from flchain.codecs.count_sketch import COUNT_SKETCH
from flchain.codecs.delta_entropy import DELTA_ENTROPY
from flchain.codecs.downstream import DOWNSTREAM_RULES, Downstream
from flchain.codecs.identity import IDENTITY
from flchain.codecs.qsgd import QSGD
from flchain.codecs.random_mask import RANDOM_MASK
from flchain.codecs.sparse_ternary import SPARSE_TERNARY
from flchain.codecs.top_k import TOP_K

CODECS: dict[str, Codec] = {
    "identity": IDENTITY,
    "sparse-ternary": SPARSE_TERNARY,
    "top-k": TOP_K,
    "qsgd": QSGD,
    "random-mask": RANDOM_MASK,
    "count-sketch": COUNT_SKETCH,
    "delta-entropy": DELTA_ENTROPY,
    "adaptive": ADAPTIVE,
}

__all__ = [
    "CODECS",
    "DOWNSTREAM_RULES",
    "NO_SEED",
    "Carried",
    "Codec",
    "Compressed",
    "Downstream",
    "Encoded",
    "compute_codec_seed",
    "count_carried_bytes",
    "decode_carried",
    "encode_carried",
]
