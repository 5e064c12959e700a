"""Whether a new block deserves this miner's vote now, and what follows when a validator has signed twice."""

from __future__ import annotations

from flchain.base.errors import InvalidMessage
from flchain.base.frozen import replace
from flchain.consensus import bft
from flchain.ledger.state import find_device
from flchain.rules.blocks import can_carry
from flchain.rules.phases import PHASE_KINDS, get_expected, get_present
from flchain.wire import messages
from flchain.wire.envelope import seal_verified
from flchain.wire.messages import Phase
from miner.core.pools import mempool, order_pool
from miner.core.state import CheckedBlock, MinerState, Transition
from miner.core.values import Note

CLOCK_AHEAD_MAX_MS = 300_000
"""How far a new block's time may be ahead of this node's clock."""


def get_pending(state: MinerState) -> mempool.Pending:
    """Return the messages that wait for a block of the present phase, by sender."""
    round_ = state.chain.round
    return mempool.get_pending(state.mempool, round_.number, PHASE_KINDS.get(round_.phase))


def is_timely(state: MinerState, checked: CheckedBlock) -> bool:
    """False for a new block that deserves no vote now, though it breaks no rule of the chain.

    Its time is far ahead of this node's clock; or it leaves out devices' messages although all that are awaited are
    here; or, while devices train and reveal, it leaves out all messages that are here. Otherwise a single liar could
    use up a phase's heights with empty blocks, so that slow devices are too late, or close the phase without them.
    """
    chain, after = state.chain, checked.after
    if after is None:
        return True  # it is invalid, which is judged elsewhere
    # The least time that a block can have is always right: after clocks were wrong, the chain may be ahead of them all.
    if after.time_ms > max(state.clock_ms + CLOCK_AHEAD_MAX_MS, chain.time_ms + 1):
        return False
    present, expected = get_present(chain), get_expected(chain)
    # The pool still holds what an earlier block carries; no other block can carry that.
    held = {sender: said for sender, said in get_pending(state).items() if sender not in present}
    # A block must be able to do what is asked of it: none closes the phase if all are long absent or not all fits.
    could_close = bool(expected) and expected <= present | held.keys() and can_carry(held.values())
    is_for_devices = chain.round.phase in (Phase.COMMIT, Phase.REVEAL)
    if not held or not (could_close or is_for_devices):
        return True
    carried = {said.sender for said in checked.said.values() if said.kind is PHASE_KINDS.get(chain.round.phase)}
    if could_close:
        return all(address in carried for address in expected - present if find_device(chain, address) is not None)
    return bool(carried)


def process_equivocation(
    state: MinerState, first: bft.Vote | bft.Proposal, second: bft.Vote | bft.Proposal
) -> Transition:
    """Submit what a validator has signed twice as evidence, for a block of this node or another."""
    guilty = first.validator if isinstance(first, bft.Vote) else first.proposer
    note = Note("a validator has signed twice", {"validator": guilty.hex(), "height": first.height})
    signed = state.height_log.by_value
    if first not in signed or second not in signed:
        return state, (note,)
    evidence = messages.Evidence(first.height, *sorted((signed[first].raw, signed[second].raw)))
    said = seal_verified(evidence, state.chain.chain, state.config.identity)
    try:
        orders = order_pool.insert(state.orders, state.chain, said, state.height_log.by_bytes.get)
    except InvalidMessage:
        return state, (note,)  # the chain has it already
    return replace(state, orders=orders), (note, state.build_gossip(said.raw))
