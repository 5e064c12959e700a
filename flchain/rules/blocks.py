"""The rules of the chain. `apply_block` reads as a table of contents: form, transactions, phase, header."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from flchain.base import merkle
from flchain.base.crypto import hash_tagged
from flchain.base.errors import (
    BadCommitment,
    DuplicateMessage,
    InvalidBlock,
    InvalidMessage,
    MalformedMessage,
    UnknownSender,
    WrongRound,
)
from flchain.base.types import EARLIEST, Address, Hash, Height, UnixMillis, View
from flchain.consensus import PROPOSER_RULES
from flchain.consensus.proposer import Priorities, advance, compute_proposer
from flchain.ledger.limits import ORDERS_MAX, TRANSACTION_FRAME_BYTES, TRANSACTIONS_BYTES_MAX
from flchain.ledger.state import (
    ChainState,
    RevealedScores,
    RevealedUpdate,
    RoundState,
    compute_validators_hash,
    find_device,
    find_validator,
)
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.orders import ORDER_RULES, get_order_key, process_order, verify_order
from flchain.rules.phases import NEXT_PHASES, PHASE_KINDS, get_present, is_phase_over, is_round_over
from flchain.rules.settle import compute_settlement, decode_update, get_homes, process_settlement
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    HEADER_BYTES_MAX,
    ORDERS_BYTES_MAX,
    Envelope,
    decode_struct,
    encode_struct,
    open_envelope,
    verify_envelope,
)
from flchain.wire.messages import (
    AnyMessage,
    Body,
    Commit,
    Header,
    Kind,
    Phase,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    Settlement,
    compute_score_commitment,
    compute_update_commitment,
)

DEVICE_KINDS = frozenset({Kind.COMMIT, Kind.REVEAL})
SCORE_KINDS = frozenset({Kind.SCORE_COMMIT, Kind.SCORE_REVEAL})
"""Validators score, and devices that mine."""
ORDER_KINDS = frozenset(ORDER_RULES)


@dataclass(frozen=True)
class Block:
    """A block as it travels and as it is stored: canonical bytes of header and body."""

    header: Header
    header_bytes: bytes
    body_bytes: bytes

    @property
    def hash(self) -> Hash:
        """What validators vote for."""
        return hash_header(self.header_bytes)


def is_settling(header: Header) -> bool:
    """True if the block settles its round: its body holds the settlement."""
    return header.next_round > header.round


def is_body_for_devices(header: Header) -> bool:
    """True if devices need the body to compute the next model: it holds updates, or the settlement of a round."""
    return header.phase is Phase.REVEAL or is_settling(header)


def hash_header(header_bytes: bytes) -> Hash:
    """The block hash: the tagged hash of the header's canonical bytes."""
    return hash_tagged("block", header_bytes)


def decode_block(header_bytes: bytes, body_bytes: bytes) -> tuple[Block, Body]:
    """Decode and check a block's form and that the body is the header's. Raises InvalidMessage's subclasses."""
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    body = decode_struct(body_bytes, Body, BODY_BYTES_MAX)
    if compute_body_root(body) != header.body_root:
        raise InvalidBlock("the body is not the one the header names")
    return Block(header, header_bytes, body_bytes), body


def compute_body_root(body: Body) -> Hash:
    """RFC 6962 root over three leaves: the roots of transactions and of orders, and the settlement (empty for none)."""
    return join_body_roots(*compute_body_roots(body), body.settlement)


def compute_body_roots(body: Body) -> tuple[Hash, Hash]:
    """The roots of its transactions and of its orders."""
    return merkle.compute_root(body.transactions), merkle.compute_root(body.orders)


def join_body_roots(transactions: bytes, orders: bytes, settlement: Settlement | None) -> Hash:
    """The body's root from those of its parts."""
    return merkle.compute_root((transactions, orders, encode_struct(settlement) if settlement is not None else b""))


