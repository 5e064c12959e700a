"""Orders in a simulation: holders pay and delegate, and a miner without a seat bonds and is elected.

Bonds are so much larger than the holders' balances that no order gives liars a third of the power.
"""

from __future__ import annotations

from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import Address
from flchain.wire.envelope import seal
from flchain.wire.messages import AnyMessage, Delegate, Transfer, Undelegate
from flchain.wire.packets import PacketType, encode_packet
from tools.sim.chain import BuiltChain, build_chain
from tools.sim.network import Network

BOND = 1_000
BOND_MIN = 400
PAYMENT = 700
HOLDERS = 3
AMOUNT_MAX = 30
REPEATS_MS = (0, 400, 1_500)
"""An order is sent more than once, for miners that were offline."""


def build_stake_chain(validators: int, devices: int, **changes: Any) -> BuiltChain:
    """Return a chain with an election every round, and one more miner than validators, whose bond is too small for a
    seat."""
    return build_chain(
        validators + 1,
        devices,
        powers=[BOND] * validators + [1],
        holders=HOLDERS,
        bond_min=BOND_MIN,
        epoch_rounds=1,
        power_cap_bp=3_300,
        **changes,
    )


def schedule_orders(network: Network, calm_ms: int) -> None:
    """Plan orders: the miner without a seat is paid, bonds, and is elected; holders delegate and undelegate."""
    rng, chain = network.rng, network.chain
    if not chain.holders:
        return
    payer, *holders = chain.holders
    spare = chain.miners[-1]
    start_ms = rng.randint(100, calm_ms // 2)
    network.at(start_ms, send_order, network, payer, Transfer(0, spare.public_key, PAYMENT))
    # The bond may arrive before the payment is in a block; then it waits in the pools.
    network.at(start_ms + rng.randint(0, 500), send_order, network, spare, Delegate(0, spare.address, PAYMENT - 1))
    for holder in holders:
        held: list[tuple[Address, int]] = []
        for sequence in range(rng.randint(2, 6)):
            if held and rng.random() < 0.4:
                candidate, amount = held.pop()
                order: AnyMessage = Undelegate(sequence, candidate, amount)
            else:
                candidate, amount = rng.choice(chain.miners).address, rng.randint(1, AMOUNT_MAX)
                held.append((candidate, amount))
                order = Delegate(sequence, candidate, amount)
            network.at(rng.randint(100, calm_ms), send_order, network, holder, order)


def send_order(network: Network, sender: Identity, order: AnyMessage) -> None:
    """Send an order to all miners, more than once, as a holder's own program does."""
    packet = encode_packet(PacketType.MESSAGE, seal(order, network.chain.id, sender))
    network.counts["orders"] += 1
    for delay_ms in REPEATS_MS:
        network.at(delay_ms, network.broker.inject, network.topics.device_up(sender.address), packet)
