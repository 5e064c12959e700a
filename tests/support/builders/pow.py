"""Small values for the tests of proof of work: sealed headers without bodies, whose seals are believed or searched."""

from __future__ import annotations

import random
from collections.abc import Iterable

from flchain.base.crypto import hash_tagged
from flchain.base.types import Hash
from flchain.consensus.block_tree import (
    BlockTree,
    SealedHeader,
    build_tree,
    get_branch,
    get_next_target,
    insert_connected,
)
from flchain.consensus.pow import (
    NONCE_BYTES,
    PowParams,
    compute_next_target,
    compute_seal_hash,
    compute_target,
    compute_work,
)

GENESIS = Hash(b"G" * 32)
INTERVAL_MS = 1_000
PARAMS = PowParams(INTERVAL_MS, 16 * INTERVAL_MS, compute_target(2**8), final_depth=3, kept_depth=12)


def make_header(parent: Hash, height: int, name: str = "", time_ms: int | None = None) -> SealedHeader:
    """A block whose hash follows from its place and `name`; its seal is a nonce like any other."""
    block_hash = hash_tagged("test-block", parent + height.to_bytes(8, "big") + name.encode())
    return SealedHeader(block_hash, parent, height, INTERVAL_MS * height if time_ms is None else time_ms, b"n" * 8)


def make_chain(parent: Hash, height: int, count: int, name: str = "") -> list[SealedHeader]:
    """`count` blocks one upon the other, the first of this height."""
    made: list[SealedHeader] = []
    for number in range(count):
        made.append(make_header(made[-1].hash if made else parent, height + number, name))
    return made


def believe(block_hash: Hash, target: int, seal: bytes) -> int:
    """A seal rule that takes every seal for good."""
    return compute_seal_hash(block_hash, seal)


def find_seal(block_hash: Hash, target: int, first_nonce: int, tries: int) -> bytes | None:
    """Try `tries` nonces from `first_nonce` on, modulo 2**64; return the first seal that meets the target, or None."""
    for nonce in range(first_nonce, first_nonce + tries):
        seal = (nonce % 2**64).to_bytes(NONCE_BYTES, "big")
        if compute_seal_hash(block_hash, seal) <= target:
            return seal
    return None


def count_stale(tree: BlockTree) -> int:
    """Count the sealed blocks on branches that do not count: in the literature often called orphaned."""
    return tree.stale_pruned + len(tree.blocks) - len(get_branch(tree))


def mine(tree: BlockTree, parent: Hash, time_ms: int, name: str = "") -> SealedHeader:
    """A block on `parent` with a nonce that was really searched for."""
    header = make_header(parent, tree.blocks[parent].header.height + 1, name, time_ms)
    seal = find_seal(header.hash, get_next_target(tree, parent), 0, 2**20)
    assert seal is not None
    return SealedHeader(header.hash, parent, header.height, time_ms, seal)


def draw_tree(rng: random.Random, count: int) -> list[SealedHeader]:
    """Blocks of a random tree, parents first; times are drawn too, so that branches differ in work a block."""
    made = [SealedHeader(GENESIS, GENESIS, 0, 0, b"")]
    for number in range(count):
        parent = rng.choice(made[-4:])
        made.append(
            make_header(parent.hash, parent.height + 1, str(number), parent.time_ms + rng.randint(1, 8 * INTERVAL_MS))
        )
    return made[1:]


def find_best(blocks: Iterable[SealedHeader], params: PowParams) -> Hash:
    """The tip of all these blocks by the rule written out once more: most work, then the lower hash of the seal."""
    works: dict[Hash, int] = {GENESIS: 0}
    firsts: dict[Hash, int] = {}
    known = {GENESIS: SealedHeader(GENESIS, GENESIS, 0, 0, b"")}
    best = (0, 0, GENESIS)
    for block in sorted(blocks, key=lambda block: block.height):
        parent = known[block.previous]
        firsts[block.hash] = block.time_ms if block.height == 1 else firsts[parent.hash]
        target = compute_next_target(params, firsts.get(parent.hash, 0), parent.height, parent.time_ms)
        works[block.hash] = works[parent.hash] + compute_work(target)
        known[block.hash] = block
        best = max(best, (works[block.hash], -compute_seal_hash(block.hash, block.seal), block.hash))
    return best[2]


def plant(blocks: Iterable[SealedHeader], params: PowParams = PARAMS) -> BlockTree:
    """A tree in which these have been inserted in this order."""
    tree = build_tree(params, GENESIS)
    for block in blocks:
        tree = insert_connected(tree, block, believe)
    return tree
