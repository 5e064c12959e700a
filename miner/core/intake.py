"""Messages of devices and miners on their way into the pools: the cheap checks first, and receipts for devices."""

from __future__ import annotations

from flchain.base.errors import (
    BadCommitment,
    DuplicateMessage,
    InvalidMessage,
    MalformedMessage,
    MalformedUpdate,
    UnknownSender,
    WrongHeight,
    WrongPhase,
    WrongRound,
)
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.limits import compute_update_bytes_max
from flchain.ledger.state import Device, find_device
from flchain.rules.blocks import ORDER_KINDS
from flchain.rules.phases import PHASE_KINDS
from flchain.rules.transactions import DEVICE_KINDS, SCORE_KINDS, check_transaction, get_key_for, is_in_chain
from flchain.wire import messages
from flchain.wire.envelope import Letter, Verified, open_known, seal, verify_letter
from flchain.wire.fields import Kind
from flchain.wire.messages import Phase
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core import agreement, answers, consensus_intake, missing_chunks, scoring
from miner.core.consensus_intake import BFT_KINDS
from miner.core.pools import mempool, order_pool
from miner.core.state import MinerState, Transition
from miner.core.values import Effect, Note, Publish, Refuse

REFUSED_FOR_GOOD = (WrongRound, WrongPhase, WrongHeight, DuplicateMessage, BadCommitment, MalformedUpdate)
"""A device that repeats such a message would get the same answer, so the receipt tells it to stop."""


# --- by channel -------------------------------------------------------------------------------------------------------


