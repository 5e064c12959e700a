"""Proof of work: targets, work, seals, retargeting. Exact integers; times come in as arguments.

A seal is a nonce over the block hash and stands where the certificate of BFT stands, so header, body and `apply_block`
are the same under both rules. After Nakamoto (2008), section 4; the target is 256 bits wide, without a short form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import TypeAlias

from flchain.base.crypto import hash_tagged
from flchain.base.errors import BadSeal, OversizedMessage, TruncatedMessage
from flchain.base.types import Hash

NONCE_BYTES = 8
HASHES = 2**256
"""The number of values that a hash can take."""
TARGET_MAX = HASHES - 1
"""The easiest target: every hash is at most this."""
TARGET_MIN = 1
SHIFT_MAX = 256
"""A target never moves by more powers of two than it has bits, whatever times the headers claim."""
FRACTION_BITS = 16
SCALE_BITS = 64

SealRule: TypeAlias = Callable[[Hash, int, bytes], int]
"""(block hash, target, seal) -> the seal's own hash as an integer. Raises InvalidMessage's subclasses."""


@dataclass(frozen=True)
class PowParams:
    """The numbers that all miners of a chain must agree on. Times in ms."""

    interval_ms: int
    """The mean time between blocks that retargeting aims at."""
    half_life_ms: int
    """A chain this far ahead of its schedule has twice the difficulty."""
    target_start: int
    """Target of blocks 1 and 2: nothing is known yet about the hashrate."""
    final_depth: int = 6
    """A block counts as final once this many blocks stand on it (Nakamoto 2008, section 11)."""
    kept_depth: int = 64
    """Blocks below the tip that are kept: a branch from further down can never connect."""

    def __post_init__(self) -> None:
        assert self.interval_ms > 0 and self.half_life_ms > 0, "times are positive"
        assert TARGET_MIN <= self.target_start <= TARGET_MAX, "a target has 256 bits"
        assert 0 < self.final_depth < self.kept_depth, "what is not yet final is kept"


def compute_work(target: int) -> int:
    """Return how many hashes a seal under `target` takes on average: 2**256 / (target + 1), rounded down."""
    assert 0 <= target <= TARGET_MAX, "a target has 256 bits"
    return HASHES // (target + 1)


def compute_target(hashes: int) -> int:
    """Return the target for which a seal takes this many hashes on average, 1 to 2**255."""
    return max(TARGET_MIN, HASHES // hashes - 1)


def compute_seal_hash(block_hash: Hash, seal: bytes) -> int:
    """Return what must not exceed the target: one tagged SHA-256 over the block hash and the nonce."""
    return int.from_bytes(hash_tagged("pow-seal", block_hash + seal), "big")


def verify_seal(block_hash: Hash, target: int, seal: bytes) -> int:
    """Check that `seal`, 8 bytes, proves the work of `target`, and return its hash.

    Raises BadSeal, or OversizedMessage and TruncatedMessage for another length.
    """
    if len(seal) > NONCE_BYTES:
        raise OversizedMessage(f"a seal of {len(seal)} bytes")
    if len(seal) < NONCE_BYTES:
        raise TruncatedMessage(f"a seal of {len(seal)} bytes")
    seal_hash = compute_seal_hash(block_hash, seal)
    if seal_hash > target:
        raise BadSeal(f"the seal of {block_hash.hex()} does not meet its target")
    return seal_hash


def compute_next_target(params: PowParams, anchor_ms: int, parent_height: int, parent_ms: int) -> int:
    """Return the target of the block after a parent, on a chain whose block 1 has the time `anchor_ms`.

    ASERT, absolutely scheduled exponentially rising targets (Lundeberg 2020, as Bitcoin Cash has used it since November
    2020): target = start * 2 ** ((parent_ms - anchor_ms - interval * (parent_height - 1)) / half_life). Among the
    rules in use it needs the least, the parent's own height and time, so that every branch of a tree and every
    light client computes it at once. It has no window that miners could jump in and out of, and rounding errors do not
    add up, since each target is computed from the start.
    """
    if parent_height < 1:
        return params.target_start
    late_ms = parent_ms - anchor_ms - params.interval_ms * (parent_height - 1)
    exponent = (late_ms << FRACTION_BITS) // params.half_life_ms
    whole, fraction = exponent >> FRACTION_BITS, exponent & (2**FRACTION_BITS - 1)
    target = params.target_start * _compute_power_of_two(fraction)
    shift = max(-SHIFT_MAX, min(SHIFT_MAX, whole)) - SCALE_BITS
    target = target << shift if shift >= 0 else target >> -shift
    return max(TARGET_MIN, min(TARGET_MAX, target))


def _compute_roots() -> tuple[int, ...]:
    """Return 2 ** (1/2), 2 ** (1/4), ... in units of 2 ** -64, rounded down: each is the root of the one before."""
    roots, root = [], 2 << SCALE_BITS
    for _ in range(FRACTION_BITS):
        root = isqrt(root << SCALE_BITS)
        roots.append(root)
    return tuple(roots)


ROOTS_OF_TWO = _compute_roots()


def _compute_power_of_two(fraction: int) -> int:
    """Return 2 ** (fraction / 2 ** 16) in units of 2 ** -64, in integers: the same bits on every machine."""
    power = 1 << SCALE_BITS
    for place, root in enumerate(ROOTS_OF_TWO):
        if fraction >> (FRACTION_BITS - 1 - place) & 1:
            power = power * root >> SCALE_BITS
    return power
