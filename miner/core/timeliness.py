"""What a miner thinks of its peers' doings: whether a new block deserves its vote now, and who has signed twice."""

from __future__ import annotations

from dataclasses import replace

from flchain.base.errors import InvalidMessage
from flchain.base.types import Address
from flchain.consensus import bft
from flchain.ledger.state import ChainState, find_device
from flchain.rules.blocks import Block, can_carry
from flchain.rules.phases import PHASE_KINDS, get_expected, get_present
from flchain.wire import messages
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct, open_envelope, seal
from flchain.wire.messages import Body, Phase
from miner.core import mempool, order_pool
from miner.core.values import Candidate, Effect, MinerState, Note

CLOCK_AHEAD_MAX_MS = 300_000
"""A new block's time may be so far ahead of this node's clock."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def get_candidates(state: MinerState) -> dict[Address, bytes]:
    """The messages that wait for a block of the present phase, by sender."""
    round_ = state.chain.round
    return mempool.get_candidates(state.mempool, round_.number, PHASE_KINDS.get(round_.phase))


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
    held = {sender: raw for sender, raw in get_candidates(state).items() if sender not in present}
    # Only what a block can do may be asked of one: with all long absent none closes the phase, nor if not all fits.
    could_close = bool(expected) and expected <= present | held.keys() and can_carry(held.values())
    is_for_devices = chain.round.phase in (Phase.COMMIT, Phase.REVEAL)
    if not held or not (could_close or is_for_devices):
        return True
    carried = _get_senders(chain, candidate.block)
    if could_close:
        return all(address in carried for address in expected - present if find_device(chain, address) is not None)
    return bool(carried)


def _get_senders(chain: ChainState, block: Block) -> set[Address]:
    """Whose messages a valid block holds."""
    body = decode_struct(block.body_bytes, Body, BODY_BYTES_MAX)  # its root was checked with the block
    return {open_envelope(raw, chain.chain).sender for raw in body.transactions}


def accuse(state: MinerState, first: bft.Vote | bft.Proposal, second: bft.Vote | bft.Proposal) -> Transition:
    """A validator has signed twice: its own words go into a block as evidence, this node's or another's."""
    guilty = first.validator if isinstance(first, bft.Vote) else first.proposer
    note = Note("a validator has signed twice", {"validator": guilty.hex(), "height": first.height})
    if first not in state.raws or second not in state.raws:
        return state, (note,)
    evidence = messages.Evidence(first.height, *sorted((state.raws[first], state.raws[second])))
    raw = seal(evidence, state.chain.chain, state.config.identity)
    try:
        orders = order_pool.insert(state.orders, state.chain, open_envelope(raw, state.chain.chain))
    except InvalidMessage:
        return state, (note,)  # judged already
    return replace(state, orders=orders), (note, state.tell_miners(raw))
