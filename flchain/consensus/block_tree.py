"""The tree of sealed blocks, and which branch counts: the one with the most work (Nakamoto 2008).

Of two tips with equal work the one whose seal has the lower hash counts. Bitcoin keeps the one it saw first; then nodes
disagree until the next block, and the choice depends on the order of arrival. Here the same blocks in any order give
the same tip, and winning a tie on purpose takes as much work as a block.

The tree is a frozen value. Bodies are up to the caller: it inserts a block whose parent is known only after
`apply_block`, and then the orphans that `pop_orphans` returns for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from flchain.base.errors import DuplicateMessage, InvalidBlock, InvalidMessage, PoolFull, WrongHeight
from flchain.base.frozen import replace
from flchain.base.types import Hash
from flchain.consensus.pow import PowParams, SealRule, compute_next_target, compute_work, verify_seal

ORPHANS_MAX = 64
"""Blocks kept whose parent is unknown; one more takes the place of the oldest."""
BLOCKS_MAX = 1_024
"""Blocks kept in all branches; when full a block is refused and may come again once the tip has moved on."""


@dataclass(frozen=True)
class SealedHeader:
    """What the tree knows of a block. `time_ms` is the miner's claim, since an epoch that all share."""

    hash: Hash
    previous: Hash
    height: int
    time_ms: int
    seal: bytes


@dataclass(frozen=True)
class TreeBlock:
    """A block of the tree: its seal is checked and its parent known (except for the root)."""

    header: SealedHeader
    target: int
    seal_hash: int
    total_work: int
    """The work of its whole branch, from the genesis."""
    anchor_ms: int
    """Time of block 1 of its branch."""

    def get_rank(self) -> tuple[int, int]:
        """Return the rank as a tip; the greater one is better."""
        return self.total_work, -self.seal_hash


@dataclass(frozen=True)
class BlockTree:
    """Everything from `root` on. `orphans` are in order of arrival."""

    params: PowParams
    root: Hash
    tip: Hash
    final: Hash
    """The newest block that was ever `final_depth` deep, unless a reorganisation has undone it."""
    blocks: dict[Hash, TreeBlock]
    orphans: dict[Hash, SealedHeader] = field(default_factory=dict)
    stale_pruned: int = 0
    """Stale blocks that are no longer in the tree."""
    finals_undone: int = 0
    """Blocks that counted as final and then left the branch that counts: each is a broken promise."""


@dataclass(frozen=True)
class Change:
    """The effect of an insertion. If the tip moved: blocks to undo, newest first, then blocks to do, oldest first."""

    is_orphan: bool = False
    dropped: tuple[Hash, ...] = ()
    """Orphans dropped to make room."""
    undone: tuple[Hash, ...] = ()
    redone: tuple[Hash, ...] = ()
    finals_undone: tuple[Hash, ...] = ()
    """Those of `undone` that counted as final."""


def build_tree(params: PowParams, genesis: Hash) -> BlockTree:
    """Return the tree that holds only the genesis: height 0, no work, final."""
    root = TreeBlock(SealedHeader(genesis, genesis, 0, 0, b""), params.target_start, 0, 0, 0)
    return BlockTree(params, genesis, genesis, genesis, {genesis: root})


def get_next_target(tree: BlockTree, parent: Hash) -> int:
    """Return the target of a block on `parent`, which is in the tree."""
    block = tree.blocks[parent]
    return compute_next_target(tree.params, block.anchor_ms, block.header.height, block.header.time_ms)


def insert(tree: BlockTree, header: SealedHeader, verify: SealRule = verify_seal) -> tuple[BlockTree, Change]:
    """Add a block, or keep it as an orphan. Raises InvalidMessage's subclasses, and the tree is as it was.

    An orphan's seal cannot be checked yet, since its target depends on its parent: hence the low ORPHANS_MAX.
    """
    if header.hash in tree.blocks or header.hash in tree.orphans:
        raise DuplicateMessage(f"block {header.hash.hex()} is known")
    parent = tree.blocks.get(header.previous)
    if parent is None:
        if header.height <= tree.blocks[tree.root].header.height + 1:
            raise WrongHeight(f"a branch from below height {tree.blocks[tree.root].header.height} comes too late")
        return _keep_orphan(tree, header)
    if len(tree.blocks) >= BLOCKS_MAX:
        raise PoolFull(f"{BLOCKS_MAX} blocks in the tree")
    block = _check(tree, parent, header, verify)
    tree = replace(tree, blocks={**tree.blocks, header.hash: block})
    if block.get_rank() <= tree.blocks[tree.tip].get_rank():
        return tree, Change()
    return _move_tip(tree, header.hash)


