"""Make codec_kinds.json: payloads of every codec, and what a few rounds of each downstream rule settle on.

Run from the repository's root: `python -m tests.vectors.make_codecs`. Updates are hashed, so a change of this file
changes what nodes agree on. `codecs.json`, beside it, holds vectors of sparse-ternary made by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flchain.base.types import Address, Hash, ModelVector, Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES, compute_codec_seed

PATH = Path(__file__).with_name("codec_kinds.json")
SIZE = 600
LEVELS = {
    "identity": (1,),
    "sparse-ternary": (1, 50),
    "top-k": (1, 50),
    "qsgd": (1, 7),
    "random-mask": (1, 8),
    "count-sketch": (1, 8),
    "delta-entropy": (1, 4_096),
    "adaptive": (1_600, 4_010, 40_005, 400_000),
}
SEED = compute_codec_seed(Hash(bytes(range(32))), Round(7), Address(bytes(range(20))))


def build_inputs(number: int) -> tuple[ModelVector, ModelVector]:
    """A change and a residual with small, large and saturating values, from an integer recurrence."""
    state, values = 12345 + number, []
    for _ in range(2 * SIZE):
        state = (1103515245 * state + 12345) % 2**31
        values.append((state - 2**30) >> (state >> 5) % 31)
    both = np.array(values, dtype=np.int64) * 2
    return both[:SIZE].clip(-(2**31) + 1, 2**31 - 1).astype(np.int32), (both[SIZE:] >> 6).astype(np.int32)


def encode_case(codec: str, level: int) -> dict[str, Any]:
    """What one encoding gives."""
    delta, residual = build_inputs(level)
    encoded = CODECS[codec].encode(delta, residual, level, SEED)
    decoded = CODECS[codec].decode(encoded.payload, SIZE, level, SEED)
    return {
        "codec": codec,
        "level": level,
        "payload": encoded.payload.hex(),
        "decoded": decoded.astype("<i4").tobytes().hex(),
        "new_residual": encoded.residual.astype("<i4").tobytes().hex(),
    }


def settle_case(rule: str, level: int) -> dict[str, Any]:
    """The payloads of three rounds."""
    downstream, codec = DOWNSTREAM_RULES[rule], CODECS[rule]
    carried, payloads = downstream.start(SIZE, level), []
    for number in range(3):
        aggregate, _ = build_inputs(number)
        if codec.decode_summary is not None:
            payload = codec.encode(aggregate, np.zeros_like(aggregate), level).payload
            aggregate = codec.decode_summary(payload, SIZE, level)
        compressed = downstream.compress(aggregate, carried, SIZE, level)
        carried = compressed.carried
        payloads.append(compressed.payload.hex())
    return {"rule": rule, "level": level, "payloads": payloads}


def build_vectors() -> dict[str, Any]:
    """The content of codec_kinds.json."""
    return {
        "seed": SEED.hex(),
        "encoded": [encode_case(codec, level) for codec, levels in LEVELS.items() for level in levels],
        "settled": [settle_case(rule, LEVELS[rule][-1]) for rule in DOWNSTREAM_RULES],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(build_vectors(), indent=1) + "\n")
