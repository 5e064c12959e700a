"""Update compression, by the name that ChainParams holds."""

from __future__ import annotations

from flchain.codecs.codec import Codec, Encoded
from flchain.codecs.identity import IDENTITY
from flchain.codecs.sparse_ternary import SPARSE_TERNARY

CODECS: dict[str, Codec] = {
    "identity": IDENTITY,
    "sparse-ternary": SPARSE_TERNARY,
}

DOWNSTREAM_CODECS: dict[str, Codec] = {name: CODECS[name] for name in ("identity", "sparse-ternary")}
"""Those whose `encode` works in integers alone: every node compresses the settled change of the model and must get the
same bits, which an update's one author need not."""

__all__ = ["CODECS", "DOWNSTREAM_CODECS", "Codec", "Encoded"]
