"""Double spending under proof of work: on the block tree alone, and by a miner of a whole network.

The attacker mines a secret branch, and publishes it once the block that its victim waits for is final and the secret
branch has more work (Nakamoto 2008, section 11; Rosenfeld 2014, "Analysis of hashrate-based double spending").
"""

from __future__ import annotations

import random
from math import comb

from flchain.base.crypto import hash_tagged
from flchain.base.types import Hash
from flchain.consensus.block_tree import BlockTree, SealedHeader, build_tree, insert_connected
from flchain.consensus.pow import NONCE_BYTES, PowParams, compute_seal_hash, compute_target
from tools.sim.pow.network import RoundNetwork

DEFICIT_MAX = 35
"""The attacker gives up this many blocks behind; with 45% of the hashrate it would still win once in a thousand."""
KEPT_DEPTH = 400
"""The blocks that a victim keeps: a secret branch that forks off earlier comes too late."""
INTERVAL_MS = 1_000
WATCH_MS = 20


def compute_success(share: float, depth: int) -> float:
    """Return the probability that an attacker with this share of the hashrate undoes a block of this depth.

    While honest miners find depth + 1 blocks, the attacker finds m, negative binomial; then it has to gain n + 1 blocks
    if it is n behind, with probability (q / p) ** (n + 1). This is Rosenfeld's equation 1 without the block that his
    attacker has found beforehand. It is 1 for a share of one half or more.
    """
    if share >= 0.5:
        return 1.0
    q, p, needed = share, 1 - share, depth + 1
    lost = 0.0
    for m in range(needed + 1):
        lost += comb(m + needed - 1, m) * p**needed * q**m * (1 - (q / p) ** (needed - m + 1))
    return 1 - lost


def simulate_attack(rng: random.Random, share: float, depth: int) -> bool:
    """Simulate one attack on a victim's tree; return True if a final block was undone."""
    genesis = Hash(bytes(32))
    public: list[SealedHeader] = []
    secret: list[SealedHeader] = []
    while len(public) - len(secret) <= DEFICIT_MAX and len(public) < KEPT_DEPTH:
        branch = secret if rng.random() < share else public
        branch.append(_make_block(rng, branch[-1].hash if branch else genesis, len(branch) + 1))
        if len(public) > depth and len(secret) > len(public):
            params = PowParams(INTERVAL_MS, 16 * INTERVAL_MS, compute_target(2**20), depth, KEPT_DEPTH)
            victim = _tell(build_tree(params, genesis), public)
            return _tell(victim, secret).finals_undone > 0
    return False


def _make_block(rng: random.Random, parent: Hash, height: int) -> SealedHeader:
    """Return a block that is on schedule, so that every block has the same work."""
    block_hash = hash_tagged("attack", rng.randbytes(16))
    return SealedHeader(block_hash, parent, height, INTERVAL_MS * height, rng.randbytes(NONCE_BYTES))


def _accept_seal(block_hash: Hash, _target: int, seal: bytes) -> int:
    return compute_seal_hash(block_hash, seal)


def _tell(tree: BlockTree, secret: list[SealedHeader]) -> BlockTree:
    for block in secret:
        tree = insert_connected(tree, block, _accept_seal)
    return tree


def withhold(network: RoundNetwork, number: int, start_ms: int) -> None:
    """Let a miner of a "pow" network keep its blocks secret from `start_ms` on, and ignore those of others.

    It publishes them all when a block above the fork is final for an honest miner and the secret branch has more work.
    """
    node = network.nodes[number]

    def begin() -> None:
        node.held = []
        network.at(WATCH_MS, lambda: watch(node.state.chain.height))

    def watch(fork_height: int) -> None:
        honest = [other for other in network.nodes if other is not node]
        is_believed = any(len(other.finals) > fork_height for other in honest)
        work = max(other.state.tree.blocks[other.state.tree.tip].total_work for other in honest)
        tree = node.state.tree
        if not is_believed or tree.blocks[tree.tip].total_work <= work:
            network.at(WATCH_MS, lambda: watch(fork_height))
            return
        held, node.held = node.held or [], None
        for topic, packet in held:
            network.publish(node, topic, packet, qos=1)

    network.at(start_ms, begin)