def build_block(
    state: ChainState,
    proposer: Address,
    transactions: Iterable[bytes],
    orders: Iterable[bytes] = (),
    clock_ms: UnixMillis = EARLIEST,
) -> tuple[Block, ChainState]:
    """The block that extends `state` with these (checked already), and the state after it.

    Its time is the proposer's clock, or just after the block before if that clock is behind.
    """
    ordered = tuple(sorted(transactions, key=lambda raw: open_envelope(raw, state.chain).sender))
    listed = tuple(sorted(orders, key=lambda raw: get_order_key(open_envelope(raw, state.chain))))
    time_ms = UnixMillis(max(clock_ms, state.time_ms + 1))
    after = _process_messages(replace(state, time_ms=time_ms), ordered, listed)
    settlement = compute_settlement(after) if is_round_over(after) else None
    body = Body(ordered, listed, settlement)
    after = _advance(state, after, body)
    header = _build_header(state, after, proposer, compute_body_root(body))
    header_bytes = encode_struct(header)
    block = Block(header, header_bytes, encode_struct(body))
    return block, replace(after, height=Height(header.height), head=block.hash)


def apply_block(state: ChainState, header_bytes: bytes, body_bytes: bytes) -> tuple[Block, ChainState]:
    """Check a block against the state before it; the block and the state after. Raises InvalidMessage's subclasses."""
    block, body = decode_block(header_bytes, body_bytes)
    _verify_position(state, block.header)
    after = replace(state, time_ms=UnixMillis(block.header.time_ms))
    after = _process_messages(after, body.transactions, body.orders)
    _verify_settlement(after, body)
    after = _advance(state, after, body)
    if find_validator(state, block.header.proposer) is None:
        raise InvalidBlock("the proposer is no validator")
    expected = _build_header(state, after, Address(block.header.proposer), Hash(block.header.body_root))
    if expected != block.header:
        raise InvalidBlock(f"wrong {_name_difference(expected, block.header)} in the header")
    return block, replace(after, height=Height(block.header.height), head=block.hash)


def _verify_position(state: ChainState, header: Header) -> None:
    if header.chain != state.chain:
        raise InvalidBlock("a block of another chain")
    if header.height != state.height + 1:
        raise WrongRound(f"block {header.height} does not follow height {state.height}")
    if header.previous != state.head:
        raise InvalidBlock("the block does not extend the head")
    if header.time_ms <= state.time_ms:
        raise InvalidBlock("the block is not later than the one before")


def _process_messages(state: ChainState, transactions: tuple[bytes, ...], orders: tuple[bytes, ...]) -> ChainState:
    last = b""
    kind = PHASE_KINDS.get(state.round.phase)
    for raw in transactions:
        envelope = open_envelope(raw, state.chain)
        if envelope.kind is not kind:
            raise InvalidBlock(f"a {envelope.kind.name} in a block of phase {state.round.phase.name}")
        if envelope.sender <= last:
            raise InvalidBlock("transactions are not in order of their senders")
        last = envelope.sender
        state = process_transaction(state, verify_transaction(state, envelope), envelope.sender)
    state = _process_orders(state, orders)
    # While devices train, a block may come for the sake of its orders alone: that must not use up their time.
    has_begun = state.round.phase is not Phase.COMMIT or bool(state.round.commits)
    return replace(state, round=replace(state.round, heights=state.round.heights + has_begun))


def _process_orders(state: ChainState, orders: tuple[bytes, ...]) -> ChainState:
    if len(orders) > ORDERS_MAX or sum(map(len, orders)) > ORDERS_BYTES_MAX:
        raise InvalidBlock(f"{len(orders)} orders are too many for one block")
    envelopes = [open_envelope(raw, state.chain) for raw in orders]
    keys = [get_order_key(envelope) for envelope in envelopes]
    if any(first >= second for first, second in pairwise(keys)):
        raise InvalidBlock("orders are not in order of sender and sequence")
    for envelope in envelopes:
        state = process_order(state, verify_order(state, envelope), envelope.sender)
    return state


