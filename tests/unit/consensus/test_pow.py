"""Proof of work: seals, targets, retargeting, and the tree of blocks."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.crypto import hash_tagged
from flchain.base.errors import BadSeal, DuplicateMessage, InvalidBlock, InvalidMessage, PoolFull, WrongHeight
from flchain.base.types import Hash, Height
from flchain.consensus import CONSENSUS_RULES
from flchain.consensus.block_tree import (
    BLOCKS_MAX,
    ORPHANS_MAX,
    SealedHeader,
    build_tree,
    get_branch,
    insert,
    insert_connected,
    pop_orphans,
)
from flchain.consensus.pow import (
    HASHES,
    NONCE_BYTES,
    TARGET_MAX,
    TARGET_MIN,
    PowParams,
    compute_next_target,
    compute_seal_hash,
    compute_target,
    compute_work,
    verify_seal,
)
from flchain.ledger.certificate import verify_certificate
from tests.support.builders.chain import Driver, build_chain
from tests.support.builders.pow import (
    GENESIS,
    INTERVAL_MS,
    PARAMS,
    believe,
    count_stale,
    find_seal,
    make_chain,
    make_header,
    mine,
    plant,
)

BLOCK = Hash(b"B" * 32)


# --- work and seals ---------------------------------------------------------------------------------------------------


def test_work_of_known_targets() -> None:
    """The easiest target takes one hash, half of it two, and the hardest all but every hash there is."""
    assert compute_work(TARGET_MAX) == 1
    assert compute_work(HASHES // 2 - 1) == 2
    assert compute_work(TARGET_MIN) == HASHES // 2
    assert [compute_work(compute_target(hashes)) for hashes in (1, 2, 3, 1_000, 2**200)] == [1, 2, 3, 1_000, 2**200]


def test_a_search_takes_as_many_hashes_as_the_work_says() -> None:
    """Over 300 real searches under a target of 64 hashes, the mean count is 64 within four standard errors."""
    target, counts = compute_target(64), []
    for number in range(300):
        block_hash = hash_tagged("test", bytes((number // 256, number % 256)))
        seal = find_seal(block_hash, target, 0, 10_000)
        assert seal is not None
        verify_seal(block_hash, target, seal)
        counts.append(int.from_bytes(seal, "big") + 1)
    assert abs(sum(counts) / 300 - 64) < 4 * 64 / 300**0.5


def test_a_seal_is_of_one_block_and_one_target() -> None:
    """What seals a block seals neither another one nor the same one under a harder target."""
    target = compute_target(2**12)
    seal = find_seal(BLOCK, target, 5, 2**17)
    assert seal is not None
    assert verify_seal(BLOCK, target, seal) == compute_seal_hash(BLOCK, seal) <= target
    with pytest.raises(BadSeal):
        verify_seal(Hash(b"C" * 32), target, seal)
    with pytest.raises(BadSeal):
        verify_seal(BLOCK, compute_seal_hash(BLOCK, seal) - 1, seal)


def test_a_search_ends_and_wraps_around() -> None:
    """A search that finds nothing in its tries says so; nonces go on at 0 after the last."""
    assert find_seal(BLOCK, TARGET_MIN, 0, 100) is None
    assert find_seal(BLOCK, TARGET_MAX, 2**64 + 7, 1) == (7).to_bytes(NONCE_BYTES, "big")


@given(seal=st.binary(max_size=40), target=st.integers(TARGET_MIN, compute_target(2**40)))
def test_garbage_seals_are_the_peers_fault(seal: bytes, target: int) -> None:
    """Any bytes for a seal raise InvalidMessage's subclasses and nothing else."""
    with pytest.raises(InvalidMessage):
        verify_seal(BLOCK, target, seal)


@given(proof=st.binary(max_size=200))
def test_garbage_certificates_are_the_peers_fault(proof: bytes) -> None:
    """The same for the certificates of bft."""
    state = CHAIN.state
    with pytest.raises(InvalidMessage):
        verify_certificate(state.chain, state.validators, Height(1), BLOCK, proof)


CHAIN = build_chain()


def test_only_bft_is_final_at_once() -> None:
    """A certificate makes a block final; a seal only adds work, which a longer branch may outweigh."""
    assert {name: rule.is_final_at_once for name, rule in CONSENSUS_RULES.items()} == {"bft": True, "pow": False}


def test_neither_proof_is_taken_for_the_other() -> None:
    """The block that a certificate makes final is sealed by searching; each check refuses the other's proof."""
    driver = Driver(CHAIN)
    block, validators, target = driver.extend(), CHAIN.state.validators, compute_target(256)
    seal = find_seal(block.hash, target, 0, 2**14)
    assert seal is not None
    verify_certificate(CHAIN.id, validators, Height(1), block.hash, driver.certificates[0])
    verify_seal(block.hash, target, seal)
    with pytest.raises(InvalidMessage):
        verify_certificate(CHAIN.id, validators, Height(1), block.hash, seal)
    with pytest.raises(InvalidMessage):
        verify_seal(block.hash, target, driver.certificates[0])
    with pytest.raises(BadSeal):
        verify_seal(block.hash, 0, seal)


