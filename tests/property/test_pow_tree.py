"""Fork choice: the same blocks give the same tip, whatever the order, and it is the one with most work."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flchain.consensus.block_tree import build_tree, get_branch, insert, insert_connected, iterate_ancestors
from flchain.consensus.pow import PowParams
from tests.support.builders.pow import GENESIS, PARAMS, believe, count_stale, draw_tree, find_best, plant

WIDE = replace(PARAMS, kept_depth=64)
seeds = st.integers(0, 2**32)


def shuffle(rng: random.Random, params: PowParams, count: int) -> None:
    blocks = draw_tree(rng, count)
    expected = find_best(blocks, params)
    for _ in range(3):
        rng.shuffle(blocks)
        tree = plant(blocks, params)
        assert tree.tip == expected
        assert not tree.orphans
        assert len(tree.blocks) == count + 1
        assert count_stale(tree) == count + 1 - len(get_branch(tree))


@given(seed=seeds, count=st.integers(1, 40))
def test_any_order_gives_the_tip_of_most_work(seed: int, count: int) -> None:
    """A random tree of up to 40 blocks arrives in three orders: each time the tip is that of a second reckoning."""
    shuffle(random.Random(seed), WIDE, count)


@given(seed=seeds)
@settings(max_examples=50)
def test_undoing_and_redoing_leads_from_tip_to_tip(seed: int) -> None:
    """A node that keeps a stack of blocks and follows `undone` and `redone` always holds the branch that counts."""
    rng = random.Random(seed)
    tree, stack = build_tree(WIDE, GENESIS), [GENESIS]
    for block in draw_tree(rng, 40):
        before = tree.blocks[tree.tip].total_work
        tree, change = insert(tree, block, believe)
        for undone in change.undone:
            assert stack.pop() == undone
        stack.extend(change.redone)
        assert stack == [block.header.hash for block in get_branch(tree)]
        assert tree.blocks[tree.tip].total_work >= before, "work is never given up"


@given(seed=seeds)
@settings(max_examples=50)
def test_finality_breaks_only_with_a_count(seed: int) -> None:
    """After each block the newest final block is on the branch that counts, and deep enough unless it was before."""
    rng = random.Random(seed)
    tree = build_tree(WIDE, GENESIS)
    for block in draw_tree(rng, 60):
        final, undone = tree.final, tree.finals_undone
        tree = insert_connected(tree, block, believe)
        branch = [block.header.hash for block in iterate_ancestors(tree, tree.tip)]
        assert tree.final in branch
        if tree.finals_undone == undone:
            assert final in branch
