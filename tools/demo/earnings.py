"""The earnings of devices for their scores, from a miner's ledger."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from flchain.base.types import Address, Height, ModelVector
from flchain.incentives import REWARD_RULES
from flchain.ledger.genesis import Genesis
from flchain.ledger.state import ChainState, build_genesis_state
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct
from flchain.wire.messages import Body
from flchain_edge.model.model_files import compute_initial_model
from flchain_edge.model.tflite import TfliteModel
from miner.edge.ledger.ledger import StoredBlock, replay_block
from tools.demo.results import query, read_end
from tools.network.layout import Network


def sum_mined(ledger: Path, genesis: Genesis, initial_model: ModelVector) -> dict[Address, int]:
    """Return what each device has earned by its scores, by replaying the ledger from genesis.

    That is all that settlements pay a device, except the reward for its update. Raises LedgerCorrupt.
    """
    state, mined = build_genesis_state(genesis, initial_model), Counter[Address]()
    for row in query(ledger, "SELECT height, hash, header, certificate, body FROM blocks ORDER BY height"):
        block = StoredBlock(Height(row[0]), *row[1:])
        after = replay_block(state, block)
        if after.round.number > state.round.number:
            mined.update(_split_pay(state, after, decode_struct(block.body, Body, BODY_BYTES_MAX)))
        state = after
    return dict(mined)


def _split_pay(before: ChainState, after: ChainState, body: Body) -> dict[Address, int]:
    assert body.settlement is not None
    accepted = frozenset(body.settlement.accepted)
    updates = tuple((u.sender, u.samples) for u in before.round.reveals if u.sender in accepted)
    of_updates = REWARD_RULES[before.params.reward_rule](updates, before.params.reward_per_update)
    paid = {d: after.accounts_by_address[d].balance - before.accounts_by_address[d].balance for d in _list(before)}
    return {device: amount - of_updates.get(device, 0) for device, amount in paid.items()}


def _list(state: ChainState) -> list[Address]:
    return [device.address for device in state.devices]


def read_mined(network: Network) -> dict[str, int]:
    """Return the same by name, for agents that have earned anything, from the longest ledger."""
    ends = {miner.database: read_end(miner, network.genesis).height for miner in network.miners}
    initial_model = compute_initial_model(TfliteModel((network.out / "model.tflite").read_bytes()))
    mined = sum_mined(max(ends, key=lambda ledger: ends[ledger]), network.genesis, initial_model)
    return {node.name: mined[node.address] for node in network.agents if mined.get(node.address)}
