"""The codecs against a second, slow implementation, against golden vectors, and against crafted payloads.

`tests/vectors/codecs.json` holds small inputs made by hand, each with what the slow implementation below gives for it
(`encode_slowly`: a string of bits, the positions sorted in Python), and payloads that must be refused, each made by
changing one field of an accepted one. To add a vector, write its inputs by hand and take the rest from
`encode_slowly`.
"""

from __future__ import annotations

import json
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flchain.base.errors import MalformedUpdate
from flchain.base.fixedpoint import LIMIT
from flchain.codecs import CODECS, sparse_ternary
from flchain.codecs.bits import golomb

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "codecs.json").read_text())
SPARSE = CODECS["sparse-ternary"]


def limit(value: int) -> int:
    return max(-LIMIT, min(LIMIT, value))


def choose_rice_slowly(count: int, size: int) -> int:
    rice = 0
    while Fraction(2 ** (rice + 1) * count) <= Fraction(4812, 10_000) * (2 * size - count):
        rice += 1
    return rice


def encode_slowly(delta: list[int], residual: list[int], level: int) -> tuple[bytes, list[int], list[int]]:
    """Payload, decoded tensor and new residual, one parameter at a time."""
    size = len(delta)
    corrected = [limit(a + b) for a, b in zip(delta, residual, strict=True)]
    by_size = sorted((i for i in range(size) if corrected[i]), key=lambda i: (-abs(corrected[i]), i))
    kept = sorted(by_size[: max(1, size // level)])
    if not kept:
        return bytes(9), [0] * size, corrected
    mu = int(Fraction(sum(abs(corrected[i]) for i in kept), len(kept)) + Fraction(1, 2))
    rice = choose_rice_slowly(len(kept), size)
    gaps = [b - a - 1 for a, b in zip([-1, *kept], kept, strict=False)]
    bits = "".join(format(gap % 2**rice, f"0{rice}b") for gap in gaps) if rice else ""
    bits += "".join("1" if corrected[i] > 0 else "0" for i in kept)
    bits += "".join("0" * (gap >> rice) + "1" for gap in gaps)
    bits += "0" * (-len(bits) % 8)
    body = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    payload = len(kept).to_bytes(4, "little") + mu.to_bytes(4, "little") + bytes([rice]) + body
    tensor = [0] * size
    for i in kept:
        tensor[i] = mu if corrected[i] > 0 else -mu
    return payload, tensor, [limit(a - b) for a, b in zip(corrected, tensor, strict=True)]


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_golden_vectors_encode_and_decode(vector: dict[str, Any]) -> None:
    """The bytes on the wire are those of the committed vectors, forever."""
    codec = CODECS[vector["codec"]]
    delta, residual = (np.array(vector[key], dtype=np.int32) for key in ("delta", "residual"))
    encoded = codec.encode(delta, residual, vector["level"])
    assert encoded.payload.hex() == vector["payload"]
    assert encoded.residual.tolist() == vector["new_residual"]
    assert codec.decode(encoded.payload, delta.size, vector["level"]).tolist() == vector["decoded"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_golden_vectors_are_refused(vector: dict[str, Any]) -> None:
    """Each crafted payload breaks one rule and is refused for that rule."""
    with pytest.raises(MalformedUpdate, match=vector["reason"]):
        CODECS[vector["codec"]].decode(bytes.fromhex(vector["payload"]), vector["parameters_count"], vector["level"])


@pytest.mark.parametrize("size", [1, 2, 7, 50, 333])
@pytest.mark.parametrize("level", [1, 3, 20, 1000])
@pytest.mark.parametrize("spread", [1, 3, 10_000, LIMIT])
def test_encoding_is_the_slow_implementations(size: int, level: int, spread: int) -> None:
    """Bytes, tensor and residual are the same; a small spread is full of ties and zeros, the largest saturates."""
    rng = np.random.default_rng(size * level + spread)
    delta, residual = rng.integers(-spread, spread, size=(2, size), endpoint=True).astype(np.int32)
    encoded = SPARSE.encode(delta, residual, level)
    decoded = SPARSE.decode(encoded.payload, size, level)
    assert (encoded.payload, decoded.tolist(), encoded.residual.tolist()) == encode_slowly(
        delta.tolist(), residual.tolist(), level
    )


def test_encode_leaves_its_inputs_alone() -> None:
    """The residual on disk and the trainer's delta are still needed if sending fails."""
    delta, residual = np.arange(10, dtype=np.int32), np.ones(10, dtype=np.int32)
    for codec in CODECS.values():
        codec.encode(delta, residual, 2_016, b"seed")
        assert delta.tolist() == list(range(10))
        assert residual.tolist() == [1] * 10


def test_of_equal_magnitudes_the_lowest_positions_are_sent() -> None:
    """The tie rule: +5 and -5 are equals, and two of six are kept."""
    delta = np.array([0, 5, -5, 5, 5, -5], dtype=np.int32)
    encoded = SPARSE.encode(delta, np.zeros_like(delta), 3)
    assert SPARSE.decode(encoded.payload, 6, 3).tolist() == [0, 5, -5, 0, 0, 0]


def test_a_delta_of_zeros_is_a_bare_header() -> None:
    """Nothing to say costs nine bytes, and no position is made up to fill k."""
    zeros = np.zeros(100, dtype=np.int32)
    encoded = SPARSE.encode(zeros, zeros, 10)
    assert encoded.payload == bytes(9)
    assert not SPARSE.decode(encoded.payload, 100, 10).any()


def test_what_is_not_sent_is_sent_later() -> None:
    """Error feedback: one delta, then nothing new, and the residual empties into the model within a few rounds."""
    delta = np.random.default_rng(2).integers(-1000, 1000, size=200).astype(np.int32)
    received, residual, fresh = np.zeros(200, dtype=np.int64), np.zeros(200, dtype=np.int32), delta
    for _ in range(200):
        encoded = SPARSE.encode(fresh, residual, 10)
        received += SPARSE.decode(encoded.payload, 200, 10)
        residual, fresh = encoded.residual, np.zeros_like(delta)
    assert np.abs(received - delta).max() < 100


@pytest.mark.parametrize("level", [50, 100, 200, 500])
def test_payloads_are_near_the_entropy_bound(level: int) -> None:
    """At P = 100,000 the whole payload, header and all, is within 5% of log2(P choose k) + k bits."""
    size, kept = 100_000, 100_000 // level
    delta = np.random.default_rng(level).normal(scale=20_000, size=size).astype(np.int32)
    payload_bytes = len(SPARSE.encode(delta, np.zeros_like(delta), level).payload)
    choices = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    bound_bytes = (choices / math.log(2) + kept) / 8
    ratio = payload_bytes / bound_bytes
    assert ratio <= 1.05, f"1/{level}: {payload_bytes} bytes, bound {bound_bytes:.1f}, ratio {ratio:.4f}"


def test_the_rice_parameter_follows_the_papers_formula() -> None:
    """The integer rule is Sattler's formula, except for densities within 0.1% of where it steps or above a third."""
    golden = (math.sqrt(5) + 1) / 2
    for size in (1000, 12_000, 101_770):
        for count in range(1, size // 3, 7):
            exact = 1 + math.log2(math.log(golden - 1) / math.log(1 - count / size))
            rice = golomb.compute_rice_parameter(count, size)
            is_on_a_step = abs(exact - round(exact)) < 0.02
            assert rice == max(0, math.floor(exact)) or is_on_a_step, (count, size, exact)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 17, 64, 150])
def test_the_longest_payload_is_exact(size: int) -> None:
    """payload_bytes_max is the longest over all counts with every gap before the first position, and is reached."""
    for level in (1, 2, 3, 7, size):
        kept_max = max(1, size // level)
        longest = 0
        for count in range(1, kept_max + 1):
            positions = np.arange(size - count, size, dtype=np.int64)
            payload = sparse_ternary.build_payload(positions, np.ones(count, dtype=np.bool_), 1, size)
            assert SPARSE.decode(payload, size, level).sum() == count
            longest = max(longest, len(payload))
        assert SPARSE.payload_bytes_max(size, level) == longest


def test_a_hostile_header_allocates_nothing() -> None:
    """A count of four billion, or a payload a byte too long, is refused before any array is made."""
    hostile = [b"\xff\xff\xff\xff\x01\x00\x00\x00\x00" + bytes(50), bytes(1_000_000)]
    for payload in hostile:
        tracemalloc.start()
        with pytest.raises(MalformedUpdate):
            SPARSE.decode(payload, 100_000, 50)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000


@pytest.mark.parametrize("level", [1, 2, 50])
def test_decoding_takes_a_small_multiple_of_the_model(level: int) -> None:
    """The peak is below 16 models even with every parameter sent, and below 2 at one in fifty."""
    size = 100_000
    delta = np.random.default_rng(9).normal(scale=20_000, size=size).astype(np.int32)
    payload = SPARSE.encode(delta, np.zeros_like(delta), level).payload
    tracemalloc.start()
    SPARSE.decode(payload, size, level)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    models = peak / (4 * size)
    assert models < (2 if level == 50 else 16), f"{models:.2f} models"


@pytest.mark.parametrize(("size", "level"), [(0, 1), (10, 0), (10, -5)])
def test_a_level_or_model_of_nothing_is_our_own_fault(size: int, level: int) -> None:
    """These come from ChainParams, not from a peer: a ValueError."""
    vector = np.zeros(size, dtype=np.int32)
    with pytest.raises(ValueError, match="level"):
        SPARSE.encode(vector, vector, level)
    with pytest.raises(ValueError, match="level"):
        SPARSE.decode(bytes(9), size, level)
