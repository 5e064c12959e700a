"""Orders that wait for a block: bounded, a few of each sender, dropped once no later block can carry them."""

from __future__ import annotations

from flchain.base.errors import InsufficientFunds, InvalidMessage, PoolFull, WrongSequence
from flchain.ledger.state import ChainState, find_account
from flchain.rules.blocks import ORDER_KINDS
from flchain.rules.orders import process_order, verify_order
from flchain.wire.envelope import Known, Letter, Verified, know_nothing
from flchain.wire.fields import Kind

WAITING_ORDERS_MAX = 1_024
ORDERS_PER_SENDER_MAX = 16

OrderPool = dict[bytes, Verified]
"""Verified orders by their bytes."""


def insert(pool: OrderPool, state: ChainState, letter: Letter, known: Known = know_nothing) -> OrderPool:
    """Add an order that a block can carry now or perhaps later. Raises InvalidMessage's subclasses.

    When the pool is full, an order that the next block can carry replaces one that it cannot; if there is none, this
    raises PoolFull. Waiting is free: without this rule a few accounts could keep out everybody's orders for ever, and
    evidence against themselves. `known` finds what this node has verified before: it has heard most of what evidence
    is made of.
    """
    assert letter.kind in ORDER_KINDS
    said = verify_order(state, letter, known)
    is_ready = _is_ready(state, said)
    own = sum(other.sender == said.sender for other in pool.values())
    if own >= ORDERS_PER_SENDER_MAX:
        raise PoolFull("too many orders of this sender wait already")
    if len(pool) >= WAITING_ORDERS_MAX and is_ready:
        pool = _drop_unready(pool, state)
    if len(pool) >= WAITING_ORDERS_MAX:
        raise PoolFull("too many orders wait already")
    return {**pool, said.raw: said}


def prune(pool: OrderPool, state: ChainState) -> OrderPool:
    """Return the pool without orders that are done or that a rule now refuses."""
    kept: OrderPool = {}
    for raw, said in pool.items():
        try:
            _is_ready(state, verify_order(state, said))
        except InvalidMessage:
            continue
        kept[raw] = said
    return kept


def _is_ready(state: ChainState, said: Verified) -> bool:
    """True if the next block can carry the order, False if it must wait for its turn or for money.

    Raises InvalidMessage's subclasses if no block can ever carry it, WrongSequence if one has.
    """
    gap = _get_gap(state, said)
    if gap < 0:
        raise WrongSequence(f"order {said.number} of {said.sender.hex()} is done")
    if gap:
        return False
    try:
        process_order(state, said.message, said.sender, said.words)
    except InsufficientFunds:
        return False
    return True


def _get_gap(state: ChainState, said: Verified) -> int:
    """Return how many orders of the sender must come first: 0 if it is this one's turn, negative if it is done."""
    account = find_account(state, said.sender)
    assert account is not None, "verified"
    return 0 if said.kind is Kind.EVIDENCE else said.number - account.sequence


def _drop_unready(pool: OrderPool, state: ChainState) -> OrderPool:
    """Drop the order that is furthest from its turn, otherwise one that lacks the money; none if all are ready."""
    victim = max(pool, key=lambda raw: _get_gap(state, pool[raw]))
    if not _get_gap(state, pool[victim]):  # only now the expensive check
        poor = next((raw for raw, said in pool.items() if not _is_ready(state, said)), None)
        if poor is None:
            return pool
        victim = poor
    return {raw: said for raw, said in pool.items() if raw != victim}
