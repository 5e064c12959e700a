"""Update compression, by the name that ChainParams holds."""

from __future__ import annotations

from flchain.codecs.codec import Codec, Encoded
from flchain.codecs.identity import IDENTITY
from flchain.codecs.sparse_ternary import SPARSE_TERNARY

CODECS: dict[str, Codec] = {
    "identity": IDENTITY,
    "sparse-ternary": SPARSE_TERNARY,
}

__all__ = ["CODECS", "Codec", "Encoded"]
