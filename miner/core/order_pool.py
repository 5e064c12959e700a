"""Orders that wait for a block: bounded, a few of each sender, dropped once no later block can carry them."""

from __future__ import annotations

from flchain.base.errors import InsufficientFunds, InvalidMessage, PoolFull, WrongSequence
from flchain.base.types import Hash
from flchain.ledger.state import ChainState, find_account
from flchain.rules.blocks import ORDER_KINDS
from flchain.rules.orders import process_order, verify_order
from flchain.wire.envelope import Envelope, open_envelope
from flchain.wire.messages import Kind

WAITING_ORDERS_MAX = 1_024
ORDERS_PER_SENDER_MAX = 16

OrderPool = dict[Hash, bytes]
"""Signed orders by digest."""


def insert(pool: OrderPool, state: ChainState, envelope: Envelope) -> OrderPool:
    """Add an order that is right now or may be later. Raises InvalidMessage's subclasses; PoolFull: try again later.

    When full, one that no block could carry now goes for one that the next block can: waiting costs no fee, so that
    else a few accounts could keep everybody's orders out for ever, and evidence against them.
    """
    assert envelope.kind in ORDER_KINDS
    is_ready = _is_ready(state, envelope)
    own = sum(open_envelope(raw, state.chain).sender == envelope.sender for raw in pool.values())
    if own >= ORDERS_PER_SENDER_MAX:
        raise PoolFull("too many orders of this sender wait already")
    if len(pool) >= WAITING_ORDERS_MAX and is_ready:
        pool = _drop_unready(pool, state)
    if len(pool) >= WAITING_ORDERS_MAX:
        raise PoolFull("too many orders wait already")
    return {**pool, envelope.digest(): envelope.raw}


def prune(pool: OrderPool, state: ChainState) -> OrderPool:
    """Without the orders that are done, or that a rule has come to refuse."""
    kept: OrderPool = {}
    for digest, raw in pool.items():
        try:
            _is_ready(state, open_envelope(raw, state.chain))
        except InvalidMessage:
            continue
        kept[digest] = raw
    return kept


def _is_ready(state: ChainState, envelope: Envelope) -> bool:
    """True if the next block can carry the order, False if it must wait for its turn or for money.

    Raises what is wrong with it, WrongSequence if it is done.
    """
    message = verify_order(state, envelope)
    gap = _get_gap(state, envelope)
    if gap < 0:
        raise WrongSequence(f"order {envelope.number} of {envelope.sender.hex()} is done")
    if gap:
        return False
    try:
        process_order(state, message, envelope.sender)
    except InsufficientFunds:
        return False
    return True


def _get_gap(state: ChainState, envelope: Envelope) -> int:
    """How many orders of the sender come before this one: 0 if it is its turn, less if it is done."""
    account = find_account(state, envelope.sender)
    assert account is not None, "verified"
    return 0 if envelope.kind is Kind.EVIDENCE else envelope.number - account.sequence


def _drop_unready(pool: OrderPool, state: ChainState) -> OrderPool:
    """Without the order that is furthest from its turn, or else one that lacks the money; as it is if all are ready."""
    envelopes = {digest: open_envelope(raw, state.chain) for digest, raw in pool.items()}
    victim = max(envelopes, key=lambda digest: _get_gap(state, envelopes[digest]))
    if not _get_gap(state, envelopes[victim]):  # only now the dear look
        poor = next((digest for digest, envelope in envelopes.items() if not _is_ready(state, envelope)), None)
        if poor is None:
            return pool
        victim = poor
    return {digest: raw for digest, raw in pool.items() if digest != victim}
