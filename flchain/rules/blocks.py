"""The rules of a block.

`process_block` reads as a table of contents: position, messages, settlement, rotation, header.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from flchain.base.errors import InvalidBlock, InvalidMessage, WrongHeight
from flchain.base.frozen import replace
from flchain.base.types import EARLIEST, Address, Hash, Height, UnixMillis, View
from flchain.consensus import PROPOSER_RULES
from flchain.consensus.proposer import Priorities, advance, compute_proposer
from flchain.ledger.block import Block, compute_body_root, decode_block
from flchain.ledger.limits import ORDERS_MAX, TRANSACTION_FRAME_BYTES, TRANSACTIONS_BYTES_MAX
from flchain.ledger.state import ChainState, RoundState, compute_validators_hash, find_validator
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.orders import ORDER_RULES, get_order_key, process_order, verify_order
from flchain.rules.phases import NEXT_PHASES, PHASE_KINDS, is_phase_over, is_round_over
from flchain.rules.settlement import compute_settlement, process_settlement
from flchain.rules.transactions import add_transactions, check_transaction, verify_transaction
from flchain.wire.envelope import (
    ORDERS_BYTES_MAX,
    Known,
    Letter,
    Verified,
    encode_struct,
    know_nothing,
    open_known,
)
from flchain.wire.messages import Body, Header, Phase, Settlement

ORDER_KINDS = frozenset(ORDER_RULES)


def build_block(
    state: ChainState,
    proposer: Address,
    transactions: Iterable[Letter],
    orders: Iterable[Letter] = (),
    clock_ms: UnixMillis = EARLIEST,
) -> tuple[Block, ChainState]:
    """Return the block that extends `state` with these messages, and the state after it.

    Raises InvalidMessage's subclasses.

    Its time is the proposer's clock, or just after the block before if that clock is behind.
    """
    ordered = sorted(transactions, key=lambda letter: letter.sender)
    listed = sorted(orders, key=get_order_key)
    time_ms = UnixMillis(max(clock_ms, state.time_ms + 1))
    after, _ = _process_messages(replace(state, time_ms=time_ms), ordered, listed)
    settlement = compute_settlement(after) if is_round_over(after) else None
    body = Body(tuple(letter.raw for letter in ordered), tuple(letter.raw for letter in listed), settlement)
    after = _rotate_proposers(state, _close_phase(after, settlement))
    header = _build_header(state, after, proposer, compute_body_root(body))
    header_bytes = encode_struct(header)
    block = Block(header, header_bytes, encode_struct(body))
    return block, replace(after, height=Height(header.height), head=block.hash)


def apply_block(
    state: ChainState, header_bytes: bytes, body_bytes: bytes, known: Known = know_nothing
) -> tuple[Block, ChainState]:
    """Check a block against the state before it; return the block and the state after it.

    Raises InvalidMessage's subclasses.

    Messages whose very bytes are `known` have their signatures checked and their updates decoded already.
    """
    block, body = decode_block(header_bytes, body_bytes)
    return block, process_block(state, block, body, known)[0]


def process_block(
    state: ChainState, block: Block, body: Body, known: Known = know_nothing
) -> tuple[ChainState, tuple[Verified, ...]]:
    """Return the state after a decoded block (see `apply_block`), and the messages in it, which are now known.

    Raises InvalidMessage's subclasses.
    """
    _verify_position(state, block.header)
    after = replace(state, time_ms=UnixMillis(block.header.time_ms))
    if len(body.orders) > ORDERS_MAX or sum(map(len, body.orders)) > ORDERS_BYTES_MAX:
        raise InvalidBlock(f"{len(body.orders)} orders are too many for one block")
    transactions = (open_known(raw, state.chain, known) for raw in body.transactions)
    orders = (open_known(raw, state.chain, known) for raw in body.orders)
    after, said = _process_messages(after, transactions, orders)
    _verify_settlement(after, body)
    after = _rotate_proposers(state, _close_phase(after, body.settlement))
    if find_validator(state, block.header.proposer) is None:
        raise InvalidBlock("the proposer is not a validator")
    expected = _build_header(state, after, Address(block.header.proposer), Hash(block.header.body_root))
    if expected != block.header:
        raise InvalidBlock(f"wrong {_name_difference(expected, block.header)} in the header")
    return replace(after, height=Height(block.header.height), head=block.hash), said


def _verify_position(state: ChainState, header: Header) -> None:
    if header.chain != state.chain:
        raise InvalidBlock("a block of another chain")
    if header.height != state.height + 1:
        raise WrongHeight(f"block {header.height} does not follow height {state.height}")
    if header.previous != state.head:
        raise InvalidBlock("the block does not extend the head")
    if header.time_ms <= state.time_ms:
        raise InvalidBlock("the block is not later than the one before")


_Processed: TypeAlias = tuple[ChainState, tuple[Verified, ...]]


def _process_messages(state: ChainState, transactions: Iterable[Letter], orders: Iterable[Letter]) -> _Processed:
    state, said = _process_transactions(state, transactions)
    state, ordered = _process_orders(state, orders)
    # While devices train, a block may come only for its orders: that must not use up the devices' time.
    has_begun = state.round.phase is not Phase.COMMIT or bool(state.round.commits)
    return replace(state, round=replace(state.round, heights=state.round.heights + has_begun)), said + ordered


def _process_transactions(state: ChainState, transactions: Iterable[Letter]) -> _Processed:
    """Process all of a block's transactions: each is checked against the round before the block, then all are added."""
    last = b""
    kind = PHASE_KINDS.get(state.round.phase)
    said: list[Verified] = []
    for letter in transactions:
        if letter.kind is not kind:
            raise InvalidBlock(f"a {letter.kind.name} in a block of phase {state.round.phase.name}")
        if letter.sender <= last:
            raise InvalidBlock("transactions are not in order of their senders")
        last = letter.sender
        said.append(check_transaction(state, verify_transaction(state, letter)))
    if not said or kind is None:
        return state, ()
    return replace(state, round=add_transactions(state, kind, said)), tuple(said)