def verify_transaction(state: ChainState, envelope: Envelope) -> AnyMessage:
    """Round, known sender in the right role, signature, fields: in this order. Raises InvalidMessage's subclasses."""
    if envelope.number != state.round.number:
        raise WrongRound(f"round {envelope.number} is not the open round {state.round.number}")
    return verify_envelope(envelope, state.chain, get_key_for(state, envelope.kind, envelope.sender))


def get_key_for(state: ChainState, kind: Kind, sender: Address) -> bytes:
    """The public key of one who may send this kind of transaction. Raises UnknownSender."""
    device = find_device(state, sender)
    if device is not None and kind in DEVICE_KINDS | SCORE_KINDS:
        return device.public_key
    validator = find_validator(state, sender)
    if validator is not None and kind in SCORE_KINDS:
        return validator.public_key
    raise UnknownSender(f"{sender.hex()} may not send a {kind.name}")


def process_transaction(state: ChainState, message: AnyMessage, sender: Address) -> ChainState:
    """The state after one message of the present phase. Raises InvalidMessage's subclasses."""
    if PHASE_KINDS.get(state.round.phase) is not message.kind:
        raise WrongRound(f"a {message.kind.name} is not for phase {state.round.phase.name}")
    if sender in get_present(state):
        raise DuplicateMessage(f"{sender.hex()} has already sent a {message.kind.name} in this round")
    rule = TRANSACTION_RULES[message.kind]
    return replace(state, round=rule(state, message, sender))


def _process_commit(state: ChainState, message: AnyMessage, sender: Address) -> RoundState:
    assert isinstance(message, Commit)
    commits = sorted((*state.round.commits, (sender, Hash(message.commitment))))
    pledges = (*state.round.pledges, sender) if message.will_score else state.round.pledges
    return replace(state.round, commits=tuple(commits), pledges=tuple(sorted(pledges)))


def _process_reveal(state: ChainState, message: AnyMessage, sender: Address) -> RoundState:
    assert isinstance(message, Reveal)
    round_, params = state.round, state.params
    if dict(round_.commits).get(sender) != compute_update_commitment(state.chain, sender, message):
        raise BadCommitment(f"the update of {sender.hex()} does not open its commitment")
    decode_update(params, state.chain, round_.number, sender, message.update)
    reveal = RevealedUpdate(sender, min(message.samples, params.samples_cap), message.update)
    reveals = sorted((*round_.reveals, reveal), key=lambda update: update.sender)
    return replace(round_, reveals=tuple(reveals))


def _process_score_commit(state: ChainState, message: AnyMessage, sender: Address) -> RoundState:
    assert isinstance(message, ScoreCommit)
    commits = sorted((*state.round.score_commits, (sender, Hash(message.commitment))))
    return replace(state.round, score_commits=tuple(commits))


def _process_score_reveal(state: ChainState, message: AnyMessage, sender: Address) -> RoundState:
    assert isinstance(message, ScoreReveal)
    round_ = state.round
    if dict(round_.score_commits).get(sender) != compute_score_commitment(state.chain, sender, message):
        raise BadCommitment(f"the scores of {sender.hex()} do not open their commitment")
    if tuple(address for address, _ in message.scores) != tuple(update.sender for update in round_.reveals):
        raise MalformedMessage("scores must name each revealed update once, in order of address")
    if tuple(address for address, _ in message.aggregates) != get_homes(state):
        raise MalformedMessage("scores must name each miner whose devices revealed updates once, in order of address")
    listed = tuple(score for _, score in message.scores), tuple(score for _, score in message.aggregates)
    scores = RevealedScores(sender, message.base_score, *listed)
    reveals = sorted((*round_.score_reveals, scores), key=lambda item: item.scorer)
    return replace(round_, score_reveals=tuple(reveals))


TRANSACTION_RULES: dict[Kind, Callable[[ChainState, AnyMessage, Address], RoundState]] = {
    Kind.COMMIT: _process_commit,
    Kind.REVEAL: _process_reveal,
    Kind.SCORE_COMMIT: _process_score_commit,
    Kind.SCORE_REVEAL: _process_score_reveal,
}