def _check(tree: BlockTree, parent: TreeBlock, header: SealedHeader, verify: SealRule) -> TreeBlock:
    if header.height != parent.header.height + 1:
        raise InvalidBlock(f"height {header.height} on a parent of height {parent.header.height}")
    if header.height > 1 and header.time_ms <= parent.header.time_ms:
        raise InvalidBlock("a block is later than its parent")
    target = get_next_target(tree, header.previous)
    seal_hash = verify(header.hash, target, header.seal)
    anchor_ms = parent.anchor_ms if header.height > 1 else header.time_ms
    return TreeBlock(header, target, seal_hash, parent.total_work + compute_work(target), anchor_ms)


def _keep_orphan(tree: BlockTree, header: SealedHeader) -> tuple[BlockTree, Change]:
    orphans = {**tree.orphans, header.hash: header}
    dropped = tuple(orphans)[: max(0, len(orphans) - ORPHANS_MAX)]
    kept = {block_hash: orphan for block_hash, orphan in orphans.items() if block_hash not in dropped}
    return replace(tree, orphans=kept), Change(is_orphan=True, dropped=dropped)


def pop_orphans(tree: BlockTree, parent: Hash) -> tuple[BlockTree, tuple[SealedHeader, ...]]:
    """Take out the orphans that have waited for this parent, to be inserted now."""
    children = tuple(orphan for orphan in tree.orphans.values() if orphan.previous == parent)
    kept = {block_hash: orphan for block_hash, orphan in tree.orphans.items() if orphan.previous != parent}
    return (replace(tree, orphans=kept) if children else tree), children


def iterate_ancestors(tree: BlockTree, block_hash: Hash) -> Iterator[TreeBlock]:
    """Yield the block, its parent, and so on to the root."""
    block = tree.blocks[block_hash]
    yield block
    while block.header.hash != tree.root:
        block = tree.blocks[block.header.previous]
        yield block


def compute_path(tree: BlockTree, old: Hash, new: Hash) -> tuple[tuple[Hash, ...], tuple[Hash, ...]]:
    """Return the way from one block to another: what to undo, newest first, and what to do, oldest first."""
    of_new = [block.header.hash for block in iterate_ancestors(tree, new)]
    places = {block_hash: index for index, block_hash in enumerate(of_new)}
    undone: list[Hash] = []
    for block in iterate_ancestors(tree, old):
        if block.header.hash in places:
            return tuple(undone), tuple(reversed(of_new[: places[block.header.hash]]))
        undone.append(block.header.hash)
    raise AssertionError("all blocks descend from the root")


def get_branch(tree: BlockTree) -> tuple[TreeBlock, ...]:
    """Return the branch that counts, from the root to the tip."""
    return tuple(reversed(tuple(iterate_ancestors(tree, tree.tip))))


def _move_tip(tree: BlockTree, tip: Hash) -> tuple[BlockTree, Change]:
    undone, redone = compute_path(tree, tree.tip, tip)
    final_height = tree.blocks[tree.final].header.height
    broken = tuple(block_hash for block_hash in undone if tree.blocks[block_hash].header.height <= final_height)
    branch = [block.header for block in iterate_ancestors(tree, tip)]
    deep = branch[min(tree.params.final_depth, len(branch) - 1)]
    # A branch of more work can be shorter: what was final stays so while it is on the branch that counts.
    final = deep.hash if broken or deep.height > final_height else tree.final
    tree = replace(tree, tip=tip, final=final, finals_undone=tree.finals_undone + len(broken))
    return _prune(tree, branch), Change(undone=undone, redone=redone, finals_undone=broken)


def _prune(tree: BlockTree, branch: list[SealedHeader]) -> BlockTree:
    """Forget all that does not descend from the block `kept_depth` below the tip. `branch` is newest first."""
    if len(branch) <= tree.params.kept_depth + 1:
        return tree
    root = branch[tree.params.kept_depth]
    kept: dict[Hash, TreeBlock] = {root.hash: tree.blocks[root.hash]}
    for block_hash, block in sorted(tree.blocks.items(), key=lambda item: item[1].header.height):
        if block.header.previous in kept and block_hash != root.hash:
            kept[block_hash] = block
    stale = len(tree.blocks) - len(kept) - (len(branch) - 1 - tree.params.kept_depth)
    orphans = {h: orphan for h, orphan in tree.orphans.items() if orphan.height > root.height + 1}
    return replace(tree, root=root.hash, blocks=kept, orphans=orphans, stale_pruned=tree.stale_pruned + stale)


def insert_connected(tree: BlockTree, header: SealedHeader, verify: SealRule = verify_seal) -> BlockTree:
    """Insert a block and the orphans it connects, where bodies do not matter. Invalid orphans are dropped.

    Raises InvalidMessage's subclasses for the block itself.
    """
    tree, change = insert(tree, header, verify)
    waiting = [] if change.is_orphan else [header.hash]
    while waiting:
        tree, children = pop_orphans(tree, waiting.pop())
        for child in children:
            try:
                tree, _ = insert(tree, child, verify)
            except InvalidMessage:
                continue
            waiting.append(child.hash)
    return tree
