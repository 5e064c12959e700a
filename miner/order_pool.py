"""Orders that wait for a block: bounded, a few of each sender, dropped once no later block can carry them."""

from __future__ import annotations

from flchain.chain import ORDER_KINDS
from flchain.errors import InsufficientFunds, InvalidMessage, PoolFull, WrongSequence
from flchain.messages import Kind
from flchain.orders import process_order, verify_order
from flchain.state import ChainState, find_account
from flchain.types import Hash
from flchain.wire import Envelope, open_envelope

ORDERS_MAX = 1_024
ORDERS_PER_SENDER_MAX = 16

OrderPool = dict[Hash, bytes]
"""Signed orders by digest."""


def insert(pool: OrderPool, state: ChainState, envelope: Envelope) -> OrderPool:
    """Add an order that is right now or may be later. Raises InvalidMessage's subclasses; PoolFull: try again later."""
    assert envelope.kind in ORDER_KINDS
    if not _is_waiting(state, envelope):
        raise WrongSequence(f"order {envelope.number} of {envelope.sender.hex()} is done")
    own = sum(open_envelope(raw, state.chain).sender == envelope.sender for raw in pool.values())
    if len(pool) >= ORDERS_MAX or own >= ORDERS_PER_SENDER_MAX:
        raise PoolFull("too many orders wait already")
    return {**pool, envelope.digest(): envelope.raw}


def prune(pool: OrderPool, state: ChainState) -> OrderPool:
    """Without the orders that are done, or that a rule has come to refuse."""
    kept: OrderPool = {}
    for digest, raw in pool.items():
        try:
            if _is_waiting(state, open_envelope(raw, state.chain)):
                kept[digest] = raw
        except InvalidMessage:
            continue
    return kept


def _is_waiting(state: ChainState, envelope: Envelope) -> bool:
    """False for what is done; raises what is wrong with it. One that must wait for its turn or for money is right."""
    message = verify_order(state, envelope)
    account = find_account(state, envelope.sender)
    assert account is not None, "verified"
    if envelope.kind is not Kind.EVIDENCE and envelope.number != account.sequence:
        return envelope.number > account.sequence
    try:
        process_order(state, message, envelope.sender)
    except InsufficientFunds:
        return True
    return True