def is_in_chain(state: ChainState, message: AnyMessage, sender: Address) -> bool:
    """True if a device's commitment, update or scores of the open round are in a block already."""
    round_, chain = state.round, state.chain
    match message:
        case Commit():
            is_there = (sender, message.commitment) in round_.commits
        case Reveal():
            is_opened = (sender, compute_update_commitment(chain, sender, message)) in round_.commits
            is_there = is_opened and any(update.sender == sender for update in round_.reveals)
        case ScoreCommit():
            is_there = (sender, message.commitment) in round_.score_commits
        case ScoreReveal():
            is_opened = (sender, compute_score_commitment(chain, sender, message)) in round_.score_commits
            is_there = is_opened and any(scores.scorer == sender for scores in round_.score_reveals)
        case _:
            return False
    return is_there and message.round == round_.number


def _verify_settlement(after: ChainState, body: Body) -> None:
    expected = compute_settlement(after) if is_round_over(after) else None
    if body.settlement != expected:
        raise InvalidBlock("the settlement is not what the scores give")


def _advance(before: ChainState, state: ChainState, body: Body) -> ChainState:
    """Open the next round or phase if this block closes the present one, and pass the proposer's turn on."""
    if body.settlement is not None:
        state = process_settlement(state, body.settlement)
    elif state.round.phase is Phase.OPEN:
        state = replace(state, round=RoundState(state.round.number, Phase.COMMIT))
    elif is_phase_over(state):
        state = replace(state, round=replace(state.round, phase=NEXT_PHASES[state.round.phase], heights=0))
    priorities, _ = advance(_get_priorities(before), _get_weights(state), 1)
    turns = dict(priorities)
    return replace(state, candidates=tuple(replace(c, priority=turns.get(c.address, 0)) for c in state.candidates))


def _get_priorities(state: ChainState) -> Priorities:
    return tuple((validator.address, validator.priority) for validator in state.validators)


def _get_weights(state: ChainState) -> tuple[tuple[Address, int], ...]:
    rule = PROPOSER_RULES[state.params.proposer_rule]
    return tuple((v.address, rule(v.power, v.knowledge)) for v in state.validators)


def get_proposer(state: ChainState, view: View) -> Address:
    """Who proposes at the next height in this view: a pure function of the final state."""
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


def can_carry(transactions: Iterable[bytes]) -> bool:
    """True if one body has room for all of these."""
    return sum(len(raw) + TRANSACTION_FRAME_BYTES for raw in transactions) <= TRANSACTIONS_BYTES_MAX


def select_transactions(state: ChainState, candidates: Iterable[bytes]) -> tuple[tuple[bytes, ...], ChainState]:
    """Of the candidates those that the next block may carry, and the state with them.

    The others break a rule, or do not fit into a body any more and are for a later block.
    """
    room = TRANSACTIONS_BYTES_MAX
    kind = PHASE_KINDS.get(state.round.phase)
    chosen: list[bytes] = []
    for raw in candidates:
        envelope = open_envelope(raw, state.chain)
        needed = len(raw) + TRANSACTION_FRAME_BYTES
        if envelope.kind is not kind or needed > room:
            continue
        try:
            state = process_transaction(state, verify_transaction(state, envelope), envelope.sender)
        except InvalidMessage:
            continue
        chosen.append(raw)
        room -= needed
    return tuple(chosen), state


def select_orders(state: ChainState, candidates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Of the candidates those that the next block may carry beside its transactions; the others wait or are wrong."""
    chosen: list[bytes] = []
    room = ORDERS_BYTES_MAX
    for raw in sorted(candidates, key=lambda raw: get_order_key(open_envelope(raw, state.chain))):
        if len(chosen) == ORDERS_MAX or len(raw) > room:
            break
        envelope = open_envelope(raw, state.chain)
        try:
            state = process_order(state, verify_order(state, envelope), envelope.sender)
        except InvalidMessage:
            continue
        chosen.append(raw)
        room -= len(raw)
    return tuple(chosen)
