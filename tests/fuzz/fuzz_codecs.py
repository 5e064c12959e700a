"""Coverage-guided garbage for every decoder: `make fuzz` (FUZZ_S seconds, 60 by default). Not collected by pytest.

A payload either raises MalformedUpdate, or decodes to a vector of the model's size within the fixed-point range whose
payload it is alone: encoding cannot be inverted for lossy codecs, so that part is checked where it can be (`leveled`,
`sparse_ternary`, `delta_entropy`, `identity`).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["flchain"]):
    import numpy as np

    from flchain.base.errors import MalformedUpdate
    from flchain.base.fixedpoint import LIMIT
    from flchain.codecs import CODECS, DOWNSTREAM_RULES, adaptive

SIZES = (1, 7, 64, 513, 3_000)
LEVELS = {"adaptive": (adaptive.pack_level(16, 0), adaptive.pack_level(400, 3), adaptive.pack_level(50_000, 0))}
ANY_LEVELS = (1, 3, 50)
INVERTIBLE = {"sparse-ternary": 1, "delta-entropy": 1, "identity": 1}
"""At these levels encoding what was decoded gives the same payload."""
NAMES = sorted(CODECS)


def fuzz(data: bytes) -> None:
    """One input: three bytes choose codec, level and size; the rest is the payload."""
    if len(data) < 3:
        return
    name = NAMES[data[0] % len(NAMES)]
    levels = LEVELS.get(name, ANY_LEVELS)
    level, size, payload = levels[data[1] % len(levels)], SIZES[data[2] % len(SIZES)], data[3:]
    for decode in (CODECS[name].decode, DOWNSTREAM_RULES[name].decode if name in DOWNSTREAM_RULES else None):
        if decode is None:
            continue
        try:
            vector = (
                decode(payload, size, level, b"seed") if decode is CODECS[name].decode else decode(payload, size, level)
            )
        except MalformedUpdate:
            continue
        assert (
            vector.shape == (size,) and vector.dtype == np.int32 and int(np.abs(vector.astype(np.int64)).max()) <= LIMIT
        )
        if INVERTIBLE.get(name) == level:
            assert CODECS[name].encode(vector, np.zeros_like(vector), level).payload == payload, (name, payload.hex())


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
