"""Merkle trees and inclusion proofs as in RFC 6962, section 2.1: leaves and nodes hash in different domains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flchain.base.types import HASH_BYTES, Hash

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"


def hash_leaf(leaf: bytes) -> Hash:
    """Return SHA-256(0x00 || leaf)."""
    return Hash(hashlib.sha256(LEAF_PREFIX + leaf).digest())


def hash_node(left: bytes, right: bytes) -> Hash:
    """Return SHA-256(0x01 || left || right)."""
    return Hash(hashlib.sha256(NODE_PREFIX + left + right).digest())


def compute_root(leaves: Sequence[bytes]) -> Hash:
    """Return the Merkle tree hash of the list of leaves; for no leaves, the SHA-256 of no bytes."""
    if not leaves:
        return Hash(hashlib.sha256(b"").digest())
    sha256 = hashlib.sha256  # `hash_leaf` and `hash_node` without the calls: every state and body asks this
    level = [sha256(LEAF_PREFIX + leaf).digest() for leaf in leaves]
    # Pairing neighbours and carrying an odd last node up gives RFC 6962's largest-power-of-two split.
    while len(level) > 1:
        nodes = iter(level)
        paired = [sha256(NODE_PREFIX + left + right).digest() for left, right in zip(nodes, nodes, strict=False)]
        level = paired + level[len(level) - len(level) % 2 :]
    return Hash(level[0])


def build_proof(leaves: Sequence[bytes], index: int) -> tuple[Hash, ...]:
    """Return the audit path of the leaf at `index`, from its sibling up to the root's child. Raises IndexError.

    >>> leaves = [b"a", b"b", b"c"]
    >>> build_proof(leaves, 2) == (hash_node(hash_leaf(b"a"), hash_leaf(b"b")),)
    True
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    level = [hash_leaf(leaf) for leaf in leaves]
    path: list[Hash] = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
        index //= 2
    return tuple(path)


def verify_proof(root: bytes, leaf: bytes, index: int, leaves_count: int, path: Sequence[bytes]) -> bool:
    """Return True if `path` shows that `leaf` is number `index` of the `leaves_count` leaves under `root`.

    >>> leaves = [b"a", b"b", b"c"]
    >>> path = build_proof(leaves, 1)
    >>> root = compute_root(leaves)
    >>> verify_proof(root, b"b", 1, 3, path), verify_proof(root, b"c", 1, 3, path)
    (True, False)
    """
    if not 0 <= index < leaves_count or any(len(step) != HASH_BYTES for step in path):
        return False
    node = hash_leaf(leaf)
    steps = iter(path)
    last = leaves_count - 1
    while last > 0:
        if index % 2 or index < last:
            sibling = next(steps, None)
            if sibling is None:
                return False
            node = hash_node(sibling, node) if index % 2 else hash_node(node, sibling)
        index //= 2
        last //= 2
    return next(steps, None) is None and node == root