# --- retargeting ------------------------------------------------------------------------------------------------------


def test_on_schedule_the_target_stays() -> None:
    """Blocks that keep the interval exactly keep the target exactly."""
    for height in (1, 2, 100, 10**6):
        anchor_ms = 5_000
        late = compute_next_target(PARAMS, anchor_ms, height, anchor_ms + INTERVAL_MS * (height - 1))
        assert late == PARAMS.target_start


@pytest.mark.parametrize("half_lives", [-20, -3, -1, 1, 2, 7])
def test_a_half_life_off_schedule_is_a_factor_of_two(half_lives: int) -> None:
    """Each half-life that the chain is late doubles the target; each that it is early halves it."""
    time_ms = INTERVAL_MS * 9 + half_lives * PARAMS.half_life_ms
    expected = PARAMS.target_start * 2**half_lives if half_lives > 0 else PARAMS.target_start >> -half_lives
    assert compute_next_target(PARAMS, 0, 10, time_ms) == min(TARGET_MAX, expected)


@given(late_ms=st.integers(-200_000, 100_000))
def test_the_integer_exponential_is_the_real_one(late_ms: int) -> None:
    """Between the powers of two the integers follow 2 ** x to one part in ten thousand, its steps being 2 ** -16."""
    target = compute_next_target(PARAMS, 0, 1, late_ms)
    assert target / PARAMS.target_start == pytest.approx(2 ** (late_ms / PARAMS.half_life_ms), rel=1e-4)


@given(st.integers(1, 2**53), st.integers(0, 2**53), st.integers(0, 2**53))
def test_absurd_times_only_reach_the_bounds(height: int, anchor_ms: int, time_ms: int) -> None:
    """Whatever heights and times a header claims, a target has 256 bits and is not zero."""
    assert TARGET_MIN <= compute_next_target(PARAMS, anchor_ms, height, time_ms) <= TARGET_MAX


def measure_intervals(factor: float, seed: int) -> list[float]:
    """Intervals in ms of 1,500 blocks found by a hashrate that fits the start target, times `factor` from 500 on."""
    rng, time_ms, gaps = random.Random(seed), 0.0, []
    params = replace(PARAMS, target_start=compute_target(10**12))
    for height in range(1, 1_501):
        target = compute_next_target(params, 0, height, round(time_ms))
        rate = 10**12 / INTERVAL_MS * (factor if height > 500 else 1)
        gaps.append(rng.expovariate(rate / compute_work(target)))
        time_ms += gaps[-1]
    return gaps


