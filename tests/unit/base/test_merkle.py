"""Merkle trees: the roots of RFC 6962, and proofs that fit only their leaf, index, size and root."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from flchain.base.merkle import build_proof, compute_root, hash_leaf, hash_node, verify_proof

# The leaves that Certificate Transparency implementations test with, and the roots of their first n.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
SIZES = range(1, 21)


def compute_root_naive(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word: split at the largest power of two below n."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    left, right = compute_root_naive(leaves[:k]), compute_root_naive(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def build_proof_naive(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if index < k:
        return [*build_proof_naive(leaves[:k], index), compute_root_naive(leaves[k:])]
    return [*build_proof_naive(leaves[k:], index - k), compute_root_naive(leaves[:k])]


def _leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % i for i in range(count)]


@pytest.mark.parametrize("count", CT_ROOTS)
def test_known_roots(count: int) -> None:
    """The first n leaves of the Certificate Transparency tests have their published root."""
    assert compute_root(CT_LEAVES[:count]).hex() == CT_ROOTS[count]
    assert compute_root_naive(CT_LEAVES[:count]).hex() == CT_ROOTS[count]


@pytest.mark.parametrize("count", SIZES)
def test_roots_and_proofs_are_the_papers(count: int) -> None:
    """Up to 20 leaves, root and every audit path are those of the paper's recursive definition, and verify."""
    leaves = _leaves(count)
    root = compute_root(leaves)
    assert root == compute_root_naive(leaves)
    for index, leaf in enumerate(leaves):
        path = build_proof(leaves, index)
        assert list(path) == build_proof_naive(leaves, index)
        assert verify_proof(root, leaf, index, count, path)


@pytest.mark.parametrize("count", SIZES)
def test_a_proof_fits_one_leaf_at_one_place(count: int) -> None:
    """A proof fails for another leaf, another index, another root, and any longer, shorter or changed path."""
    leaves = _leaves(count)
    root = compute_root(leaves)
    for index, leaf in enumerate(leaves):
        path = build_proof(leaves, index)
        assert not verify_proof(root, b"other", index, count, path)
        assert not verify_proof(hash_leaf(b"other"), leaf, index, count, path)
        for other in {-1, *range(count + 1)} - {index}:
            assert not verify_proof(root, leaf, other, count, path)
        assert not verify_proof(root, leaf, index, count, (*path, root))
        for step in range(len(path)):
            assert not verify_proof(root, leaf, index, count, path[:step] + path[step + 1 :])
            changed = bytes((path[step][0] ^ 1,)) + path[step][1:]
            assert not verify_proof(root, leaf, index, count, (*path[:step], changed, *path[step + 1 :]))
            assert not verify_proof(root, leaf, index, count, (*path[:step], path[step][:-1], *path[step + 1 :]))


def test_a_node_is_no_leaf() -> None:
    """The two hashes under a node, given as one leaf, do not make the node: the domains differ."""
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    assert compute_root([b"a", b"b"]) == hash_node(left, right)
    assert compute_root([left + right]) != compute_root([b"a", b"b"])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_proof_out_of_range(index: int) -> None:
    """There is no proof for a leaf that is not there."""
    with pytest.raises(IndexError):
        build_proof(_leaves(3), index)


def test_no_proof_in_an_empty_tree() -> None:
    """Nothing is in a tree without leaves."""
    assert not verify_proof(compute_root([]), b"", 0, 0, ())
