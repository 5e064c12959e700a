"""What a miner thinks of its peers' doings: whether a new block deserves its vote now, and who has signed twice."""

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
from miner.core import mempool, order_pool
from miner.core.values import Candidate, Effect, MinerState, Note

CLOCK_AHEAD_MAX_MS = 300_000
"""A new block's time may be so far ahead of this node's clock."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def get_pending(state: MinerState) -> mempool.Pending:
    """The messages that wait for a block of the present phase, by sender."""
    round_ = state.chain.round
    return mempool.get_pending(state.mempool, round_.number, PHASE_KINDS.get(round_.phase))


def is_timely(state: MinerState, candidate: Candidate) -> bool:
    """False for a new block that deserves no vote now, though it breaks no rule of the chain.

    Its time is far ahead of this node's clock; or it leaves out messages of devices where all that are waited for are
    in, or, while devices train and reveal, all there are. Else a single liar could use up the heights of a phase with
    blocks of nothing, and slow devices with it, or close it without them when the last height is its turn.
    """
    chain, after = state.chain, candidate.after
    if after is None:
        return True  # a matter of validity
    # The least time that a block can have is always right: once clocks were wrong, the chain may be ahead of all.
    if after.time_ms > max(state.clock_ms + CLOCK_AHEAD_MAX_MS, chain.time_ms + 1):
        return False
    present, expected = get_present(chain), get_expected(chain)
    # The pool still holds what is in a block already; no other block can carry that.
    held = {sender: said for sender, said in get_pending(state).items() if sender not in present}
    # Only what a block can do may be asked of one: with all long absent none closes the phase, nor if not all fits.
    could_close = bool(expected) and expected <= present | held.keys() and can_carry(held.values())
    is_for_devices = chain.round.phase in (Phase.COMMIT, Phase.REVEAL)
    if not held or not (could_close or is_for_devices):
        return True
    carried = {said.sender for said in candidate.said.values() if said.kind is PHASE_KINDS.get(chain.round.phase)}
    if could_close:
        return all(address in carried for address in expected - present if find_device(chain, address) is not None)
    return bool(carried)


def accuse(state: MinerState, first: bft.Vote | bft.Proposal, second: bft.Vote | bft.Proposal) -> Transition:
    """A validator has signed twice: its own words go into a block as evidence, this node's or another's."""
    guilty = first.validator if isinstance(first, bft.Vote) else first.proposer
    note = Note("a validator has signed twice", {"validator": guilty.hex(), "height": first.height})
    words = state.words.by_value
    if first not in words or second not in words:
        return state, (note,)
    evidence = messages.Evidence(first.height, *sorted((words[first].raw, words[second].raw)))
    said = seal_verified(evidence, state.chain.chain, state.config.identity)
    try:
        orders = order_pool.insert(state.orders, state.chain, said)
    except InvalidMessage:
        return state, (note,)  # judged already
    return replace(state, orders=orders), (note, state.tell_miners(said.raw))
