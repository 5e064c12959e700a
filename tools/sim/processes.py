"""The first state of a simulated process: what its runner would build from what is on the disk."""

from __future__ import annotations

import numpy as np

import agent.core.values as av
import miner.core.values as mv
from agent.core import machine as agent_machine
from agent.core.state import AgentState
from flchain.base.fixedpoint import decode_vector
from flchain.ledger.certificate import verify_certificate
from flchain.light.follow import build_light_state, restore
from flchain.rules.blocks import apply_block
from miner.core import machine as miner_machine
from miner.core.state import MinerState
from miner.core.tip import extend
from miner.edge.ledger.base import restore_base
from tools.sim.chain import PARAMETERS_COUNT, BuiltChain
from tools.sim.world import Node


def build_miner(chain: BuiltChain, node: Node, rounds: int) -> MinerState:
    """Return the state of a miner that has replayed its blocks, and signs no second message for a height that it has
    signed for."""
    disk = node.disk
    standing = restore_base(chain.state, disk.base[1] if disk.base is not None else None)
    for block, certificate in disk.blocks:
        before = standing.chain
        applied, after = apply_block(before, block.header_bytes, block.body_bytes)
        verify_certificate(before.chain, before.validators, after.height, applied.hash, certificate)
        standing = extend(standing, applied, certificate, after)
    assert chain.genesis.compute_id() == standing.chain.chain
    own = [message for message in disk.own if message[0] == standing.chain.height + 1]
    blocks = {block.hash: block for _, _, block in own if block is not None}
    raws = tuple(dict.fromkeys(raw for _, raw, _ in own))
    config = mv.MinerConfig(node.identity, rounds)
    return miner_machine.build_miner_state(config, standing, raws, tuple(blocks.values()))


def build_agent(chain: BuiltChain, node: Node, rounds: int, *, is_mining: bool) -> AgentState:
    """Return the state of a device at its stored position. Every other device, the last one included, is light."""
    is_full = is_mining or (len(chain.devices) - node.number) % 2 == 0
    light = build_light_state(chain.genesis, chain.model, is_full=is_full)
    residual = np.zeros(PARAMETERS_COUNT, np.int32)
    if node.disk.position is not None:
        head, model, left_out, saved = node.disk.position
        light = restore(light, head, model, left_out)
        residual = decode_vector(saved, PARAMETERS_COUNT)
    miners = [(key.address, key.public_key) for key in chain.miners]
    home = next(e.home for e in chain.genesis.devices if e.public_key == node.identity.public_key)
    first = [bytes(key.address) for key in chain.miners].index(home)
    config = av.AgentConfig(node.identity, tuple(miners[first:] + miners[:first]), rounds, is_mining=is_mining)
    stored = (node.disk.work, dict(node.disk.outbox))
    return agent_machine.build_agent_state(config, light, residual, *stored, saved_scores=node.disk.scores)