def on_miner_message(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take a peer's gossip: a vote, a score, an order, or a question. Raises InvalidMessage's subclasses."""
    if packet.fields[0] in state.height_log.by_bytes:
        return state, ()  # gossip repeats votes: most of what arrives, and not worth another look
    letter = _open(state, packet.fields[0])
    if letter.kind in BFT_KINDS:
        return consensus_intake.on_consensus(state, letter, packet)
    if letter.kind is Kind.ASK:
        return answers.on_ask(state, letter)
    if letter.kind in ORDER_KINDS:
        return _add_order(state, letter)
    if letter.kind not in SCORE_KINDS:
        raise MalformedMessage(f"a {letter.kind.name} among miners")
    return _add_to_pool(state, letter)


def on_miner_proposal(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take a peer's proposal with its block. Raises InvalidMessage's subclasses."""
    letter = open_known(packet.fields[0], state.chain.chain, state.height_log.by_bytes.get)
    return consensus_intake.on_consensus(state, letter, packet)


def on_device_message(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take what a device or an account's owner publishes under its own address. Raises InvalidMessage's subclasses."""
    letter = _open(state, packet.fields[0])
    if letter.sender != owner:
        raise UnknownSender("a device publishes under its own address only")
    if letter.kind is Kind.ASK:
        return answers.on_ask(state, letter)
    if letter.kind is Kind.RESUME:
        return missing_chunks.on_resume(state, letter)
    if letter.kind in ORDER_KINDS:
        return _on_order(state, letter)
    if letter.kind not in DEVICE_KINDS | SCORE_KINDS:
        raise MalformedMessage(f"a {letter.kind.name} of a device")
    device = find_device(state.chain, letter.sender)
    if device is None:
        raise UnknownSender(f"{owner.hex()} is no device of this chain")
    try:
        if mempool.is_known(state.mempool, letter):
            return state, (_build_receipt(state, letter, "ok"),)
        _check_round(state, letter)
        letter = _verify_for_pool(state, letter)
        state, effects = _add_verified(state, letter)
    except REFUSED_FOR_GOOD as error:
        return state, _refuse_for_good(state, letter, device, error)
    if device.home == state.config.identity.address:
        effects = (_build_receipt(state, letter, "ok"), *effects)
    return state, effects


def on_receipt(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Ignore it: an operator sends orders with this node's key from another process, which waits for the receipt."""
    return state, ()


def _open(state: MinerState, raw: bytes) -> Letter:
    """Open a message; one that waits here already is not opened again. Raises InvalidMessage's subclasses."""
    return open_known(raw, state.chain.chain, state.find_known)


# --- receipts ---------------------------------------------------------------------------------------------------------


def _refuse_for_good(state: MinerState, letter: Letter, device: Device, error: InvalidMessage) -> tuple[Effect, ...]:
    """Tell the device to stop sending this, unless this miner is behind or the chain has the message already."""
    said = verify_letter(letter, state.chain.chain, device.public_key)
    if is_in_chain(state.chain, said.message, said.sender):
        return (_build_receipt(state, said, "ok"),)
    refuse = Refuse(error.code, str(error))
    if said.number > state.chain.round.number:
        return (refuse,)
    return _build_receipt(state, said, error.code), refuse


def _build_receipt(state: MinerState, letter: Letter, code: str) -> Effect:
    """Return the signed receipt that lets a device remove the message from its outbox."""
    receipt = messages.Receipt(letter.number, letter.digest(), code)
    raw = seal(receipt, state.chain.chain, state.config.identity)
    topic = state.topics.miner_to(state.config.identity.address, letter.sender)
    return Publish(topic, encode_packet(PacketType.MESSAGE, raw))


# --- messages of rounds -----------------------------------------------------------------------------------------------


def _add_to_pool(state: MinerState, letter: Letter) -> Transition:
    _check_round(state, letter)
    if mempool.is_known(state.mempool, letter):
        return state, ()
    return _add_verified(state, _verify_for_pool(state, letter))


def _check_round(state: MinerState, letter: Letter) -> None:
    """Raise WrongRound or WrongPhase unless the message may still be needed.

    One of the next round may be, since this node may be behind.
    """
    number = state.chain.round.number
    if not number <= letter.number <= number + 1:
        raise WrongRound(f"a {letter.kind.name} of round {letter.number} arrived in round {number}")
    if letter.number == number and _is_phase_past(state, letter.kind):
        raise WrongPhase(f"a {letter.kind.name} arrived after its phase of round {number}")


def _is_phase_past(state: MinerState, kind: Kind) -> bool:
    phases = {Kind.COMMIT: Phase.COMMIT, Kind.REVEAL: Phase.REVEAL}
    phases |= {Kind.SCORE_COMMIT: Phase.SCORE, Kind.SCORE_REVEAL: Phase.SETTLE}
    return state.chain.round.phase > phases[kind]


def _verify_for_pool(state: MinerState, letter: Letter) -> Verified:
    """Verify a message of a round, once its round was checked. Raises InvalidMessage's subclasses."""
    said = verify_letter(letter, state.chain.chain, get_key_for(state.chain, letter.kind, letter.sender))
    if isinstance(said.message, messages.Reveal) and len(said.message.update) > compute_update_bytes_max(
        state.chain.params
    ):
        raise MalformedUpdate(f"{len(said.message.update)} bytes are more than the codec writes")
    return said


def _add_verified(state: MinerState, said: Verified) -> Transition:
    """Add it to the pool, if it is of a later phase or the rules let it into a block of this one."""
    if said.number == state.chain.round.number and PHASE_KINDS.get(state.chain.round.phase) is said.kind:
        said = check_transaction(state.chain, said)  # what no block can carry must cost nobody time
    pool, dropped = mempool.insert(state.mempool, state.chain, said)
    state, effects = scoring.on_pooled(replace(state, mempool=pool), said)
    state, begun = agreement.advance_agreement(state)
    notes = tuple(
        Note("dropped, the pool is full", {"round": k[0], "kind": k[1].name, "sender": k[2].hex()}) for k in dropped
    )
    return state, notes + effects + begun


# --- orders -----------------------------------------------------------------------------------------------------------


def _on_order(state: MinerState, letter: Letter) -> Transition:
    """Take an account's order. The receipt says that it waits for a block, or why it does not."""
    said = agreement.verify_known(state.chain, letter)  # only the owner of an account gets an answer
    try:
        state, effects = _add_order(state, said)
    except InvalidMessage as error:
        return state, (_build_receipt(state, said, error.code), Refuse(error.code, str(error)))
    return state, (_build_receipt(state, said, "ok"), *effects)


def _add_order(state: MinerState, letter: Letter) -> Transition:
    if letter.raw in state.orders:
        return state, ()
    orders = order_pool.insert(state.orders, state.chain, letter, state.height_log.by_bytes.get)
    return agreement.advance_agreement(replace(state, orders=orders))