@pytest.mark.parametrize("factor", [8, 1 / 8])
@pytest.mark.parametrize("seed", range(3))
def test_retargeting_follows_the_hashrate(factor: float, seed: int) -> None:
    """The hashrate jumps by 8 or falls to an eighth: within 200 blocks the wanted interval is back, to within 15%."""
    gaps = measure_intervals(factor, seed)
    at_once = sum(gaps[500:508]) / 8
    assert (at_once < INTERVAL_MS / 2) if factor > 1 else (at_once > 2 * INTERVAL_MS)
    for part in (gaps[:500], gaps[700:1_100], gaps[1_100:]):
        assert sum(part) / len(part) == pytest.approx(INTERVAL_MS, rel=0.15)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_real_seals_build_a_tree() -> None:
    """Blocks with nonces that were searched for are taken; one with another block's nonce changes nothing."""
    tree = build_tree(PARAMS, GENESIS)
    for height in range(1, 6):
        tree = insert_connected(tree, mine(tree, tree.tip, INTERVAL_MS * height))
    assert [block.header.height for block in get_branch(tree)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(BadSeal):
        insert(tree, replace(mine(tree, tree.tip, 9_000), hash=BLOCK))


def test_most_work_wins_not_most_blocks() -> None:
    """Two hard blocks found early outweigh three easy ones found late."""
    easy = [make_header(GENESIS, 1, "e", 1_000)]
    for height in (2, 3, 4):
        easy.append(make_header(easy[-1].hash, height, "e", easy[-1].time_ms + 10 * PARAMS.half_life_ms))
    hard = [easy[0]]
    for height in (2, 3):
        hard.append(make_header(hard[-1].hash, height, "h", hard[-1].time_ms + 1))
    tree = plant([*easy, *hard[1:]])
    assert (tree.blocks[easy[-1].hash].header.height, tree.tip) == (4, hard[-1].hash)


def test_a_tie_goes_to_the_lower_seal() -> None:
    """Of two blocks of equal work that one is the tip whose seal hashes lower, whichever came first."""
    pair = [make_header(GENESIS, 1, "a"), make_header(GENESIS, 1, "b")]
    expected = min(pair, key=lambda block: compute_seal_hash(block.hash, block.seal)).hash
    assert plant(pair).tip == plant(pair[::-1]).tip == expected


def test_a_reorganisation_says_what_to_undo_and_redo() -> None:
    """A longer branch undoes the newest blocks first and does the others oldest first; what was undone is stale."""
    common, short, long = make_chain(GENESIS, 1, 2), [], []
    short = make_chain(common[-1].hash, 3, 2, "short")
    long = make_chain(common[-1].hash, 3, 3, "long")
    tree = plant([*common, *short, *long[:2]])
    on_short = tree.tip == short[-1].hash
    tree, change = insert(tree, long[2], believe)
    assert tree.tip == long[2].hash
    assert change.undone == (tuple(block.hash for block in reversed(short)) if on_short else ())
    assert change.redone == tuple(block.hash for block in (long if on_short else long[2:]))
    assert count_stale(tree) == 2


def test_a_block_is_final_when_deep_enough() -> None:
    """With a depth of 3 the newest final block is always the third below the tip."""
    chain = make_chain(GENESIS, 1, 6)
    finals = [plant(chain[:count]).final for count in range(1, 7)]
    assert finals == [GENESIS, GENESIS, GENESIS, chain[0].hash, chain[1].hash, chain[2].hash]


def test_a_reorganisation_deeper_than_final_is_counted() -> None:
    """A branch that undoes 5 blocks, 2 of them final, is taken and counted as 2 broken promises; one of 3 is none."""
    common, told = make_chain(GENESIS, 1, 1), make_chain(make_chain(GENESIS, 1, 1)[-1].hash, 2, 5, "told")
    secret = make_chain(common[-1].hash, 2, 6, "secret")
    tree = plant([*common, *told, *secret[:-1]])
    if tree.tip == told[-1].hash:
        tree, change = insert(tree, secret[-1], believe)
        assert [tree.blocks[h].header.height for h in change.finals_undone] == [3, 2]
    assert tree.finals_undone == 2
    shallow = make_chain(told[1].hash, 4, 4, "shallow")
    assert plant([*common, *told, *shallow]).finals_undone == 0


def test_orphans_wait_for_their_parent_and_are_few() -> None:
    """A chain that arrives backwards is connected by its first block; of too many orphans the oldest are dropped."""
    chain = make_chain(GENESIS, 1, 10)
    assert plant(chain[::-1]).tip == chain[-1].hash
    many = make_chain(GENESIS, 1, ORPHANS_MAX + 4)
    tree = plant(many[1:])
    assert tree.tip == GENESIS
    assert list(tree.orphans) == [block.hash for block in many[4:]]
    assert plant([*many[1:], *many[:4]]).tip == many[-1].hash, "what was dropped may come again"


def test_an_invalid_orphan_is_dropped_when_its_parent_comes() -> None:
    """An orphan with no work behind it is gone as soon as its target is known, and the tree is none the worse."""
    tree = build_tree(PARAMS, GENESIS)
    first = mine(tree, GENESIS, 1_000)
    fake = make_header(first.hash, 2)
    tree = insert_connected(insert_connected(tree, fake), first)
    assert (tree.tip, tree.orphans) == (first.hash, {})
    assert pop_orphans(tree, first.hash) == (tree, ())


def test_blocks_below_the_kept_depth_are_forgotten() -> None:
    """The tree keeps so many heights; stale blocks are still counted, and a branch from below comes too late."""
    main, side = make_chain(GENESIS, 1, 40), make_chain(GENESIS, 1, 3, "side")
    tree = plant([*main[:3], *side, *main[3:]])
    assert len(tree.blocks) == PARAMS.kept_depth + 1
    assert (tree.blocks[tree.root].header.height, count_stale(tree)) == (28, 3)
    with pytest.raises(WrongHeight):
        insert(tree, make_header(side[-1].hash, 4, "side"), believe)


def test_a_tree_is_bounded() -> None:
    """However many siblings come, the tree keeps so many and refuses the rest."""
    params = PowParams(INTERVAL_MS, INTERVAL_MS, PARAMS.target_start)
    tree = build_tree(params, GENESIS)
    siblings = [make_header(GENESIS, 1, str(number)) for number in range(BLOCKS_MAX)]
    for block in siblings[:-1]:
        tree, _ = insert(tree, block, believe)
    with pytest.raises(PoolFull):
        insert(tree, siblings[-1], believe)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"height": 5}, InvalidBlock), ({"time_ms": 2_000}, InvalidBlock), ({"seal": b"short"}, InvalidMessage)],
)
def test_headers_that_break_a_rule(wrong: dict[str, Any], error: type[InvalidMessage]) -> None:
    """Height, time and seal are checked against the parent."""
    tree = plant(make_chain(GENESIS, 1, 2))
    header = SealedHeader(BLOCK, tree.tip, 3, 3_000, bytes(NONCE_BYTES))
    with pytest.raises(error):
        insert(tree, replace(header, **wrong))


def test_a_known_block_is_a_duplicate() -> None:
    """A block in the tree, and an orphan too, are refused when they come again."""
    chain = make_chain(GENESIS, 1, 3)
    tree = plant([chain[0], chain[2]])
    for again in (chain[0], chain[2]):
        with pytest.raises(DuplicateMessage):
            insert(tree, again, believe)