def _process_orders(state: ChainState, orders: Iterable[Letter]) -> _Processed:
    letters = tuple(orders)
    keys = [get_order_key(letter) for letter in letters]
    if any(first >= second for first, second in pairwise(keys)):
        raise InvalidBlock("orders are not in order of sender and sequence")
    said = []
    for letter in letters:
        said.append(verify_order(state, letter))
        state = process_order(state, said[-1].message, letter.sender, said[-1].words)
    return state, tuple(said)


def _verify_settlement(after: ChainState, body: Body) -> None:
    expected = compute_settlement(after) if is_round_over(after) else None
    if body.settlement != expected:
        raise InvalidBlock("the settlement is not what the scores give")


def _close_phase(state: ChainState, settlement: Settlement | None) -> ChainState:
    """Open the next round or phase, if this block closes the present one."""
    if settlement is not None:
        return process_settlement(state, settlement)
    if state.round.phase is Phase.OPEN:
        return replace(state, round=RoundState(state.round.number, Phase.COMMIT))
    if is_phase_over(state):
        return replace(state, round=replace(state.round, phase=NEXT_PHASES[state.round.phase], heights=0))
    return state


def _rotate_proposers(before: ChainState, state: ChainState) -> ChainState:
    """Pass the proposer's turn on, with the priorities before the block and the weights after it."""
    priorities, _ = advance(_get_priorities(before), _get_weights(state), 1)
    turns = dict(priorities)
    return replace(state, candidates=tuple(replace(c, priority=turns.get(c.address, 0)) for c in state.candidates))


def _get_priorities(state: ChainState) -> Priorities:
    return tuple((validator.address, validator.priority) for validator in state.validators)


def _get_weights(state: ChainState) -> tuple[tuple[Address, int], ...]:
    rule = PROPOSER_RULES[state.params.proposer_rule]
    return tuple((v.address, rule(v.power, v.knowledge)) for v in state.validators)


def get_proposer(state: ChainState, view: View) -> Address:
    """Return the proposer of the next height in this view: a pure function of the final state."""
    return compute_proposer(_get_priorities(state), _get_weights(state), view)


def _build_header(state: ChainState, after: ChainState, proposer: Address, body_root: Hash) -> Header:
    return Header(
        version=1,
        chain=state.chain,
        height=state.height + 1,
        time_ms=after.time_ms,
        round=state.round.number,
        phase=state.round.phase,
        next_round=after.round.number,
        next_phase=after.round.phase,
        previous=state.head,
        proposer=proposer,
        body_root=body_root,
        state_root=compute_state_root(after),
        model_hash=after.model_hash,
        validators_hash=compute_validators_hash(state.validators),
        next_validators_hash=compute_validators_hash(after.validators),
    )


def _name_difference(expected: Header, found: Header) -> str:
    names = [name for name in Header.__struct_fields__ if getattr(expected, name) != getattr(found, name)]
    return ", ".join(names)


def can_carry(transactions: Iterable[Letter]) -> bool:
    """Return True if one body has room for all of these."""
    return sum(len(letter.raw) + TRANSACTION_FRAME_BYTES for letter in transactions) <= TRANSACTIONS_BYTES_MAX


def select_transactions(state: ChainState, waiting: Iterable[Letter]) -> tuple[Verified, ...]:
    """Return those waiting messages that the next block may carry, at most one per sender.

    The others break a rule, or no longer fit into the body and are for a later block.
    """
    room = TRANSACTIONS_BYTES_MAX
    kind = PHASE_KINDS.get(state.round.phase)
    chosen: dict[Address, Verified] = {}
    for letter in waiting:
        needed = len(letter.raw) + TRANSACTION_FRAME_BYTES
        if letter.kind is not kind or needed > room or letter.sender in chosen:
            continue
        try:
            chosen[letter.sender] = check_transaction(state, verify_transaction(state, letter))
        except InvalidMessage:
            continue
        room -= needed
    return tuple(chosen.values())


def select_orders(state: ChainState, waiting: Iterable[Letter]) -> tuple[Verified, ...]:
    """Return those waiting orders that the next block may carry. The others wait or are wrong."""
    chosen: list[Verified] = []
    room = ORDERS_BYTES_MAX
    for letter in sorted(waiting, key=get_order_key):
        if len(chosen) == ORDERS_MAX or len(letter.raw) > room:
            break
        try:
            said = verify_order(state, letter)
            state = process_order(state, said.message, said.sender, said.words)
        except InvalidMessage:
            continue
        chosen.append(said)
        room -= len(letter.raw)
    return tuple(chosen)
